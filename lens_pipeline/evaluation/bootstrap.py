"""Bootstrap over galaxies: how many times each was drawn, never a resampled array of rows."""

from collections.abc import Callable

import numpy as np
from scipy import special

from lens_pipeline.evaluation.intervals import CONFIDENCE, Estimate, clopper_pearson
from lens_pipeline.evaluation.ranking import Floats, RankedScores, missing_class

MIN_CLUSTERS = 20
_CHUNK_CELLS = 4_000_000

Statistic = Callable[[Floats, Floats], Floats]
"""Positives and negatives of each tie block, shape (..., n_blocks), to one number each, shape (...,)."""


def bootstrap(
    ranked: RankedScores, statistics: dict[str, Statistic], *, n_replicates: int, seed: int
) -> dict[str, Floats]:
    """Draw galaxies with replacement and evaluate every statistic on each draw.

    The bootstrap of Efron (1979), clusters as in Davison & Hinkley (1997), section 3.8.

    Returns
    -------
    dict of array of float64, shape (n_kept,)
        Draws that lack a class are left out.
    """
    rng = np.random.default_rng(seed)
    m = ranked.n_clusters
    chunk = max(1, min(n_replicates, _CHUNK_CELLS // max(1, ranked.logits.size, m)))
    values: dict[str, list[Floats]] = {name: [] for name in statistics}
    for start in range(0, n_replicates, chunk):
        drawn = rng.multinomial(m, np.full(m, 1 / m), size=min(chunk, n_replicates - start)).astype(np.float64)
        positives = np.asarray(drawn @ ranked.positives_of_cluster)
        negatives = np.asarray(drawn @ ranked.negatives_of_cluster)
        for name, statistic in statistics.items():
            values[name].append(statistic(positives, negatives))
    joined = {name: np.concatenate(parts) for name, parts in values.items()}
    return {name: draws[np.isfinite(draws)] for name, draws in joined.items()}


def rank_estimates(
    ranked: RankedScores, statistics: dict[str, Statistic], *, n_replicates: int, seed: int
) -> dict[str, Estimate]:
    """Value of each rank statistic, a number in [0, 1], with its interval over galaxies.

    The bootstrap's standard error, carried to the logit scale, with a t quantile: percentiles of the draws cover too
    seldom near 1 (simulated for an AUROC of 0.983 from 25 galaxies: 78 %, this interval 97 %). With fewer than 20
    galaxies in a class the interval is None (the bootstrap is known to be too narrow there). Where no draw differs from
    the value, as when every positive outranks every negative, the spread says nothing; the lower end is then what as
    many disjoint pairs, all won, leave open (Clopper & Pearson 1934).
    """
    n = ranked.n_positives + ranked.n_negatives
    absent = missing_class(ranked.n_positives, ranked.n_negatives)
    if absent:
        return {name: Estimate(None, None, None, n, ranked.n_clusters, None, absent) for name in statistics}
    counts = (ranked.positives, ranked.negatives)
    values = {name: float(statistic(*counts)[0]) for name, statistic in statistics.items()}
    fewest = min(np.unique(ranked.positive_cluster).size, np.unique(ranked.negative_cluster).size)
    if fewest < MIN_CLUSTERS:
        why = f"no interval: a class has {fewest} galaxies, a bootstrap over fewer than {MIN_CLUSTERS} is too narrow"
        return {name: Estimate(value, None, None, n, ranked.n_clusters, None, why) for name, value in values.items()}
    draws = bootstrap(ranked, statistics, n_replicates=n_replicates, seed=seed)
    return {name: _interval(value, draws[name], n, ranked.n_clusters, fewest) for name, value in values.items()}


def _interval(value: float, draws: Floats, n: int, n_clusters: int, fewest: int) -> Estimate:
    if draws.size < 2 or np.ptp(draws) < 1e-12:
        if value >= 1 - 1e-12:
            low, high = clopper_pearson(fewest, fewest)
            return Estimate(value, low, high, n, n_clusters, None)
        why = "no interval: no draw of the bootstrap differs from the value"
        return Estimate(value, None, None, n, n_clusters, None, why)
    tail = (1 - CONFIDENCE) / 2
    if 0 < value < 1:
        quantile = float(special.stdtrit(fewest - 1, 1 - tail))
        half = quantile * float(draws.std(ddof=1)) / (value * (1 - value))
        low, high = (float(special.expit(special.logit(value) + side * half)) for side in (-1, 1))
    else:
        low, high = (float(q) for q in np.quantile(draws, [tail, 1 - tail]))
    return Estimate(value, min(low, value), max(high, value), n, n_clusters, None)
