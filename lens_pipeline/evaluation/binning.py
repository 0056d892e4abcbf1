"""Tie blocks put into few columns, so that a thousand replicates of ten million rows are a matrix product.

Where there are few blocks each is a column, and nothing is lost. Else the blocks of the highest negatives stay columns of their
own, so that low false-positive rates are exact; below, columns end at ranks of negatives that rise by a small factor and at
quantiles of positives, and between their ends the ROC is taken as straight. Values are never taken from columns, only their
spread over replicates.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lens_pipeline.evaluation.ranking import Counts, RankedScores
from lens_pipeline.evaluation.tallies import Flags, Tallies

EXACT_BLOCKS = 3000
MAX_GROUPS = 2048
_TOP_NEGATIVES, _NEGATIVE_RANKS, _POSITIVE_RANKS = 384, 1000, 1000
_HEAVY = 1 / 2000


@dataclass(frozen=True)
class Columns:
    """Column of each tie block, shape (n_blocks,), rising; which columns hold several blocks, shape (n_columns,)."""

    of_block: Counts
    divisible: Flags

    @classmethod
    def of(cls, ranked: RankedScores, exact_blocks: int = EXACT_BLOCKS) -> "Columns":
        """Choose columns; at most `exact_blocks` blocks are left as they are."""
        n = ranked.logits.size
        if n <= exact_blocks:
            return cls(np.arange(n), np.zeros(n, dtype=bool))
        negatives = np.bincount(ranked.negative_block, minlength=n)
        positives = np.bincount(ranked.positive_block, minlength=n)
        top = np.flatnonzero(negatives)[:_TOP_NEGATIVES]
        # A tie block that holds much of a class is never put together with others.
        heavy = np.flatnonzero((negatives > _HEAVY * ranked.n_negatives) | (positives > _HEAVY * ranked.n_positives))
        ranks = np.geomspace(_TOP_NEGATIVES, max(ranked.n_negatives, _TOP_NEGATIVES + 1), _NEGATIVE_RANKS)
        quantiles = np.linspace(0, ranked.n_positives, _POSITIVE_RANKS)
        starts = np.concatenate(
            [
                [0],
                *((alone, alone + 1) for alone in (top, heavy)),
                np.searchsorted(np.cumsum(negatives), ranks),
                np.searchsorted(np.cumsum(positives), quantiles),
            ],
            axis=None,
        )
        starts = np.unique(starts[starts < n])
        begins = np.zeros(n, dtype=np.int64)
        begins[starts] = 1
        return cls(np.cumsum(begins) - 1, np.diff(starts, append=n) > 1)


@dataclass(frozen=True)
class GroupedCounts:
    """Positives and negatives of each group of clusters and column, shape (n_groups, n_columns).

    A group is a cluster; where there are more than `MAX_GROUPS`, clusters are dealt at random into so many groups of nearly
    equal numbers, which leaves the variance of a bootstrap what it is (random groups: Wolter 2007, Introduction to Variance
    Estimation, ch. 2), known to a relative error of 1 / sqrt(2 MAX_GROUPS) = 1.6 % in the standard error.
    """

    positives: npt.NDArray[np.float32]
    negatives: npt.NDArray[np.float32]
    divisible: Flags

    @classmethod
    def of(
        cls,
        ranked: RankedScores,
        *,
        seed: int,
        columns: Columns | None = None,
        max_groups: int = MAX_GROUPS,
    ) -> "GroupedCounts":
        """Count rows, or sum their weights."""
        chosen = columns or Columns.of(ranked)
        group = groups_of(ranked.n_clusters, seed=seed, max_groups=max_groups)
        shape = (int(group.max()) + 1 if group.size else 0, chosen.divisible.size)

        def counted(cluster: Counts, block: Counts, weight: npt.ArrayLike | None) -> npt.NDArray[np.float32]:
            place = group[cluster] * shape[1] + chosen.of_block[block]
            return np.bincount(place, weight, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float32)

        return cls(
            counted(ranked.positive_cluster, ranked.positive_block, ranked.positive_weight),
            counted(ranked.negative_cluster, ranked.negative_block, ranked.negative_weight),
            chosen.divisible,
        )

    def tallies(self, drawn: npt.NDArray[np.float32]) -> Tallies:
        """Count replicates in which each group was drawn so often, shape (n_replicates, n_groups)."""
        return Tallies(drawn @ self.positives, drawn @ self.negatives, self.divisible)


def groups_of(n_clusters: int, *, seed: int, max_groups: int = MAX_GROUPS) -> Counts:
    """Group of each cluster, shape (n_clusters,): its own number, or one of `max_groups` dealt at random."""
    if n_clusters <= max_groups:
        return np.arange(n_clusters)
    return np.random.default_rng(seed).permutation(n_clusters) % max_groups
