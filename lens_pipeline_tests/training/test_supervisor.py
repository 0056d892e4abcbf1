"""What the supervisor does about each way in which an attempt can end; an actor plays torchrun (`acting.py`)."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.training import supervisor
from lens_pipeline.training.failures import AttemptFailure, Cause, TrainingCancelledError
from lens_pipeline.training.folder import RunFolder, read_events
from lens_pipeline.training.processes import processes_of
from lens_pipeline.training.run import launch
from lens_pipeline.training.supervisor import Retries, Watchdog
from lens_pipeline_tests.training import acting
from lens_pipeline_tests.training.conftest import Survey
from lens_pipeline_tests.training.making import prepared


@pytest.fixture
def folder(survey: Survey, run_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setattr(supervisor, "torchrun_command", acting.command)
    monkeypatch.setattr(supervisor.Retries, "pause", 0.0)
    return prepared(run_path, survey, attempts=3)


@pytest.fixture
def impatient(survey: Survey, folder: RunFolder) -> RunFolder:
    """Soon takes a rank for one that hangs; on a busy machine also one that starts, which is then started again."""
    return prepared(folder.path, survey, hang_seconds=2.0, attempts=20)


def _restarts(folder: RunFolder) -> list[str]:
    return [event["why"] for event in read_events(folder.history) if event["event"] == "restart"]


def test_a_rank_that_was_killed_and_one_that_left_unasked_are_followed_by_fresh_attempts(folder: RunFolder) -> None:
    acting.plan(folder, "kill", "leave", "end")
    events: list[dict[str, Any]] = []
    assert launch(folder.path, events.append).ended == "all epochs were trained"
    killed, left = _restarts(folder)
    assert "was killed by signal 9 before its first step" in killed
    assert "asked to stop (SIGTERM)" in left
    assert [event["attempt"] for event in events if event["event"] == "restart"] == ["0001", "0002"]
    assert folder.claimed() is None


def test_a_hang_is_ended_with_a_stack_dump_in_the_log_and_followed_by_a_fresh_attempt(
    impatient: RunFolder,
) -> None:
    acting.plan(impatient, "hang", *["end"] * 20)
    launch(impatient.path)
    why = _restarts(impatient)[0]
    assert "got no further for 2 s (hang_seconds) before its first step: not stopped" in why
    assert "wait_for_what_never_comes" in (impatient.attempt(1) / "torchrun.log").read_text()


def test_a_stopped_rank_is_told_from_one_that_hangs(impatient: RunFolder) -> None:
    acting.plan(impatient, "halt", *["end"] * 20)
    launch(impatient.path)
    why = _restarts(impatient)[0]
    assert "rank 0 got no further" in why
    assert "stopped by a signal (SIGSTOP or a debugger)" in why


@pytest.mark.parametrize(
    ("parts", "said", "why_not"),
    [
        (["refuse"], "rank 0 failed in epoch 1, step 4: TrainingError: the loss on rank 0 is nan", "not tried again: the"),
        (["refuse_beside_one_that_leaves"], "TrainingError: the loss on rank 0 is nan", "not tried again: the"),
        (["crash"] * 2, "RuntimeError: the driver said no", "not tried a third time: this happened twice"),
        (["crash", "crash_elsewhere", "kill"], "signal 9", "3 starts in a row ended without a new checkpoint"),
        (["gain"] * 3 + ["kill"] * 2, "signal 9", "3 starts in a row ended without a new checkpoint"),
    ],
    ids=["ours", "ours beside", "twice", "in vain", "gains count"],
)  # fmt: skip
def test_attempts_are_bounded_and_the_last_failure_is_told(
    folder: RunFolder, parts: list[str], said: str, why_not: str
) -> None:
    acting.plan(folder, *parts, "end")
    with pytest.raises(TrainingError) as caught:
        launch(folder.path)
    assert said in str(caught.value)
    assert why_not in str(caught.value)
    assert "Log: " in str(caught.value)
    assert len(list(folder.path.glob("attempts/*"))) == len(parts)
    assert json.loads((folder.attempt(len(parts)) / "failure.json").read_text())["said"] in str(caught.value)


@pytest.mark.parametrize("part", ["work", "ignore"])
def test_a_cancelled_run_leaves_no_process_within_ten_seconds_whether_it_listens_or_not(
    folder: RunFolder, part: str
) -> None:
    acting.plan(folder, part)
    asked: list[float] = []
    tokens: list[str] = []

    def cancelled() -> bool:
        if not asked and any(event["event"] == "step" for event in _events(folder)):
            asked.append(time.monotonic())
            tokens.append((folder.claimed() or ("", ""))[1])
        return bool(asked)

    with pytest.raises(
        TrainingCancelledError, match=r"cancelled after epoch 0, step 1.*materialize lens_classifier again"
    ):
        launch(folder.path, cancelled=cancelled)
    assert time.monotonic() - asked[0] < 10
    assert processes_of(tokens[0]) == {}
    assert bool(list(folder.checkpoints.glob("*.json"))) == (part == "work")


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (signal.SIGTERM, "training was interrupted (SIGTERM) after epoch 0, step 1. Its last checkpoint is of epoch 0, step 7"),
        (signal.SIGINT, "DagsterExecutionInterruptedError"),
    ],
)  # fmt: skip
def test_a_step_that_is_asked_to_stop_lets_its_ranks_write_a_checkpoint_and_leaves_none_of_them(
    folder: RunFolder, sent: signal.Signals, said: str
) -> None:
    acting.plan(folder, "work", "end")
    step = _step(folder)
    try:
        _wait_for(lambda: any(event["event"] == "step" for event in _events(folder)))
        claimed = folder.claimed()
        assert claimed is not None
        step.send_signal(sent)
        _, errors = step.communicate(timeout=30)
    finally:
        step.kill()
    assert said in errors
    assert processes_of(claimed[1]) == {}
    assert [event["event"] for event in read_events(folder.history)][-1] == "stopped"
    assert launch(folder.path).ended == "all epochs were trained"


def test_a_second_interrupt_while_processes_are_being_ended_leaves_none_behind(folder: RunFolder) -> None:
    acting.plan(folder, "ignore")
    step = _step(folder)
    try:
        _wait_for(lambda: any(event["event"] == "step" for event in _events(folder)))
        claimed = folder.claimed()
        assert claimed is not None
        assert len(processes_of(claimed[1])) == 2
        for _ in range(2):
            step.send_signal(signal.SIGINT)
            time.sleep(1)
        step.wait(30)
    finally:
        step.kill()
    assert processes_of(claimed[1]) == {}


def test_what_a_killed_launcher_left_is_ended_before_the_next_attempt_starts(folder: RunFolder) -> None:
    claimed = folder.claim(folder.next_attempt())
    left = subprocess.Popen(["/bin/sleep", "1000"], env={**os.environ, "LENS_PIPELINE_TRAINING_TOKEN": claimed})
    acting.plan(folder, "kill", "end")
    launch(folder.path)
    assert left.wait(1) == -signal.SIGKILL


def test_an_attempt_that_another_launcher_replaced_ends_without_another_try(folder: RunFolder) -> None:
    acting.plan(folder, "work", "end")
    elsewhere: list[str] = []

    def replace(event: dict[str, Any]) -> None:
        if event["event"] == "step" and not elsewhere:
            elsewhere.append(folder.claim(folder.attempt(77)))

    with pytest.raises(TrainingError, match=r"another launcher.* has taken over .* \(attempt 0077\)"):
        launch(folder.path, replace)
    assert not list(folder.checkpoints.glob("*"))
    assert folder.claimed() == ("0077", elsewhere[0])


def test_pauses_grow_while_nothing_is_gained_and_begin_anew_with_a_checkpoint() -> None:
    retries = Retries(most=100)
    killed = AttemptFailure(Cause.killed, "signal 9", 1, "after epoch 0, step 3", "")
    pauses = []
    for standing in [(-1, -1)] * 7 + [(0, 3)]:
        assert retries.refuse(killed, standing) is None
        pauses.append(retries.pause)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 1]


def test_a_rank_that_has_not_begun_is_given_longer_than_one_between_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: now[0])
    folder = RunFolder(tmp_path)
    attempt = folder.next_attempt()
    watchdog = Watchdog(attempt, 2, hang_seconds=10)
    folder.beat(attempt, 1)
    late = []
    for second in (1, 10, 12, 59, 61):
        now[0] = second
        late.append(watchdog.late())
    assert late == [[], [], [1], [1], [0, 1]]
    # A launcher that was stopped itself finds a beat that moved, however long ago that was.
    os.utime(folder.heartbeat(attempt, 1), (1, 1))
    assert watchdog.late() == [0]


def _step(folder: RunFolder) -> "subprocess.Popen[str]":
    """A step as Dagster runs it: interrupts are exceptions, and polars has put its own handler below."""
    code = (
        "import sys; from pathlib import Path\n"
        "from dagster._core.errors import DagsterExecutionInterruptedError\n"
        "from dagster._utils.interrupts import raise_interrupts_as\n"
        "from lens_pipeline.training import supervisor; from lens_pipeline.training.run import launch\n"
        "from lens_pipeline_tests.training import acting\n"
        "supervisor.torchrun_command = acting.command\n"
        "with raise_interrupts_as(DagsterExecutionInterruptedError):\n"
        "    import polars\n"
        "    launch(Path(sys.argv[1]))\n"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(folder.path)], stderr=subprocess.PIPE, text=True)


def _events(folder: RunFolder) -> list[dict[str, Any]]:
    return read_events(folder.history) if folder.history.exists() else []


def _wait_for(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)
