"""The training loop of one rank: epochs of steps, validation, checkpoints, and the state that a resume restores."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel

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
    write_checkpoint,
)
from lens_pipeline.training.config import MIN_BATCHNORM_ROWS, Device
from lens_pipeline.training.folder import HistoryWriter, RunFolder
from lens_pipeline.training.forward import model_input, serialize
from lens_pipeline.training.losses import RowLoss
from lens_pipeline.training.models import ModelSpec, build_model, freeze_batchnorm, has_batchnorm
from lens_pipeline.training.optimizer import (
    assert_all_changed,
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
    set_rate,
)
from lens_pipeline.training.rows import Rows
from lens_pipeline.training.schedule import Schedule
from lens_pipeline.training.spec import RunSpec
from lens_pipeline.training.stopping import Stopping
from lens_pipeline.training.validation import validate, write_logits
from lens_pipeline.training.world import World

_WEIGHTS, _DROPOUT, _AUGMENTATION = 1, 2, 4


@dataclass
class EpochSums:
    """Running sums of one rank's epoch; `as_list` and the constructor take it through a checkpoint."""

    loss: float = 0.0
    rows: float = 0.0
    norm: float = 0.0
    clipped: float = 0.0
    steps: float = 0.0
    seconds: float = 0.0

    def as_list(self) -> list[float]:
        """Return the sums in order."""
        return [self.loss, self.rows, self.norm, self.clipped, self.steps, self.seconds]


