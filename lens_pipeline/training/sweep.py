"""A search for the best settings: trial after trial, each a training of its own, judged on val_select.

Belongs here: drawing a setting, training it, giving it up early, and what came of it all. What is searched stands in
`search.py`, where trials are remembered in `study.py`. Imports no torch.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pyarrow as pa
import pyarrow.compute as pc
from optuna.trial import FrozenTrial, TrialState

from lens_pipeline.contracts.catalogue import SWEEP
from lens_pipeline.contracts.errors import PipelineError, SplitError, StorageError, TrainingError, first_few
from lens_pipeline.splits.assignment import WITHHELD
from lens_pipeline.splits.region_splits import iterate_split_rows
from lens_pipeline.splits.withholding import TOLD
from lens_pipeline.stamps.store import DamageWatch
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.failures import TrainingCancelledError, TrainingInterruptedError
from lens_pipeline.training.folder import TRIALS, RunFolder
from lens_pipeline.training.history import Event, History
from lens_pipeline.training.run import launch, prepare_run
from lens_pipeline.training.search import CHOICES, RANGES, Params, Pruner, SweepConfig, check_corners, setting_of
from lens_pipeline.training.study import LOST, PLACE, REASON, SECONDS, SETTING, TrialStore, reason_of

# So many trials in a row that fail mean that the next one would too.
_MOST_FAILURES = 3
# The sweep ends of them: its process was asked to stop, or the store or the disk is damaged. The trial is tried again.
_NOT_THE_SETTINGS_FAULT = (TrainingInterruptedError, StorageError)


@dataclass(frozen=True)
class Trial:
    """One training of a sweep.

    Attributes
    ----------
    folder : Path
        Of its run, named after the settings: a second go at them goes on from the last checkpoint.
    """

    number: int
    params: Params
    config: TrainingConfig
    folder: Path


# Trains a trial: gets the trial, whom to tell of events, and whom to ask whether to give up; returns the best monitor.
Train = Callable[[Trial, Callable[[Event], None], Callable[[], bool]], float]


def trainer(store: Publication, told: Publication) -> Train:
    """Return what trains a trial under the supervisor, on rows of train, judged on val_select.

    Parameters
    ----------
    told : Publication
        Splits without test (`lens_pipeline.splits.withholding`); the trainings get no others.

    Raises
    ------
    SplitError
        If they name rows of another split than train and val_select.
    """
    named: set[str] = set()
    for batch in iterate_split_rows(told, store, ["split"]):
        named.update(pc.unique(batch["split"]).to_pylist())
    if other := sorted(named - {*TOLD, WITHHELD}):
        raise SplitError(
            f"a sweep is given splits {told.version} that tell which rows are of {first_few(other)}: settings that were "
            "chosen beside them could not be judged on them. Hand it what splits.withholding.withhold returns."
        )

    watch = DamageWatch()

    def train(trial: Trial, on_event: Callable[[Event], None], cancelled: Callable[[], bool]) -> float:
        folder = RunFolder(trial.folder)
        prepare_run(trial.config, store, told, trial.folder, watch=watch)
        for event in History.of(folder.history).epochs:
            on_event(event)
        try:
            value = launch(trial.folder, on_event, cancelled).best_value
        except TrainingCancelledError:
            shutil.rmtree(folder.checkpoints, ignore_errors=True)
            raise
        # The setting is what a sweep is after; its model is trained when the preset is.
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
        return value

    return train


class Sweep:
    """Tries settings until as many trials as asked for have ended; one that was killed goes on when it is started again.

    Parameters
    ----------
    space : SweepConfig
        What is searched.
    base : TrainingConfig
        All other settings, and the monitor.
    trials : TrialStore
        Where trials are remembered.
    folder : Path
        Where trials have their folders.
    train : callable
        Trains one.
    around : callable, optional
        Returns a context in which a trial is trained, which sees how it ended.
    say : callable, optional
        Gets a sentence for people now and then.

    Raises
    ------
    ConfigError
        If a part of the space can't be trained at all.
    """

    def __init__(
        self,
        space: SweepConfig,
        base: TrainingConfig,
        trials: TrialStore,
        folder: Path,
        train: Train,
        *,
        around: Callable[[Trial], AbstractContextManager[None]] = lambda trial: nullcontext(),
        say: Callable[[str], None] = lambda words: None,
    ) -> None:
        self._space, self._base, self._trials, self._folder = space, base, trials, folder
        self._train, self._around, self._say = train, around, say
        self.corners = check_corners(space, base)

    def run(self) -> FrozenTrial:
        """Try on, and return the best trial of all.

        Raises
        ------
        TrainingError
            If trial after trial fails, or none was trained to its end.
        StorageError
            If the storage fails; trials that have ended stand.
        """
        self._say(self.corners.words)
        if lost := self._trials.recover():
            self._say(f"{lost} trials were lost, their process was killed: marked failed, and tried once more")
        failed: list[str] = []
        while (done := len(self._trials.counted())) < self._space.trials:
            ended = self._one()
            self._say(f"{done + 1} of {self._space.trials}: {in_words(ended, self._base.monitor.value)}")
            failed = [*failed, reason_of(ended) or ""] if ended.state is TrialState.FAIL else []
            if len(failed) == _MOST_FAILURES:
                raise TrainingError(
                    f"{len(failed)} trials in a row failed, and the sweep has stopped: {failed[-1]} Trials that have ended "
                    "stand; mend it and start the same sweep again."
                )
        return self.best()

    def best(self) -> FrozenTrial:
        """Return the best trial so far.

        Raises
        ------
        TrainingError
            If none was trained to its end, with the reasons.
        """
        counted = self._trials.counted()
        complete = [trial for trial in counted if trial.state is TrialState.COMPLETE]
        if not complete:
            reasons = dict.fromkeys(reason_of(trial) or "" for trial in counted)
            raise TrainingError(
                f"none of {len(counted)} trials was trained to its end, so there is no best setting. Reasons: "
                f"{first_few(reasons)}. Narrow the space, or ask for more trials."
            )
        sign = -1 if self._base.monitor.larger_is_better else 1
        return min(complete, key=lambda trial: (sign * float(trial.value or 0.0), trial.number))

    def table(self) -> pa.Table:
        """Every trial with its settings, value, state, reason and seconds (SWEEP)."""
        rows = [self._row(trial) for trial in self._trials.trials() if trial.state is not TrialState.WAITING]
        return pa.table({c.name: pa.array([row[c.name] for row in rows], c.dtype) for c in SWEEP.columns})

    def trained(self) -> Iterator[tuple[FrozenTrial, Path]]:
        """Trials that were trained, with the folders of their runs."""
        for trial in self._trials.trials():
            if SETTING in trial.user_attrs and (folder := self._folder_of(trial.user_attrs[SETTING])).is_dir():
                yield trial, folder

    def standard_error(self, trial: FrozenTrial) -> float | None:
        """Return the standard error of a trial's value over rows, where its history tells one: that of val_loss."""
        monitor = self._base.monitor.value
        folders = [folder for one, folder in self.trained() if one.number == trial.number]
        epochs = [epoch for folder in folders for epoch in History.of(RunFolder(folder).history).epochs]
        return next((epoch.get(f"{monitor}_se") for epoch in epochs if epoch.get(monitor) == trial.value), None)

    def _row(self, trial: FrozenTrial) -> dict[str, Any]:
        base = self._base.model_dump(mode="json")
        absent = dict.fromkeys(self._space.searched)
        return {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "value": trial.value if trial.state is TrialState.COMPLETE else None,
            "reason": reason_of(trial),
            "epochs": len(trial.intermediate_values),
            "seconds": trial.user_attrs.get(SECONDS),
            **{name: value for name, value in base.items() if name in (*RANGES, *CHOICES)},
            **absent,
            **trial.params,
        }

    def _one(self) -> FrozenTrial:
        """Try one setting. Returns the ended trial."""
        study = self._trials.study
        # Its own stream for each trial: a sweep that goes on draws what it would have drawn, not the first ones again.
        drawn = hashlib.blake2b(f"{self._space.seed}:{len(self._trials.trials())}".encode(), digest_size=4).digest()
        study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=self._space.startup_trials, seed=int.from_bytes(drawn, "big")
        )
        study.pruner = self._pruner()
        ended: list[int] = []
        try:
            with self._trials.errors():
                study.optimize(
                    self._objective,
                    n_trials=1,
                    catch=(_FailedTrialError,),
                    callbacks=[lambda _, t: ended.append(t.number)],
                )
        except BaseException:
            # A storage that fails now is told of its lost trial at the next start.
            with suppress(StorageError):
                self._trials.recover()
            raise
        return self._trials.trials()[ended[0]]

    def _pruner(self) -> optuna.pruners.BasePruner:
        space, epochs = self._space, self._base.epochs
        if space.pruner is Pruner.median:
            return optuna.pruners.MedianPruner(space.startup_trials, n_warmup_steps=space.epochs_before_pruning)
        if space.pruner is Pruner.hyperband:
            return optuna.pruners.HyperbandPruner(min(max(space.epochs_before_pruning, 1), epochs), epochs)
        return optuna.pruners.NopPruner()

    def _objective(self, drawn: optuna.Trial) -> float:
        started = time.monotonic()
        drawn.set_user_attr(PLACE, self._trials.place)
        try:
            with _noted(drawn, started):
                return self._value(drawn, self._draw(drawn))
        except PipelineError as error:
            if isinstance(error, _NOT_THE_SETTINGS_FAULT):
                raise
            raise _FailedTrialError(str(error)) from error

    def _draw(self, drawn: optuna.Trial) -> Params:
        space = self._space
        params: Params = {}
        for name in space.searched:
            values = getattr(space, name)
            if name in RANGES:
                params[name] = drawn.suggest_float(name, *values, log=name in space.logarithmic)
            else:
                params[name] = drawn.suggest_categorical(name, values)
        return params

    def _value(self, drawn: optuna.Trial, params: Params) -> float:
        try:
            config = setting_of(self._base, params)
        except ValueError as error:
            raise optuna.TrialPruned(f"no valid training: {error}") from error
        setting = _name(config)
        for other in self._trials.trials():
            if other.state is TrialState.COMPLETE and other.user_attrs.get(SETTING) == setting:
                drawn.set_user_attr(REASON, f"the same settings as trial {other.number}, not trained again")
                return float(other.value or 0.0)
        drawn.set_user_attr(SETTING, setting)
        trial = Trial(drawn.number, params, config, self._folder_of(setting))
        given_up = _GivingUp(drawn, config.monitor.value)
        with self._around(trial):
            try:
                return self._train(trial, given_up.take, lambda: given_up.why is not None)
            except TrainingCancelledError as error:
                raise optuna.TrialPruned(given_up.why or str(error)) from error

    def _folder_of(self, setting: str) -> Path:
        return self._folder / TRIALS / setting


