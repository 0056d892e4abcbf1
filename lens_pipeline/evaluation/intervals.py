"""Confidence intervals of proportions and means, for rows that are alike within a galaxy and may carry weights.

Nothing here knows what a score is. Every interval is two-sided, by default at 95 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import special

CONFIDENCE = 0.95
FEW_CLUSTERS = 5
_ROUNDING = 1e-9
FEW_HOLD_THE_RARER = f"no interval: fewer than {FEW_CLUSTERS} clusters hold the rarer outcome"
# Losses are skewed: simulated 95 % intervals of a mean log loss hold it in 91 % of draws of 50 rows, 92 % of 100, 93 % of 150.
MIN_MEAN_ROWS = 150
MIN_CLUSTERS = 20
# With t on m - 1 degrees of freedom intervals over regions that differ hold the truth in 93 % of draws from so many on.
MIN_REGIONS = 5
GALAXY, REGION = "galaxy", "region"
# Clusters of each kind that a bootstrap needs.
FEWEST = {GALAXY: MIN_CLUSTERS, REGION: MIN_REGIONS}


@dataclass(frozen=True)
class Estimate:
    """A number with its interval and what it rests on.

    Attributes
    ----------
    value, low, high : float or None
        None where undefined; `reason` then says why.
    n : int
        Rows.
    n_clusters : int
        Galaxies that they come from.
    n_eff : float or None
        Number of independent, equally weighted rows that would know as much.
    reason : str or None
        Why there is no value or no interval, or what the interval leaves out.
    cluster : str
        What is taken as independent: galaxies, or regions of the sky.
    interval : str or None
        How the interval was made, in words.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    n_clusters: int
    n_eff: float | None
    reason: str | None = None
    cluster: str = GALAXY
    interval: str | None = None


Measured = TypeVar("Measured", bound=Estimate)


