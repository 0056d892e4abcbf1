"""A sweep remembers its trials whatever kills it, gives up hopeless ones, and never sees which rows are of test."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from lens_pipeline.contracts.errors import ConfigError, SplitError, StorageError, TrainingError
from lens_pipeline.splits.withholding import withhold
from lens_pipeline.stamps.ledger import LedgerReader
from lens_pipeline.stamps.store import verify
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training import study as study_module
from lens_pipeline.training.choices import Monitor
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.failures import TrainingCancelledError, TrainingInterruptedError
from lens_pipeline.training.folder import RunFolder
from lens_pipeline.training.history import History
from lens_pipeline.training.rows import read_rows
from lens_pipeline.training.search import SweepConfig
from lens_pipeline.training.spec import RunSpec
from lens_pipeline.training.study import TrialStore
from lens_pipeline.training.sweep import Sweep, Trial, trainer
from lens_pipeline.training.sweep_figures import sweep_figures
from lens_pipeline_tests.training.conftest import Survey
from lens_pipeline_tests.training.making import QUICK, small_survey
from lens_pipeline_tests.training.test_search import NOTHING

BASE = TrainingConfig(epochs=4)
SPACE: dict[str, Any] = {
    **NOTHING,
    "learning_rate": [1e-3, 1e-1],
    "dropout": [0.0, 0.5],
    "trials": 6,
    "startup_trials": 3,
}
Events = Callable[[dict[str, Any]], None]


def loss_of(config: TrainingConfig) -> float:
    return abs(config.learning_rate - 0.03) + config.dropout


def quickly(trial: Trial, on_event: Events, cancelled: Callable[[], bool]) -> float:
    """Stands for a training whose loss falls by the same amount each epoch."""
    for epoch in range(trial.config.epochs):
        on_event({"event": "epoch", "epoch": epoch, "val_loss": loss_of(trial.config) + 0.1 * (3 - epoch)})
        if cancelled():
            raise TrainingCancelledError("cancelled")
    return loss_of(trial.config)


def sweep(folder: Path, train: Any = quickly, base: TrainingConfig = BASE, **changes: Any) -> Sweep:
    space = SweepConfig.model_validate(SPACE | changes)
    store = TrialStore("tried", folder, larger_is_better=base.monitor.larger_is_better)
    return Sweep(space, base, store, folder, train)


def states(made: Sweep) -> list[str]:
    return list(made.table()["state"].to_pylist())


def test_the_best_trial_is_the_one_with_the_best_monitor_either_way_round(tmp_path: Path) -> None:
    (tmp_path / "loss").mkdir()
    made = sweep(tmp_path / "loss", pruner="none")
    best = made.run()
    assert best.value == min(made.table()["value"].to_pylist())

    def area(trial: Trial, on_event: Events, cancelled: Callable[[], bool]) -> float:
        return loss_of(trial.config)

    (tmp_path / "area").mkdir()
    other = sweep(tmp_path / "area", area, TrainingConfig(epochs=4, monitor=Monitor.val_auroc), pruner="none")
    assert other.run().value == max(other.table()["value"].to_pylist())


def test_the_same_sweep_draws_the_same_settings_in_one_go_or_in_several(tmp_path: Path) -> None:
    (tmp_path / "once").mkdir()
    (tmp_path / "twice").mkdir()
    once = sweep(tmp_path / "once")
    once.run()
    sweep(tmp_path / "twice", trials=2).run()
    twice = sweep(tmp_path / "twice")
    twice.run()
    assert once.table().drop_columns(["seconds"]) == twice.table().drop_columns(["seconds"])
    assert len(set(once.table()["dropout"].to_pylist())) == 6


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_hopeless_trials_are_given_up_with_the_reason(tmp_path: Path, pruner: str) -> None:
    made = sweep(tmp_path, pruner=pruner, trials=14)
    made.run()
    given_up = [row for row in made.table().to_pylist() if row["state"] == "pruned"]
    assert given_up
    for row in given_up:
        assert row["epochs"] < BASE.epochs
        assert row["value"] is None
        assert re.match(r"given up by the pruner after epoch \d, val_loss 0\.", row["reason"])


def test_without_a_pruner_every_trial_is_trained_to_its_end(tmp_path: Path) -> None:
    made = sweep(tmp_path, pruner="none")
    made.run()
    assert made.table()["epochs"].to_pylist() == [BASE.epochs] * 6


def test_a_combination_that_is_no_training_is_given_up_with_the_trainings_own_reason(tmp_path: Path) -> None:
    choices = {"model": ["test_resnet", "test_convnext"], "batch_size": [16, 64]}
    made = sweep(tmp_path, pruner="none", trials=12, **choices)
    made.run()
    rows = made.table().to_pylist()
    refused = [row for row in rows if (row["model"], row["batch_size"]) == ("test_resnet", 16)]
    assert refused
    assert {row["state"] for row in refused} == {"pruned"}
    assert all("no valid training: test_resnet normalises over the batch" in row["reason"] for row in refused)
    assert {row["state"] for row in rows if row not in refused} == {"complete"}


def test_settings_that_were_tried_before_are_not_trained_again(tmp_path: Path) -> None:
    trained = []

    def counting(trial: Trial, on_event: Events, cancelled: Callable[[], bool]) -> float:
        trained.append(trial.config.batch_size)
        return float(trial.config.batch_size)

    made = sweep(tmp_path, counting, learning_rate=[], dropout=[], batch_size=[32, 64])
    assert made.run().value == 32
    assert sorted(trained) == [32, 64]
    reasons = [reason for reason in made.table()["reason"].to_pylist() if reason]
    assert len(reasons) == 4
    assert all(re.fullmatch(r"the same settings as trial \d, not trained again", reason) for reason in reasons)


def test_a_trial_that_fails_is_told_of_and_the_sweep_goes_on(tmp_path: Path) -> None:
    def failing(trial: Trial, on_event: Events, cancelled: Callable[[], bool]) -> float:
        if trial.number == 1:
            raise TrainingError("val_loss on val_select is nan: the model diverged")
        return quickly(trial, on_event, cancelled)

    made = sweep(tmp_path, failing, pruner="none")
    made.run()
    assert states(made) == ["complete", "fail", *["complete"] * 4]
    assert made.table()["reason"][1].as_py() == "val_loss on val_select is nan: the model diverged"


def test_a_store_that_is_damaged_ends_the_sweep_at_once_and_costs_no_setting(tmp_path: Path) -> None:
    def damaged(trial: Trial, on_event: Events, cancelled: Callable[[], bool]) -> float:
        if trial.number == 1:
            raise StorageError("stamp_store is not what was published")
        return quickly(trial, on_event, cancelled)

    with pytest.raises(StorageError, match="stamp_store is not what was published"):
        sweep(tmp_path, damaged, pruner="none").run()
    made = sweep(tmp_path, pruner="none", trials=3)
    made.run()
    rows = made.table().to_pylist()
    assert [row["state"] for row in rows] == ["complete", "fail", "complete", "complete"]
    assert rows[1]["reason"] == "stamp_store is not what was published"
    assert rows[2]["dropout"] == rows[1]["dropout"]


def test_a_sweep_in_which_nothing_works_stops_early_and_says_why(tmp_path: Path) -> None:
    def failing(trial: Trial, on_event: Events, cancelled: Callable[[], bool]) -> float:
        raise TrainingError("no GPU here")

    made = sweep(tmp_path, failing)
    with pytest.raises(TrainingError, match=r"3 trials in a row failed.*no GPU here"):
        made.run()
    with pytest.raises(TrainingError, match=r"none of 3 trials was trained to its end.*no GPU here"):
        made.best()


KILLED = """
import os, signal, sys
from pathlib import Path
from lens_pipeline_tests.training.test_sweep import quickly, sweep
def train(trial, on_event, cancelled):
    if trial.number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return quickly(trial, on_event, cancelled)