class _FailedTrialError(Exception):
    """A trial failed; the sweep goes on."""


class _GivingUp:
    """Tells a trial's epochs to the pruner, and keeps why it gave the trial up."""

    def __init__(self, drawn: optuna.Trial, monitor: str) -> None:
        self._drawn, self._monitor = drawn, monitor
        self._last = -1
        self.why: str | None = None

    def take(self, event: Event) -> None:
        """Take an event of the training's history; an epoch that was told of before is passed over."""
        value = event.get(self._monitor)
        if event["event"] != "epoch" or value is None or event["epoch"] <= self._last or self.why is not None:
            return
        self._last = int(event["epoch"])
        self._drawn.report(float(value), self._last + 1)
        if self._drawn.should_prune():
            self.why = f"given up by the pruner after epoch {self._last}, {self._monitor} {value:.4g}"


@contextmanager
def _noted(drawn: optuna.Trial, started: float) -> Iterator[None]:
    """Note how long a trial took and why it didn't end well."""
    try:
        yield
    except optuna.TrialPruned as error:
        drawn.set_user_attr(REASON, str(error))
        raise
    except BaseException as error:
        drawn.set_user_attr(REASON, " ".join(str(error).split()) or type(error).__name__)
        if not isinstance(error, PipelineError) or isinstance(error, _NOT_THE_SETTINGS_FAULT):
            # It may go on.
            drawn.set_user_attr(LOST, True)
        raise
    finally:
        drawn.set_user_attr(SECONDS, time.monotonic() - started)


def in_words(trial: FrozenTrial, monitor: str) -> str:
    """Say how a trial ended."""
    value = f", {monitor} {trial.value:.5g}" if trial.state is TrialState.COMPLETE else ""
    why = reason_of(trial)
    seconds = trial.user_attrs.get(SECONDS)
    took = f", {seconds:.0f} s" if seconds is not None else ""
    return f"trial {trial.number} {trial.state.name.lower()}{value}{took}" + (f": {why}" if why else "")


def study_name(space: SweepConfig, base: TrainingConfig, told: Publication, store: Publication, code: str) -> str:
    """Name a study after all that makes its trials comparable: the space, other settings, rows and code."""
    about = [space.identity(), base.model_dump(mode="json"), store.version, told.version, code]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def _name(config: TrainingConfig) -> str:
    return hashlib.sha256(json.dumps(config.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:16]
