"""The few metrics that training itself needs, on logits in float64. Metrics for people are made in evaluation."""

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def score_of(logits: Float64) -> Float64:
    """Log-odds of not being of the first class (n,), from a head's logits (n, outputs).

    One output is that already; of k outputs it is logsumexp of the others minus the first.
    """
    if logits.shape[1] == 1:
        return logits[:, 0]
    score: Float64 = np.logaddexp.reduce(logits[:, 1:], axis=1) - logits[:, 0]
    return score


def negative_log_likelihood(logits: Float64, labels: Labels) -> float:
    """Mean negative log-likelihood of hard labels, not smoothed, not weighted."""
    if logits.shape[1] == 1:
        signed = np.where(labels == 1, -logits[:, 0], logits[:, 0])
        return float(np.mean(np.logaddexp(0.0, signed)))
    rows = np.arange(len(labels))
    return float(np.mean(np.logaddexp.reduce(logits, axis=1) - logits[rows, labels]))


def auroc(scores: Float64, positive: npt.NDArray[np.bool_]) -> float | None:
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
