"""Whether scores still rank: distinct values, tie blocks and mass at the extremes of one set of scores.

A sigmoid in bfloat16 is exactly 1 from logit 6.24 on, one in float32 from 16.64: what ties there no threshold divides, though
the logits may rank well.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lens_pipeline.evaluation.ranking import RankedScores
from lens_pipeline.evaluation.tallies import Floats, auroc, fpr_at_tpr, tpr_at_fpr

FLOAT32_SIGMOID_IS_ONE = 16.64


@dataclass(frozen=True)
class ScoreHealth:
    """What one set of scores looks like.

    Attributes
    ----------
    n_positives, n_negatives : int
        Rows of each class.
    distinct_share : float
        Distinct scores over rows.
    largest_tie_share : float
        Share of rows in the largest tie block.
    top_positives, top_negatives : int
        Rows of each class that tie at the highest score.
    extreme_share : float
        Share of rows at 0 or 1 of probabilities, or beyond logit 16.64 on either side.
    are_probabilities : bool
        Whether all scores lie within 0 and 1, where logits would not.
    """

    n_positives: int
    n_negatives: int
    distinct_share: float
    largest_tie_share: float
    top_positives: int
    top_negatives: int
    extreme_share: float
    are_probabilities: bool

    @property
    def top_negative_share(self) -> float | None:
        """Share of negatives that tie at the highest score; None without negatives. No rate below it has a threshold."""
        return self.top_negatives / self.n_negatives if self.n_negatives else None


def score_health(scores: npt.ArrayLike, is_lens: npt.ArrayLike) -> ScoreHealth:
    """Count ties and extremes of scores, logits or probabilities.

    Raises
    ------
    EvaluationError
        If a score is not finite.
    """
    values, positive = np.asarray(scores, dtype=np.float64), np.asarray(is_lens, dtype=bool)
    ranked = RankedScores.of(values, positive, np.zeros(values.size, dtype=np.int64))
    tallies = ranked.tallies
    blocks = tallies.positives[0] + tallies.negatives[0]
    are_probabilities = bool(values.size and values.min() >= 0 and values.max() <= 1)
    extreme = (values <= 0) | (values >= 1) if are_probabilities else np.abs(values) > FLOAT32_SIGMOID_IS_ONE
    return ScoreHealth(
        n_positives=ranked.n_positives,
        n_negatives=ranked.n_negatives,
        distinct_share=blocks.size / values.size if values.size else 1.0,
        largest_tie_share=float(blocks.max() / values.size) if values.size else 0.0,
        top_positives=int(tallies.positives[0, 0]) if values.size else 0,
        top_negatives=int(tallies.negatives[0, 0]) if values.size else 0,
        extreme_share=float(extreme.mean()) if values.size else 0.0,
        are_probabilities=are_probabilities,
    )


def ranking_of(scores: npt.ArrayLike, is_lens: npt.ArrayLike, fprs: Floats, tprs: Floats) -> dict[str, Floats]:
    """Return `auroc`, shape (1,), TPR at each FPR as `tpr`, 0 where a tie block leaps over it, and FPR at each TPR as `fpr`."""
    values = np.asarray(scores, dtype=np.float64)
    tallies = RankedScores.of(values, is_lens, np.zeros(values.size, dtype=np.int64)).tallies
    return {
        "auroc": auroc(tallies),
        "tpr": np.concatenate([tpr_at_fpr(tallies, float(fpr)) for fpr in fprs]),
        "fpr": np.concatenate([fpr_at_tpr(tallies, float(tpr)) for tpr in tprs]),
    }
