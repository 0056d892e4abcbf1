"""How much regions differ: the number of each row's, and which interval stands where few or none are known."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_pipeline.evaluation.intervals import MIN_CLUSTERS, MIN_REGIONS, Measured, wider

Numbers = npt.NDArray[np.int64]

# How the reason beside an interval begins that takes galaxies alone as independent.
LEFT_OUT = "the interval leaves out how much regions differ, which isn't known"


def region_numbers(rows: pl.DataFrame) -> Numbers | None:
    """Return the number of each row's region, from 1, and 0 where nobody knows it, shape (n,); None without `region_id`."""
    if "region_id" not in rows.columns:
        return None
    return rows["region_id"].rank("dense").cast(pl.Int64).fill_null(0).to_numpy()


def spread_unknown(regions: Numbers) -> str | None:
    """Say why these rows, numbered by `region_numbers`, can't tell how much regions differ; None if they may."""
    n = int(np.count_nonzero(np.bincount(regions)))
    few = f"{n} {'region' if n == 1 else 'regions'}, fewer than {MIN_REGIONS}" if n < MIN_REGIONS else None
    return unplaced(regions) or few


def unplaced(regions: Numbers) -> str | None:
    """Say of how many rows nobody knows the region; None if all are known."""
    n = int(np.count_nonzero(regions == 0))
    return f"{n:,} of {regions.size:,} rows have no region_id" if n else None


def of_galaxies(found: Measured, why: str) -> Measured:
    """Return an estimate over galaxies that says, beside its interval, why regions are not in it."""
    if found.low is None or found.high is None:
        return found
    return replace(found, reason=f"{LEFT_OUT}: {why}")


def over_both(found: Measured, other: Measured, n_regions: int) -> Measured:
    """Return the wider of an estimate over galaxies and the same over regions.

    From fewer than 20 regions there may be none; the one over galaxies then says so. What galaxies are too few for has no
    interval over regions, which are fewer still.
    """
    if n_regions >= MIN_CLUSTERS:
        return wider(found, other)
    if other.low is None or other.high is None:
        return of_galaxies(found, (other.reason or "").removeprefix("no interval: "))
    return found if found.low is None else wider(found, other)
