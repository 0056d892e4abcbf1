"""Scores reduced to tie blocks, and their ROC. What is computed of them: see `tallies`.

Rows with the same logit are one block that no threshold can divide. A threshold *recovers* what lies strictly above it.
Ranks are those of float64 logits; probabilities tie where logits don't.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lens_pipeline.contracts.errors import EvaluationError, first_few
from lens_pipeline.evaluation.tallies import Floats, Tallies

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
    positive_weight, negative_weight : array of float64, same shapes, optional
        By default each row weighs 1.
    """

    logits: Floats
    positive_block: Counts
    negative_block: Counts
    positive_cluster: Counts
    negative_cluster: Counts
    n_clusters: int
    positive_weight: Floats | None = None
    negative_weight: Floats | None = None

    @classmethod
    def of(
        cls,
        logits: npt.ArrayLike,
        positive: npt.ArrayLike,
        clusters: npt.ArrayLike,
        weights: npt.ArrayLike | None = None,
    ) -> "RankedScores":
        """Rank rows.

        Parameters
        ----------
        logits : array of float, shape (n,)
        positive : array of bool, shape (n,)
        clusters : array, shape (n,)
            Galaxy of each row.
        weights : array of float, shape (n,), optional

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
        cluster, n_clusters = numbered(clusters)
        weight = None if weights is None else np.asarray(weights, dtype=np.float64)
        return cls(
            logits=-negated,
            positive_block=block[is_positive],
            negative_block=block[~is_positive],
            positive_cluster=cluster[is_positive],
            negative_cluster=cluster[~is_positive],
            n_clusters=n_clusters,
            positive_weight=None if weight is None else weight[is_positive],
            negative_weight=None if weight is None else weight[~is_positive],
        )

    def regrouped(self, positive: npt.ArrayLike, clusters: npt.ArrayLike) -> "RankedScores":
        """Return the same ranks with other clusters, e.g. regions; `positive` as given to `of`."""
        is_positive = np.asarray(positive, dtype=bool)
        cluster, n_clusters = numbered(clusters)
        return replace(
            self, positive_cluster=cluster[is_positive], negative_cluster=cluster[~is_positive], n_clusters=n_clusters
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
    def tallies(self) -> Tallies:
        """Each row once, or as it weighs, each tie block a column; one replicate."""
        n = self.logits.size
        positives = np.bincount(self.positive_block, self.positive_weight, minlength=n)
        negatives = np.bincount(self.negative_block, self.negative_weight, minlength=n)
        return Tallies(positives[None].astype(np.float64), negatives[None].astype(np.float64))

    @property
    def fewest_clusters(self) -> int:
        """Clusters of the class that has fewer."""
        counted = (np.bincount(cluster, minlength=1) for cluster in (self.positive_cluster, self.negative_cluster))
        return min(int(np.count_nonzero(of_cluster)) for of_cluster in counted)

    def negative_clusters_above(self) -> Counts:
        """Distinct galaxies with a negative in this block or a higher one, shape (n_blocks,)."""
        first = np.full(self.n_clusters, self.logits.size, dtype=np.int64)
        np.minimum.at(first, self.negative_cluster, self.negative_block)
        return np.cumsum(np.bincount(first, minlength=self.logits.size + 1)[: self.logits.size])


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
    """Every point of the ROC, none dropped; rows count once each, whatever they weigh.

    Raises
    ------
    EvaluationError
        If a class is empty.
    """
    if not ranked.n_positives or not ranked.n_negatives:
        raise EvaluationError(f"a ROC needs both classes: {missing_class(ranked.n_positives, ranked.n_negatives)}")
    negatives = np.cumsum(np.bincount(ranked.negative_block, minlength=ranked.logits.size))
    positives = np.cumsum(np.bincount(ranked.positive_block, minlength=ranked.logits.size))
    false_positives = np.concatenate([[0], negatives]).astype(np.int64)
    true_positives = np.concatenate([[0.0], positives])
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


def numbered(clusters: npt.ArrayLike) -> tuple[Counts, int]:
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
