"""Bootstrap over clusters (galaxies, or regions): how many times each was drawn, never a resampled array of rows."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import special

from lens_pipeline.evaluation.binning import Columns, GroupedCounts
from lens_pipeline.evaluation.intervals import (
    CONFIDENCE,
    FEWEST,
    GALAXY,
    REGION,
    Estimate,
    clopper_pearson,
    rate_from_spread,
)
from lens_pipeline.evaluation.ranking import RankedScores, missing_class
from lens_pipeline.evaluation.regions import over_both
from lens_pipeline.evaluation.tallies import Floats, Tallies

_CHUNK_CELLS = 1_000_000
_NO_SPREAD = 1e-12
PLURAL = {GALAXY: "galaxies", REGION: "regions"}


@dataclass(frozen=True)
class Statistic:
    """A function of tallies, and of which class's rows its value is a share, if of one: that decides its interval.

    Attributes
    ----------
    of : callable
        Tallies of some replicates to one number each.
    is_rate : bool
        A share of rows of one class, such as a TPR; else an area.
    is_rare : bool
        A rate near 0, such as an FPR.
    lower_end_at : callable, optional
        Of a rate whose value is too high on average: what its lower end is made of instead.
    """

    of: Callable[[Tallies], Floats]
    is_rate: bool = False
    is_rare: bool = False
    lower_end_at: Callable[[Tallies], Floats] | None = None


def draws(n_groups: int, n_replicates: int, *, seed: int, cells: int) -> Iterator[npt.NDArray[np.float32]]:
    """How often each group was drawn in each replicate, with replacement, so many replicates at a time that `cells` fit a chunk.

    The bootstrap of Efron (1979), clusters as in Davison & Hinkley (1997), section 3.8.
    """
    rng = np.random.default_rng(seed)
    chunk = max(1, min(n_replicates, _CHUNK_CELLS // max(1, cells, n_groups)))
    for start in range(0, n_replicates, chunk):
        size = min(chunk, n_replicates - start)
        places = rng.integers(0, n_groups, (size, n_groups)) + n_groups * np.arange(size)[:, None]
        yield np.bincount(places.ravel(), minlength=size * n_groups).reshape(size, n_groups).astype(np.float32)


def bootstrap(
    counts: GroupedCounts, statistics: Mapping[str, Statistic], *, n_replicates: int, seed: int
) -> dict[str, Floats]:
    """Evaluate every statistic on each draw of groups.

    Returns
    -------
    dict of array of float64, shape (n_kept,)
        Draws that lack a class are left out.
    """
    values: dict[str, list[Floats]] = {name: [] for name in statistics}
    n_groups, n_columns = counts.positives.shape
    for drawn in draws(n_groups, n_replicates, seed=seed, cells=n_columns):
        tallies = counts.tallies(drawn)
        for name, statistic in statistics.items():
            values[name].append(statistic.of(tallies))
    joined = {name: np.concatenate(parts) for name, parts in values.items()}
    return {name: found[np.isfinite(found)] for name, found in joined.items()}


def rank_estimates(
    ranked: RankedScores,
    statistics: Mapping[str, Statistic],
    *,
    n_replicates: int,
    seed: int,
    regions: RankedScores | None = None,
) -> dict[str, Estimate]:
    """Value of each rank statistic, a number in [0, 1], with its interval over galaxies, or over regions where that is wider.

    Areas: the bootstrap's standard error, carried to the logit scale, with a t quantile; percentiles of the draws cover too
    seldom near 1 (simulated for an AUROC of 0.983 from 25 galaxies: 78 %, this interval 97 %). Rates: Wilson's interval, or
    where events are rare Clopper & Pearson's, of the number of independent rows that would spread as much. With fewer than 20
    galaxies in a class the interval is None (the bootstrap is known to be too narrow there); with fewer than 5 regions it is that
    over galaxies, and the reason says so. Where no draw differs from the value, as when every positive outranks every negative,
    the spread says nothing; what as many disjoint pairs, all won, leave open is then the interval (Clopper & Pearson 1934).

    Parameters
    ----------
    regions : RankedScores, optional
        The same ranks with regions for clusters.
    """
    n = ranked.n_positives + ranked.n_negatives
    absent = missing_class(ranked.n_positives, ranked.n_negatives)
    if absent:
        return {name: Estimate(None, None, None, n, ranked.n_clusters, None, absent) for name in statistics}
    values = {name: float(statistic.of(ranked.tallies)[0]) for name, statistic in statistics.items()}
    lowest = {name: float(one.lower_end_at(ranked.tallies)[0]) for name, one in statistics.items() if one.lower_end_at}
    columns = Columns.of(ranked)
    found = _over_clusters(ranked, GALAXY, values, lowest, statistics, columns, n_replicates, seed)
    if regions is None:
        return found
    others = _over_clusters(regions, REGION, values, lowest, statistics, columns, n_replicates, seed)
    return {name: over_both(estimate, others[name], regions.fewest_clusters) for name, estimate in found.items()}


def _over_clusters(
    ranked: RankedScores,
    cluster: str,
    values: Mapping[str, float],
    lowest: Mapping[str, float],
    statistics: Mapping[str, Statistic],
    columns: Columns,
    n_replicates: int,
    seed: int,
) -> dict[str, Estimate]:
    n = ranked.n_positives + ranked.n_negatives
    fewest = ranked.fewest_clusters
    nothing = Estimate(None, None, None, n, ranked.n_clusters, None, cluster=cluster)
    if fewest < FEWEST[cluster]:
        why = too_few(fewest, cluster)
        return {name: replace(nothing, value=value, reason=why) for name, value in values.items()}
    counts = GroupedCounts.of(ranked, seed=seed, columns=columns)
    replicates = bootstrap(counts, statistics, n_replicates=n_replicates, seed=seed)
    return {
        name: _interval(replace(nothing, value=value), replicates[name], fewest, statistics[name], lowest.get(name))
        for name, value in values.items()
    }


def too_few(n: int, cluster: str) -> str:
    """Say why there is no interval."""
    return (
        f"no interval: a class has {n} {PLURAL[cluster]}, a bootstrap over fewer than {FEWEST[cluster]} is too narrow"
    )


def _interval(
    estimate: Estimate, replicates: Floats, fewest: int, statistic: Statistic, lowest: float | None
) -> Estimate:
    value = estimate.value
    assert value is not None
    if replicates.size < 2 or np.ptp(replicates) < _NO_SPREAD or not 0 < value < 1:
        if min(value, 1 - value) > _NO_SPREAD:
            return replace(estimate, reason="no interval: no draw of the bootstrap differs from the value")
        low, high = clopper_pearson(round(value) * fewest, fewest)
        words = f"Clopper-Pearson of as many pairs as there are {PLURAL[estimate.cluster]}"
        return replace(estimate, low=low, high=high, interval=words)
    spread = float(replicates.std(ddof=1)) * np.sqrt(fewest / (fewest - 1))
    if statistic.is_rate:
        return rate_from_spread(estimate, spread, fewest, exact=statistic.is_rare, lowest=lowest)
    half = float(special.stdtrit(fewest - 1, (1 + CONFIDENCE) / 2)) * spread / (value * (1 - value))
    low, high = (float(special.expit(special.logit(value) + side * half)) for side in (-1, 1))
    words = f"bootstrap over {PLURAL[estimate.cluster]}, t on the logit scale"
    return replace(estimate, low=min(low, value), high=max(high, value), interval=words)
