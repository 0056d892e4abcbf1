"""What rank 0 writes into a run's history while it trains; of other ranks nothing is written."""

from typing import Any

import torch

from lens_pipeline.training.checkpoint import Progress
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.figures import EpochClock, EpochSums, memory_mb
from lens_pipeline.training.flops import flops_per_stamp, peak_flops
from lens_pipeline.training.folder import HistoryWriter
from lens_pipeline.training.models import ModelSpec
from lens_pipeline.training.world import World


class Telling:
    """Puts figures of a run into words and numbers.

    Parameters
    ----------
    history : HistoryWriter or None
        None on all ranks but the first.
    """

    def __init__(
        self,
        history: HistoryWriter | None,
        config: TrainingConfig,
        model: ModelSpec,
        world: World,
        steps_per_epoch: int,
    ) -> None:
        self._history, self._config, self._model, self._world = history, config, model, world
        self._steps_per_epoch = steps_per_epoch
        self._peak = peak_flops(world.device, config.precision)

    def __call__(self, event: str, **fields: Any) -> None:
        """Write one event."""
        if self._history is not None:
            self._history.write(event, **fields)

    def checkpoint(self, progress: Progress, name: str, seconds: float) -> None:
        """Tell that a checkpoint is durable."""
        self("checkpoint", epoch=progress.epoch, step=progress.step, name=name, seconds=seconds)

    def step(
        self,
        epoch: int,
        done: int,
        sums: EpochSums,
        clock: EpochClock,
        *,
        rows_per_step: float,
        learning_rate: float,
        rates: list[float],
        scale: float | None,
    ) -> None:
        """Tell how an epoch goes, `done` steps into it."""
        stamps_per_second = clock.steps * rows_per_step / max(clock.seconds, 1e-9)
        self(
            "step",
            epoch=epoch,
            step=done,
            steps_per_epoch=self._steps_per_epoch,
            epochs=self._config.epochs,
            loss=sums.loss / max(sums.rows, 1.0),
            gradient_norm=sums.norm / max(sums.steps - sums.skipped, 1.0),
            learning_rate=learning_rate,
            rates=rates,
            stamps_per_second=stamps_per_second,
            data_wait_share=clock.waited_share,
            mfu=self._mfu(stamps_per_second),
            memory_mb=memory_mb(self._world.device),
            scale=scale,
        )

    def of_epoch(self, own: EpochSums, ranks: list[EpochSums]) -> dict[str, Any]:
        """Return an epoch's figures of training and speed.

        Parameters
        ----------
        own : EpochSums
            Of this rank: gradients and wall times are the same on all.
        ranks : list of EpochSums
            Of every rank: rows and their losses are each rank's own.
        """
        rows = sum(one.rows for one in ranks)
        stamps_per_second = rows / max(own.seconds, 1e-9)
        return {
            "train_loss": sum(one.loss for one in ranks) / rows,
            "train_rows": int(rows),
            "gradient_norm": own.norm / max(own.steps - own.skipped, 1.0),
            "clipped_share": own.clipped / own.steps,
            "skipped_steps": int(own.skipped),
            "stamps_per_second": stamps_per_second,
            "data_wait_share": own.waited / max(own.seconds, 1e-9),
            "mfu": self._mfu(stamps_per_second),
            "memory_mb": memory_mb(self._world.device),
            "slowest_rank_share": max(one.own for one in ranks) / max(sum(one.own for one in ranks) / len(ranks), 1e-9),
        }

    def _mfu(self, stamps_per_second: float) -> float | None:
        """Share of the GPUs' peak that the model's own operations take; None where the peak isn't known."""
        if self._peak is None:
            return None
        return stamps_per_second * flops_per_stamp(self._model) / (self._peak * self._world.size)


def parameters_of(model: torch.nn.Module, *, trained: bool = False) -> int:
    """Count a model's parameters, all or those that are trained at the moment."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trained)
