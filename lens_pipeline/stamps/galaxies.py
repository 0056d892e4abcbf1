"""Which galaxy a row belongs to where the input doesn't say: rows that share a place on the sky are one galaxy."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_ARCSEC = np.pi / (180 * 3600)


def galaxy_ids(
    named: pa.ChunkedArray | None, ra: NDArray[np.float64], dec: NDArray[np.float64], match_arcsec: float
) -> pa.Array:
    """Name the galaxy of each row.

    A row that the input names keeps its name. The others are linked to every row within `match_arcsec` on the sky, through
    others if need be; a group takes the smallest name found in it, else its smallest position, as ``J150.123456+02.123456``
    (degrees). Neither depends on the order of the rows.

    Parameters
    ----------
    named : string array or None
        Galaxy names of the input, null or empty where there is none.
    ra, dec : (n,) float64 arrays
        ICRS, degrees; NaN where unknown.

    Returns
    -------
    string array
        Null where a row has neither name nor position.
    """
    names: NDArray[np.object_] = np.full(len(ra), None, dtype=object)
    if named is not None:
        names[:] = named.to_numpy(zero_copy_only=False)
    unnamed = np.array([not name for name in names], dtype=bool)
    names[unnamed] = None
    placed = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    if unnamed.any() and placed.size:
        group = _groups(ra[placed], dec[placed], match_arcsec)
        label = _smallest_name(group, names[placed], ra[placed], dec[placed])
        to_name = unnamed[placed]
        names[placed[to_name]] = label[group[to_name]]
    return pa.array(names.tolist(), pa.string())


def _groups(ra: NDArray[np.float64], dec: NDArray[np.float64], match_arcsec: float) -> NDArray[np.int64]:
    """Group of each row. Equal positions are joined first: thousands of injections may share one."""
    # Here and not at the top: most inputs name their galaxies, and each worker process would pay for the import.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    positions, which = np.unique(np.column_stack([ra, dec]), axis=0, return_inverse=True)
    ra_rad, dec_rad = np.radians(positions).T
    unit = np.column_stack([np.cos(dec_rad) * np.cos(ra_rad), np.cos(dec_rad) * np.sin(ra_rad), np.sin(dec_rad)])
    chord = 2 * np.sin(match_arcsec * _ARCSEC / 2)
    pairs = cKDTree(unit).query_pairs(chord, output_type="ndarray")
    links = coo_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(len(unit), len(unit)))
    _, group = connected_components(links, directed=False)
    grouped: NDArray[np.int64] = group[which.ravel()].astype(np.int64)
    return grouped


def _smallest_name(
    group: NDArray[np.int64], names: NDArray[np.object_], ra: NDArray[np.float64], dec: NDArray[np.float64]
) -> NDArray[np.object_]:
    n_groups = int(group.max()) + 1
    label: NDArray[np.object_] = np.full(n_groups, None, dtype=object)
    order = np.lexsort((dec, ra, group))
    first = order[np.unique(group[order], return_index=True)[1]]
    label[:] = [f"J{ra[row]:010.6f}{dec[row]:+010.6f}" for row in first]
    smallest: dict[int, str] = {}
    for place, name in zip(group.tolist(), names.tolist(), strict=True):
        if name is not None:
            smallest[place] = min(name, smallest.get(place, name))
    for place, name in smallest.items():
        label[place] = name
    return label
