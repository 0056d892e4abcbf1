"""Mean losses of rows whose classes have shares that were chosen: what varies is each class's own losses, which are skewed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import special

from lens_pipeline.evaluation.bootstrap import counted, fewest_worth
from lens_pipeline.evaluation.intervals import (
    CONFIDENCE,
    GALAXY,
    MIN_CLUSTERS,
    MIN_REGIONS,
    REGION,
    Estimate,
    clustered_mean,
    jackknifed,
    kish,
    numbered,
    outweighed,
)
from lens_pipeline.evaluation.metrics import Clusters, over_clusters

Floats = npt.NDArray[np.float64]

# Clusters of each kind that either class needs: how much its losses vary is known from them alone. Of calibrated probabilities at
# the rows' own balance, of logistic and normal scores with AUROCs of 0.76 to 0.99 and 500 or 3,000 rows of the other class,
# simulated intervals hold in 93 % of draws or more from 40 lenses or controls on, in 91 % of 20 or 30.
_FEWEST = {GALAXY: 40, REGION: MIN_REGIONS}


@dataclass(frozen=True)
class Losses:
    """Weighted losses of rows of both classes, whose classes weigh what they weigh in every draw.

    Attributes
    ----------
    mean : float
        Of all rows, each times its weight.
    off : (n,) array
        How far each row lies from the mean of its own class, times its weight.
    squares : tuple of (n,) array
        Squared weights of the lenses, and of the others; 0 elsewhere.
    variances : tuple of float
        Of the losses in each class.
    """

    mean: float
    off: Floats
    squares: tuple[Floats, Floats]
    variances: tuple[float, float]

    @classmethod
    def of(cls, losses: npt.ArrayLike, is_lens: npt.NDArray[np.bool_], weights: npt.ArrayLike) -> "Losses":
        """Take losses apart by class.

        Parameters
        ----------
        losses : array of float, shape (n,)
        is_lens : array of bool, shape (n,)
            Both classes are there.
        weights : array of float, shape (n,)
            What a row counts, at least 0 and 1 on average; no class weighs nothing.
        """
        loss, weight = np.asarray(losses, dtype=np.float64), np.asarray(weights, dtype=np.float64)
        sides = (is_lens.astype(np.float64), (~is_lens).astype(np.float64))
        off = weight * (loss - np.where(is_lens, *(_average(loss, side, weight) for side in sides)))
        scatter = (loss - np.where(is_lens, *(_average(loss, side) for side in sides))) ** 2
        squared = weight**2
        return cls(
            mean=float(np.mean(weight * loss)),
            off=off,
            squares=(squared * sides[0], squared * sides[1]),
            variances=(_average(scatter, sides[0]), _average(scatter, sides[1])),
        )

    def over_both(self, clusters: Clusters, *, floor: float | None = None) -> Estimate:
        """Give the mean its interval over galaxies, or over regions where those know less (`mean_over`)."""
        return over_clusters(
            clusters,
            lambda numbers, are_galaxies: self.mean_over(numbers, kind=GALAXY if are_galaxies else REGION, floor=floor),
        )

    def mean_over(
        self, clusters: npt.ArrayLike, *, kind: str = GALAXY, floor: float | None = None, confidence: float = CONFIDENCE
    ) -> Estimate:
        """Give the mean its interval over clusters.

        A loss counts by how far it lies from the mean of its own class, so the variance is that of a ratio in each
        (linearisation: Wolter 2007, ch. 6), over clusters as in `clustered_mean`. Degrees of freedom are Welch's, of
        clusters that vary by their classes' variances (Welch 1947, Biometrika 34, 28): of 40 lenses among thousands of
        controls they may be 39. From 20 clusters on the t quantiles go through Hall's transformation, which removes what
        skewness does to them (Hall 1992, JRSS B 54, 221): few large losses leave more open above than below. Without an
        interval where a class has fewer than 40 galaxies, by Kish's effective number of their squared weights, which its
        variance goes by; or 5 regions if `kind` says that clusters are those.

        Parameters
        ----------
        clusters : array, shape (n,)
            Name or number of each row's cluster.
        kind : str
            What clusters are: galaxies, or regions of the sky.
        floor : float, optional
            Least value that the mean can have; the interval ends there.
        """
        place, m = numbered(clusters)
        found = clustered_mean(self.mean + self.off, place, confidence=confidence)
        if found.low is None or found.high is None:
            return found
        nothing = replace(found, low=None, high=None, n_eff=None, interval=None)
        of_classes = [np.bincount(place, weights=squares, minlength=m).astype(np.float64) for squares in self.squares]
        if why := _too_few(of_classes, kind):
            return replace(nothing, reason=why)
        if found.high <= found.low:
            return found
        sums = np.bincount(place, weights=self.off)
        spread = float(np.sqrt(jackknifed(sums, np.bincount(place).astype(np.float64))))
        of_clusters = np.dot(self.variances, of_classes)
        effective = kish(of_clusters)
        if why := outweighed(effective, m, float(of_clusters.max() / of_clusters.sum())):
            return replace(nothing, reason=why)
        t = float(special.stdtrit(effective - 1, (1 + confidence) / 2))
        words, skewness = f"{found.interval}, within classes", 0.0
        if m >= MIN_CLUSTERS:
            skewness, words = float(np.sum(sums**3) / np.sum(sums**2) ** 1.5), f"{words}, skewness removed"
        low, high = (self.mean - spread * _unskewed(end, skewness) for end in (t, -t))
        low = low if floor is None else max(floor, low)
        return replace(found, value=self.mean, low=low, high=high, interval=words)


def _average(values: Floats, *weights: Floats) -> float:
    """Return the mean of values that count by the product of the weights; one sum, without arrays in between or threads."""
    i = "i," * len(weights)
    return float(np.einsum(f"{i}i->", *weights, values) / np.einsum(f"{i[:-1]}->", *weights))


def _too_few(of_classes: Sequence[Floats], kind: str) -> str | None:
    """Say why there is no interval of clusters that hold so much of each class's squared weights; None if they are enough."""
    worth, n, fewest = fewest_worth(of_classes), int(np.count_nonzero(min(of_classes, key=kish))), _FEWEST[kind]
    if worth >= fewest:
        return None
    has = f"a class has {counted(n, kind)}"
    if n >= fewest:
        has += f" worth {worth:.1f} equal ones"
    return f"no interval: {has}, a mean over fewer than {fewest} rests on a few large losses"


def _unskewed(t: float, skewness: float) -> float:
    """Quantile of a studentized mean that stands for t where the mean has a skewness: the inverse of Hall's cubic."""
    root = float(np.cbrt(1 + skewness * (t - skewness / 6)))
    # 3 / skewness (root - 1), written so that it stands for no skewness too.
    return 3 * (t - skewness / 6) / (root * root + root + 1)
