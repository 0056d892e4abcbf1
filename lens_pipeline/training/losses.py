"""The training loss of each row: cross-entropy or focal, binary or of k classes, with smoothed labels and weights."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional

from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.training.choices import LossName
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.weights import Strata, class_weights, refuse_focal_alpha, stratum_weights


@dataclass(frozen=True)
class RowLoss:
    """Loss of each row. `describe` says all of it: what is logged is what is used.

    Attributes
    ----------
    class_weights : tuple of float
        One a class.
    smoothing : float
        Share of a label that is spread evenly over all classes (Szegedy et al. 2016); cross-entropy alone.
    name : LossName
        cross_entropy, or focal (Lin et al. 2017): -alpha_t (1 - p_t)^gamma log p_t.
    gamma, alpha : float or None
        Of the focal loss; alpha is the weight of the second of two classes, the first has 1 - alpha.
    stratum_weights : mapping
        Weight of a stratum within its class; the caller gives it with each row.
    class_counts, stratum_counts : tuple of int, mapping
        What the weights were computed from.
    """

    class_weights: tuple[float, ...]
    smoothing: float = 0.0
    name: LossName = LossName.cross_entropy
    gamma: float | None = None
    alpha: float | None = None
    stratum_weights: Mapping[str, float] = field(default_factory=dict)
    class_counts: tuple[int, ...] = ()
    stratum_counts: Mapping[str, int] = field(default_factory=dict)
    _there: dict[torch.device, torch.Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def accepts_soft(self) -> bool:
        """Whether targets may be shares of classes: the focal loss is defined for hard labels."""
        return self.name is LossName.cross_entropy

    @property
    def weights(self) -> tuple[float, ...]:
        """Weight of each class with everything in it."""
        if self.alpha is None:
            return self.class_weights
        return tuple(
            weight * share for weight, share in zip(self.class_weights, (1 - self.alpha, self.alpha), strict=True)
        )

    def __call__(
        self, logits_BO: torch.Tensor, targets: torch.Tensor, rows_weight_B: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the weighted loss of each row (B,), float32; the caller sums and divides.

        Parameters
        ----------
        logits_BO : torch.Tensor
            (row, output): one output for two classes, else one a class.
        targets : torch.Tensor
            int64 (row,) places of the classes; or, where soft ones are accepted, float (row, class) shares that sum to 1.
        rows_weight_B : torch.Tensor, optional
            Of the rows' strata.

        Raises
        ------
        TrainingError
            If soft targets come to a loss that is defined for hard ones.
        """
        logits_BO = logits_BO.float()
        soft = targets.is_floating_point()
        if soft and not self.accepts_soft:
            raise TrainingError(f"loss {self.name.value} takes hard labels, and was given shares of classes.")
        class_weights_K = self._weights_on(logits_BO.device)
        weights_B = targets.float() @ class_weights_K if soft else class_weights_K[targets]
        gamma = self.gamma
        loss_B = self._cross_entropy(logits_BO, targets) if gamma is None else _focal(logits_BO, targets, gamma)
        return loss_B * weights_B if rows_weight_B is None else loss_B * weights_B * rows_weight_B

    def describe(self) -> dict[str, Any]:
        """Return the loss in words and numbers, JSON-able; `from_description` gives the same loss again.

        ``class_shares`` is each class's share of the whole weight of the training rows; ``sha256`` that of the rest.
        """
        mass = [weight * count for weight, count in zip(self.weights, self.class_counts, strict=False)]
        described = {
            "name": self.name.value,
            "gamma": self.gamma,
            "alpha": self.alpha,
            "smoothing": self.smoothing,
            "class_weights": list(self.class_weights),
            "class_counts": list(self.class_counts),
            "class_shares": [one / sum(mass) for one in mass],
            "stratum_weights": dict(self.stratum_weights),
            "stratum_counts": dict(self.stratum_counts),
        }
        return {**described, "sha256": _sha256(described)}

    @classmethod
    def from_description(cls, described: Mapping[str, Any]) -> "RowLoss":
        """Build the loss that a description is of.

        Raises
        ------
        TrainingError
            If the description was changed after it was made.
        """
        rest = {name: value for name, value in described.items() if name != "sha256"}
        if _sha256(rest) != described.get("sha256"):
            raise TrainingError("the description of the loss was changed after it was made: its SHA-256 doesn't agree.")
        return cls(
            class_weights=tuple(rest["class_weights"]),
            smoothing=rest["smoothing"],
            name=LossName(rest["name"]),
            gamma=rest["gamma"],
            alpha=rest["alpha"],
            stratum_weights=rest["stratum_weights"],
            class_counts=tuple(rest["class_counts"]),
            stratum_counts=rest["stratum_counts"],
        )

    def _weights_on(self, device: torch.device) -> torch.Tensor:
        # Copied once: a copy in each step would make the step wait for the device.
        if device not in self._there:
            self._there[device] = torch.tensor(self.weights, device=device)
        return self._there[device]

    def _cross_entropy(self, logits_BO: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if logits_BO.shape[1] > 1:
            return functional.cross_entropy(logits_BO, targets, reduction="none", label_smoothing=self.smoothing)
        labels_B = targets[:, 1] if targets.is_floating_point() else targets.float()
        smooth_B = labels_B * (1 - self.smoothing) + self.smoothing / 2
        return functional.binary_cross_entropy_with_logits(logits_BO[:, 0], smooth_B, reduction="none")


def build_loss(config: TrainingConfig, class_counts: Sequence[int], strata: Strata | None = None) -> RowLoss:
    """Return the loss of a run.

    Parameters
    ----------
    class_counts : sequence of int
        Training rows of each class.
    strata : Strata, optional
        Needed where strata are weighted.

    Raises
    ------
    TrainingError
        If the weights that are asked for can't be made of these rows.
    """
    refuse_focal_alpha(config, class_counts)
    weights = stratum_weights(strata, config.stratum_weighting) if strata is not None else {}
    counted = dict(zip(strata.names, strata.counts, strict=True)) if strata is not None else {}
    return RowLoss(
        class_weights=class_weights(class_counts, config.class_weighting),
        smoothing=config.label_smoothing,
        name=config.loss,
        gamma=config.focal_gamma,
        alpha=config.focal_alpha,
        stratum_weights=weights,
        class_counts=tuple(class_counts),
        stratum_counts={name: counted[name] for name in weights},
    )


def _focal(logits_BO: torch.Tensor, labels_B: torch.Tensor, gamma: float) -> torch.Tensor:
    if logits_BO.shape[1] > 1:
        log_p_B = logits_BO.log_softmax(dim=1).gather(1, labels_B[:, None])[:, 0]
        # 1 - exp(log p) loses every digit where p is near 1.
        missed_B = -torch.expm1(log_p_B)
    else:
        signed_B = torch.where(labels_B == 1, logits_BO[:, 0], -logits_BO[:, 0])
        log_p_B, missed_B = functional.logsigmoid(signed_B), torch.sigmoid(-signed_B)
    return -(missed_B**gamma) * log_p_B


def _sha256(described: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
