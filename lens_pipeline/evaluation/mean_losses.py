"""Mean losses of rows whose classes have shares that were chosen: what varies is each class's own losses, which are skewed."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import special

from lens_pipeline.evaluation.intervals import (
    CONFIDENCE,
    MIN_CLUSTERS,
    Estimate,
    clustered_mean,
    kish,
    numbered,
    outweighed,
)

# At an AUROC of 0.96 and even odds simulated intervals of a log loss hold it in 92 % of draws of 20 lenses among 3,000 controls,
# in 93 % of 30.
_MIN_ROWS = 30


def mean_loss(
    losses: npt.ArrayLike,
    is_lens: npt.NDArray[np.bool_],
    weights: npt.ArrayLike,
    clusters: npt.ArrayLike,
    *,
    floor: float | None = None,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Mean of weighted losses, with the interval of a mean whose classes weigh what they weigh in every draw.

    A loss counts by how far it lies from the mean of its own class, so the variance is that of a ratio in each (linearisation:
    Wolter 2007, ch. 6), over clusters as in `clustered_mean`. Degrees of freedom are Welch's, of clusters that vary by their
    classes' variances (Welch 1947, Biometrika 34, 28): of 30 lenses among thousands of controls they may be 29. From 20 clusters
    on the t quantiles go through Hall's transformation, which removes what skewness does to them (Hall 1992, JRSS B 54, 221):
    few large losses leave more open above than below. Below 30 rows of equal spread there is no interval.

    Parameters
    ----------
    losses : array of float, shape (n,)
    is_lens : array of bool, shape (n,)
        Both classes are there.
    weights : array of float, shape (n,)
        What a row counts, at least 0 and 1 on average; no class weighs nothing.
    clusters : array, shape (n,)
        Name or number of each row's cluster.
    floor : float, optional
        Least value that the mean can have; the interval ends there.
    """
    loss, weight = np.asarray(losses, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    off, variance = np.empty_like(loss), np.empty_like(loss)
    for one in (is_lens, ~is_lens):
        off[one] = weight[one] * (loss[one] - np.average(loss[one], weights=weight[one]))
        variance[one] = weight[one] ** 2 * loss[one].var()
    mean = float(np.mean(weight * loss))
    found = clustered_mean(mean + off, clusters, confidence=confidence)
    if found.low is None or found.high is None or found.high <= found.low:
        return found
    if (rows := kish(variance)) < _MIN_ROWS:
        words = f"no interval: a mean worth {rows:.3g} rows of equal spread, fewer than {_MIN_ROWS}, rests on a few large ones"
        return replace(found, low=None, high=None, interval=None, reason=words)
    place, m = numbered(clusters)
    spread = (found.high - found.low) / 2 / _t(kish(np.bincount(place)), confidence)
    effective = kish(np.bincount(place, weights=variance))
    if why := outweighed(effective, m, float(np.bincount(place, weights=variance).max() / variance.sum())):
        return replace(found, low=None, high=None, interval=None, reason=why)
    t, words, sums = _t(effective, confidence), f"{found.interval}, within classes", np.bincount(place, weights=off)
    skewness = 0.0
    if m >= MIN_CLUSTERS:
        skewness, words = float(np.sum(sums**3) / np.sum(sums**2) ** 1.5), f"{words}, skewness removed"
    low, high = (mean - spread * _unskewed(end, skewness) for end in (t, -t))
    return replace(found, value=mean, low=low if floor is None else max(floor, low), high=high, interval=words)


def _t(n: float, confidence: float) -> float:
    return float(special.stdtrit(n - 1, (1 + confidence) / 2))


def _unskewed(t: float, skewness: float) -> float:
    """Quantile of a studentized mean that stands for t where the mean has a skewness: the inverse of Hall's cubic."""
    root = float(np.cbrt(1 + skewness * (t - skewness / 6)))
    # 3 / skewness (root - 1), written so that it stands for no skewness too.
    return 3 * (t - skewness / 6) / (root * root + root + 1)
