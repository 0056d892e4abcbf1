"""Watching a training: plain where there is no terminal, ends when the run ends, and touches nothing."""

import fcntl
import io
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lens_pipeline.cli import watch
from lens_pipeline.cli.main import main
from lens_pipeline.storage.home import Home
from lens_pipeline.training.folder import TRIALS, RunFolder
from lens_pipeline_tests.training.events import epoch, finished, run_started, step


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def begun(name: str, *events: dict[str, Any], model: str | None = None, trial: str | None = None) -> RunFolder:
    """Begin a training of a model, or a trial of a sweep for it."""
    asset = "lens_classifier" if trial is None else "sweep"
    work = Home.from_environment().work_folder("simulated", asset, name, model=model)
    folder = RunFolder(work if trial is None else work / TRIALS / trial)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.specification.write_text("{}")
    write(folder, *events)
    return folder


def write(folder: RunFolder, *events: dict[str, Any]) -> None:
    with open(folder.history, "a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


def wait_for(out: io.StringIO, words: str) -> None:
    deadline = time.monotonic() + 60
    while words not in out.getvalue():
        assert time.monotonic() < deadline, f"{words!r} was not shown: {out.getvalue()!r}"
        time.sleep(0.05)


@contextmanager
def at_work(folder: RunFolder) -> Iterator[None]:
    with open(folder.lock, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def watched(out: io.StringIO, *, model: str | None = None, once: bool = False) -> str:
    assert watch.run({}, model=model, once=once, out=out) == 0
    return out.getvalue()


def test_a_past_training_is_shown_and_the_watching_ends() -> None:
    begun("past", run_started(), step(0, 5), epoch(0), epoch(1), finished())
    shown = watched(io.StringIO())
    assert "training 640 stamps on 2 ranks" in shown
    assert "epoch 1: training loss 0.4500" in shown
    assert "training ended: all epochs were trained; best epoch 3" in shown
    assert "\x1b" not in shown


def test_a_terminal_gets_a_table_of_epochs_with_what_the_machine_did() -> None:
    begun("past", run_started(), step(0, 5), epoch(0, data_wait_share=0.015), epoch(1, val_auroc=None), finished())
    shown = watched(Terminal(), once=True)
    assert "val_select" in shown
    assert "1.5%" in shown
    assert "20 of at most 40 steps (50%)" in shown


def test_a_run_that_broke_off_says_so_and_what_to_type() -> None:
    begun("lost", run_started(), step(0, 5))
    for shown in (watched(io.StringIO()), " ".join(watched(Terminal(), once=True).split())):
        assert "broken off; materialize lens_classifier to go on" in shown
        assert "5 of at most 40 steps (12%)" in shown


def test_a_run_that_nobody_is_at_work_on_has_no_time_at_which_it_ends() -> None:
    folder = begun("lost", run_started(), step(0, 5), step(0, 8))
    with at_work(folder):
        assert "at most 32 s left" in watched(io.StringIO(), once=True)
    for out in (io.StringIO(), Terminal()):
        shown = watched(out, once=True)
        assert "broken off" in shown
        assert "left" not in shown


def test_a_running_training_is_followed_until_it_ends() -> None:
    folder, out = begun("running", run_started(), step(0, 5)), io.StringIO()
    with at_work(folder):
        watching = threading.Thread(target=watch.run, args=({},), kwargs={"out": out})
        watching.start()
        wait_for(out, "training 640 stamps")
        write(folder, epoch(0))
        wait_for(out, "epoch 0: training loss")
        assert watching.is_alive()
        write(folder, finished())
        watching.join(30)
    assert not watching.is_alive()
    assert "training ended" in out.getvalue()


def test_once_shows_a_running_training_and_ends_at_once() -> None:
    folder = begun("running", run_started(), step(0, 5), step(0, 8))
    with at_work(folder):
        assert "running" in watched(io.StringIO(), once=True)
        assert "at most 32 s left" in " ".join(watched(Terminal(), once=True).split())


def test_of_several_trainings_the_one_at_work_is_shown() -> None:
    running = begun("running", run_started(train_rows=111))
    time.sleep(0.01)
    begun("newer", run_started(train_rows=222), finished())
    with at_work(running):
        assert "training 111 stamps" in watched(io.StringIO(), once=True)
    assert "training 222 stamps" in watched(io.StringIO(), once=True)


@pytest.mark.parametrize(
    ("place", "again"),
    [
        ({"model": "default.fold-0-of-3"}, "type the same lens_pipeline train again"),
        ({"model": "default.seed-7"}, "type the same lens_pipeline train again"),
        ({"trial": "some-setting"}, "the same sweep again"),
    ],
)
def test_a_member_or_a_trial_at_work_is_shown_before_any_other_and_how_it_would_go_on(
    place: dict[str, str], again: str
) -> None:
    running = begun("running", run_started(train_rows=111), **place)
    time.sleep(0.01)
    begun("newer", run_started(train_rows=222), finished())
    begun("another", run_started(train_rows=333), model="defaults")
    with at_work(running):
        assert "training 111 stamps" in watched(io.StringIO(), once=True)
    assert "training 222 stamps" in watched(io.StringIO(), once=True)
    write(running, step(0, 5, time=time.time()))
    os.utime(running.history, (time.time() + 9, time.time() + 9))
    assert f"broken off; {again}" in watched(io.StringIO(), once=True)


def test_another_model_is_watched_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    begun("one", run_started(train_rows=111), finished(), model="tiny")
    time.sleep(0.01)
    begun("two", run_started(train_rows=222), finished())
    assert main(["watch", "--once", "--model", "tiny"]) == 0
    assert "training 111 stamps" in capsys.readouterr().out
    assert main(["watch", "--once", "--model", "huge"]) == 1
    assert "model 'huge' was begun" in capsys.readouterr().err


def test_without_any_training_the_next_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch"]) == 1
    assert "dagster asset materialize --select lens_classifier" in capsys.readouterr().err


def test_watching_writes_nothing(tmp_path: Path) -> None:
    folder = begun("past", run_started(), step(0, 5), epoch(0), finished())
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    watched(io.StringIO())
    watched(Terminal())
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")} == before
