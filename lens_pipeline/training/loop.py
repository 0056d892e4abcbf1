"""The training loop of one rank: epochs of steps, validation, checkpoints, and the state that a resume restores."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import nn

from lens_pipeline.batches.augment import DihedralAugmentation
from lens_pipeline.batches.hashing import seed_of
from lens_pipeline.batches.loader import Batch, Loader
from lens_pipeline.batches.opening import open_rows
from lens_pipeline.batches.preprocessing import Preprocessing
from lens_pipeline.contracts.errors import TrainingError, first_few
from lens_pipeline.stamps.ledger import Ledger
from lens_pipeline.stamps.sampler import GlobalSampler
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.training.checkpoint import (
    Checkpoint,
    Progress,
    checkpoint_name,
    newest_checkpoint,
)
from lens_pipeline.training.choices import Device
from lens_pipeline.training.figures import EpochClock, EpochSums
from lens_pipeline.training.folder import HistoryWriter, RunFolder
from lens_pipeline.training.forward import model_input
from lens_pipeline.training.interruption import InterruptedRunError, Interruption
from lens_pipeline.training.losses import RowLoss
from lens_pipeline.training.models import ModelSpec, build_model
from lens_pipeline.training.optimizer import (
    build_optimizer,
    rates,
)
from lens_pipeline.training.pretrained import load_pretrained
from lens_pipeline.training.resuming import agree_on, cut_back_ledgers, earlier_sums
from lens_pipeline.training.rows import Rows
from lens_pipeline.training.schedule import Schedule
from lens_pipeline.training.settling import Settling
from lens_pipeline.training.spec import RunSpec
from lens_pipeline.training.step import TrainingStep
from lens_pipeline.training.stopping import Stopping
from lens_pipeline.training.telling import Telling, parameters_of
from lens_pipeline.training.validation import validate, write_logits
from lens_pipeline.training.world import World
from lens_pipeline.training.writer import CheckpointWriter, Snapshot

_WEIGHTS, _AUGMENTATION = 1, 4
# Training rows that batch statistics of averaged weights are taken from: a mean over so many is known to 2 %.
_STATISTICS_ROWS, _STATISTICS_BATCH = 4096, 128


@dataclass
class Trainer:
    """One rank's training run.

    Attributes
    ----------
    spec : RunSpec
        What to train.
    place : callable
        Told (epoch, step) before each step, so that a failure can name it.
    attempt : Path
        Folder of this start of the ranks.
    interruption : Interruption
        Knows when the ranks were asked to stop.
    """

    spec: RunSpec
    folder: RunFolder
    world: World
    store: StampStore
    rows: Rows
    sampler: GlobalSampler
    preprocessing: Preprocessing
    model_spec: ModelSpec
    loss: RowLoss
    row_weights: npt.NDArray[np.float32] | None
    place: Callable[[int, int], None]
    attempt: Path
    interruption: Interruption
    progress: Progress = field(default_factory=Progress)
    resumed_from: str | None = None

    def __post_init__(self) -> None:
        """Build the model and the optimizer, and restore the newest checkpoint."""
        config = self.spec.config
        torch.manual_seed(seed_of(config.seed, _WEIGHTS))
        self.model: nn.Module = build_model(self.model_spec).to(self.world.device)
        self._pretrained: dict[str, Any] | None = None
        self.optimizer = build_optimizer(self.model, config)
        self.schedule = Schedule(config, self.sampler.steps_per_epoch)
        self.augmentation = DihedralAugmentation(seed_of(config.seed, _AUGMENTATION))
        source, self.choice = open_rows(
            self.store,
            config.reader,
            rows=[self.rows.train, self.rows.validation],
            ranks=self.world.size,
            device=self.world.device,
        )
        self.loader = Loader(source, threads=config.loader_threads, pin=config.device is Device.cuda)
        self.ledger = Ledger(self.folder.ledger(self.world.rank), n_rows=self.store.n_rows)
        checkpoint, damaged = newest_checkpoint(self.folder.checkpoints, run=self.spec.sha256())
        agree_on(checkpoint, self.folder, self.world)
        self.take_step = TrainingStep(
            self.model,
            self.optimizer,
            loss=self.loss,
            rows=self.rows,
            row_weights=self.row_weights,
            preprocessing=self.preprocessing,
            stamp_shape=self.spec.contract.stamp_shape,
            config=config,
            world=self.world,
        )
        if checkpoint is not None:
            self._restore(checkpoint)
        elif config.pretrained is not None and config.pretrained_sha256 is not None:
            path, sha256 = Path(config.pretrained), config.pretrained_sha256
            self._pretrained = load_pretrained(self.model, self.model_spec, path, sha256=sha256).to_json()
            self.take_step.forget_average()
        cut_back_ledgers(self.ledger, self.progress, self.folder, self.world, n_rows=self.store.n_rows)
        self.settling = Settling(
            self.model,
            config,
            self.world.rank,
            place=self.place,
            scale=self.take_step.scaler.get_scale,
            standing=lambda: self.newest_checkpoint_name,
        )
        history = HistoryWriter(self.folder.history, self.attempt.name) if self.world.first else None
        self._tell = Telling(history, config, self.model_spec, self.world, self.sampler.steps_per_epoch)
        self.writer = CheckpointWriter(
            self.folder,
            run=self.spec.sha256(),
            about=self.about,
            kept=config.checkpoints_kept,
            standing=self.resumed_from,
            on_written=self._tell.checkpoint,
        )
        self._tell(
            "run_started",
            resumed_from=self.resumed_from,
            epoch=self.progress.epoch,
            step=self.progress.step,
            steps_per_epoch=self.sampler.steps_per_epoch,
            epochs=config.epochs,
            ranks=self.world.size,
            train_rows=len(self.rows.train),
            validation_rows=len(self.rows.validation),
            parameters=parameters_of(self.model),
            damaged_checkpoints=damaged,
            reader=self.choice.reader.value,
            reader_why=self.choice.why,
            loss=self.loss.describe(),
            device=config.device.value,
            precision=config.precision.value,
        )
        if self.resumed_from is not None and not self.progress.step:
            # A kill may have come between the epoch's last checkpoint and its word; said twice is no harm.
            self._tell("epoch", **self.progress.history[-1])

    @property
    def about(self) -> dict[str, Any]:
        """Everything but the weights that scoring needs."""
        return {
            "model": self.model_spec.to_json(),
            "preprocessing": self.preprocessing.spec(),
            "contract": self.spec.contract.model_dump(mode="json"),
            "loss": self.loss.describe(),
            "pretrained": self._pretrained,
        }

    def run(self) -> bool:
        """Train until the last epoch, until patience runs out, or until asked to stop; a run that has ended does nothing.

        Returns
        -------
        bool
            Whether the run has ended; if not, it was asked to stop, and goes on from its checkpoint when it is started again.
        """
        while self.progress.ended is None:
            try:
                goes_on = self._epoch(self.progress.epoch)
            except (InterruptedRunError, RuntimeError):
                # A rank that was asked to stop while it judged its rows has left, and one that waited for it sees that.
                if not self.interruption.asked:
                    raise
                goes_on = False
            if not goes_on:
                self.writer.wait()
                self._tell("stopped", why="asked to", epoch=self.progress.epoch, step=self.progress.step)
                return False
        self.ledger.close()
        self.writer.wait()
        self._tell("finished", why=self.progress.ended, best_epoch=self.progress.best_epoch)
        return True

    def _epoch(self, epoch: int) -> bool:
        """Train what is left of an epoch and judge it; False if it was asked to stop first."""
        config, steps = self.spec.config, self.sampler.steps_per_epoch
        self.take_step.begin(epoch)
        if self.progress.step == 0:
            self.settling.begin(epoch)
        sums = earlier_sums(self.progress, self.world)
        clock = EpochClock(sums, self.take_step.own)
        batches = self.loader.training_batches(
            self.sampler,
            self.augmentation,
            epoch=epoch,
            start_step=self.progress.step,
            rank=self.world.rank,
            world=self.world.size,
        )
        for batch in clock.waiting(batches):
            self.interruption.before_step(epoch, batch.step, steps)
            self.step(epoch, batch)
            done = batch.step + 1
            boundary = self.interruption.is_boundary(done, steps)
            saves = done == steps or done % config.checkpoint_every_steps == 0
            if boundary or saves or self.settling.is_due or self.world.device.type == "cpu":
                self.settling.settle(sums)
                clock.read()
            if boundary:
                self._report(epoch, done, sums, clock)
            stops = boundary and self.interruption.due(epoch * steps + done)
            if saves or stops:
                stops |= self._checkpoint(replace(self.progress, epoch=epoch, step=done), sums)
            if stops:
                return False
        self._finish_epoch(epoch, sums)
        return True

    def step(self, epoch: int, batch: Batch) -> None:
        """Take one optimizer step on this rank's part of a global batch; its figures are owed, its rows are recorded.

        Raises
        ------
        TrainingError
            If the device has too little memory.
        """
        self.place(epoch, batch.step)
        number = epoch * self.sampler.steps_per_epoch + batch.step
        self.settling.add(self.take_step(epoch, batch, self._rate(epoch, batch.step), number=number))
        # Before the ledger, which may write at any time: a rank that was frozen for a while learns here that it was replaced.
        self.folder.beat(self.attempt, self.world.rank)
        self.ledger.append(epoch, batch.step, batch.logical)

    def _rate(self, epoch: int, step: int) -> float:
        monitored = [row[self.spec.config.monitor.value] for row in self.progress.history]
        return self.schedule.rate(epoch, step, monitored)

    def _finish_epoch(self, epoch: int, sums: EpochSums) -> None:
        config, judged = self.spec.config, self.take_step.judged
        started = time.perf_counter()
        self.world.spread([*self.model.buffers()])
        self.take_step.end_epoch(epoch, self._for_statistics)
        self.world.spread([*judged.buffers()] if judged is not self.model else [])
        validation = validate(
            judged,
            self.loader,
            self.rows.validation,
            self.rows.labels[self.rows.validation],
            self.preprocessing,
            self.world,
            outputs=self.model_spec.outputs,
            batch_size=config.validation_batch_size,
            max_fpr=config.partial_auc_max_fpr,
            channels_last=config.channels_last,
            on_batch=self._between_validation_batches,
        )
        stopping = Stopping(
            config.monitor.larger_is_better,
            config.patience,
            config.min_delta,
            self.progress.best_epoch,
            self.progress.best_value,
            self.progress.last_epoch,
        ).after(epoch, *validation.monitored(config.monitor))
        ranks = [EpochSums(*one) for one in self.world.gather(sums.as_list())]
        row = {
            "epoch": epoch,
            **self._tell.of_epoch(sums, ranks),
            **validation.figures(),
            "learning_rate": self._rate(epoch, self.sampler.steps_per_epoch - 1),
            "validation_rows": len(self.rows.validation),
            "trained_parameters": parameters_of(self.model, trained=True),
            "best": stopping.improved,
            "seconds": sums.seconds + time.perf_counter() - started,
        }
        ended = "patience ran out" if stopping.stop else "all epochs were trained"
        name = checkpoint_name((epoch + 1) * self.sampler.steps_per_epoch)
        if self.world.first:
            self.folder.refuse_superseded()
            write_logits(self.folder.validation(epoch), epoch, self.rows.validation, validation)
        self._checkpoint(
            Progress(
                epoch=epoch + 1,
                step=0,
                best_epoch=stopping.best_epoch,
                best_value=stopping.best_value,
                last_epoch=stopping.last_epoch,
                best_checkpoint=name if stopping.improved else self.progress.best_checkpoint,
                history=[*self.progress.history, row],
                ended=ended if stopping.stop or epoch + 1 == config.epochs else None,
            ),
            None,
        )
        self._tell("epoch", **row)

    def _for_statistics(self) -> Iterator[torch.Tensor]:
        """Yield training rows as the model sees them, unaugmented: the first, a random choice, as a hash orders them.

        Equal batches of one size, so that neither the ranks nor a setting changes the statistics.
        """
        n = min(len(self.rows.train), _STATISTICS_ROWS)
        rows = self.rows.train[: n - n % _STATISTICS_BATCH or n].astype(np.int64)
        for batch in self.loader.evaluation_batches(rows, batch_size=_STATISTICS_BATCH):
            self._between_validation_batches()
            own = batch.part(slice(0, batch.n))
            yield model_input(own, self.preprocessing, self.world.device, channels_last=self.spec.config.channels_last)

    def _between_validation_batches(self) -> None:
        self.folder.beat(self.attempt, self.world.rank)
        self.interruption.leave_if_asked()

    def _checkpoint(self, progress: Progress, sums: EpochSums | None) -> bool:
        """Take a checkpoint; tell whether any rank was asked to stop.

        Nothing is lost by stopping after it.
        """
        # Every rank's ledger is durable before the checkpoint that counts on it; the gathering is the barrier.
        self.folder.refuse_superseded()
        self.ledger.flush()
        partial = self.world.gather((sums or EpochSums()).as_list())
        others = self.world.gather([float(self.ledger.n_steps), float(self.interruption.asked)])
        steps = [int(one[0]) for one in others]
        worlds = self.progress.world_sizes
        self.progress = replace(
            progress,
            partial=partial if sums is not None else [],
            ledgers=steps + self.progress.ledgers[self.world.size :],
            world_sizes=worlds if worlds[-1:] == [self.world.size] else [*worlds, self.world.size],
            sampler=self.sampler.state(progress.epoch, progress.step).to_json(),
            scaler=self.take_step.scaler.state_dict(),
        )
        if self.world.first:
            name = checkpoint_name(progress.epoch * self.sampler.steps_per_epoch + progress.step)
            self.writer.submit(Snapshot.of(name, self.progress, self.take_step.tensors()))
        return any(one[1] for one in others)

    def _restore(self, checkpoint: Checkpoint) -> None:
        self._pretrained = checkpoint.about.get("pretrained")
        if checkpoint.about != self.about:
            changed = [key for key in self.about if checkpoint.about.get(key) != self.about[key]]
            raise TrainingError(
                f"checkpoint {checkpoint.name} was made with another {first_few(changed)} than the same settings and data "
                "give now: this package has changed. Remove the run's folder and train again."
            )
        tensors = {part: load_file(checkpoint.file(part)) for part in checkpoint.parts}
        self.take_step.restore(tensors, epoch=checkpoint.progress.epoch, step=checkpoint.progress.step)
        if checkpoint.progress.scaler:
            self.take_step.scaler.load_state_dict(checkpoint.progress.scaler)
        self.sampler.resume(checkpoint.progress.sampler)
        self.progress, self.resumed_from = checkpoint.progress, checkpoint.name

    def _report(self, epoch: int, done: int, sums: EpochSums, clock: EpochClock) -> None:
        scaler = self.take_step.scaler
        self._tell.step(
            epoch,
            done,
            sums,
            clock,
            rows_per_step=self.sampler.order.n_places / self.sampler.steps_per_epoch,
            learning_rate=self._rate(epoch, done - 1),
            rates=rates(self.optimizer),
            scale=float(scaler.get_scale()) if scaler.is_enabled() else None,
        )

    @property
    def newest_checkpoint_name(self) -> str | None:
        """Name of the newest checkpoint of this run, None before the first."""
        done = self.progress.epoch * self.sampler.steps_per_epoch + self.progress.step
        return checkpoint_name(done) if done else None