def clopper_pearson(k: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of a proportion that covers at least as often as it says.

    From beta quantiles (Clopper & Pearson 1934, Biometrika 26, 404); real-valued k and n serve effective counts (Korn &
    Graubard 1998, Survey Methodology 24, 193). Where a threshold is the (k + 1)-th highest of n negatives, the upper end
    also bounds that threshold's own rate, which follows Beta(k + 1, n - k) (Wilks 1941, Ann. Math. Stat. 12, 91).

    Parameters
    ----------
    k, n : float
        Successes and trials, 0 <= k <= n, n > 0.
    """
    _refuse_impossible(k, n)
    tail = (1 - confidence) / 2
    low = 0.0 if k <= 0 else float(special.betaincinv(k, n - k + 1, tail))
    high = 1.0 if k >= n else float(special.betaincinv(k + 1, n - k, 1 - tail))
    return low, high


def wilson(k: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927, JASA 22, 209); covers as often as it says when averaged over p.

    Parameters
    ----------
    k, n : float
        Successes and trials, or effective counts; 0 <= k <= n, n > 0.
    """
    _refuse_impossible(k, n)
    z = float(special.ndtri((1 + confidence) / 2))
    p = k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (0.0 if k <= 0 else max(0.0, float(centre - half)), 1.0 if k >= n else min(1.0, float(centre + half)))


def jeffreys(k: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of a proportion with equal tails of Beta(k + 1/2, n - k + 1/2) (Brown, Cai & DasGupta 2001, Stat. Sci. 16, 101).

    Covers as often as it says when averaged over p. It ends at 0 for no success and at 1 for no failure.

    Parameters
    ----------
    k, n : float
        Successes and trials, or effective counts; 0 <= k <= n, n > 0.
    """
    _refuse_impossible(k, n)
    tail = (1 - confidence) / 2
    low = 0.0 if k <= 0 else float(special.betaincinv(k + 0.5, n - k + 0.5, tail))
    high = 1.0 if k >= n else float(special.betaincinv(k + 0.5, n - k + 0.5, 1 - tail))
    return low, high


def kish(weights: npt.ArrayLike) -> float:
    """Effective number of independent rows with these weights, (sum w)^2 / sum w^2 (Kish 1965, Survey Sampling)."""
    w = np.asarray(weights, dtype=np.float64)
    squares = float(np.sum(w * w))
    return float(np.sum(w)) ** 2 / squares if squares > 0 else 0.0


def clustered_proportion(
    success: npt.ArrayLike,
    clusters: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    *,
    exact: bool = False,
    whole_where_few: bool = True,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Weighted proportion of rows that cluster, with an interval on their effective number.

    With p = sum w y / sum w, the residuals r_i = sum over cluster i of w (y - p), the weight W_i of each of m clusters and
    W of all, the variance is the jackknife's, v = (m - 1) / m sum (r_i / (W - W_i))^2 (Wolter 2007, ch. 4), and the effective
    number is p (1 - p) / v, i.e. n over the design effect (Rao & Scott 1992, Biometrics 48, 577), never more than Kish's.
    Where fewer than 5 clusters hold the rarer outcome v says little, and whole clusters are counted instead. The interval is
    taken at the effective number times (t_{n-1} / t_{k-1})^2, which pays for a variance known from few clusters (Korn &
    Graubard 1998); k is Kish's number of clusters, m where all weigh alike. Below 2 there is no interval. Rows that
    are all equally weighted and alone in their clusters give the plain interval of n rows.

    Parameters
    ----------
    success : array of bool, shape (n,)
    clusters : array, shape (n,)
        Name or number of each row's cluster.
    weights : array of float, shape (n,), optional
    exact : bool
        Clopper-Pearson (for rare events) instead of Wilson.
    whole_where_few : bool
        Count whole clusters where fewer than 5 hold the rarer outcome; else no interval is given then.
    """
    y = np.asarray(success, dtype=np.float64)
    n = int(y.size)
    w = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    total = float(w.sum())
    if n == 0 or total <= 0:
        return Estimate(None, None, None, n, 0, None, "there are no rows" if n == 0 else "all weights are 0")
    place, m = numbered(clusters)
    p = float(np.clip(np.dot(w, y) / total, 0, 1))
    nothing = Estimate(p, None, None, n, m, None)
    if m == n and bool(np.all(w == w[0])):
        return _rate_interval(nothing, float(n), float(n), exact, confidence, clustered=False)
    if m < 2:
        return replace(nothing, reason="all rows come from one galaxy, so their spread is unknown")
    few = _few_hold_the_rarer(y, w, place, p)
    if few and not whole_where_few:
        return replace(nothing, reason=FEW_HOLD_THE_RARER)
    of_clusters = np.bincount(place, weights=w, minlength=m).astype(np.float64, copy=False)
    if why := outweighed(kish(of_clusters), m, float(of_clusters.max() / of_clusters.sum())):
        return replace(nothing, reason=why)
    n_eff = _effective_n(y, w, place, of_clusters, p, few)
    ratio = few_clusters_ratio(n, kish(of_clusters), confidence)
    return _rate_interval(nothing, n_eff, n_eff * ratio, exact, confidence)


def share_from_influence(
    value: float, influence: npt.ArrayLike, clusters: npt.ArrayLike, *, confidence: float = CONFIDENCE
) -> Estimate:
    """Put Wilson's interval on a share that is a smooth function of several, from each row's influence on it.

    The variance is that of the sums of influences over clusters (linearisation: Wolter 2007, ch. 6), the jackknife's as in
    `clustered_proportion`, and the effective number value (1 - value) over it.

    Parameters
    ----------
    influence : array of float, shape (n,)
        First-order change of the value that each row makes; their sum is 0.
    """
    changes = np.asarray(influence, dtype=np.float64)
    place, m = numbered(clusters)
    n = int(changes.size)
    nothing = Estimate(value, None, None, n, m, None)
    if m < 2:
        return replace(nothing, reason="all rows come from one galaxy, so their spread is unknown")
    of_clusters = np.bincount(place, minlength=m).astype(np.float64)
    if why := outweighed(kish(of_clusters), m, float(of_clusters.max() / n)):
        return replace(nothing, reason=why)
    spread = float(np.sqrt(jackknifed(n * np.bincount(place, weights=changes), of_clusters)))
    if spread <= 0:
        return _rate_interval(nothing, kish(of_clusters), kish(of_clusters), True, confidence)
    return rate_from_spread(nothing, spread, kish(of_clusters), confidence=confidence)


def rate_from_spread(
    estimate: Estimate,
    spread: float,
    n_clusters: float,
    *,
    exact: bool = False,
    lowest: float | None = None,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Interval of a share whose standard error is known, Wilson's (or Clopper & Pearson's) at n_eff = p (1 - p) / spread^2.

    Parameters
    ----------
    estimate : Estimate
        Its `value` lies between 0 and 1.
    n_clusters : float
        Clusters that the standard error was found from, or their effective number; few cost width, as in `clustered_proportion`.
    lowest : float, optional
        Share that the lower end is made of, with the same effective number; by default the estimate's value.
    """
    assert estimate.value is not None
    n_eff = estimate.value * (1 - estimate.value) / spread**2
    effective = n_eff * few_clusters_ratio(estimate.n, n_clusters, confidence)
    found = _rate_interval(estimate, n_eff, effective, exact, confidence)
    if lowest is None or found.low is None:
        return found
    low = (clopper_pearson if exact else wilson)(lowest * effective, effective, confidence)[0]
    return replace(found, low=min(low, found.low))


def mean_of(parts: Sequence[Estimate], correlations: npt.NDArray[np.float64]) -> Estimate:
    """Mean of shares, its interval put together of theirs (MOVER: Zou & Donner 2008, Statistics in Medicine 27, 1693).

    The distances of the parts' ends from their values are added as standard errors are, so that a share of exactly 0 or 1
    leaves as much open as its own interval does. There is no `n_eff`, as the parts rest on different rows.

    Parameters
    ----------
    parts : sequence of Estimate
        Each has a value.
    correlations : array of float, shape (len(parts), len(parts))
    """
    values = np.array([part.value for part in parts], dtype=np.float64)
    value = float(values.mean())
    cluster = REGION if any(part.cluster == REGION for part in parts) else GALAXY
    reason = next((part.reason for part in parts if part.reason), None)
    n, n_clusters = max(part.n for part in parts), max(part.n_clusters for part in parts)
    nothing = Estimate(value, None, None, n, n_clusters, None, reason, cluster)
    ends = [(part.low, part.high) for part in parts if part.low is not None and part.high is not None]
    if len(ends) < len(parts):
        return replace(nothing, reason=next(part.reason for part in parts if part.low is None))
    down, up = np.abs(np.array(ends).T - values) / len(parts)
    below, above = (float(np.sqrt(max(0.0, ends @ correlations @ ends))) for ends in (down, up))
    return replace(
        nothing, low=max(0.0, value - below), high=min(1.0, value + above), interval="MOVER of the parts' intervals"
    )


def wider(first: Measured, second: Measured) -> Measured:
    """Return the one of two estimates of the same thing whose interval is wider; one without an interval gives way."""
    widths = [-1.0 if one.low is None or one.high is None else one.high - one.low for one in (first, second)]
    return second if widths[1] > widths[0] else first


def clustered_mean(
    values: npt.ArrayLike, clusters: npt.ArrayLike, *, floor: float | None = None, confidence: float = CONFIDENCE
) -> Estimate:
    """Mean of rows that cluster, with a t interval on k - 1 degrees of freedom (Cochran 1977, Sampling Techniques, 9A).

    The variance is the jackknife's over clusters, and k Kish's number of them, as in `clustered_proportion`; below 2
    there is no interval. Fewer than 150 rows have none either: of skewed values it would be too narrow.

    Parameters
    ----------
    values : array of float, shape (n,)
    clusters : array, shape (n,)
    floor : float, optional
        Least value that the mean can have; the interval ends there.
    """
    x = np.asarray(values, dtype=np.float64)
    n = int(x.size)
    if n == 0:
        return Estimate(None, None, None, 0, 0, None, "there are no rows")
    place, m = numbered(clusters)
    mean = float(x.mean())
    nothing = Estimate(mean, None, None, n, m, None)
    if m < 2:
        return replace(nothing, reason="all rows come from one galaxy, so their spread is unknown")
    if n < MIN_MEAN_ROWS:
        few = f"no interval: a mean of {n} rows, fewer than {MIN_MEAN_ROWS}, rests on a few large ones"
        return replace(nothing, reason=few)
    of_clusters = np.bincount(place, minlength=m).astype(np.float64)
    if why := outweighed(kish(of_clusters), m, float(of_clusters.max() / n)):
        return replace(nothing, reason=why)
    spread = float(np.sqrt(jackknifed(np.bincount(place, weights=x - mean, minlength=m), of_clusters)))
    variance = float(x.var(ddof=1))
    n_eff = min(float(n), variance / spread**2) if spread > 0 else float(m)
    half = float(special.stdtrit(kish(of_clusters) - 1, (1 + confidence) / 2)) * spread
    low = mean - half if floor is None else max(floor, mean - half)
    return Estimate(mean, low, mean + half, n, m, n_eff, interval="t, clustered" if m < n else "t")


def numbered(clusters: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], int]:
    """Give clusters numbers from 0 without gaps; whole numbers of a small range, as those of galaxies are, are not sorted.

    Returns
    -------
    array of int64, shape (n,)
        Cluster of each row.
    int
        How many clusters there are.
    """
    names = np.asarray(clusters)
    if names.size and names.dtype.kind in "iu" and names.min() >= 0 and names.max() < 4 * names.size:
        there = np.bincount(names) > 0
        return (np.cumsum(there) - 1)[names], int(there.sum())
    found, number = np.unique(names, return_inverse=True)
    return number, int(found.size)


def _rate_interval(
    estimate: Estimate, n_eff: float, effective: float, exact: bool, confidence: float, *, clustered: bool = True
) -> Estimate:
    p = estimate.value
    assert p is not None
    low, high = (clopper_pearson if exact else wilson)(p * effective, effective, confidence)
    words = ("Clopper-Pearson" if exact else "Wilson") + (", clustered" if clustered else "")
    return replace(estimate, low=min(low, p), high=max(high, p), n_eff=n_eff, interval=words)


def jackknifed(residuals: npt.NDArray[Any], weights: npt.NDArray[np.float64]) -> float:
    """Variance of a weighted mean from the residual and weight of each cluster; a large one draws the mean to itself."""
    m = residuals.size
    return (m - 1) / m * float(np.sum((residuals / (weights.sum() - weights)) ** 2))


def outweighed(effective: float, m: int, heaviest: float) -> str | None:
    """Say so where the heaviest of m clusters, by its share of the weight, leaves fewer than 2 effective ones; else None."""
    if effective > 2 - _ROUNDING:
        return None
    return f"no interval: one of {m:,} clusters has {heaviest:.0%} of the weight, so their spread is unknown"


def few_clusters_ratio(n: int, m: float, confidence: float = CONFIDENCE) -> float:
    """Share of the effective number that is left where the variance is known from m clusters only (Korn & Graubard 1998)."""
    tail = (1 + confidence) / 2
    return float(special.stdtrit(n - 1, tail) / special.stdtrit(m - 1, tail)) ** 2


def _few_hold_the_rarer(
    y: npt.NDArray[np.float64], w: npt.NDArray[np.float64], place: npt.NDArray[np.int64], p: float
) -> bool:
    rarer = (w > 0) & (y == (0.0 if p > 0.5 else 1.0))
    return np.unique(place[rarer]).size < FEW_CLUSTERS


def _effective_n(
    y: npt.NDArray[np.float64],
    w: npt.NDArray[np.float64],
    place: npt.NDArray[np.int64],
    of_clusters: npt.NDArray[np.float64],
    p: float,
    few: bool,
) -> float:
    ceiling = kish(of_clusters) if few else kish(w)
    variance = jackknifed(np.bincount(place, weights=w * (y - p), minlength=of_clusters.size), of_clusters)
    return min(ceiling, p * (1 - p) / variance) if variance > 0 else ceiling


def _refuse_impossible(k: float, n: float) -> None:
    if not (n > 0 and 0 <= k <= n):
        raise ValueError(f"a proportion of {k} of {n} can't be: 0 <= k <= n and n > 0 are needed")
