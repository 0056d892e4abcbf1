"""Validation after an epoch: every row of val_select exactly once, unaugmented, gathered by logical number."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import nn

from lens_pipeline.batches.loader import Loader
from lens_pipeline.batches.preprocessing import Preprocessing
from lens_pipeline.contracts.errors import TrainingError, first_few
from lens_pipeline.storage.parquet import write_parquet
from lens_pipeline.training.choices import Monitor
from lens_pipeline.training.forward import evaluate_logits
from lens_pipeline.training.metrics import (
    Float64,
    Labels,
    Measured,
    balanced_mean,
    distinct_share,
    extreme_share,
    log_losses,
    mean_of,
    partial_area,
    score_of,
)
from lens_pipeline.training.world import World


@dataclass(frozen=True)
class Validation:
    """What validation found, on every row of val_select.

    Attributes
    ----------
    logits : float32 (n, output)
        In the order of the rows that were asked for.
    loss, balanced_loss : Measured
        Mean negative log-likelihood, neither smoothed nor weighted: over rows, and over the means of classes.
    auroc, partial_auc : Measured or None
        Any class but the first against the first: whole, and up to a false-positive rate; None where one side is absent.
    distinct_logit_share, extreme_logit_share : float
        Distinct scores over rows, and rows whose score a float32 sigmoid can't hold.
    """

    logits: npt.NDArray[np.float32]
    loss: Measured
    balanced_loss: Measured
    auroc: Measured | None
    partial_auc: Measured | None
    distinct_logit_share: float
    extreme_logit_share: float

    @classmethod
    def of(cls, logits: Float64, labels: Labels, *, max_fpr: float) -> "Validation":
        """Compute every figure from logits (n, output) and labels (n,).

        Parameters
        ----------
        max_fpr : float
            Up to which false-positive rate the partial area goes.
        """
        with np.errstate(invalid="ignore"):
            losses, scores, positive = log_losses(logits, labels), score_of(logits), labels > 0
        finite = bool(np.isfinite(scores).all())
        return cls(
            logits=logits.astype(np.float32),
            loss=mean_of(losses),
            balanced_loss=balanced_mean(losses, labels),
            auroc=partial_area(scores, positive, 1.0) if finite else None,
            partial_auc=partial_area(scores, positive, max_fpr) if finite else None,
            distinct_logit_share=distinct_share(scores),
            extreme_logit_share=extreme_share(scores),
        )

    @property
    def loss_se(self) -> float | None:
        """Standard error of the loss."""
        return self.loss.standard_error

    def figures(self) -> dict[str, float | None]:
        """Return the figures by their names in the history."""
        return {
            **{monitor.value: None if found is None else found.value for monitor, found in self._monitors().items()},
            "val_loss_se": self.loss_se,
            "val_balanced_loss_se": self.balanced_loss.standard_error,
            "distinct_logit_share": self.distinct_logit_share,
            "extreme_logit_share": self.extreme_logit_share,
        }

    def monitored(self, monitor: Monitor) -> tuple[float, float]:
        """Value of the monitor, and its standard error (0 where it has none).

        Raises
        ------
        TrainingError
            If it is undefined or not finite.
        """
        found = self._monitors()[monitor]
        if found is None or not np.isfinite(found.value):
            raise TrainingError(
                f"{monitor.value} on val_select is {found and found.value}: the model diverged or val_select lacks a "
                "class. Lower learning_rate, or look at region_splits."
            )
        return found.value, found.standard_error or 0.0

    def _monitors(self) -> dict[Monitor, Measured | None]:
        return {
            Monitor.val_loss: self.loss,
            Monitor.val_balanced_loss: self.balanced_loss,
            Monitor.val_auroc: self.auroc,
            Monitor.val_partial_auc: self.partial_auc,
        }


def validate(
    model: nn.Module,
    loader: Loader,
    rows: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    preprocessing: Preprocessing,
    world: World,
    *,
    outputs: int,
    batch_size: int,
    max_fpr: float,
    channels_last: bool = True,
    on_batch: Callable[[], None] = lambda: None,
) -> Validation:
    """Evaluate all rows, shared among the ranks.

    Parameters
    ----------
    rows : int64 array
        Logical numbers, ascending.
    labels : int64 array
        Their labels, in the same order.
    max_fpr : float
        Up to which false-positive rate the partial area goes.
    on_batch : callable
        Called before each batch.

    Raises
    ------
    TrainingError
        If a row was not evaluated exactly once, or the device has too little memory.
    """
    model.eval()
    table = torch.zeros(len(rows), outputs, dtype=torch.float64)
    seen = torch.zeros(len(rows), dtype=torch.float64)
    for batch in loader.evaluation_batches(rows, batch_size=batch_size, rank=world.rank, world=world.size):
        on_batch()
        places = torch.from_numpy(np.searchsorted(rows, batch.logical))
        try:
            logits_BO = evaluate_logits(model, preprocessing, batch, world.device, channels_last=channels_last)
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"{world.device} has too little memory to validate {len(batch.pixels)} rows at once: "
                f"{str(error).split('. ')[0]}. Set validation_batch_size: {max(len(batch.pixels) // 2, 1)}; it moves no result."
            ) from error
        table[places] = logits_BO.double()
        seen[places] += 1
    table, seen = world.sum(table), world.sum(seen)
    wrong = rows[seen.numpy() != 1]
    if len(wrong):
        raise TrainingError(
            f"{len(wrong):,} of {len(rows):,} validation rows were not evaluated exactly once; first logical numbers: "
            f"{first_few(wrong.tolist())}."
        )
    return Validation.of(table.numpy(), labels, max_fpr=max_fpr)


def write_logits(path: Path, epoch: int, rows: npt.NDArray[np.int64], validation: Validation) -> None:
    """Write one epoch's logits, so that any metric can be computed again."""
    columns = {f"logit_{output}": validation.logits[:, output] for output in range(validation.logits.shape[1])}
    epochs = np.full(len(rows), epoch, dtype=np.int64)
    write_parquet(pa.table({"epoch": epochs, "logical": rows, **columns}), path)
