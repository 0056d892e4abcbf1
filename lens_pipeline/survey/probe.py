"""A linear probe: how well a weighted sum of features tells one kind of stamp from another, and how sure that is.

Belongs here: features to an AUROC with an interval, for stamps that come in pairs (`paired_probe`) and for two sets apart
(`unpaired_probe`). A probe is fitted on nine tenths of the galaxies and judged on the tenth, ten times. What chance gives isn't
assumed: labels are changed about at random, whole galaxies at a time, and everything is done again.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from lens_pipeline.survey.optics import Image

FOLDS = 10
_CHANGES = 400
_CLIP = 4.0
_RIDGE = 0.1

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Probed:
    """How well a probe tells two kinds apart.

    Attributes
    ----------
    auroc : float
        Chance that a stamp of the first kind has the higher score of two, ties counting half; within pairs for paired stamps.
    half_width : float
        Of the interval at the level that was asked for, at chance.
    spread : float
        Standard deviation of the AUROC at chance.
    n : int
        Pairs, or galaxies.
    features : array
        Places of the features, those first whose mean differs most in its own spread.
    contrast : array
        That difference of each feature, in standard errors.
    """

    auroc: float
    half_width: float
    spread: float
    n: int
    features: NDArray[np.int64]
    contrast: Image

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end."""
        return max(0.0, self.auroc - self.half_width), min(1.0, self.auroc + self.half_width)

    @property
    def above_chance(self) -> bool:
        """Whether the interval lies above 0.5."""
        return self.auroc - self.half_width > 0.5

    def least_seen(self, power: float = 0.9) -> float:
        """AUROC that would have been found above chance so often."""
        return min(1.0, 0.5 + self.half_width + float(ndtri(power)) * self.spread)


def paired_probe(differences: Image, *, false_alarms: float, seed: int = 0) -> Probed:
    """Ask whether the two of a pair can be told apart.

    If they can't, a difference is as likely as its negative, each pair for itself: so random signs give what chance would have
    given, whatever the features' own distribution. Scaling and covariance of the features don't know the signs.

    Parameters
    ----------
    differences : (pair, feature) array
        First minus second; each pair of another galaxy.
    false_alarms : float
        Share of data sets without any difference whose interval lies above 0.5.
    """
    used, kept = _scaled(differences, np.sqrt(_mean_square(differences)))
    n = len(used)
    weights = _solve(used, used)
    fold = np.arange(n) % FOLDS
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(_CHANGES, n))
    signs[0] = 1.0
    scores = np.empty((len(signs), n))
    for number in range(FOLDS):
        held = fold == number
        means = signs[:, ~held] @ used[~held]
        scores[:, held] = signs[:, held] * (means @ weights[held].T)
    areas = ((scores > 0) + 0.5 * (scores == 0)).mean(axis=1)
    spread = max(float(np.sqrt(((areas[1:] - 0.5) ** 2).mean())), 0.5 / np.sqrt(n))
    error = np.sqrt(_mean_square(used) / n)
    contrast = np.zeros(differences.shape[1])
    contrast[kept] = np.divide(used.mean(axis=0), error, out=np.zeros(len(error)), where=error > 0)
    return _probed(float(areas[0]), spread, n, contrast, false_alarms)


