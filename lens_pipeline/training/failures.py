"""Why a run failed, from the rank that saw it to the person who reads it."""

import contextlib
import json
import re
import time
import traceback
from dataclasses import asdict, dataclass
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
            own=isinstance(error, PipelineError) or not any(phrase in text for phrase in _PEER_GONE),
        )

    def write(self, attempt: Path) -> None:
        """Leave it where the launcher looks; a disk that is full must not hide the error itself."""
        with contextlib.suppress(OSError):
            write_atomically(attempt / f"failure-rank-{self.rank}.json", json.dumps(asdict(self)).encode())


def explain(attempt: Path, agent_log: Path, last_step: str, returncode: int) -> str:
    """Say which rank failed first, where, why, and where the log is.

    Parameters
    ----------
    last_step : str
        The last progress that the history tells of, for a rank that died without a word.
    returncode : int
        Of torchrun.
    """
    failures = [RankFailure(**json.loads(path.read_bytes())) for path in sorted(attempt.glob("failure-rank-*.json"))]
    spoke = {failure.rank for failure in failures if failure.own}
    log = agent_log.read_text(errors="replace") if agent_log.exists() else ""
    killed = [(int(rank), -int(code)) for code, rank in _exit_codes(log) if int(code) < 0 and int(rank) not in spoke]
    # torchrun ends the other ranks with SIGTERM (15); a rank that another signal ended was killed from outside.
    killed = [(rank, signal) for rank, signal in killed if signal != 15]
    if spoke:
        first = min((failure for failure in failures if failure.own), key=lambda failure: failure.time)
        where = f"in epoch {first.epoch}, step {first.step}" if first.epoch is not None else "before the first step"
        return (
            f"rank {first.rank} failed {where}: {first.kind}: {first.message}\n"
            f"The last lines of its traceback:\n{first.traceback}\nLog: {_log_of(attempt, first.rank)}"
        )
    if killed:
        rank, signal = killed[0]
        return (
            f"rank {rank} was killed by signal {signal} {last_step}; a machine without free memory does that (signal 9). "
            f"Log: {_log_of(attempt, rank)}"
        )
    tail = "\n".join(log.rstrip().splitlines()[-_LINES:])
    return f"torchrun ended with code {returncode} {last_step}; its last lines:\n{tail}\nLog: {agent_log}"


def _exit_codes(log: str) -> list[tuple[str, str]]:
    return [(code, rank) for rank, code in _KILLED.findall(log)]


def _log_of(attempt: Path, rank: int) -> str:
    found = sorted(attempt.glob(f"logs/*/attempt_*/{rank}/stderr.log"))
    return str(found[-1]) if found else str(attempt)
