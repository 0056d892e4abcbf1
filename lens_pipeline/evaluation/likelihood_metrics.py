"""How good scores are as probabilities: log loss, Brier score and calibration error, at the split's own balance."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import special

from lens_pipeline.evaluation.binning import groups_of
from lens_pipeline.evaluation.bootstrap import draws, too_few
from lens_pipeline.evaluation.intervals import (
    CONFIDENCE,
    GALAXY,
    MIN_CLUSTERS,
    REGION,
    Estimate,
    numbered,
)
from lens_pipeline.evaluation.mean_losses import Losses
from lens_pipeline.evaluation.metrics import (
    FRACTION,
    NATS,
    BootstrapSettings,
    Clusters,
    Metric,
    class_counts,
    metric_of,
    over_clusters,
)
from lens_pipeline.evaluation.ranking import missing_class

Floats = npt.NDArray[np.float64]
N_BINS = 15
_MIN_ROWS_A_BIN = 20


@dataclass(frozen=True)
class CalibrationSums:
    """Sums of each group of clusters in each bin of equal numbers of rows, shape (n_groups, n_bins).

    Attributes
    ----------
    rows, probability, lenses : array of float64
        Number of rows, sum of their probabilities, number of lenses among them.
    """

    rows: Floats
    probability: Floats
    lenses: Floats

    @classmethod
    def of(
        cls,
        probability: Floats,
        is_lens: npt.ArrayLike,
        clusters: npt.ArrayLike,
        n_bins: int = N_BINS,
        *,
        seed: int = 0,
    ) -> "CalibrationSums":
        """Divide rows at quantiles of the probability; equal ones are never divided, so there may be fewer bins."""
        cluster, n_clusters = numbered(clusters)
        edges = np.unique(np.quantile(probability, np.linspace(0, 1, n_bins + 1)[1:-1], method="inverted_cdf"))
        # `left`: what equals an edge stands at or under it.
        bins = np.searchsorted(edges, probability, side="left")
        group = groups_of(n_clusters, seed=seed)
        shape = (int(group.max()) + 1, edges.size + 1)
        place = group[cluster] * shape[1] + bins

        def summed(weight: npt.ArrayLike | None) -> Floats:
            return np.bincount(place, weight, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)

        sums = [summed(None), summed(probability), summed(np.asarray(is_lens, dtype=np.float64))]
        there = sums[0].any(axis=0)
        return cls(*(of[:, there] for of in sums))

    @property
    def noise(self) -> Floats:
        """Standard error over clusters of each bin's mean of probability minus share of lenses, shape (n_bins,)."""
        n, m = self.rows.sum(axis=0), self.rows.shape[0]
        residual = self.probability - self.lenses
        off = residual - self.rows * (residual.sum(axis=0) / n)
        return np.asarray(np.sqrt(m / max(1, m - 1) * np.sum(off**2, axis=0)) / n)


def log_losses(logit: Floats, is_lens: npt.NDArray[np.bool_]) -> Floats:
    """Log loss of each row in nats, log(1 + exp(-s x)), s = +1 for a lens and -1 for none (Good 1952, JRSS B 14, 107)."""
    return np.logaddexp(0.0, np.where(is_lens, -logit, logit))


def brier_scores(logit: Floats, is_lens: npt.NDArray[np.bool_]) -> Floats:
    """Squared difference of each row's probability and what it is, 1 for a lens (Brier 1950, Mon. Weather Rev. 78, 1)."""
    missed = special.expit(np.where(is_lens, -logit, logit))
    return np.asarray(missed * missed)


def likelihood_metrics(rows: pl.DataFrame, split: str) -> list[Metric]:
    """Log loss (nats, 0 to infinity) and Brier score (0 to 1), uncalibrated; null where a class is absent.

    log loss = mean of log(1 + exp(-s x)) with s = +1 for a lens and -1 for none (negative log-likelihood a row), Brier = mean
    of (p - y)^2. Both are 0 for a perfect, certain score. Intervals: `Losses`.
    """
    logit, is_lens = rows["logit"].to_numpy(), rows["is_lens"].to_numpy()
    absent, clusters = missing_class(*class_counts(rows)), Clusters.of(rows)
    metrics = []
    for name, losses, unit in (("log_loss", log_losses, NATS), ("brier", brier_scores, FRACTION)):
        if absent:
            estimate = Estimate(None, None, None, rows.height, 0, None, absent)
        else:
            each = Losses.of(losses(logit, is_lens), is_lens, np.ones(rows.height))
            estimate = each.over_both(clusters, floor=0.0)
        metrics.append(metric_of(name, split, rows, estimate, unit=unit))
    return metrics


