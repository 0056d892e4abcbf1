"""Bootstrap over clusters (galaxies, or regions): how many times each was drawn, never a resampled array of rows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import special

from lens_pipeline.evaluation.binning import Columns, GroupedCounts
from lens_pipeline.evaluation.influence import Gradient, influences_of, resting_on
from lens_pipeline.evaluation.intervals import (
    CONFIDENCE,
    FEWEST,
    GALAXY,
    REGION,
    Estimate,
    clopper_pearson,
    kish,
    rate_from_spread,
)
from lens_pipeline.evaluation.ranking import RankedScores, missing_class
from lens_pipeline.evaluation.regions import over_both
from lens_pipeline.evaluation.tallies import Floats, Tallies

_CHUNK_CELLS = 1_000_000
_NO_SPREAD = 1e-12
# A spread that rests on fewer galaxies is mostly too small. Simulated for AUROCs of 0.76 to 0.9998, 25 to 1,000 lenses and up to
# 20,000 controls: with the interval of pairs below 8 the truth is held in 94 % of draws or more, with that below 6 in 93 %.
FEWEST_INFLUENTIAL = 8
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
    gradient : callable, optional
        Of an area: tells on how many galaxies its spread rests.
    """

    of: Callable[[Tallies], Floats]
    is_rate: bool = False
    is_rare: bool = False
    lower_end_at: Callable[[Tallies], Floats] | None = None
    gradient: Gradient | None = None


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
    seldom near 1 (simulated for an AUROC of 0.983 from 25 galaxies: 78 %, this interval 97 %). Where the spread rests on fewer
    than 8 galaxies (`resting_on`), a few low lenses say how much others would vary, and the interval also holds what as many
    disjoint pairs as the class with fewer galaxies has leave open, as many of them won as the area says (Clopper & Pearson
    1934): an area of all pairs varies at most as much (Hoeffding 1948, Ann. Math. Stat. 19, 293). So it does where no draw
    differs from the value, as when every positive outranks every negative. Rates: Wilson's interval, or where events are rare
    Clopper & Pearson's, of the number of independent rows that would spread as much.

    Galaxies that hold unequal numbers of rows, or weights, count for as many equal ones as Kish's effective number. With fewer
    than 20 in a class the interval is None (the bootstrap is known to be too narrow there); with fewer than 5 regions it is
    that over galaxies, and the reason says so.

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
    return {name: over_both(estimate, others[name]) for name, estimate in found.items()}


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
    of_classes = held(ranked)
    nothing = Estimate(None, None, None, n, ranked.n_clusters, None, cluster=cluster)
    if why := too_few(of_classes, cluster):
        return {name: replace(nothing, value=value, reason=why) for name, value in values.items()}
    counts = GroupedCounts.of(ranked, seed=seed, columns=columns)
    replicates = bootstrap(counts, statistics, n_replicates=n_replicates, seed=seed)
    fewest = fewest_worth(of_classes)
    found = {}
    for name, value in values.items():
        one = statistics[name]
        # Regions are few in any case, and where lenses are few the interval over galaxies is the wider one.
        judged = one.gradient if cluster == GALAXY else None
        rests_on = resting_on(influences_of(counts, judged)) if judged else np.inf
        estimate = replace(nothing, value=value)
        found[name] = _interval(estimate, replicates[name], fewest, one, lowest.get(name), rests_on)
    return found


def held(ranked: RankedScores) -> tuple[Floats, Floats]:
    """Rows of each class that each cluster holds, or the sums of their weights, shape (n_clusters,) each."""
    of_positives = np.bincount(ranked.positive_cluster, ranked.positive_weight, minlength=ranked.n_clusters)
    of_negatives = np.bincount(ranked.negative_cluster, ranked.negative_weight, minlength=ranked.n_clusters)
    return of_positives.astype(np.float64), of_negatives.astype(np.float64)


def counted(n: int, cluster: str) -> str:
    """Write a number of clusters, e.g. ``1 galaxy`` or ``12 regions``."""
    return f"{n:,} {cluster if n == 1 else PLURAL[cluster]}"


def fewest_worth(of_classes: Sequence[Floats]) -> float:
    """How many equal clusters (Kish) the class that has fewer is worth."""
    # Equal ones are worth their number but for rounding.
    return min(round(kish(one), 9) for one in of_classes)


def too_few(of_classes: Sequence[Floats], cluster: str) -> str | None:
    """Say why there is no interval of clusters that hold so much of each class; None if they are enough."""
    least = min(of_classes, key=kish)
    worth, n, fewest = fewest_worth(of_classes), int(np.count_nonzero(least)), FEWEST[cluster]
    if worth >= fewest:
        return None
    has = f"a class has {counted(n, cluster)}"
    if n >= fewest:
        has += f" worth {worth:.1f} equal ones (the largest holds {100 * least.max() / least.sum():.0f} % of the class)"
    return f"no interval: {has}, a bootstrap over fewer than {fewest} is too narrow"


def _interval(
    estimate: Estimate,
    replicates: Floats,
    fewest: float,
    statistic: Statistic,
    lowest: float | None,
    rests_on: float,
) -> Estimate:
    value = estimate.value
    assert value is not None
    pairs = f"Clopper-Pearson of as many pairs as there are {PLURAL[estimate.cluster]}"
    if replicates.size < 2 or np.ptp(replicates) < _NO_SPREAD or not 0 < value < 1:
        if min(value, 1 - value) > _NO_SPREAD:
            return replace(estimate, reason="no interval: no draw of the bootstrap differs from the value")
        low, high = clopper_pearson(round(value) * fewest, fewest)
        return replace(estimate, low=low, high=high, interval=pairs)
    spread = float(replicates.std(ddof=1)) * np.sqrt(fewest / (fewest - 1))
    if statistic.is_rate:
        return rate_from_spread(estimate, spread, int(fewest), exact=statistic.is_rare, lowest=lowest)
    half = float(special.stdtrit(fewest - 1, (1 + CONFIDENCE) / 2)) * spread / (value * (1 - value))
    ends = [float(special.expit(special.logit(value) + side * half)) for side in (-1, 1)]
    words = f"bootstrap over {PLURAL[estimate.cluster]}, t on the logit scale"
    if rests_on < FEWEST_INFLUENTIAL:
        ends, words = [*ends, *clopper_pearson(value * fewest, fewest)], pairs
    return replace(estimate, low=min(value, *ends), high=max(value, *ends), interval=words)
