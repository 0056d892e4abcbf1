"""One optimizer step: a rank's part of a global batch, forward and backward in micro-batches, and the update.

Nothing here waits for the device: losses and norms are left there (`figures.Owed`), and a gradient that isn't finite is
refused by the update itself, where it is computed.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from timm.utils.model_ema import ModelEmaV3
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, update_bn

from lens_pipeline.batches.hashing import seed_of
from lens_pipeline.batches.loader import Batch
from lens_pipeline.batches.preprocessing import Preprocessing
from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.training import freezing
from lens_pipeline.training.choices import Normalization, Precision
from lens_pipeline.training.config import MIN_BATCHNORM_ROWS, TrainingConfig
from lens_pipeline.training.figures import StepFigures, Stopwatch
from lens_pipeline.training.forward import model_input
from lens_pipeline.training.losses import RowLoss
from lens_pipeline.training.mixing import mix
from lens_pipeline.training.models import freeze_batchnorm, has_batchnorm
from lens_pipeline.training.optimizer import load_optimizer_tensors, optimizer_tensors, set_rate
from lens_pipeline.training.rows import Rows
from lens_pipeline.training.world import World

_DROPOUT = 2
_AUTOCAST = {Precision.bf16: torch.bfloat16, Precision.float16: torch.float16}


class TrainingStep:
    """Takes steps with one model and one optimizer.

    Parameters
    ----------
    model, optimizer
        Of this rank; the optimizer is fused, so that it can refuse an update on the device.
    loss : RowLoss
        Loss of each row.
    rows : Rows
        Labels by logical number.
    row_weights : float32 array or None
        Weights of the rows' strata, by logical number.

    Attributes
    ----------
    own : Stopwatch
        Time of forward passes: what this rank does alone, before gradients are shared.
    scaler : torch.amp.GradScaler
        Scale of float16's loss; does nothing in another precision.
    average : ModelEmaV3, AveragedModel or None
        Moving average of weights and buffers, where ``ema_decay`` asks for one; mean of the last epochs, where ``swa_epochs``
        does.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        loss: RowLoss,
        rows: Rows,
        row_weights: npt.NDArray[np.float32] | None,
        preprocessing: Preprocessing,
        stamp_shape: tuple[int, ...],
        config: TrainingConfig,
        world: World,
    ) -> None:
        self.model, self.optimizer, self.loss = model, optimizer, loss
        self._n_classes = len(loss.class_weights)
        self.own = Stopwatch()
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=config.precision is Precision.float16)
        self.average = _average_of(model, config)
        self._row_weights = row_weights
        self._labels, self._preprocessing, self._config, self._world = rows.labels, preprocessing, config, world
        synchronised = config.normalization is Normalization.sync
        # Over how many ranks' rows batch normalisation takes its statistics.
        self._normalised_ranks = world.size if synchronised else 1
        self._normalises, self._stamp_shape = has_batchnorm(model), stamp_shape
        self._computed = torch.compile(model) if config.compile else model
        self._trained: frozenset[str] = frozenset()

    def begin(self, epoch: int) -> None:
        """Let exactly those parameters have gradients that an epoch trains; called before its first step."""
        names = freezing.trainable(self.model, self._config, epoch)
        if names == self._trained:
            return
        freezing.apply(self.model, names)
        self._trained = names
        # By default the buffers of rank 0 are every rank's at each forward pass: a checkpoint of rank 0 is the whole state.
        self._parallel = DistributedDataParallel(self._computed, gradient_as_bucket_view=True)
        self._warm_up()

    def __call__(self, epoch: int, batch: Batch, rate: float, *, number: int) -> StepFigures:
        """Train on a batch.

        Parameters
        ----------
        rate : float
            Learning rate of this step.
        number : int
            Steps before this one, over all epochs.

        Raises
        ------
        TrainingError
            If the device has too little memory: with micro-batches that take half of it and give the same global batch.
        """
        config, world = self._config, self._world
        set_rate(self.optimizer, rate)
        self.model.train()
        if config.frozen_epochs:
            freezing.hold_statistics(self.model)
        parts, least = self._parts(batch)
        if self._normalises and least * self._normalised_ranks < MIN_BATCHNORM_ROWS:
            # The short last step of an epoch: statistics of so few rows would be noise, so the running ones are used.
            freeze_batchnorm(self.model)
        torch.manual_seed(seed_of(config.seed, _DROPOUT, epoch, batch.step, world.rank))
        loss = torch.zeros((), device=world.device)
        try:
            for part in parts:
                loss += self._backward(epoch, batch, part, shared=part is parts[-1])
            norm = self._update(number)
        except torch.OutOfMemoryError as error:
            raise TrainingError(self._too_little_memory(error)) from error
        return StepFigures(epoch, batch.step, batch.logical, rate, loss, norm)

    def _warm_up(self) -> None:
        """Take a blank batch through model and gradients, and leave weights and buffers as they are.

        After its first backward pass DistributedDataParallel shares gradients in other pieces than before, and with more
        than two ranks other pieces are summed in another order. So that no step of training is that first one, and a
        resumed run's steps have the bits of a run that was left alone, it is taken here. Too little memory shows here too.

        Raises
        ------
        TrainingError
            If the device has too little memory.
        """
        config, device = self._config, self._world.device
        kept = [buffer.clone() for buffer in self.model.buffers()]
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.model.train()
        try:
            blank_BCHW = torch.zeros(self._rows_at_once, *self._stamp_shape, device=device).contiguous(
                memory_format=layout
            )
            torch.autograd.backward(self._forward(blank_BCHW).sum())
            self.optimizer.zero_grad(set_to_none=True)
        except torch.OutOfMemoryError as error:
            raise TrainingError(self._too_little_memory(error)) from error
        for buffer, value in zip(self.model.buffers(), kept, strict=True):
            buffer.copy_(value)

    def end_epoch(self, epoch: int, seen: Callable[[], Iterable[torch.Tensor]]) -> None:
        """Take the weights at an epoch's end into the mean of the last epochs, where ``swa_epochs`` asks for one.

        Before those the mean is the weights themselves. Its batch statistics are none that training ever had, so that they
        are taken anew (Izmailov et al. 2018), from the same rows in the same order on every rank.

        Parameters
        ----------
        seen : callable
            Gives what the model sees of these rows, batch by batch.
        """
        if not isinstance(self.average, AveragedModel):
            return
        config = self._config
        n_before = max(epoch - (config.epochs - config.swa_epochs), 0)
        self.average.n_averaged.fill_(n_before)
        self.average.update_parameters(self.model)
        if n_before and self._normalises:
            torch.manual_seed(seed_of(config.seed, _DROPOUT, epoch))
            update_bn(seen(), self.average.module)

    def forget_average(self) -> None:
        """Begin the moving average anew, at weights that were put into the model."""
        if self.average is not None:
            self.average.module.load_state_dict(self.model.state_dict())

    def _forward(self, seen_BCHW: torch.Tensor) -> torch.Tensor:
        lower = _AUTOCAST.get(self._config.precision)
        with torch.autocast(self._world.device.type, dtype=lower, enabled=lower is not None):
            logits_BO: torch.Tensor = self._parallel(seen_BCHW)
        return logits_BO

    @property
    def judged(self) -> nn.Module:
        """The model that is validated and published: the average, where there is one."""
        return self.model if self.average is None else self.average.module

    def tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """Everything that a checkpoint must hold as numbers, by the name of its file and then by its own."""
        found = {"model": self.model.state_dict(), "optimizer": optimizer_tensors(self.model, self.optimizer)}
        return found if self.average is None else {**found, "average": self.average.module.state_dict()}

    def restore(self, tensors: Mapping[str, Mapping[str, torch.Tensor]], *, epoch: int, step: int) -> None:
        """Put back what `tensors` gave.

        Parameters
        ----------
        epoch, step : int
            The next step to take.

        Raises
        ------
        TrainingError
            If the optimizer's are another model's.
        """
        self.model.load_state_dict(tensors["model"], strict=True)
        trained = freezing.trained_before(self.model, self._config, epoch, step)
        load_optimizer_tensors(self.model, self.optimizer, tensors["optimizer"], trained)
        if self.average is not None:
            self.average.module.load_state_dict(tensors["average"], strict=True)

    def _parts(self, batch: Batch) -> tuple[list[range], int]:
        """Cut this rank's rows into micro-batches, and tell the least rows that any rank's has.

        As many on every rank, and of almost equal size, so that no small remainder is left.
        """
        least, most = batch.n_global // self._world.size, -(-batch.n_global // self._world.size)
        n_parts = -(-most // (self._config.micro_batch_size or most))
        ends = np.linspace(0, len(batch.pixels), n_parts + 1).astype(int).tolist()
        parts = [range(start, end) for start, end in pairwise(ends)]
        return [part for part in parts if part], least // n_parts

    def _backward(self, epoch: int, batch: Batch, part: range, *, shared: bool) -> torch.Tensor:
        """Add a micro-batch's gradients to those of the step, and with the last one share them among the ranks."""
        config, device = self._config, self._world.device
        rows = slice(part.start, part.stop)
        labels_B = self._padded(self._labels, batch)[rows].to(device, torch.int64)
        weights_B = None if self._row_weights is None else self._padded(self._row_weights, batch)[rows].to(device)
        belongs_B = (torch.arange(part.start, part.stop) < batch.n).to(device)
        waits: AbstractContextManager[Any] = nullcontext() if shared else self._parallel.no_sync()
        with waits:
            with self.own.running():
                seen_BCHW = model_input(
                    batch.part(rows), self._preprocessing, device, channels_last=config.channels_last
                )
                seen_BCHW, targets = mix(
                    seen_BCHW,
                    labels_B,
                    config,
                    n_rows=min(max(batch.n - part.start, 0), len(part)),
                    n_classes=self._n_classes,
                    epoch=epoch,
                    step=batch.step,
                    rank=self._world.rank,
                )
                loss = (self.loss(self._forward(seen_BCHW), targets, weights_B) * belongs_B).sum()
            # The ranks' gradients are averaged; this scale makes that the mean over the rows of the whole step, also
            # where ranks have different numbers of them.
            torch.autograd.backward(self.scaler.scale(loss * (self._world.size / batch.n_global)))
        return loss.detach()

    @staticmethod
    def _padded(by_row: npt.NDArray[Any], batch: Batch) -> torch.Tensor:
        """Take the values of a batch's rows, by logical number, and 0 for what pads it."""
        own = by_row[batch.logical]
        padded = torch.from_numpy(np.zeros(len(batch.pixels), own.dtype))
        padded[: batch.n] = torch.from_numpy(own)
        return padded

    def _update(self, number: int) -> torch.Tensor:
        """Clip and apply the gradients; return their norm. One that isn't finite leaves every weight as it was."""
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(
            self.model.parameters(), self._config.clip_norm or float("inf"), foreach=True
        ).detach()
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            # A fused optimizer takes no step where this is 1, and nobody has to read it for that.
            self.optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if isinstance(self.average, ModelEmaV3):
            self.average.update(self.model, step=number)
        return norm

    @property
    def _rows_at_once(self) -> int:
        """Most rows that this rank takes through the model at once in a full step."""
        per_rank = self._config.batch_size // self._world.size
        return -(-per_rank // -(-per_rank // (self._config.micro_batch_size or per_rank)))

    def _too_little_memory(self, error: torch.OutOfMemoryError) -> str:
        """Say what to set: half as many rows at once, or as few as normalisation over them takes."""
        config, had = self._config, self._rows_at_once
        per_rank, least = config.batch_size // self._world.size, MIN_BATCHNORM_ROWS if self._normalises else 1
        smaller = {
            -(-per_rank // parts)
            for parts in range(-(-per_rank // had) + 1, 2 * -(-per_rank // had) + 1)
            if per_rank // parts * self._normalised_ranks >= least
        } - {had}
        said = f"{self._world.device} has too little memory: {str(error).split('. ')[0]}."
        if smaller:
            return (
                f"{said} Set micro_batch_size: {min(smaller)} (now {had} rows at once): the gradients of a step are then "
                f"summed over micro-batches, and batch_size {config.batch_size} stays what it is."
            )
        if least > 1:
            return f"{said} Batch normalisation takes no fewer than these {had} rows at once: set normalization: group."
        return f"{said} That is for one row: take a smaller model."


def _average_of(model: nn.Module, config: TrainingConfig) -> ModelEmaV3 | AveragedModel | None:
    if config.ema_decay:
        return ModelEmaV3(model, decay=config.ema_decay, use_warmup=True)
    if config.swa_epochs:
        average = AveragedModel(model)
        average.eval()
        return average
    return None
