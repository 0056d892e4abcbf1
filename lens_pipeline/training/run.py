"""The step's side of training: write run.json, start torchrun and watch it, and collect what it left. Imports no torch."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lens_pipeline.contracts.catalogue import HISTORY
from lens_pipeline.contracts.errors import ConfigError, TrainingError
from lens_pipeline.stamps.store import DamageWatch
from lens_pipeline.storage.parquet import read_parquet
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging
from lens_pipeline.training.checkpoint import Checkpoint, newest_checkpoint, read_checkpoint
from lens_pipeline.training.choices import Device
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.failures import is_full
from lens_pipeline.training.folder import TIMINGS, RunFolder
from lens_pipeline.training.folds import folds_are_disjoint
from lens_pipeline.training.history import History
from lens_pipeline.training.order import refuse_unknown_weights, sampler_for
from lens_pipeline.training.processes import refuse_missing_gpus
from lens_pipeline.training.rows import read_rows, refuse_unusable
from lens_pipeline.training.spec import RunSpec
from lens_pipeline.training.stopping import refuse_unresolvable_monitor
from lens_pipeline.training.supervisor import Supervisor
from lens_pipeline.training.weights import refuse_unusable_weights
from lens_pipeline.training.weights_file import refuse_other_weights

Event = dict[str, Any]


@dataclass(frozen=True)
class TrainingSummary:
    """How a run ended.

    Attributes
    ----------
    epochs : int
        Epochs trained in full.
    best_epoch : int
        The epoch whose weights are the model.
    best_value : float
        The monitor there.
    ended : str
        Why it ended.
    seconds : float
        Wall time of this launch, start of the processes included.
    was_complete : bool
        Whether the run had ended before and nothing was trained now.
    """

    epochs: int
    best_epoch: int
    best_value: float
    monitor: str
    ended: str
    seconds: float
    was_complete: bool


@dataclass(frozen=True)
class TrainingResult:
    """What was put into the version: row counts and where the model comes from.

    Attributes
    ----------
    reader : str
        How the stamps were read when the run was last started, and why; of the run, not of the version.
    """

    epochs: int
    best_epoch: int
    n_train: int
    n_validation: int
    checkpoint: str
    history: pa.Table
    reader: str


def prepare_run(
    config: TrainingConfig,
    store: Publication,
    splits: Publication,
    run_folder: Path,
    *,
    watch: DamageWatch | None = None,
) -> Path:
    """Check everything that can be checked before the ranks start, and write run.json.

    Parameters
    ----------
    watch : DamageWatch, optional
        What knows whether the store was touched since it was last found sound; by default every byte is read.

    Returns
    -------
    Path
        Of run.json.

    Raises
    ------
    ConfigError
        If the device isn't there, or the file of pretrained weights isn't the one that was meant.
    TrainingError
        If a class is missing in train or val_select, there are too few rows, order, weights or monitor can't be made of
        them, a fold shares a galaxy with the others, or the folder holds another run or a launcher at work.
    SplitError
        If the splits were made for another version of the store.
    """
    wanted = config.world_size if config.device is Device.cuda else 0
    if problem := refuse_missing_gpus(config.device, wanted):
        raise ConfigError(problem)
    spec = RunSpec.of(config, store, splits)
    config, contract = spec.config, spec.contract
    if config.pretrained is not None and config.pretrained_sha256 is not None:
        refuse_other_weights(Path(config.pretrained), config.pretrained_sha256)
    # Before the store is re-read: that takes as long as its disk takes.
    refuse_unknown_weights(config, contract, store)
    (watch or DamageWatch()).refuse_damaged(store)
    rows = read_rows(splits, store, config)
    refuse_unusable(rows, contract, config)
    folds = folds_are_disjoint(config.folds, rows.train, rows.validation, splits, store)
    if not folds.passed:
        raise TrainingError(folds.message())
    sampler_for(config, contract, rows, store)
    refuse_unresolvable_monitor(config, rows, store)
    class_counts = rows.counts(rows.train, len(contract.classes))
    refuse_unusable_weights(config, class_counts, rows, store)
    spec = replace(spec, class_counts=class_counts)
    run_folder.mkdir(parents=True, exist_ok=True)
    folder = RunFolder(run_folder.absolute())
    with folder.occupied():
        _refuse_ended_with_other_ranks(folder, spec)
        spec.write(folder.specification)
        folder.make()
    return folder.specification


def launch(
    run_folder: Path,
    on_event: Callable[[Event], None] = lambda event: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> TrainingSummary:
    """Train a prepared run to its end under a supervisor, and pass its events on; a run that stopped midway goes on.

    An attempt that was killed, crashed or hung is followed by another, as long as that is worth it
    (`lens_pipeline.training.supervisor.Retries`).

    Parameters
    ----------
    on_event : callable
        Called with each event of history.jsonl: run_started, step, epoch, checkpoint, restart, stopped, finished.
    cancelled : callable
        Asked five times a second; once it is true, every process is gone within 10 seconds.

    Raises
    ------
    TrainingCancelledError
        If it was cancelled; the last checkpoint stands.
    TrainingInterruptedError
        If this process got a SIGTERM (in its main thread): the ranks wrote a checkpoint and left, within 30 seconds.
    TrainingError
        Naming the rank that failed, step, cause and log file; or if another launcher is at work in the folder.
    """
    folder = RunFolder(run_folder.absolute())
    started = time.monotonic()
    with folder.occupied():
        spec = RunSpec.read(folder.specification)
        before, _ = newest_checkpoint(folder.checkpoints, run=spec.sha256())
        was_complete = before is not None and before.progress.ended is not None
        if not was_complete:
            try:
                Supervisor(spec, folder, on_event, cancelled).run()
            except OSError as error:
                if not is_full(error):
                    raise
                newest, _ = newest_checkpoint(folder.checkpoints, run=spec.sha256())
                stands = f"Checkpoint {newest.name} stands" if newest else "There is no checkpoint yet"
                raise TrainingError(
                    f"{folder.path} can't be written into: {error.strerror}. {stands}. Make room, and materialize "
                    "lens_classifier again to go on from there."
                ) from error
    last = _ended_checkpoint(folder, spec)
    progress = last.progress
    assert progress.best_epoch is not None
    assert progress.best_value is not None
    assert progress.ended is not None
    return TrainingSummary(
        epochs=len(progress.history),
        best_epoch=progress.best_epoch,
        best_value=progress.best_value,
        monitor=spec.config.monitor.value,
        ended=progress.ended,
        seconds=time.monotonic() - started,
        was_complete=was_complete,
    )


def collect(run_folder: Path, staging: Staging) -> TrainingResult:
    """Copy the outcome of a finished run into a version: model, history, validation logits and ledgers.

    Writes ``model.safetensors`` and ``model.json`` (the best epoch's), the HISTORY table, the table
    ``validation_logits`` (epoch, task_id, logical, label, logit_*), and ``ledger-rank-*.ledger``.

    Raises
    ------
    TrainingError
        If the run hasn't ended, or its best checkpoint is damaged.
    """
    folder = RunFolder(run_folder.absolute())
    spec = RunSpec.read(folder.specification)
    last = _ended_checkpoint(folder, spec)
    progress = last.progress
    assert progress.best_checkpoint is not None
    assert progress.best_epoch is not None
    best = read_checkpoint(folder.checkpoints, progress.best_checkpoint, run=spec.sha256())
    store, splits = spec.open_inputs()
    shutil.copyfile(best.published_file, staging.folder / "model.safetensors")
    staging.write_json(
        "model.json",
        {
            **best.about,
            "best_epoch": progress.best_epoch,
            "config": spec.config.model_dump(mode="json"),
            "decoder_version": store.attributes["decoder_version"],
            "store_version": spec.store_version,
            "splits_version": spec.splits_version,
            "run": spec.sha256(),
        },
    )
    history = _history_table(progress.history)
    staging.write_table(None, history, HISTORY)
    staging.write_table("validation_logits", _validation_logits(folder, store, len(progress.history)))
    for rank, path in folder.ledgers().items():
        shutil.copyfile(path, staging.folder / f"ledger-rank-{rank}.ledger")
    rows = read_rows(splits, store, spec.config)
    staging.attributes.update(
        {
            "best_epoch": progress.best_epoch,
            "epochs": len(progress.history),
            "ended": progress.ended,
            "monitor": spec.config.monitor.value,
            "world_sizes": progress.world_sizes,
            "config": spec.config.model_dump(mode="json"),
            "dataset_contract": spec.contract.model_dump(mode="json"),
            "dataset_contract_sha256": spec.contract.sha256(),
            "class_counts": list(spec.class_counts),
        }
    )
    return TrainingResult(
        epochs=len(progress.history),
        best_epoch=progress.best_epoch,
        n_train=len(rows.train),
        n_validation=len(rows.validation),
        checkpoint=best.name,
        history=history,
        reader=(History.of(folder.history).started or {}).get("reader_why", "not known: the run's own account is gone"),
    )


def _refuse_ended_with_other_ranks(folder: RunFolder, spec: RunSpec) -> None:
    """Refuse to pass off a model that other numbers of ranks trained: its bits are not what these settings give."""
    last, _ = newest_checkpoint(folder.checkpoints, run=spec.sha256())
    if last is not None and last.progress.ended is not None and last.progress.world_sizes[-1] != spec.config.world_size:
        raise TrainingError(
            f"{folder.path} holds a run that has ended, with world_size {last.progress.world_sizes[-1]}, not "
            f"{spec.config.world_size}. Give this run a folder of its own."
        )


def _ended_checkpoint(folder: RunFolder, spec: RunSpec) -> Checkpoint:
    last, damaged = newest_checkpoint(folder.checkpoints, run=spec.sha256())
    if last is None or last.progress.ended is None:
        stands = (
            f"it stands at epoch {last.progress.epoch}, step {last.progress.step}" if last else "it has no checkpoint"
        )
        raise TrainingError(
            f"the run in {folder.path} has not ended: {stands}. {' '.join(damaged)} Next: materialize lens_classifier."
        )
    return last


def _history_table(history: list[dict[str, Any]]) -> pa.Table:
    """Return the epochs as a table, without wall times: the same training is the same version on any machine."""
    typed = {column.name: column.dtype for column in HISTORY.columns}
    names = [name for name in history[0] if name not in TIMINGS]
    return pa.table({name: pa.array([row[name] for row in history], typed.get(name)) for name in names})


def _validation_logits(folder: RunFolder, store: Publication, epochs: int) -> pa.Table:
    logits = pa.concat_tables([read_parquet(folder.validation(epoch)) for epoch in range(epochs)])
    index = store.read_table(None, ["task_id", "logical", "label"])
    places = pc.index_in(logits["logical"], value_set=index["logical"].combine_chunks())
    named = index.take(places)
    return logits.add_column(1, "task_id", named["task_id"]).add_column(3, "label", named["label"])
