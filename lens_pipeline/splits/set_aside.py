"""Rows that no split may hold: galaxies that are known lenses, which are neither negatives nor hosts of injections.

Belongs here: which stored rows these are, and the check that none of them was left among the others. They stay in the store and
are scored, so that it can be asked whether real lenses are found.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lens_pipeline.contracts.catalogue import SET_ASIDE
from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.contracts.errors import SplitError
from lens_pipeline.splits.assignment import KNOWN_LENS
from lens_pipeline.splits.config import SplitConfig
from lens_pipeline.splits.known_lenses import KnownLenses, read_known_lenses
from lens_pipeline.storage.publication import Publication

TABLE = "known_lenses"
_SETTING = "region_splits.known_lenses"
_NAME = "known_lenses_are_no_negatives"


def known_lens_rows(rows: pa.Table, config: SplitConfig) -> tuple[pa.Table, dict[str, object]]:
    """Find the rows of galaxies that lie on a known lens: all rows of a galaxy where one of them does.

    Parameters
    ----------
    rows : pyarrow.Table
        `task_id`, `galaxy_id`, `ra` and `dec` (ICRS, degrees) of every stored row.

    Returns
    -------
    pyarrow.Table
        SET_ASIDE; empty where no table of lenses is set.
    dict
        What the table of lenses says of itself, and how many rows have no position to be matched by.

    Raises
    ------
    SplitError
        If no row has a position.
    ConfigError, ContractError
        If the table of lenses can't be used.
    """
    if not config.known_lenses:
        return SET_ASIDE.schema.empty_table(), {}
    lenses = read_known_lenses(config.known_lenses, setting=_SETTING)
    ra, dec = (pc.cast(rows[name], pa.float64()).to_numpy(zero_copy_only=False) for name in ("ra", "dec"))
    placed = np.isfinite(ra) & np.isfinite(dec)
    if not placed.any():
        raise SplitError(
            f"{_SETTING} names known lenses, and none of {rows.num_rows:,} stored rows has ra and dec to be matched by. Give the "
            "input these columns (ICRS, degrees), or leave the setting out."
        )
    place, distance = np.full(rows.num_rows, -1), np.full(rows.num_rows, np.inf)
    place[placed], distance[placed] = lenses.match(ra[placed], dec[placed], config.known_lens_radius_arcsec)
    report = {**lenses.report, "rows_without_a_position": int((~placed).sum())}
    return _rows_of_galaxies(rows, place, distance, lenses), report


def _rows_of_galaxies(rows: pa.Table, place: np.ndarray, distance: np.ndarray, lenses: KnownLenses) -> pa.Table:
    near = np.flatnonzero(place >= 0)
    near = near[np.argsort(distance[near], kind="stable")]
    lens_of: dict[str, int] = {}
    for galaxy, lens in zip(_values(rows, "galaxy_id", near), place[near].tolist(), strict=True):
        lens_of.setdefault(galaxy, lens)
    mine = np.flatnonzero(pc.is_in(rows["galaxy_id"], value_set=pa.array(lens_of, pa.string())).to_numpy())
    found = [
        {
            "task_id": task_id,
            "separation_arcsec": distance[row] if place[row] >= 0 else None,
            **lenses.rows[lens_of[galaxy]],
        }
        for row, task_id, galaxy in zip(
            mine, _values(rows, "task_id", mine), _values(rows, "galaxy_id", mine), strict=True
        )
    ]
    return pa.Table.from_pylist(found, schema=SET_ASIDE.schema)


def _values(rows: pa.Table, column: str, places: np.ndarray) -> list[str]:
    taken: list[str] = rows[column].take(pa.array(places)).to_pylist()
    return taken


def known_lenses_are_no_negatives(splits: Publication, store: Publication, config: SplitConfig) -> Check:
    """Check that no row of a split lies on a known lens, matched anew and by astropy."""
    if not config.known_lenses:
        return green(_NAME, f"not asked: no table of known lenses is set ({_SETTING})", n=0)
    # Imported when it is used: coordinates take half a second to load.
    from astropy import units
    from astropy.coordinates import SkyCoord

    rows = splits.read_table("rows", columns=["task_id", "split"])
    index = store.read_table(columns=["task_id", "label", "ra", "dec"])
    joined = index.join(rows, keys="task_id", join_type="inner")
    placed = joined.filter(pc.and_(pc.is_finite(joined["ra"]), pc.is_finite(joined["dec"])))
    lenses = read_known_lenses(config.known_lenses, setting=_SETTING).rows
    aside = placed.filter(pc.equal(placed["split"], KNOWN_LENS)).num_rows
    if not lenses or not placed.num_rows:
        return green(_NAME, f"{len(lenses):,} known lenses, {placed.num_rows:,} rows with a position", n=aside)
    sky = SkyCoord([lens["lens_ra"] for lens in lenses] * units.deg, [lens["lens_dec"] for lens in lenses] * units.deg)
    seen = SkyCoord(placed["ra"].to_numpy() * units.deg, placed["dec"].to_numpy() * units.deg)
    nearest, separation, _ = seen.match_to_catalog_sky(sky)
    near = separation.arcsec <= config.known_lens_radius_arcsec
    left = near & (placed["split"].to_numpy(zero_copy_only=False) != KNOWN_LENS)
    if not left.any():
        return green(
            _NAME,
            f"{aside:,} of {index.num_rows:,} rows lie on {np.unique(nearest[near]).size:,} known lenses and are set aside; "
            "no row of a split does",
            n=aside,
        )
    first = [
        f"{task_id} in {split} on {lenses[place]['lens_name']}"
        for task_id, split, place in zip(
            *(placed.filter(pa.array(left))[name].to_pylist() for name in ("task_id", "split")),
            nearest[left],
            strict=True,
        )
    ]
    return red(
        _NAME,
        f"{int(left.sum()):,} rows of known lenses stand in a split",
        wrong=first,
        why="a real lens among the negatives teaches the model to miss lenses, and counts as a false positive where it is found",
        next_step="dagster asset materialize --select region_splits -m lens_pipeline.definitions -c PRESET",
        n=aside,
    )
