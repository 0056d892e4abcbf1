import io
from pathlib import Path
from typing import Any

from lens_pipeline.training.folder import HistoryReader, HistoryWriter
from lens_pipeline.training.progress import TerminalProgress
from lens_pipeline_tests.training.events import epoch, run_started, step

STEP: dict[str, Any] = {
    "event": "step", "epoch": 1, "step": 5, "steps_per_epoch": 10, "epochs": 4, "loss": 0.5, "stamps_per_second": 900.0,
}  # fmt: skip
EPOCH: dict[str, Any] = {
    "event": "epoch", "epoch": 1, "train_loss": 0.5, "val_loss": 0.4, "val_auroc": 0.9, "seconds": 3.0, "best": True,
}  # fmt: skip


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _shown(out: io.StringIO, *events: dict[str, Any]) -> str:
    progress = TerminalProgress(out)
    for event in events:
        progress.show(event)
    progress.close()
    return out.getvalue()


def test_a_terminal_gets_one_line_that_moves_and_ends_with_a_fresh_one() -> None:
    shown = _shown(_Terminal(), STEP, {**STEP, "step": 6})
    assert shown.count("\n") == 1
    assert shown.endswith("\n")
    assert shown.count("\r") == 2
    assert "epoch 1 step 6/10, loss 0.5000, 900 stamps/s" in shown


def test_checkpoints_that_could_not_be_used_are_told_of_also_on_a_terminal() -> None:
    begun = run_started(resumed_from="step-000000010", damaged_checkpoints=["step-000000020.json is damaged"])
    for out in (_Terminal(), io.StringIO()):
        assert "1 newer checkpoints could not be used" in _shown(out, begun)
        assert "step-000000020.json is damaged" in out.getvalue()


def test_a_file_gets_plain_lines_and_no_control_characters() -> None:
    shown = _shown(io.StringIO(), STEP, EPOCH)
    assert shown == "epoch 1: training loss 0.5000, validation loss 0.4000, AUROC 0.9000, 3.0 s, best so far\n"


def test_an_undefined_auroc_is_called_undefined() -> None:
    assert "AUROC undefined" in _shown(io.StringIO(), {**EPOCH, "val_auroc": None})


def test_a_half_written_event_waits_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"event": "of an earlier start"}\n')
    reader, writer = HistoryReader(path), HistoryWriter(path)
    writer.write("epoch", epoch=0)
    with open(path, "a") as file:
        file.write('{"event": "st')
        file.flush()
        assert [event["event"] for event in reader.new_events()] == ["epoch"]
        file.write('ep"}\n')
    assert [event["event"] for event in reader.new_events()] == ["step"]
    assert reader.new_events() == []
    writer.close()


def test_time_left_is_told_on_a_terminal_and_after_an_epoch_in_a_file() -> None:
    started = run_started()
    events = [started, step(0, 2), step(0, 4)]
    assert ", at most 36 s left" in _shown(_Terminal(), *events)
    assert _shown(io.StringIO(), *events, epoch(0)).endswith("10.0 s, best so far, at most 30 s left\n")


def test_a_stop_on_request_is_told_from_an_end() -> None:
    stopped = {"event": "stopped", "why": "SIGTERM", "epoch": 1, "step": 4}
    assert "stopped after epoch 1, step 4: SIGTERM; it can go on" in _shown(io.StringIO(), stopped)


def test_a_restart_stays_on_a_terminal_and_in_a_file() -> None:
    restart = {
        "event": "restart",
        "cause": "killed",
        "rank": 1,
        "why": "rank 1 was killed by signal 9",
        "starts_left": 2,
    }
    words = "an attempt failed (rank 1), another starts, 2 are left: rank 1 was killed by signal 9\n"
    assert _shown(io.StringIO(), restart) == words
    assert words in _shown(_Terminal(), step(0, 2), restart)
