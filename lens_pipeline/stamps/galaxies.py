"""Which galaxy a row belongs to where the input doesn't say: rows that share a place on the sky are one galaxy."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_ARCSEC = np.pi / (180 * 3600)
_SETTLE_ROWS = 1 << 18

Floats = NDArray[np.float64]


def galaxy_ids(named: pa.Array | pa.ChunkedArray | None, ra: Floats, dec: Floats, match_arcsec: float) -> pa.Array:
    """Name the galaxy of each of some rows that are all there is: see `Positions` and `GalaxyNames.complete`.

    Parameters
    ----------
    named : string array or None
        Null or empty where there is no name; None where no row has one.
    """
    named = pa.nulls(len(ra), pa.string()) if named is None else named
    seen = Positions()
    seen.add(named, ra, dec)
    return seen.match(match_arcsec).complete(named, ra, dec)


def is_unnamed(named: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
    """Whether each row lacks a galaxy name: null or empty."""
    unnamed: NDArray[np.bool_] = pc.fill_null(pc.equal(named, ""), True).to_numpy(zero_copy_only=False)
    return unnamed


class Positions:
    """Every distinct position on the sky with the smallest galaxy name found at it.

    Memory grows with the distinct positions, some 100 bytes each, and not with the rows; it is needed only where the input
    leaves a row unnamed.
    """

    def __init__(self) -> None:
        self._settled = _no_positions()
        self._added: list[pa.Table] = []
        self._n_added = 0

    def add(self, named: pa.Array | pa.ChunkedArray, ra: Floats, dec: Floats) -> None:
        """Add rows.

        Parameters
        ----------
        named : string array
            Galaxy names of the input, null or empty where there is none.
        ra, dec : (n,) float64 arrays
            ICRS, degrees; NaN where unknown.
        """
        placed = np.isfinite(ra) & np.isfinite(dec)
        names = pc.if_else(pa.array(is_unnamed(named)), None, named).filter(pa.array(placed))
        # Adding 0 makes a -0 a 0.
        rows = pa.table({"ra": ra[placed] + 0.0, "dec": dec[placed] + 0.0, "name": names})
        self._added.append(_distinct(rows))
        self._n_added += self._added[-1].num_rows
        if self._n_added > max(_SETTLE_ROWS, self._settled.num_rows):
            self._settle()

    def match(self, match_arcsec: float) -> "GalaxyNames":
        """Link all positions within so many arcsec of one another, through others if need be, and name each group.

        A group takes the smallest name found in it, else its smallest position, as ``J150.123456+02.123456`` (degrees).
        Neither depends on the order of the rows.
        """
        self._settle()
        ra, dec = (self._settled[name].to_numpy() for name in ("ra", "dec"))
        order = np.lexsort((dec, ra))
        ra, dec = ra[order], dec[order]
        if not len(ra):
            return GalaxyNames(ra, dec, pa.array([], pa.string()))
        group = _groups(ra, dec, match_arcsec)
        # Positions are sorted, so the first of a group is its smallest.
        _, first = np.unique(group, return_index=True)
        named = pa.table({"group": group, "name": self._settled["name"].take(pa.array(order))})
        smallest = named.group_by("group").aggregate([("name", "min")]).sort_by("group")["name_min"]
        made = pa.array([f"J{ra[row]:010.6f}{dec[row]:+010.6f}" for row in first], pa.string())
        return GalaxyNames(ra, dec, pc.coalesce(smallest.combine_chunks(), made).take(pa.array(group)))

    def _settle(self) -> None:
        self._settled = _distinct(pa.concat_tables([self._settled, *self._added]))
        self._added, self._n_added = [], 0


class GalaxyNames:
    """The galaxy of each known position; (n,) sorted positions in degrees and their names."""

    def __init__(self, ra: Floats, dec: Floats, names: pa.Array) -> None:
        self._at, self._names = ra + 1j * dec, names

    def complete(self, named: pa.Array | pa.ChunkedArray, ra: Floats, dec: Floats) -> pa.Array:
        """Name the galaxy of each row: as the input names it, else by its position; null where it has neither."""
        unnamed = is_unnamed(named)
        known = np.isfinite(ra) & np.isfinite(dec) & unnamed
        place = np.searchsorted(self._at, (ra[known] + 0.0) + 1j * (dec[known] + 0.0))
        index = np.zeros(len(ra), dtype=np.int64)
        index[known] = place
        found = self._names.take(pa.array(index, mask=~known))
        return pc.if_else(pa.array(unnamed), found, named)


def _no_positions() -> pa.Table:
    return pa.schema([("ra", pa.float64()), ("dec", pa.float64()), ("name", pa.string())]).empty_table()


def _distinct(rows: pa.Table) -> pa.Table:
    kept = rows.group_by(["ra", "dec"], use_threads=False).aggregate([("name", "min")])
    return kept.rename_columns({"name_min": "name"}).select(["ra", "dec", "name"]).cast(_no_positions().schema)


def _groups(ra: Floats, dec: Floats, match_arcsec: float) -> NDArray[np.int64]:
    """Group of each of n distinct positions in degrees."""
    # Here and not at the top: most inputs name their galaxies.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    ra_rad, dec_rad = np.radians(ra), np.radians(dec)
    unit = np.column_stack([np.cos(dec_rad) * np.cos(ra_rad), np.cos(dec_rad) * np.sin(ra_rad), np.sin(dec_rad)])
    chord = 2 * np.sin(match_arcsec * _ARCSEC / 2)
    pairs = cKDTree(unit).query_pairs(chord, output_type="ndarray")
    links = coo_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(len(unit), len(unit)))
    _, group = connected_components(links, directed=False)
    grouped: NDArray[np.int64] = group.astype(np.int64)
    return grouped
