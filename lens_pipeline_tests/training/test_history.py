"""The account of a run: the last word counts, time left is honest, and nothing unreadable is passed over in silence."""

import fcntl
import json
from pathlib import Path

from lens_pipeline.training.history import History, is_held, read_from
from lens_pipeline_tests.training.events import epoch, finished, run_started, step


def account(*events: dict[str, object]) -> History:
    history = History()
    for event in events:
        history.add(event)
    return history


def test_of_two_tellings_of_an_epoch_or_a_step_the_later_counts() -> None:
    history = account(
        run_started(), step(0, 5, loss=0.9), epoch(0, val_loss=0.7), run_started(0, 4), step(0, 5, loss=0.8),
        epoch(0, val_loss=0.6),
    )  # fmt: skip
    assert [(e["step"], e["loss"]) for e in history.steps] == [(5, 0.8)]
    assert [e["val_loss"] for e in history.epochs] == [0.6]
    assert history.starts == 2


def test_what_a_resumed_run_has_yet_to_repeat_is_not_counted_as_done() -> None:
    history = account(run_started(), step(0, 5), epoch(0), step(1, 8), run_started(1, 2))
    assert [(e["epoch"], e["step"]) for e in history.steps] == [(0, 5)]
    standing = history.standing
    assert standing is not None
    assert (standing.done, standing.total) == (12, 40)


def test_time_left_is_at_the_speed_of_this_attempt_alone() -> None:
    slow_before = [run_started(), step(0, 1, time=0.0), step(0, 5, time=5000.0)]
    history = account(*slow_before, run_started(0, 5, time=9000.0), step(0, 6, time=9010.0), step(0, 8, time=9014.0))
    standing = history.standing
    assert standing is not None
    assert standing.seconds_left == (40 - 8) * 2.0
    assert account(run_started(), step(0, 5)).standing.seconds_left is None  # type: ignore[union-attr]


def test_a_run_that_has_finished_has_no_time_left_and_one_that_goes_on_has_no_ending() -> None:
    history = account(run_started(), step(0, 5), epoch(0), finished())
    assert history.ending is not None
    assert history.standing is not None
    assert history.standing.seconds_left == 0.0
    history.add(run_started(1, 0))
    assert history.ending is None


def test_a_half_written_line_waits_and_a_damaged_one_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(json.dumps(run_started()) + '\n{"event": "st\n' + json.dumps(step(0, 1)) + '\n{"event": "ep')
    found = read_from(path, 0)
    assert [event["event"] for event, _ in found] == ["run_started", "unreadable", "step"]
    assert found[-1][1] == path.stat().st_size - len('{"event": "ep')
    assert History.of(path).unreadable == 1


def test_whether_a_launcher_is_at_work_is_seen_without_asking_for_its_lock(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    assert not is_held(path)
    with open(path, "w") as file:
        assert not is_held(path)
        fcntl.flock(file, fcntl.LOCK_EX)
        assert is_held(path)
    assert not is_held(path)
