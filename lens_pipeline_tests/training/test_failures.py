import errno
from pathlib import Path

import pytest

from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.training.failures import AttemptFailure, Cause, RankFailure, diagnose

AGENT_LOG = """
Failures:
[1]:
  time      : 2026-01-01_00:00:00
  rank      : {dead} (local_rank: {dead})
  exitcode  : {code} (pid: 9594)
Root Cause (first observed failure):
[0]:
  rank      : 0 (local_rank: 0)
  exitcode  : 1 (pid: 9593)
"""


def _fail(attempt: Path, error: Exception, rank: int, epoch: int | None = 1, step: int | None = 4) -> None:
    try:
        raise error
    except type(error) as raised:
        RankFailure.of(raised, rank=rank, epoch=epoch, step=step).write(attempt)


def _diagnose(attempt: Path, log: str = "", returncode: int = 1) -> AttemptFailure:
    (attempt / "torchrun.log").write_text(log)
    return diagnose(attempt, attempt / "torchrun.log", "after epoch 1, step 3", returncode)


def test_the_rank_that_failed_by_itself_is_named_not_the_one_that_lost_its_peer(tmp_path: Path) -> None:
    _fail(tmp_path, RuntimeError("[..] Connection closed by peer [127.0.0.1]:1"), rank=0)
    _fail(tmp_path, ValueError("the disk ate it"), rank=1)
    found = _diagnose(tmp_path)
    assert (found.cause, found.kind, found.rank, found.place) == (Cause.crashed, "ValueError", 1, "in epoch 1, step 4")
    assert found.said.startswith("rank 1 failed in epoch 1, step 4: ValueError: the disk ate it")
    assert "raise error" in found.said


def test_a_full_disk_is_no_reason_to_try_again(tmp_path: Path) -> None:
    _fail(tmp_path, OSError(errno.ENOSPC, "No space left on device"), rank=0)
    assert _diagnose(tmp_path).cause is Cause.refused


@pytest.mark.parametrize("signal", [9, 7, 11])
def test_a_rank_that_died_without_a_word_is_found_in_torchruns_log(tmp_path: Path, signal: int) -> None:
    _fail(tmp_path, RuntimeError("Connection reset by peer"), rank=0)
    found = _diagnose(tmp_path, AGENT_LOG.format(dead=1, code=-signal))
    assert (found.cause, found.rank) == (Cause.killed, 1)
    assert found.said.startswith(f"rank 1 was killed by signal {signal} after epoch 1, step 3")


def test_a_rank_that_torchrun_itself_ended_is_not_the_cause(tmp_path: Path) -> None:
    _fail(tmp_path, TrainingError("no"), rank=0, epoch=None, step=None)
    found = _diagnose(tmp_path, AGENT_LOG.format(dead=1, code=-15))
    assert found.cause is Cause.refused
    assert found.said.startswith("rank 0 failed before the first step: TrainingError: no")


def test_of_two_ranks_that_died_without_a_word_the_one_that_torchrun_ended_is_not_the_cause(tmp_path: Path) -> None:
    ended = AGENT_LOG.replace("exitcode  : 1 (pid: 9593)", "exitcode  : -9 (pid: 9593)")
    assert _diagnose(tmp_path, ended.format(dead=1, code=-15)).said.startswith("rank 0 was killed by signal 9")


def test_where_every_rank_ended_by_sigterm_the_first_of_them_is_named(tmp_path: Path) -> None:
    ended = AGENT_LOG.replace("exitcode  : 1 (pid: 9593)", "exitcode  : -15 (pid: 9593)")
    found = _diagnose(tmp_path, ended.format(dead=1, code=-15))
    assert (found.cause, found.kind, found.rank) == (Cause.killed, "signal 15", 0)


def test_a_torchrun_that_was_killed_is_named_as_such(tmp_path: Path) -> None:
    found = _diagnose(tmp_path, returncode=-9)
    assert (found.cause, found.kind, found.rank) == (Cause.killed, "torchrun, signal 9", None)
    assert found.said.startswith("torchrun was killed by signal 9 after epoch 1, step 3")


def test_when_nobody_left_a_word_torchruns_own_last_lines_are_shown(tmp_path: Path) -> None:
    found = _diagnose(tmp_path, "usage: run.py\nrun.py: error: unrecognized arguments: --nonsense\n")
    assert found.cause is Cause.crashed
    assert "torchrun ended with code 1" in found.said
    assert "unrecognized arguments" in found.said
