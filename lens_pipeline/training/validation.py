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
from lens_pipeline.training.config import Monitor
from lens_pipeline.training.forward import evaluate_logits
from lens_pipeline.training.metrics import auroc, negative_log_likelihood, score_of
from lens_pipeline.training.world import World


@dataclass(frozen=True)
class Validation:
    """What validation found.

    Attributes
    ----------
    logits : float32 (n, output)
        In the order of the rows that were asked for.
    loss : float
        Mean negative log-likelihood, neither smoothed nor weighted.
    auroc : float or None
        Any class but the first against the first; None where one side is absent.
    """

    logits: npt.NDArray[np.float32]
    loss: float
    auroc: float | None

    def monitored(self, monitor: Monitor) -> float:
        """Value of the monitor.

        Raises
        ------
        TrainingError
            If it is undefined or not finite.
        """
        value = self.loss if monitor is Monitor.val_loss else self.auroc
        if value is None or not np.isfinite(value):
            raise TrainingError(
                f"{monitor.value} on val_select is {value}: the model diverged or val_select lacks a class. "
                "Lower learning_rate, or look at region_splits."
            )
        return value


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
    on_batch : callable
        Called before each batch.

    Raises
    ------
    TrainingError
        If a row was not evaluated exactly once.
    """
    model.eval()
    table = torch.zeros(len(rows), outputs, dtype=torch.float64)
    seen = torch.zeros(len(rows), dtype=torch.float64)
    for batch in loader.evaluation_batches(rows, batch_size=batch_size, rank=world.rank, world=world.size):
        on_batch()
        places = torch.from_numpy(np.searchsorted(rows, batch.logical))
        logits_BO = evaluate_logits(model, preprocessing, batch, world.device, channels_last=channels_last)
        table[places] = logits_BO.double()
        seen[places] += 1
    table, seen = world.sum(table), world.sum(seen)
    wrong = rows[seen.numpy() != 1]
    if len(wrong):
        raise TrainingError(
            f"{len(wrong):,} of {len(rows):,} validation rows were not evaluated exactly once; first logical numbers: "
            f"{first_few(wrong.tolist())}."
        )
    logits = table.numpy()
    return Validation(
        logits=logits.astype(np.float32),
        loss=negative_log_likelihood(logits, labels),
        auroc=auroc(score_of(logits), labels > 0),
    )


def write_logits(path: Path, epoch: int, rows: npt.NDArray[np.int64], validation: Validation) -> None:
    """Write one epoch's logits, so that any metric can be computed again."""
    columns = {f"logit_{output}": validation.logits[:, output] for output in range(validation.logits.shape[1])}
    epochs = np.full(len(rows), epoch, dtype=np.int64)
    write_parquet(pa.table({"epoch": epochs, "logical": rows, **columns}), path)
