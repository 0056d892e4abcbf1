"""Why a run failed, from the rank that saw it to the person who reads it."""

import contextlib
import errno
import json
import re
import signal
import time
import traceback
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from lens_pipeline.contracts.errors import PipelineError, TrainingError
from lens_pipeline.storage.atomic import write_atomically

_LINES = 12
_KILLED = re.compile(r"rank\s*: (\d+) .*?exitcode\s*: (-\d+)", re.DOTALL)
_PEER_GONE = (
    "connection closed by peer",
    "connection reset",
    "connect timeout",
    "broken pipe",
    "remote process exited",
)


class TrainingCancelledError(TrainingError):
    """Somebody asked for the run to stop; its last checkpoint stands."""


class TrainingInterruptedError(TrainingError):
    """The machine asked for the run to stop (SIGTERM): it checkpointed and left, and goes on when it is started again."""


class Cause(StrEnum):
    """Why an attempt ended without having trained to the end, as far as it matters for trying again."""

    refused = "refused"  # an error of ours, or a disk that is full: the same would happen again
    crashed = "crashed"  # any other error
    killed = "killed"  # by a signal from outside, or gone without a word
    hung = "hung"
    stopped = "stopped"  # asked to stop by somebody else than its launcher: it checkpointed and left


@dataclass(frozen=True)
class AttemptFailure:
    """How an attempt failed.

    Attributes
    ----------
    kind : str
        Name of the error, or of what happened.
    rank : int or None
        Of the rank that failed first; None where it isn't one rank's doing.
    place : str
        Epoch and step, in words.
    said : str
        For people: rank, step, cause and log file.
    """

    cause: Cause
    kind: str
    rank: int | None
    place: str
    said: str

    def write(self, attempt: Path) -> None:
        """Leave it in the attempt's folder."""
        with contextlib.suppress(OSError):
            write_atomically(attempt / "failure.json", json.dumps(asdict(self), indent=1).encode())


@dataclass(frozen=True)
class RankFailure:
    """What one rank wrote before it died."""

    rank: int
    epoch: int | None
    step: int | None
    kind: str
    message: str
    traceback: str
    time: float
    own: bool
    ours: bool

    @classmethod
    def of(cls, error: BaseException, *, rank: int, epoch: int | None, step: int | None) -> "RankFailure":
        """Describe an error; it is not a rank's own if another rank's death caused it."""
        text = str(error).lower()
        lines = "".join(traceback.format_exception(error)).rstrip().splitlines()
        return cls(
            rank=rank,
            epoch=epoch,
            step=step,
            kind=type(error).__name__,
            message=str(error),
            traceback="\n".join(lines[-_LINES:]),
            time=time.time(),
            ours=isinstance(error, PipelineError) or is_full(error),
            own=isinstance(error, PipelineError) or not any(phrase in text for phrase in _PEER_GONE),
        )

    def write(self, attempt: Path) -> None:
        """Leave it where the launcher looks; a disk that is full must not hide the error itself."""
        with contextlib.suppress(OSError):
            write_atomically(attempt / f"failure-rank-{self.rank}.json", json.dumps(asdict(self)).encode())


def is_full(error: BaseException) -> bool:
    """Whether it says that a disk, or what a user may have of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def diagnose(attempt: Path, agent_log: Path, last_step: str, returncode: int, *, left: bool = False) -> AttemptFailure:
    """Say which rank failed first, where, why, and where the log is.

    Parameters
    ----------
    last_step : str
        The last progress that the history tells of, for a rank that died without a word.
    returncode : int
        Of torchrun.
    left : bool
        Whether the ranks said that they were asked to stop. torchrun asks that of every rank when one has failed, so any
        other word counts before this one.
    """
    failures = [RankFailure(**json.loads(path.read_bytes())) for path in sorted(attempt.glob("failure-rank-*.json"))]
    own = [failure for failure in failures if failure.own]
    log = agent_log.read_text(errors="replace") if agent_log.exists() else ""
    if own:
        first = min(own, key=lambda failure: failure.time)
        place = f"in epoch {first.epoch}, step {first.step}" if first.epoch is not None else "before the first step"
        said = (
            f"rank {first.rank} failed {place}: {first.kind}: {first.message}\n"
            f"The last lines of its traceback:\n{first.traceback}\nLog: {log_of(attempt, first.rank)}"
        )
        return AttemptFailure(Cause.refused if first.ours else Cause.crashed, first.kind, first.rank, place, said)
    rank, number = _killed_rank(log)
    if left and number in (0, signal.SIGTERM):
        said = f"the ranks were asked to stop (SIGTERM) {last_step}, wrote a checkpoint and left. Log: {attempt}"
        return AttemptFailure(Cause.stopped, "SIGTERM", None, last_step, said)
    if number:
        said = (
            f"rank {rank} was killed by signal {number} {last_step}; a machine without free memory does that (signal 9). "
            f"Log: {log_of(attempt, rank)}"
        )
        return AttemptFailure(Cause.killed, f"signal {number}", rank, last_step, said)
    tail = "\n".join(log.rstrip().splitlines()[-_LINES:])
    if returncode < 0:
        said = f"torchrun was killed by signal {-returncode} {last_step}, and the ranks with it. Log: {agent_log}"
        return AttemptFailure(Cause.killed, f"torchrun, signal {-returncode}", None, last_step, said)
    said = f"torchrun ended with code {returncode} {last_step}; its last lines:\n{tail}\nLog: {agent_log}"
    return AttemptFailure(Cause.crashed, f"torchrun, code {returncode}", None, last_step, said)


def log_of(attempt: Path, rank: int) -> Path:
    """Return the standard error of a rank, or the attempt's folder where there is none."""
    return max(attempt.glob(f"logs/*/attempt_*/{rank}/stderr.log"), default=attempt)


def _killed_rank(log: str) -> tuple[int, int]:
    """Rank that was killed from outside, and by which signal (0: none was), from torchrun's own report."""
    killed = [(int(rank), -int(code)) for rank, code in _KILLED.findall(log)]
    # torchrun ends the other ranks with SIGTERM. Where all died of that, its report ends with the first.
    by_others = [one for one in killed if one[1] != signal.SIGTERM]
    return (by_others or killed[-1:] or [(0, 0)])[0]
