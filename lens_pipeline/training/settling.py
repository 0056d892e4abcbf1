"""What steps owe: losses and gradient norms that are read some steps later, added up, and refused if they aren't finite."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from lens_pipeline.contracts.errors import TrainingError, first_few
from lens_pipeline.training import freezing
from lens_pipeline.training.choices import Precision
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.figures import EpochSums, Owed, StepFigures
from lens_pipeline.training.optimizer import assert_all_changed

# A loss that float16 can't hold even when it is scaled down this far isn't the scale's fault.
_LEAST_SCALE = 1.0


class Settling:
    """Reads what steps owe, and sees that the first step with other parameters to train than before did what it should.

    Parameters
    ----------
    place : callable
        Told (epoch, step) of a step that failed.
    scale : callable
        Returns the factor by which float16's loss is scaled.
    standing : callable
        Returns the name of the newest checkpoint, None before the first.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainingConfig,
        rank: int,
        *,
        place: Callable[[int, int], None],
        scale: Callable[[], float],
        standing: Callable[[], str | None],
    ) -> None:
        self._model, self._config, self._rank = model, config, rank
        self._place, self._scale, self._standing = place, scale, standing
        self._owed = Owed()
        # Weights before the first step with other parameters to train than before, until that step was settled.
        self._before: dict[str, torch.Tensor] = {}

    def begin(self, epoch: int) -> None:
        """Begin an epoch with its first step; where that trains other parameters than before, it will be looked at."""
        if freezing.thaws(self._model, self._config, epoch):
            self._before = {name: p.detach().clone() for name, p in self._model.named_parameters()}

    def add(self, figures: StepFigures) -> None:
        """Take up what a step owes, unread."""
        self._owed.add(figures)

    @property
    def is_due(self) -> bool:
        """Whether the next settlement can't wait: a first step is to be looked at."""
        return bool(self._before)

    def settle(self, sums: EpochSums) -> None:
        """Wait for all that is owed, and add it up.

        Raises
        ------
        TrainingError
            If a loss or gradient wasn't finite (that step was not taken), or the first step left a parameter untrained.
        """
        config = self._config
        for figures, loss, norm in self._owed.read():
            sums.loss += loss
            sums.rows += len(figures.logical)
            sums.steps += 1
            if np.isfinite(norm) and np.isfinite(loss):
                sums.norm += norm
                sums.clipped += float(config.clip_norm is not None and norm > config.clip_norm)
            elif config.precision is Precision.float16 and np.isfinite(loss) and self._scale() > _LEAST_SCALE:
                sums.skipped += 1
            else:
                self._place(figures.epoch, figures.step)
                self._refuse(figures, loss, norm)
        if self._before and sums.steps > sums.skipped:
            assert_all_changed(self._model, self._before)
            self._before = {}

    def _refuse(self, figures: StepFigures, loss: float, norm: float) -> None:
        what = f"the loss on rank {self._rank} is {loss}" if not np.isfinite(loss) else f"the gradient norm is {norm}"
        standing = self._standing()
        last = f"checkpoint {standing} stands" if standing else "there is no checkpoint yet"
        raise TrainingError(
            f"{what} in epoch {figures.epoch}, step {figures.step} (learning rate {figures.rate:.3g}; this rank's "
            f"{len(figures.logical)} rows have the logical numbers {first_few(figures.logical.tolist())}). The step was "
            f"not taken, and {last}. Lower learning_rate, set clip_norm, or look at these stamps in stamp_store."
        )
