import json
import os
from pathlib import Path

import pytest

from lens_pipeline.training.folder import TOKEN, HistoryReader, HistoryWriter, RunFolder, SupersededError, read_events


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def test_a_process_of_an_attempt_that_another_replaced_may_neither_write_nor_go_on(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = folder.next_attempt()
    monkeypatch.setenv(TOKEN, folder.claim(first))
    history = HistoryWriter(folder.history, first.name)
    history.write("step", epoch=0)
    folder.beat(first, 1)
    folder.claim(folder.next_attempt())
    for write in (folder.refuse_superseded, lambda: folder.beat(first, 1), lambda: history.write("step", epoch=1)):
        with pytest.raises(SupersededError, match="attempt 0002 may write into"):
            write()
    assert [event["epoch"] for event in read_events(folder.history)] == [0]


def test_a_process_of_an_attempt_may_not_write_after_its_launcher_has_left(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = folder.claim(folder.next_attempt())
    monkeypatch.setenv(TOKEN, token)
    folder.release(token)
    with pytest.raises(SupersededError, match="no attempt may write into"):
        folder.refuse_superseded()


def test_ranks_started_by_hand_may_write_only_where_no_launcher_is_at_work(folder: RunFolder) -> None:
    folder.refuse_superseded()
    token = folder.claim(folder.next_attempt())
    with pytest.raises(SupersededError, match=r"started without a launcher: .*remove attempt\.json"):
        folder.refuse_superseded()
    folder.release(token)
    folder.refuse_superseded()


def test_a_beat_moves_the_time_of_the_rank_that_got_on_only(folder: RunFolder) -> None:
    attempt = folder.next_attempt()
    for rank in (0, 1):
        folder.beat(attempt, rank)
        os.utime(folder.heartbeat(attempt, rank), (1, 1))
    folder.beat(attempt, 1)
    assert folder.heartbeat(attempt, 0).stat().st_mtime == 1
    assert folder.heartbeat(attempt, 1).stat().st_mtime > 1


def test_every_event_has_its_time_and_attempt_and_a_torn_line_spoils_none(folder: RunFolder) -> None:
    folder.history.write_text(json.dumps({"event": "step", "epoch": 0}) + '\n{"event": "st')
    reader = HistoryReader(folder.history)
    history = HistoryWriter(folder.history, "0007")
    history.write("step", epoch=1)
    history.close()
    assert [event["epoch"] for event in reader.new_events()] == [1]
    before, after = read_events(folder.history)
    assert before == {"event": "step", "epoch": 0}
    assert (after["attempt"], after["epoch"]) == ("0007", 1)
    assert after["time"] > 1.7e9
