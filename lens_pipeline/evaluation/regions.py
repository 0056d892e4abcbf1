"""How much regions differ: the number of each row's, and which interval stands where few or none are known."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_pipeline.evaluation.intervals import MIN_CLUSTERS, MIN_REGIONS, REGION, Measured, wider

Numbers = npt.NDArray[np.int64]

# How the reason beside an interval begins that takes galaxies alone as independent.
LEFT_OUT = "the interval leaves out how much regions differ, which isn't known"
_FIRST_ROWS = 1000


def region_numbers(rows: pl.DataFrame) -> Numbers | None:
    """Return the number of each row's region, from 1, and 0 where nobody knows it, shape (n,).

    None without `region_id`, and where each galaxy is a region of its own, which then says nothing that galaxies don't.
    """
    if "region_id" not in rows.columns or _are_galaxies(rows):
        return None
    encoded = rows["region_id"].to_arrow().dictionary_encode()
    number = pl.Series(encoded.dictionary).rank("dense").cast(pl.Int64).to_numpy()
    found: Numbers = np.append(number, 0).astype(np.int64)[encoded.indices.fill_null(-1).to_numpy()]
    return found


def _are_galaxies(rows: pl.DataFrame) -> bool:
    """Say whether each region holds one galaxy alone, and each galaxy lies in one region."""
    if "galaxy_id" not in rows.columns or rows.is_empty() or rows["region_id"].null_count():
        return False
    # Of a survey's regions the first rows show several galaxies, so that all rows need hardly ever be counted.
    for some in (rows.head(_FIRST_ROWS), rows):
        both = some.select("region_id", "galaxy_id")
        if len({both["region_id"].n_unique(), both["galaxy_id"].n_unique(), both.n_unique()}) > 1:
            return False
    return True


def spread_unknown(regions: Numbers) -> str | None:
    """Say why these rows, numbered by `region_numbers`, can't tell how much regions differ; None if they may."""
    return unplaced(regions) or too_few(int(np.count_nonzero(np.bincount(regions))))


def unplaced(regions: Numbers) -> str | None:
    """Say of how many rows nobody knows the region; None if all are known."""
    return without_region(int(np.count_nonzero(regions == 0)), regions.size)


def without_region(n: int, n_rows: int) -> str | None:
    """Say that nobody knows the region of n of so many rows; None if n is 0."""
    return f"{n:,} of {n_rows:,} rows {'has' if n == 1 else 'have'} no region_id" if n else None


def too_few(n: int) -> str | None:
    """Say that n regions are too few to tell how much they differ; None if they are enough."""
    return f"{n} {'region' if n == 1 else 'regions'}, fewer than {MIN_REGIONS}" if n < MIN_REGIONS else None


def of_galaxies(found: Measured, why: str) -> Measured:
    """Return an estimate over galaxies that says, beside its interval, why regions are not in it."""
    if found.low is None or found.high is None:
        return found
    return replace(found, reason=f"{LEFT_OUT}: {why}")


def over_both(found: Measured, other: Measured) -> Measured:
    """Return the wider of an estimate over galaxies and the same over regions.

    Where regions have none, as those are too few that hold a class, the one over galaxies says so. What galaxies are too few
    for has no interval over regions, which are fewer still.
    """
    if found.low is None:
        return found
    if other.low is None or other.high is None:
        return of_galaxies(found, (other.reason or "").removeprefix("no interval: ").replace("clusters", "regions"))
    return wider(found, other)


def knows_less(found: Measured, other: Measured, n_regions: int) -> Measured:
    """Return whichever of an estimate over galaxies and the same over regions knows less: of fewer than 20 the wider one."""
    more = found.n_eff is not None and other.n_eff is not None and other.n_eff >= found.n_eff
    # An effective number that is known from few regions is itself uncertain, which the width alone tells.
    return found if more and n_regions >= MIN_CLUSTERS else over_both(found, replace(other, cluster=REGION))


def in_cell(found: Measured, other: Measured, n_without: int) -> Measured:
    """Return what is known of a cell, of estimates over its galaxies and over its regions, as `metrics.over_clusters` does.

    Parameters
    ----------
    n_without : int
        Rows of the cell whose region nobody knows.
    """
    if why := without_region(n_without, found.n) or too_few(other.n_clusters):
        return of_galaxies(found, why)
    return replace(knows_less(found, other, other.n_clusters), n_clusters=found.n_clusters)


def count_without(regions: Numbers, cells: npt.NDArray[np.unsignedinteger[Any]], n_cells: int) -> Numbers:
    """Count the rows of each cell whose region nobody knows, shape (n_cells,)."""
    return np.bincount(cells[regions == 0], minlength=n_cells)
