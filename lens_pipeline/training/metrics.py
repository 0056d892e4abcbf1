"""The few metrics that training itself needs, on logits in float64. Metrics for people are made in evaluation."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
EXTREME_LOGIT = 16.64


@dataclass(frozen=True)
class Measured:
    """A figure over rows.

    Attributes
    ----------
    value : float
    standard_error : float or None
        Over rows taken as independent; None where a class, or the whole, has one row.
    """

    value: float
    standard_error: float | None


def score_of(logits: Float64) -> Float64:
    """Log-odds of not being of the first class (n,), from a head's logits (n, outputs).

    One output is that already; of k outputs it is logsumexp of the others minus the first.
    """
    if logits.shape[1] == 1:
        return logits[:, 0]
    score: Float64 = np.logaddexp.reduce(logits[:, 1:], axis=1) - logits[:, 0]
    return score


def log_losses(logits: Float64, labels: Labels) -> Float64:
    """Negative log-likelihood of each row's hard label (n,), nats, not smoothed, not weighted (Good 1952, JRSS B 14, 107)."""
    if logits.shape[1] == 1:
        signed = np.where(labels == 1, -logits[:, 0], logits[:, 0])
        return np.logaddexp(0.0, signed)
    rows = np.arange(len(labels))
    losses: Float64 = np.logaddexp.reduce(logits, axis=1) - logits[rows, labels]
    return losses


def mean_of(values: Float64) -> Measured:
    """Mean of independent values."""
    n = len(values)
    return Measured(float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else None)


def balanced_mean(values: Float64, labels: Labels) -> Measured:
    """Mean over classes of the mean of each, and its standard error; classes without rows don't count."""
    means = [mean_of(values[labels == label]) for label in np.unique(labels)]
    errors = [mean.standard_error for mean in means if mean.standard_error is not None]
    whole = len(errors) == len(means)
    return Measured(
        value=float(np.mean([mean.value for mean in means])),
        standard_error=float(np.linalg.norm(errors)) / len(means) if whole else None,
    )


def distinct_share(scores: Float64) -> float:
    """Distinct scores over rows: well under 1 where a model saturates or scores are stored too coarsely."""
    return len(np.unique(scores)) / len(scores)


def extreme_share(scores: Float64) -> float:
    """Share of rows whose score is beyond the logit from which on a float32 sigmoid is exactly 1."""
    return float(np.mean(np.abs(scores) > EXTREME_LOGIT))


def auroc(scores: Float64, positive: Flags) -> float | None:
    """Area under the ROC curve as the Mann-Whitney statistic, ties counted half; None where one class is absent."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return None
    # Equal scores share the mean of their ranks. Written out, because importing scipy.stats costs every rank 1.4 seconds.
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    shared_rank = np.cumsum(count) - (count - 1) / 2
    rank_sum = float(shared_rank[place[positive]].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def partial_area(scores: Float64, positive: Flags, max_fpr: float) -> Measured | None:
    """Area under the ROC curve up to a false-positive rate, standardised (McClish 1989); None where a class is absent.

    The value is scikit-learn's `roc_auc_score(max_fpr=...)`: between points the curve is straight. With `max_fpr` 1 it is
    the whole area. The standard error is that of the sums over positives and negatives to which the area is linear in
    first order (DeLong et al. 1988; for a part of the curve Dodd & Pepe 2003).
    """
    whole = auroc(scores, positive)
    if whole is None:
        return None
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    _, block = np.unique(-scores, return_inverse=True)
    positives = np.bincount(block[positive], minlength=int(block.max()) + 1)
    negatives = np.bincount(block[~positive], minlength=len(positives))
    tpr = np.concatenate([[0.0], np.cumsum(positives) / n_positive])
    fpr = np.concatenate([[0.0], np.cumsum(negatives) / n_negative])
    end = int(np.searchsorted(fpr, max_fpr, side="right"))
    x = np.concatenate([fpr[:end], [max_fpr]])
    y = np.concatenate([tpr[:end], [np.interp(max_fpr, fpr, tpr)]])
    area = float(np.trapezoid(y, x))
    chance = max_fpr**2 / 2
    scale = 0.5 / (max_fpr - chance)

    middle_fpr, middle_tpr = (fpr[1:] + fpr[:-1]) / 2, (tpr[1:] + tpr[:-1]) / 2
    of_positives = np.maximum(max_fpr - middle_fpr[block[positive]], 0.0)
    of_negatives = np.where(middle_fpr <= max_fpr, middle_tpr - y[-1], 0.0)[block[~positive]]
    errors = [found for part in (of_positives, of_negatives) if (found := mean_of(part).standard_error) is not None]
    return Measured(
        value=0.5 + scale * (area - chance) if max_fpr < 1 else whole,
        standard_error=scale * float(np.linalg.norm(errors)) if len(errors) == 2 else None,
    )
