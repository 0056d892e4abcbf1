"""Rank statistics of positives and negatives counted by tie block: areas and rates of the ROC and of precision and recall.

The same functions serve the estimate (each row once, each tie block a column) and the bootstrap (rows as often as their cluster
was drawn, many tie blocks to a column), so that the two can't disagree. All are fractions from 0 to 1 without a unit, and NaN
where a class is empty.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Tallies:
    """Positives and negatives of each column, highest logit first; one row of numbers a replicate.

    Attributes
    ----------
    positives, negatives : array of float, shape (n_replicates, n_columns)
        Rows, or sums of their weights.
    divisible : array of bool, shape (n_columns,), optional
        Columns that hold several tie blocks: between their ends the ROC is taken as straight. By default none does.
    """

    positives: npt.NDArray[np.floating]
    negatives: npt.NDArray[np.floating]
    divisible: Flags | None = None

    @cached_property
    def recovered(self) -> Floats:
        """Positives in each column or a higher one."""
        return np.cumsum(self.positives, axis=-1, dtype=np.float64)

    @cached_property
    def let_through(self) -> Floats:
        """Negatives in each column or a higher one."""
        return np.cumsum(self.negatives, axis=-1, dtype=np.float64)

    @property
    def n_positives(self) -> Floats:
        """All positives, shape (n_replicates,)."""
        return self.recovered[..., -1] if self.positives.shape[-1] else np.zeros(self.positives.shape[:-1])

    @property
    def n_negatives(self) -> Floats:
        """All negatives, shape (n_replicates,)."""
        return self.let_through[..., -1] if self.negatives.shape[-1] else np.zeros(self.negatives.shape[:-1])


def auroc(tallies: Tallies) -> Floats:
    """Area under the ROC: the chance that a positive outranks a negative, ties counting half (Mann & Whitney 1947).

    Sum over blocks of n_b (P_{<b} + p_b / 2) over (P N), for p_b positives and n_b negatives in block b and P_{<b} positives
    above it. 0.5 is chance. Undefined where a class is empty.
    """
    above = tallies.recovered - 0.5 * tallies.positives
    wins = np.einsum("...b,...b->...", above, tallies.negatives)
    return _over(wins, tallies.n_positives * tallies.n_negatives)


def partial_auc(tallies: Tallies, max_fpr: float) -> Floats:
    """Area under the ROC for FPR <= max_fpr, standardised to 0.5 at chance and 1 at best (McClish 1989, Med. Decis. Making 9).

    0.5 (1 + (A - f^2 / 2) / (f - f^2 / 2)) with f = `max_fpr` and A the area from 0 to f, the curve straight between points, as
    in scikit-learn's `roc_auc_score(max_fpr=...)`. Undefined where a class is empty.
    """
    p, n, total = tallies.positives, tallies.negatives, tallies.n_negatives[..., None]
    with np.errstate(invalid="ignore", divide="ignore"):
        within = np.clip((max_fpr * total - (tallies.let_through - n)) / n, 0.0, 1.0)
    within = np.where(n > 0, within, 0.0)
    rows = np.einsum("...b,...b->...", within * n, tallies.recovered - p + 0.5 * within * p)
    area = _over(rows, tallies.n_positives * tallies.n_negatives)
    chance = max_fpr**2 / 2
    return np.asarray(0.5 * (1 + (area - chance) / (max_fpr - chance)), dtype=np.float64)


def average_precision(tallies: Tallies, prevalence: float | None = None) -> Floats:
    """Sum over blocks of (recall gained) x precision, with no interpolation (Boyd, Eng & Page 2013, ECML PKDD; as scikit-learn).

    Precision is TP / (TP + r FP); r = 1 at the rows' own balance, and (1 - v) / v x P / N at a prevalence v, which weighs
    negatives as a sample with a share v of positives would hold them. A random ranking has the prevalence. Undefined where a
    class is empty.
    """
    p, recovered = tallies.positives, tallies.recovered
    ratio: Floats | float = 1.0
    with np.errstate(invalid="ignore", divide="ignore"):
        if prevalence is not None:
            ratio = ((1 - prevalence) / prevalence * tallies.n_positives / tallies.n_negatives)[..., None]
        precision = np.where(p > 0, recovered / (recovered + ratio * tallies.let_through), 0.0)
    total = _over(np.einsum("...b,...b->...", p, precision), tallies.n_positives)
    return np.where(tallies.n_negatives > 0, total, np.nan)


def tpr_at_fpr(tallies: Tallies, fpr: float) -> Floats:
    """Largest TPR of a threshold whose FPR is at most `fpr`, 0 to 1, on the rows' own ROC (Fawcett 2006, PRL 27, 861).

    Whether the negatives can resolve that rate is not asked here: see `resolution.resolve`. Undefined where a class is empty.
    """
    allowed = fpr * tallies.n_negatives * (1 + _ROUNDING)
    found = _crossing(tallies.let_through, allowed, tallies.recovered, tallies.divisible, include_equal=True)
    return np.where(tallies.n_negatives > 0, _over(found, tallies.n_positives), np.nan)


def tpr_at_one_fewer(tallies: Tallies, fpr: float) -> Floats:
    """TPR of the threshold that lets one negative fewer through than that of `tpr_at_fpr`, for the lower end of its interval.

    A threshold that lets k of n negatives through is the (k + 1)-th highest of them, whose own rate is (k + 1) / (n + 1) on
    average, and that of the k-th highest k / (n + 1) (Wilks 1941, Ann. Math. Stat. 12, 91): few negatives flatter a TPR.
    """
    allowed = fpr * tallies.n_negatives * (1 + _ROUNDING)
    through = _crossing(tallies.let_through, allowed, tallies.let_through, tallies.divisible, include_equal=True)
    found = _crossing(tallies.let_through, through - 1, tallies.recovered, tallies.divisible, include_equal=True)
    return np.where(tallies.n_negatives > 0, _over(found, tallies.n_positives), np.nan)


def fpr_at_tpr(tallies: Tallies, tpr: float) -> Floats:
    """Smallest FPR of a threshold whose TPR is at least `tpr`, 0 to 1, on the rows' own ROC (Fawcett 2006, as `tpr_at_fpr`).

    Undefined where a class is empty.
    """
    needed = tpr * tallies.n_positives * (1 - _ROUNDING)
    found = _crossing(tallies.recovered, needed, tallies.let_through, tallies.divisible, include_equal=False)
    return np.where(tallies.n_positives > 0, _over(found, tallies.n_negatives), np.nan)


def tpr_before(tallies: Tallies, n_false_positives: int) -> Floats:
    """Largest TPR of a threshold with fewer false positives than so many: TPR0 for 1, TPR10 for 10.

    Metcalf et al. 2019 (A&A 625, A119). It falls as negatives become more, so it is told together with their number.
    Undefined where a class is empty.
    """
    most = np.full(tallies.n_negatives.shape, n_false_positives - 0.5)
    found = _crossing(tallies.let_through, most, tallies.recovered, None, include_equal=True)
    return np.where(tallies.n_negatives > 0, _over(found, tallies.n_positives), np.nan)


def _crossing(x: Floats, limit: Floats, y: Floats, divisible: Flags | None, *, include_equal: bool) -> Floats:
    """Value of y where x, both rising, comes to `limit`: at the last column at or under it, else at the first not under it.

    Within a column that is divisible, y is taken as straight between the column's ends.
    """
    if not x.shape[-1]:
        return np.zeros(limit.shape)
    beyond = limit[..., None]
    passed = ((x <= beyond) if include_equal else (x < beyond)).sum(axis=-1)
    at = np.minimum(passed, x.shape[-1] - 1)[..., None]
    before = np.where(passed > 0, np.take_along_axis(y, np.maximum(at - 1, 0), -1)[..., 0], 0.0)
    whole = np.take_along_axis(y, at, -1)[..., 0]
    over = passed >= x.shape[-1]
    found = np.where(over, y[..., -1], before if include_equal else whole)
    if divisible is None:
        return found
    x_before = np.where(passed > 0, np.take_along_axis(x, np.maximum(at - 1, 0), -1)[..., 0], 0.0)
    x_whole = np.take_along_axis(x, at, -1)[..., 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.clip((limit - x_before) / (x_whole - x_before), 0.0, 1.0)
    return np.where(divisible[at[..., 0]] & ~over, before + share * (whole - before), found)


def _over(value: Floats, total: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(total > 0, value / total, np.nan), dtype=np.float64)
