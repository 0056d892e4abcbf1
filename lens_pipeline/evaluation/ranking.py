"""Scores reduced to tie blocks: ROC, AUROC, average precision and TPR at an FPR, for one count a cluster or for many.

Rows with the same logit are one block that no threshold can divide. A threshold *recovers* what lies strictly above it.
The same functions serve the estimate (every galaxy counted once) and the bootstrap (galaxies counted as drawn), so
that the two can't disagree. Ranks are those of float64 logits; probabilities tie where logits don't.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import sparse

from lens_pipeline.contracts.errors import EvaluationError, first_few

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RankedScores:
    """Positives and negatives of each tie block, highest logit first.

    Attributes
    ----------
    logits : array of float64, shape (n_blocks,)
        Distinct logits, falling.
    positive_block, negative_block : array of int64, shape (n_positives,), (n_negatives,)
        Block of each row.
    positive_cluster, negative_cluster : array of int64, same shapes
        Galaxy of each row, numbered from 0.
    n_clusters : int
    """

    logits: Floats
    positive_block: Counts
    negative_block: Counts
    positive_cluster: Counts
    negative_cluster: Counts
    n_clusters: int

    @classmethod
    def of(cls, logits: npt.ArrayLike, positive: npt.ArrayLike, clusters: npt.ArrayLike) -> "RankedScores":
        """Rank rows.

        Parameters
        ----------
        logits : array of float, shape (n,)
        positive : array of bool, shape (n,)
        clusters : array, shape (n,)
            Galaxy of each row.

        Raises
        ------
        EvaluationError
            If a logit is not finite.
        """
        scores = np.asarray(logits, dtype=np.float64)
        is_positive = np.asarray(positive, dtype=bool)
        if not np.all(np.isfinite(scores)):
            bad = np.flatnonzero(~np.isfinite(scores))
            raise EvaluationError(
                f"{bad.size:,} of {scores.size:,} scores are not finite (rows {first_few(bad.tolist())}), so they have no "
                "rank. Find out why the model gives them; materialize scores again."
            )
        negated, block = np.unique(-scores, return_inverse=True)
        _, cluster = np.unique(np.asarray(clusters), return_inverse=True)
        return cls(
            logits=-negated,
            positive_block=block[is_positive],
            negative_block=block[~is_positive],
            positive_cluster=cluster[is_positive],
            negative_cluster=cluster[~is_positive],
            n_clusters=int(cluster.max()) + 1 if cluster.size else 0,
        )

    @property
    def n_positives(self) -> int:
        """Rows with a lens."""
        return int(self.positive_block.size)

    @property
    def n_negatives(self) -> int:
        """Rows without one."""
        return int(self.negative_block.size)

    @cached_property
    def positives(self) -> Floats:
        """Positives of each block, shape (1, n_blocks)."""
        return np.bincount(self.positive_block, minlength=self.logits.size)[None].astype(np.float64)

    @cached_property
    def negatives(self) -> Floats:
        """Negatives of each block, shape (1, n_blocks)."""
        return np.bincount(self.negative_block, minlength=self.logits.size)[None].astype(np.float64)

    @cached_property
    def positives_of_cluster(self) -> sparse.csr_array:
        """Positives of each cluster and block, sparse, shape (n_clusters, n_blocks)."""
        return self._by_cluster(self.positive_cluster, self.positive_block)

    @cached_property
    def negatives_of_cluster(self) -> sparse.csr_array:
        """Negatives of each cluster and block, sparse, shape (n_clusters, n_blocks)."""
        return self._by_cluster(self.negative_cluster, self.negative_block)

    def negative_clusters_above(self) -> Counts:
        """Distinct galaxies with a negative in this block or a higher one, shape (n_blocks,)."""
        first = np.full(self.n_clusters, self.logits.size, dtype=np.int64)
        np.minimum.at(first, self.negative_cluster, self.negative_block)
        return np.cumsum(np.bincount(first, minlength=self.logits.size + 1)[: self.logits.size])

    def _by_cluster(self, cluster: Counts, block: Counts) -> sparse.csr_array:
        ones = np.ones(block.size)
        return sparse.coo_array((ones, (cluster, block)), shape=(self.n_clusters, self.logits.size)).tocsr()


@dataclass(frozen=True)
class RocCurve:
    """One point a threshold that recovers everything *at or above* a distinct logit, after the point (0, 0).

    Attributes
    ----------
    fpr, tpr : array of float64, shape (n_blocks + 1,)
    false_positives : array of int64, shape (n_blocks + 1,)
    false_positive_galaxies : array of int64, shape (n_blocks + 1,)
        Galaxies that the false positives come from.
    lowest_recovered : array of float64, shape (n_blocks + 1,)
        Lowest logit that is recovered; infinite at the first point.
    """

    fpr: Floats
    tpr: Floats
    false_positives: Counts
    false_positive_galaxies: Counts
    lowest_recovered: Floats


def roc_curve(ranked: RankedScores) -> RocCurve:
    """Every point of the ROC, none dropped.

    Raises
    ------
    EvaluationError
        If a class is empty.
    """
    if not ranked.n_positives or not ranked.n_negatives:
        raise EvaluationError(f"a ROC needs both classes: {missing_class(ranked.n_positives, ranked.n_negatives)}")
    false_positives = np.concatenate([[0], np.cumsum(ranked.negatives[0])]).astype(np.int64)
    true_positives = np.concatenate([[0.0], np.cumsum(ranked.positives[0])])
    return RocCurve(
        fpr=false_positives / ranked.n_negatives,
        tpr=true_positives / ranked.n_positives,
        false_positives=false_positives,
        false_positive_galaxies=np.concatenate([[0], ranked.negative_clusters_above()]).astype(np.int64),
        lowest_recovered=np.concatenate([[np.inf], ranked.logits]),
    )


def missing_class(n_positives: int, n_negatives: int) -> str | None:
    """Say which class has no rows; None if both have some."""
    if not n_positives and not n_negatives:
        return "there are neither injections nor controls"
    if not n_positives:
        return f"there is no injection among {n_negatives:,} rows"
    if not n_negatives:
        return f"there is no control among {n_positives:,} rows"
    return None


def auroc(positives: Floats, negatives: Floats) -> Floats:
    """Chance that a positive outranks a negative, ties counting half (Mann & Whitney 1947).

    Parameters
    ----------
    positives, negatives : array of float64, shape (..., n_blocks)
        Rows of each tie block, highest logit first.

    Returns
    -------
    array of float64, shape (...,)
        NaN where a class is empty.
    """
    above = np.cumsum(positives, axis=-1) - 0.5 * positives
    wins = np.einsum("...b,...b->...", above, negatives)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(wins / (positives.sum(axis=-1) * negatives.sum(axis=-1)), dtype=np.float64)


def average_precision(positives: Floats, negatives: Floats) -> Floats:
    """Sum over tie blocks of (recall gained) x precision, with no interpolation; shapes as in `auroc`."""
    recovered = np.cumsum(positives, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(positives > 0, recovered / (recovered + np.cumsum(negatives, axis=-1)), 0.0)
        total = np.einsum("...b,...b->...", positives, precision) / positives.sum(axis=-1)
    return np.where(negatives.sum(axis=-1) > 0, total, np.nan)


def tpr_at_fpr(positives: Floats, negatives: Floats, fpr: float) -> Floats:
    """Largest TPR of a threshold whose FPR is at most `fpr`; shapes as in `auroc`.

    Whether the negatives can resolve that rate is not asked here: see `resolution.resolve`.
    """
    total = negatives.sum(axis=-1, keepdims=True)
    allowed = np.cumsum(negatives, axis=-1) <= fpr * total * (1 + 1e-12)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.where(allowed, positives, 0.0).sum(axis=-1) / positives.sum(axis=-1)
    return np.where(total[..., 0] > 0, value, np.nan)
