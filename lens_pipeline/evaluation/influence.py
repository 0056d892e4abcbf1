"""On how many clusters an area's spread rests, from how much each of them moves the area.

A gradient says by how much an area of the ROC, or of precision and recall, rises with the share of positives, and with that of
negatives, in each column: two arrays of shape (n_columns,), of tallies of one replicate.
"""

from collections.abc import Callable

import numpy as np

from lens_pipeline.evaluation.binning import GroupedCounts
from lens_pipeline.evaluation.tallies import Floats, Tallies

Gradient = Callable[[Tallies], tuple[Floats, Floats]]


def resting_on(influences: Floats) -> float:
    """Effective number of clusters that a spread rests on, (sum s^2)^2 / sum s^4 of their influences s; 0 where none moves it."""
    squares = influences**2
    fourth = float(np.sum(squares**2))
    return float(np.sum(squares)) ** 2 / fourth if fourth > 0 else 0.0


def influences_of(counts: GroupedCounts, gradient: Gradient) -> Floats:
    """First-order change of an area that each group of clusters makes, shape (n_groups,); their sum is 0.

    Of an AUROC these are sums of placement values less their mean (DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44, 837).
    """
    whole = counts.tallies(np.ones((1, len(counts.positives)), np.float32))
    total = np.zeros(len(counts.positives))
    of_classes = (counts.positives, whole.positives[0]), (counts.negatives, whole.negatives[0])
    for (of_groups, of_all), change in zip(of_classes, gradient(whole), strict=True):
        share = of_all / of_all.sum(dtype=np.float64)
        centred = (change - share @ change) / of_all.sum(dtype=np.float64)
        total += of_groups @ centred.astype(np.float32)
    return total


def auroc_gradient(tallies: Tallies) -> tuple[Floats, Floats]:
    """Of `tallies.auroc`: the share of the other class that a row beats, ties counting half."""
    return partial_auc_gradient(tallies, 1.0)


def partial_auc_gradient(tallies: Tallies, max_fpr: float) -> tuple[Floats, Floats]:
    """Of `tallies.partial_auc`; a negative also moves the rank at which the area ends."""
    t, f = _shares(tallies)
    t_before, f_before = np.cumsum(t) - t, np.cumsum(f) - f
    with np.errstate(invalid="ignore", divide="ignore"):
        within = np.where(f > 0, np.clip((max_fpr - f_before) / f, 0.0, 1.0), f_before < max_fpr)
    scale = 0.5 / (max_fpr - max_fpr**2 / 2)
    counted = within * f
    to_positives = np.sum(counted) - np.cumsum(counted) + 0.5 * within * counted
    to_negatives = within * (t_before + 0.5 * within * t - within @ t)
    return scale * to_positives, scale * to_negatives


def average_precision_gradient(tallies: Tallies, prevalence: float | None = None) -> tuple[Floats, Floats]:
    """Of `tallies.average_precision` at a prevalence; by default at the rows' own balance, which is held."""
    t, f = _shares(tallies)
    own = float(tallies.n_positives[0] / (tallies.n_positives[0] + tallies.n_negatives[0]))
    v = own if prevalence is None else prevalence
    found, through = np.cumsum(t), np.cumsum(f) * (1 - v) / v
    chosen = np.where(found + through > 0, found + through, 1.0)
    below = [np.cumsum((t * part / chosen**2)[::-1])[::-1] for part in (through, found)]
    return found / chosen + below[0], -(1 - v) / v * below[1]


def _shares(tallies: Tallies) -> tuple[Floats, Floats]:
    p, n = (one[0].astype(np.float64) for one in (tallies.positives, tallies.negatives))
    return p / p.sum(), n / n.sum()