@dataclass
class Trainer:
    """One rank's training run.

    Attributes
    ----------
    spec : RunSpec
        What to train.
    place : callable
        Told (epoch, step) before each step, so that a failure can name it.
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
    place: Callable[[int, int], None]
    progress: Progress = field(default_factory=Progress)
    resumed_from: str | None = None

    def __post_init__(self) -> None:
        """Build the model and the optimizer, and restore the newest checkpoint."""
        config = self.spec.config
        torch.manual_seed(seed_of(config.seed, _WEIGHTS))
        self.model: nn.Module = build_model(self.model_spec).to(self.world.device)
        self._normalises = has_batchnorm(self.model)
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
        self._agree_on(checkpoint)
        if checkpoint is not None:
            self._restore(checkpoint)
        self._cut_back_ledgers()
        self.history = HistoryWriter(self.folder.history) if self.world.first else None
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
            parameters=sum(p.numel() for p in self.model.parameters()),
            damaged_checkpoints=damaged,
            reader=self.choice.reader.value,
            reader_why=self.choice.why,
        )
        # By default the buffers of rank 0 are every rank's at each forward pass: a checkpoint of rank 0 is the whole state.
        self.parallel = DistributedDataParallel(self.model, gradient_as_bucket_view=True)

    @property
    def about(self) -> dict[str, Any]:
        """Everything but the weights that scoring needs."""
        return {
            "model": self.model_spec.to_json(),
            "preprocessing": self.preprocessing.spec(),
            "contract": self.spec.contract.model_dump(mode="json"),
            "loss": self.loss.describe(),
        }

    def run(self) -> None:
        """Train until the last epoch or until patience runs out; a run that has ended before does nothing."""
        while self.progress.ended is None:
            self._epoch(self.progress.epoch)
        self.ledger.close()
        if self.history is not None:
            self._tell("finished", why=self.progress.ended, best_epoch=self.progress.best_epoch)
            self.history.close()

    def _epoch(self, epoch: int) -> None:
        config = self.spec.config
        started, start_step = time.perf_counter(), self.progress.step
        sums = self._earlier_sums()
        earlier = sums.seconds
        batches = self.loader.training_batches(
            self.sampler,
            self.augmentation,
            epoch=epoch,
            start_step=start_step,
            rank=self.world.rank,
            world=self.world.size,
        )
        for batch in batches:
            self.place(epoch, batch.step)
            self.step(epoch, batch, sums)
            sums.seconds = earlier + time.perf_counter() - started
            done = batch.step + 1
            if done % config.report_every_steps == 0:
                self._report(epoch, done, sums, done - start_step, time.perf_counter() - started)
            if done % config.checkpoint_every_steps == 0 and done < self.sampler.steps_per_epoch:
                self._checkpoint(replace(self.progress, epoch=epoch, step=done), sums)
        self._finish_epoch(epoch, sums, earlier, started)

    def step(self, epoch: int, batch: Batch, sums: EpochSums) -> None:
        """Take one optimizer step on this rank's part of a global batch, and add it to the sums and the ledger.

        Raises
        ------
        TrainingError
            If loss or gradient isn't finite (the step is not taken), or the first step left a parameter untrained.
        """
        config, device = self.spec.config, self.world.device
        rate = self._rate(epoch, batch.step)
        set_rate(self.optimizer, rate)
        first = epoch == 0 and batch.step == 0
        before = {name: p.detach().clone() for name, p in self.model.named_parameters()} if first else {}

        self.model.train()
        if self._normalises and batch.n_global // self.world.size < MIN_BATCHNORM_ROWS:
            # The short last step of an epoch: statistics of so few rows would be noise, so the running ones are used.
            freeze_batchnorm(self.model)
        torch.manual_seed(seed_of(config.seed, _DROPOUT, epoch, batch.step, self.world.rank))
        labels_B = torch.zeros(len(batch.pixels), dtype=torch.int64)
        labels_B[: batch.n] = torch.from_numpy(self.rows.labels[batch.logical])
        logits_BO = self.parallel(model_input(batch, self.preprocessing, device, channels_last=config.channels_last))
        belongs_B = (torch.arange(len(labels_B)) < batch.n).to(device)
        loss_sum = (self.loss(logits_BO, labels_B.to(device)) * belongs_B).sum()
        # The ranks' gradients are averaged; this scale makes that the mean over the rows of the whole step, also where
        # ranks have different numbers of them.
        torch.autograd.backward(loss_sum * (self.world.size / batch.n_global))
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm or float("inf"), foreach=True))
        loss = float(loss_sum.detach())
        if not (np.isfinite(norm) and np.isfinite(loss)):
            self._refuse_not_finite(loss, norm, rate, batch)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ledger.append(epoch, batch.step, batch.logical)
        if first:
            assert_all_changed(self.model, before)

        sums.loss += loss
        sums.rows += batch.n
        sums.norm += norm
        sums.clipped += float(config.clip_norm is not None and norm > config.clip_norm)
        sums.steps += 1

    def _rate(self, epoch: int, step: int) -> float:
        monitored = [row[self.spec.config.monitor.value] for row in self.progress.history]
        return self.schedule.rate(epoch, step, monitored)

    def _finish_epoch(self, epoch: int, sums: EpochSums, earlier: float, started: float) -> None:
        config = self.spec.config
        self.world.spread(list(self.model.buffers()))
        validation = validate(
            self.model,
            self.loader,
            self.rows.validation,
            self.rows.labels[self.rows.validation],
            self.preprocessing,
            self.world,
            outputs=self.model_spec.outputs,
            batch_size=config.validation_batch_size,
            max_fpr=config.partial_auc_max_fpr,
            channels_last=config.channels_last,
        )
        stopping = Stopping(
            config.monitor.larger_is_better,
            config.patience,
            config.min_delta,
            self.progress.best_epoch,
            self.progress.best_value,
            self.progress.last_epoch,
        ).after(epoch, *validation.monitored(config.monitor))
        ranks = self.world.gather(sums.as_list())
        row = {
            "epoch": epoch,
            "train_loss": sum(one[0] for one in ranks) / sum(one[1] for one in ranks),
            **validation.figures(),
            "learning_rate": self._rate(epoch, self.sampler.steps_per_epoch - 1),
            "seconds": earlier + time.perf_counter() - started,
            "gradient_norm": sums.norm / sums.steps,
            "clipped_share": sums.clipped / sums.steps,
            "train_rows": int(sum(one[1] for one in ranks)),
            "validation_rows": len(self.rows.validation),
            "best": stopping.improved,
        }
        ended = "patience ran out" if stopping.stop else "all epochs were trained"
        name = checkpoint_name((epoch + 1) * self.sampler.steps_per_epoch)
        if self.world.first:
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

    def _checkpoint(self, progress: Progress, sums: EpochSums | None) -> None:
        # Every rank's ledger is durable before the checkpoint that counts on it; the gathering is the barrier.
        self.ledger.flush()
        partial = self.world.gather((sums or EpochSums()).as_list())
        steps = [int(one[0]) for one in self.world.gather([float(self.ledger.n_steps)])]
        worlds = self.progress.world_sizes
        self.progress = replace(
            progress,
            partial=partial if sums is not None else [],
            ledgers=steps + self.progress.ledgers[self.world.size :],
            world_sizes=worlds if worlds[-1:] == [self.world.size] else [*worlds, self.world.size],
            sampler=self.sampler.state(progress.epoch, progress.step).to_json(),
        )
        if self.world.first:
            write_checkpoint(
                self.folder.checkpoints,
                checkpoint_name(progress.epoch * self.sampler.steps_per_epoch + progress.step),
                run=self.spec.sha256(),
                about=self.about,
                progress=self.progress,
                model=serialize(self.model.state_dict()),
                optimizer=serialize(optimizer_tensors(self.model, self.optimizer)),
            )

    def _restore(self, checkpoint: Checkpoint) -> None:
        if checkpoint.about != self.about:
            changed = [key for key in self.about if checkpoint.about.get(key) != self.about[key]]
            raise TrainingError(
                f"checkpoint {checkpoint.name} was made with another {first_few(changed)} than the same settings and data "
                "give now: this package has changed. Remove the run's folder and train again."
            )
        self.model.load_state_dict(load_file(checkpoint.model_file), strict=True)
        load_optimizer_tensors(self.model, self.optimizer, load_file(checkpoint.optimizer_file))
        self.sampler.resume(checkpoint.progress.sampler)
        self.progress, self.resumed_from = checkpoint.progress, checkpoint.name

    def _cut_back_ledgers(self) -> None:
        """Forget in every ledger what came after the checkpoint; rank 0 sees to those of ranks that are no more."""
        own, n = self.world.rank, self.world.size
        former = (
            {*self.folder.ledgers(), *range(len(self.progress.ledgers))} - {*range(n)} if self.world.first else set()
        )
        for rank in [own, *sorted(former)]:
            ledger = self.ledger if rank == own else Ledger(self.folder.ledger(rank), n_rows=self.store.n_rows)
            ledger.cut_back_to(self.progress.epoch, self.progress.step)
            counted = dict(enumerate(self.progress.ledgers)).get(rank, 0)
            if ledger.n_steps != counted:
                raise TrainingError(
                    f"{ledger.path} records {ledger.n_steps:,} steps and the checkpoint counts on {counted:,}: which rows "
                    "reached the model can't be told any more. Remove the run's folder and train again."
                )
            if rank != own:
                ledger.close()

    def _earlier_sums(self) -> EpochSums:
        """Take up what the epoch had summed before; with another number of ranks, rank 0 takes what was every rank's own."""
        partial = self.progress.partial
        if not partial or len(partial) == self.world.size:
            return EpochSums(*partial[self.world.rank]) if partial else EpochSums()
        loss, rows = (sum(one[place] for one in partial) if self.world.first else 0.0 for place in (0, 1))
        return EpochSums(loss, rows, *partial[0][2:])

    def _agree_on(self, checkpoint: Checkpoint | None) -> None:
        step = -1 if checkpoint is None else int(checkpoint.name.removeprefix("step-"))
        found = {int(one[0]) for one in self.world.gather([float(step)])}
        if len(found) > 1:
            raise TrainingError(
                f"the ranks found different newest checkpoints ({sorted(found)}) in {self.folder.path}."
            )

    def _report(self, epoch: int, done: int, sums: EpochSums, steps_here: int, seconds: float) -> None:
        rows_per_step = self.sampler.order.n_places / self.sampler.steps_per_epoch
        self._tell(
            "step",
            epoch=epoch,
            step=done,
            steps_per_epoch=self.sampler.steps_per_epoch,
            epochs=self.spec.config.epochs,
            loss=sums.loss / max(sums.rows, 1.0),
            gradient_norm=sums.norm / sums.steps,
            learning_rate=self._rate(epoch, done - 1),
            stamps_per_second=steps_here * rows_per_step / max(seconds, 1e-9),
        )

    def _refuse_not_finite(self, loss: float, norm: float, rate: float, batch: Batch) -> None:
        what = (
            f"the loss on rank {self.world.rank} is {loss}" if not np.isfinite(loss) else f"the gradient norm is {norm}"
        )
        raise TrainingError(
            f"{what} (learning rate {rate:.3g}; this rank's {batch.n} rows have the logical numbers "
            f"{first_few(batch.logical.tolist())}). The step was not taken and the last checkpoint stands. Lower "
            "learning_rate, set clip_norm, or look at these stamps in stamp_store."
        )

    def _tell(self, event: str, **fields: Any) -> None:
        if self.history is not None:
            self.history.write(event, **fields)