sweep(Path(sys.argv[1]), train, pruner="none").run()
"""


def test_a_sweep_that_was_killed_marks_the_trial_failed_tries_it_again_and_trains_as_many_as_asked_for(
    tmp_path: Path,
) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    made = sweep(tmp_path, pruner="none")
    assert states(made) == ["complete", "complete", "running"]
    made.run()
    rows = made.table().to_pylist()
    assert [row["state"] for row in rows] == ["complete", "complete", "fail", *["complete"] * 4]
    assert rows[2]["reason"] == "its process was killed"
    settings = ("learning_rate", "dropout")
    assert [rows[3][name] for name in settings] == [rows[2][name] for name in settings]


@pytest.mark.parametrize("how", [KeyboardInterrupt(), TrainingInterruptedError("SIGTERM"), SystemExit(1)])
def test_an_interrupted_trial_is_marked_and_tried_again_once(tmp_path: Path, how: BaseException) -> None:
    def interrupted(trial: Trial, on_event: Events, cancelled: Callable[[], bool]) -> float:
        raise how

    with pytest.raises(type(how)):
        sweep(tmp_path, interrupted).run()
    with pytest.raises(type(how)):
        sweep(tmp_path, interrupted).run()
    made = sweep(tmp_path, trials=2)
    made.run()
    rows = made.table().to_pylist()
    assert [row["state"] for row in rows] == ["fail", "fail", "complete"]
    assert rows[0]["dropout"] == rows[1]["dropout"] != rows[2]["dropout"]


def test_a_locked_storage_is_a_clear_error_and_what_ended_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_module, "LOCK_SECONDS", 0.1)
    sweep(tmp_path, trials=2).run()
    made = sweep(tmp_path)
    with closing(sqlite3.connect(tmp_path / "study.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match=r"study\.db can't be used: another process has locked it"):
            made.run()
        with pytest.raises(StorageError, match="locked"):
            sweep(tmp_path)
    again = sweep(tmp_path)
    again.run()
    assert states(again).count("complete") + states(again).count("pruned") == 6


def test_a_storage_that_is_locked_in_the_middle_of_a_trial_loses_that_trial_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_module, "LOCK_SECONDS", 0.1)
    with closing(sqlite3.connect(tmp_path / "study.db", isolation_level=None)) as other:

        def locking(trial: Trial, on_event: Events, cancelled: Callable[[], bool]) -> float:
            if trial.number == 1:
                other.execute("BEGIN EXCLUSIVE")
            return quickly(trial, on_event, cancelled)

        with pytest.raises(StorageError, match="locked"):
            sweep(tmp_path, locking, pruner="none").run()
        other.execute("ROLLBACK")
    made = sweep(tmp_path, pruner="none", trials=3)
    made.run()
    assert states(made) == ["complete", "fail", "complete", "complete"]


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"not a database, but long enough to look like one" * 100)
    with pytest.raises(StorageError, match="file is not a database"):
        sweep(tmp_path)


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("sesame", ConfigError, "isn't the address of a database"),
        ("nosuch://user:sesame@host/db", ConfigError, "no driver for nosuch"),
        ("postgresql+pg8000://user:sesame@host/db", ConfigError, "no driver for postgresql"),
        ("sqlite:////nowhere/sesame-is-no-secret/x.db", StorageError, "unable to open database file"),
    ],
)
def test_a_storage_address_that_cannot_be_used_is_refused_and_its_password_never_shown(
    tmp_path: Path, address: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        TrialStore("tried", tmp_path, larger_is_better=False, address=address)
    if error is ConfigError:
        assert "sesame" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_trials_of_another_place_in_a_shared_storage_are_left_running(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'shared.db'}"
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for folder in (mine, theirs):
        store = TrialStore("tried", folder, larger_is_better=False, address=address)
        trial = store.study.ask()
        trial.suggest_float("dropout", 0, 1)
        trial.set_user_attr("place", store.place)
    assert store.recover() == 1
    assert [trial.state for trial in store.trials()] == [TrialState.RUNNING, TrialState.FAIL, TrialState.WAITING]


def test_pictures_are_drawn_or_the_reason_why_not_is_told(tmp_path: Path) -> None:
    made = sweep(tmp_path, pruner="none", trials=1)
    made.run()
    study = TrialStore("tried", tmp_path, larger_is_better=False).study
    drawn, absent = sweep_figures(study, "val_loss")
    assert (sorted(drawn), list(absent)) == (["history", "parallel_coordinates"], ["importances"])
    assert "2 trials" in absent["importances"]
    sweep(tmp_path, pruner="none").run()
    drawn, absent = sweep_figures(study, "val_loss")
    assert (sorted(drawn), absent) == (["history", "importances", "parallel_coordinates"], {})
    assert all(png.startswith(b"\x89PNG") for png in drawn.values())
    again, _ = sweep_figures(study, "val_loss")
    assert again == drawn


def test_a_sweeps_splits_do_not_tell_which_rows_are_of_test(tmp_path: Path, survey: Survey) -> None:
    store, splits = survey
    told = withhold(splits, store, tmp_path / "told")
    rows = told.read_table("rows", ["split"])["split"]
    assert set(rows.to_pylist()) == {"train", "val_select", "withheld"}
    full, shown = read_rows(splits, store, TrainingConfig()), read_rows(told, store, TrainingConfig())
    assert full.train.tolist() == shown.train.tolist()
    assert full.validation.tolist() == shown.validation.tolist()
    assert withhold(splits, store, tmp_path / "told").version == told.version
    with pytest.raises(SplitError, match="tell which rows are of test, val_calibrate"):
        trainer(store, splits)


def test_a_sweep_reads_the_store_through_once_and_still_refuses_one_that_was_changed_between_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, splits = small_survey(Home(tmp_path / "home"), n_galaxies=60)
    readings: list[str] = []

    def counted(publication: Publication) -> list[str]:
        readings.append(publication.version)
        return verify(publication)

    monkeypatch.setattr("lens_pipeline.stamps.store.verify", counted)
    monkeypatch.setattr("lens_pipeline.training.sweep.launch", lambda *_: SimpleNamespace(best_value=0.5))
    train = trainer(store, withhold(splits, store, tmp_path / "told"))

    def try_once(number: int) -> float:
        config = TrainingConfig.model_validate(QUICK | {"epochs": number + 1})
        return train(Trial(number, {}, config, tmp_path / f"trial-{number}"), lambda event: None, lambda: False)

    assert [try_once(number) for number in range(3)] == [0.5] * 3
    assert len(readings) == 1
    segment = next(store.folder.glob("*.f16"))
    before, sound = segment.stat(), segment.read_bytes()
    with open(segment, "r+b") as file:
        file.seek(-7, 2)
        file.write(bytes([sound[-7] ^ 1]))
    # As long and as old as it was.
    os.utime(segment, ns=(before.st_atime_ns, before.st_mtime_ns))
    for number in (3, 4):
        with pytest.raises(StorageError, match=r"(?s)not what was published.*segment-00000\.f16"):
            try_once(number)
    segment.write_bytes(sound)
    assert try_once(5) == 0.5
    assert len(readings) == 4


def test_real_trainings_are_swept_on_train_and_val_select_alone_and_given_up_when_the_pruner_says_so(
    tmp_path: Path, survey: Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda trial: trial.number == 1)
    store, splits = survey
    told = withhold(splits, store, tmp_path / "told")
    # Long enough that the second training is still at it when it's told to stop, on any machine.
    base = TrainingConfig.model_validate(QUICK | {"epochs": 60, "patience": 60, "world_size": 1, "attempts": 1})
    made = sweep(tmp_path, trainer(store, told), base, trials=2)
    best = made.run()
    assert states(made) == ["complete", "pruned"]
    assert made.table()["epochs"].to_pylist() == [60, 1]
    stopped = RunFolder({trial.number: folder for trial, folder in made.trained()}[1])
    assert len(History.of(stopped.history).epochs) < 60
    full = read_rows(splits, store, TrainingConfig())
    allowed = set(full.train.tolist())
    for trial, folder in made.trained():
        run = RunFolder(folder)
        assert RunSpec.read(run.specification).splits == str(told.folder.absolute())
        fed = [block for path in run.ledgers().values() for block in LedgerReader(path, n_rows=len(full.labels))]
        assert fed
        assert {int(row) for block in fed for row in block.rows} <= allowed
        assert not run.checkpoints.exists()
        if trial.number == best.number:
            assert best.value == min(epoch["val_loss"] for epoch in History.of(run.history).epochs)