def calibration_metric(rows: pl.DataFrame, split: str, settings: BootstrapSettings, name: str = "ece") -> Metric:
    """Measure the expected calibration error of the probabilities 1 / (1 + exp(-logit)); null where a class is absent."""
    absent = missing_class(*class_counts(rows))
    if absent:
        estimate = Estimate(None, None, None, rows.height, 0, None, absent)
    else:
        probability = special.expit(rows["logit"].to_numpy())
        is_lens = rows["is_lens"].to_numpy()
        estimate = over_clusters(
            rows,
            lambda clusters, are_galaxies: calibration_error(
                probability, is_lens, clusters, settings, kind=GALAXY if are_galaxies else REGION
            ),
        )
    return metric_of(name, split, rows, estimate)


def calibration_error(
    probability: Floats,
    is_lens: npt.ArrayLike,
    clusters: npt.ArrayLike,
    settings: BootstrapSettings,
    n_bins: int = N_BINS,
    *,
    kind: str = GALAXY,
) -> Estimate:
    """Measure the expected calibration error over bins of equal numbers of rows, debiased; a fraction, 0 at best.

    ECE = sum over bins of (n_b / n) |d_b|, d_b the bin's mean probability minus its share of lenses (Naeini et al. 2015, AAAI).
    Noise alone makes |d_b| positive (Kumar, Liang & Ma 2019, NeurIPS 32). So the sign of d_b is taken from one half of the
    clusters and its size from the other, averaged over all halvings: with s_b the standard error of d_b over clusters that is
    |d_b| (2 Phi(|d_b| / s_b) - 1) - 2 s_b phi(d_b / s_b), which is 0 on average where the truth is 0, less than it by some of s_b
    where the truth is like s_b, and |d_b| beyond. Without an interval where bins hold fewer than 20 rows, or a class has fewer
    than 20 galaxies, or 5 regions if `kind` says that clusters are those (`too_few`); undefined without rows.
    """
    n = int(probability.size)
    cluster, n_clusters = numbered(clusters)
    if not n:
        return Estimate(None, None, None, 0, 0, None, "there are no rows")
    sums = CalibrationSums.of(probability, is_lens, cluster, n_bins, seed=settings.seed)
    noise = sums.noise
    rows, stated, lenses = (of.sum(axis=0)[None] for of in (sums.rows, sums.probability, sums.lenses))
    found = Estimate(float(_debiased(rows, stated, lenses, noise)[0]), None, None, n, n_clusters, None)
    if n < _MIN_ROWS_A_BIN * n_bins:
        words = f"no interval: {n:,} rows in {n_bins} bins are fewer than {_MIN_ROWS_A_BIN} a bin, too few to know their noise"
        return replace(found, reason=words)
    of_lenses, of_all = (np.bincount(cluster, weights=of).astype(np.float64) for of in (is_lens, None))
    if why := too_few((of_lenses, of_all - of_lenses), kind):
        return replace(found, reason=why)
    replicates = np.concatenate(
        [
            _debiased(drawn @ sums.rows, drawn @ sums.probability, drawn @ sums.lenses, noise)
            for drawn in draws(sums.rows.shape[0], settings.n_replicates, seed=settings.seed, cells=sums.rows.shape[1])
        ]
    )
    half = float(special.stdtrit(n_clusters - 1, (1 + CONFIDENCE) / 2)) * float(replicates.std(ddof=1))
    if n_clusters < MIN_CLUSTERS:
        # A bootstrap's variance is too small by this factor, which matters where clusters are few.
        half *= float(np.sqrt(n_clusters / (n_clusters - 1)))
    assert found.value is not None
    high = found.value + half + _missing(rows[0], stated[0], lenses[0], noise)
    low = max(0.0, found.value - half)
    return replace(found, low=low, high=min(1.0, high), interval="bootstrap, t, and above it what halving may take off")


def _missing(rows: Floats, probability: Floats, lenses: Floats, noise: Floats) -> float:
    """How much halving takes off on average where the truth is what was measured: sum of w 2 |d| (1 - Phi(|d| / (sqrt(2) s)))."""
    off = np.abs(probability - lenses) / rows
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(noise > 0, off / noise, np.inf)
    return float(np.sum(rows / rows.sum() * 2 * off * special.ndtr(-z / np.sqrt(2))))


def _debiased(rows: Floats, probability: Floats, lenses: Floats, noise: Floats) -> Floats:
    """Debiased error of replicates, shape (n_replicates,), from sums of shape (n_replicates, n_bins)."""
    off = np.abs(probability - lenses) / np.maximum(rows, 1e-300)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(noise > 0, off / noise, np.inf)
    density = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
    halved = off * (1 - 2 * special.ndtr(-z)) - 2 * noise * density
    weight = rows / rows.sum(axis=1, keepdims=True)
    return np.asarray(np.maximum(0.0, np.sum(weight * halved, axis=1)))
