"""The training loss of each row: binary or k-class cross-entropy with smoothed labels and class weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from lens_pipeline.training.config import ClassWeighting


def class_weights(counts: Sequence[int], weighting: ClassWeighting) -> tuple[float, ...]:
    """Weight of each class from its count in the training split.

    Balanced: n / (k n_c), so that classes weigh alike and the mean weight of a training row is 1.
    """
    if weighting is ClassWeighting.none:
        return tuple(1.0 for _ in counts)
    return tuple(sum(counts) / (len(counts) * count) for count in counts)


@dataclass(frozen=True)
class RowLoss:
    """Loss of each row.

    Attributes
    ----------
    weights : tuple of float
        One a class.
    smoothing : float
        Share of a label that is spread evenly over all classes (Szegedy et al. 2016).
    """

    weights: tuple[float, ...]
    smoothing: float

    def __call__(self, logits_BO: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
        """Return the weighted loss of each row (B,), float32; the caller sums and divides.

        Parameters
        ----------
        logits_BO : torch.Tensor
            (row, output): one output for two classes, else one a class.
        labels_B : torch.Tensor
            int64 places of the classes.
        """
        logits_BO = logits_BO.float()
        weights_B = torch.tensor(self.weights, device=logits_BO.device)[labels_B]
        if logits_BO.shape[1] == 1:
            targets_B = labels_B.float() * (1 - self.smoothing) + self.smoothing / 2
            loss_B = functional.binary_cross_entropy_with_logits(logits_BO[:, 0], targets_B, reduction="none")
        else:
            loss_B = functional.cross_entropy(logits_BO, labels_B, reduction="none", label_smoothing=self.smoothing)
        return loss_B * weights_B