def unpaired_probe(
    first: Image, second: Image, *, false_alarms: float, seed: int = 0
) -> tuple[Probed, tuple[float, float]]:
    """Ask whether stamps of two sets, each of another galaxy, can be told apart.

    What chance gives is found by changing labels about; scaling and covariance of the features don't know the labels.

    Parameters
    ----------
    first, second : (stamp, feature) arrays
    false_alarms : float
        As in `paired_probe`.

    Returns
    -------
    Probed
        At chance or not.
    (low, high)
        95 % interval of the AUROC, wherever it is.
    """
    both = np.concatenate([first, second])
    middle = both - np.median(both, axis=0)
    used, kept = _scaled(middle, np.sqrt(_mean_square(np.clip(middle, *np.quantile(middle, [0.01, 0.99], axis=0)))))
    used = used - used.mean(axis=0)
    weights = _solve(used, used)
    is_first = np.arange(len(used)) < len(first)
    rng = np.random.default_rng(seed)
    fold = np.empty(len(used), np.int64)
    for kind in (is_first, ~is_first):  # Each fold has its share of both kinds.
        fold[kind] = rng.permutation(int(kind.sum())) % FOLDS
    labels = np.array([is_first, *(rng.permutation(is_first) for _ in range(_CHANGES - 1))])
    scores = np.empty(labels.shape)
    for number in range(FOLDS):
        held = fold == number
        firsts = labels[:, ~held].astype(float)
        n_first = firsts.sum(axis=1, keepdims=True)
        direction = firsts @ used[~held] / n_first - (1 - firsts) @ used[~held] / ((~held).sum() - n_first)
        scores[:, held] = direction @ weights[held].T
    areas = [area(*one) for one in zip(scores, labels, strict=True)]
    contrast = np.zeros(both.shape[1])
    error = np.sqrt(used[is_first].var(axis=0) / len(first) + used[~is_first].var(axis=0) / len(second))
    means = used[is_first].mean(axis=0) - used[~is_first].mean(axis=0)
    contrast[kept] = np.divide(means, error, out=np.zeros(len(error)), where=error > 0)
    probed = _probed(areas[0], float(np.std(areas[1:])), len(used), contrast, false_alarms)
    return probed, area_interval(scores[0], is_first)


def area(scores: Image, positive: Mask) -> float:
    """AUROC: chance that a positive outranks a negative, ties counting half (Mann & Whitney 1947)."""
    from scipy.stats import rankdata

    ranks = rankdata(scores)
    n = int(positive.sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(scores) - n)))


def area_interval(scores: Image, positive: Mask) -> tuple[float, float]:
    """95 % interval of an AUROC of independent rows, by the placements of DeLong et al. (1988, Biometrics 44, 837).

    Where every positive outranks every negative, the lower end is what as many disjoint pairs, all won, leave open.
    """
    from scipy.stats import rankdata

    n, m = int(positive.sum()), int((~positive).sum())
    ranks = rankdata(scores)
    above = (ranks[positive] - rankdata(scores[positive])) / m
    below = 1 - (ranks[~positive] - rankdata(scores[~positive])) / n
    value = float(above.mean())
    if value in (0.0, 1.0):
        open_end = float(0.025 ** (1 / min(n, m)))
        return (open_end, 1.0) if value else (0.0, 1 - open_end)
    half = 1.96 * np.sqrt(above.var(ddof=1) / n + below.var(ddof=1) / m)
    return max(0.0, value - float(half)), min(1.0, value + float(half))


def _probed(auroc: float, spread: float, n: int, contrast: Image, false_alarms: float) -> Probed:
    half_width = -float(ndtri(false_alarms)) * spread
    order = np.argsort(-np.abs(contrast), kind="stable").astype(np.int64)
    return Probed(auroc, half_width, spread, n, order, contrast)


def _mean_square(values: Image) -> Image:
    return np.asarray((values**2).mean(axis=0))


def _scaled(values: Image, unit: Image) -> tuple[Image, Mask]:
    """Features in their own unit, far values drawn in, and which are kept: those that vary at all."""
    kept = unit > 0
    return np.clip(values[:, kept] / unit[kept], -_CLIP, _CLIP), kept


def _solve(train: Image, rows: Image) -> Image:
    """Rows times the inverse of the features' covariance, a ridge added."""
    if not train.shape[1]:
        return rows
    covariance = train.T @ train / len(train)
    return np.asarray(np.linalg.solve(covariance + _RIDGE * np.eye(len(covariance)), rows.T).T)
