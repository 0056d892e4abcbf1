"""Where a training run keeps its files: the border between the step that starts it and the ranks that torchrun runs.

Nothing here is published; `lens_pipeline.training.run.collect` copies the outcome into a version.
"""

import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.storage.atomic import write_atomically

# In the environment of every process of an attempt: the word that says whose attempt it is.
TOKEN = "LENS_PIPELINE_TRAINING_TOKEN"
# Exit code of a rank that was asked to stop, wrote a checkpoint and left (EX_TEMPFAIL of sysexits.h).
STOPPED_STATUS = 75
# Where a sweep keeps the run folders of its trials.
TRIALS = "trials"
# Columns of an epoch that tell of the machine, not of the training: no published table has them, so that the same
# training is the same version on any machine.
TIMINGS = ("seconds", "stamps_per_second", "data_wait_share", "mfu", "memory_mb", "slowest_rank_share")


# Folders that threads of this process occupy, with the thread.
_occupied: set[tuple[Path, int]] = set()


class SupersededError(TrainingError):
    """Another attempt has taken the place of this process's own, which may write nothing more."""


@dataclass(frozen=True)
class RunFolder:
    """Names of the files of one run.

    Attributes
    ----------
    path : Path
        Folder of the run; another configuration or input has another folder.
    """

    path: Path

    @property
    def specification(self) -> Path:
        """What to train, on what: written before the ranks start, never by them."""
        return self.path / "run.json"

    @property
    def history(self) -> Path:
        """Events, one JSON object a line, appended by rank 0; for people and progress, not read back by the ranks."""
        return self.path / "history.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def lock(self) -> Path:
        """Held by the one launcher that may run here."""
        return self.path / ".lock"

    @property
    def fence(self) -> Path:
        """Which attempt may write into the folder now; absent while no launcher is at work."""
        return self.path / "attempt.json"

    @contextmanager
    def occupied(self) -> Iterator[None]:
        """Be the one launcher of this machine at work here, from before anything is written until all of it was read.

        A thread that is it already goes on being it.

        Raises
        ------
        TrainingError
            If another one is; nothing was written.
        """
        mine = (self.path.resolve(), threading.get_ident())
        if mine in _occupied:
            yield
            return
        with open(self.lock, "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise TrainingError(
                    f"another process is training in {self.path}. Wait for it, or end it first."
                ) from error
            _occupied.add(mine)
            try:
                yield
            finally:
                _occupied.discard(mine)

    def ledger(self, rank: int) -> Path:
        """Ledger of the rows that reached one rank's model."""
        return self.path / "ledger" / f"rank-{rank}.ledger"

    def ledgers(self) -> dict[int, Path]:
        """Rank to ledger, ascending, of every rank that ever had one: the number of ranks may have changed."""
        found = {int(path.stem.removeprefix("rank-")): path for path in self.ledger(0).parent.glob("rank-*.ledger")}
        return dict(sorted(found.items()))

    def validation(self, epoch: int) -> Path:
        """Logits of val_select after an epoch."""
        return self.path / "validation" / f"epoch-{epoch:04d}.parquet"

    def attempt(self, number: int) -> Path:
        """Folder of one start of torchrun: its logs, and why a rank failed."""
        return self.path / "attempts" / f"{number:04d}"

    def next_attempt(self) -> Path:
        """Make and return the folder of a new start."""
        number = 1 + max((int(path.name) for path in self.path.glob("attempts/*")), default=0)
        folder = self.attempt(number)
        folder.mkdir(parents=True)
        return folder

    def claim(self, attempt: Path) -> str:
        """Let this attempt write, and no other from now on.

        Returns
        -------
        str
            Token for the environment of its processes (TOKEN).
        """
        token = secrets.token_hex(16)
        write_atomically(self.fence, json.dumps({"attempt": attempt.name, "token": token}).encode())
        return token

    def claimed(self) -> tuple[str, str] | None:
        """Attempt that may write and its token, or None where no launcher is at work."""
        try:
            content = json.loads(self.fence.read_bytes())
        except FileNotFoundError:
            return None
        return content["attempt"], content["token"]

    def release(self, token: str) -> None:
        """Let no attempt write any more; ranks that are started by hand, without a token, may again.

        Raises
        ------
        SupersededError
            If another launcher has claimed the folder meanwhile; its claim stands.
        """
        now = self.claimed()
        if now is not None and now[1] != token:
            raise SupersededError(
                f"another launcher, perhaps on another machine, has taken over {self.path} (attempt {now[0]}) and trains there. "
                "This one has ended its own processes; nothing need be done here."
            )
        self.fence.unlink(missing_ok=True)

    def refuse_superseded(self) -> None:
        """Refuse to write if another attempt has taken over; every rank asks before each write into the folder.

        Raises
        ------
        SupersededError
            If the token in this process's environment isn't that of the attempt that may write. Without a launcher there is
            neither, and ranks started by hand may write.
        """
        now, own = self.claimed(), os.environ.get(TOKEN)
        if (now[1] if now else None) == own:
            return
        whose = f"attempt {now[0]}" if now else "no attempt"
        raise SupersededError(
            f"{whose} may write into {self.path} now, and this process is not of it: nothing was written. "
            + (
                "It was started earlier and has been replaced; nothing need be done."
                if own
                else f"It was started without a launcher: end the launcher, or remove {self.fence.name} if there is none."
            )
        )

    @staticmethod
    def heartbeat(attempt: Path, rank: int) -> Path:
        """File whose time of change is when a rank last got on."""
        return attempt / f"heartbeat-rank-{rank}"

    def beat(self, attempt: Path, rank: int) -> None:
        """Say that this rank got on: after every step and every batch of validation.

        Raises
        ------
        SupersededError
            If another attempt has taken over.
        """
        self.refuse_superseded()
        heartbeat = self.heartbeat(attempt, rank)
        try:
            os.utime(heartbeat)
        except FileNotFoundError:
            heartbeat.touch()

    def make(self) -> None:
        """Make the folders that the ranks write into."""
        for folder in (self.checkpoints, self.ledger(0).parent, self.validation(0).parent):
            folder.mkdir(parents=True, exist_ok=True)


class HistoryWriter:
    """Appends events to history.jsonl, a whole line at a time.

    Parameters
    ----------
    path : Path
        The run's history.jsonl. A line that a full disk or a lost machine left torn is cut off.
    attempt : str
        Name of the attempt's folder, which every event carries.
    """

    def __init__(self, path: Path, attempt: str = "") -> None:
        self._folder, self._attempt = RunFolder(path.parent), attempt
        self._folder.refuse_superseded()
        if path.exists():
            content = path.read_bytes()
            os.truncate(path, content.rfind(b"\n") + 1)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (open as long as the run)

    def write(self, event: str, **fields: Any) -> None:
        """Append one event with its time (unix seconds); a reader sees the whole line or nothing.

        Raises
        ------
        SupersededError
            If another attempt has taken over.
        """
        self._folder.refuse_superseded()
        about = {"event": event, "time": round(time.time(), 3), "attempt": self._attempt}
        self._file.write(json.dumps({**about, **fields}, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class HistoryReader:
    """Reads events that were appended since it was opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # A torn last line isn't passed over: whoever writes next cuts it off, and begins where it began.
        self._offset = path.read_bytes().rfind(b"\n") + 1 if path.exists() else 0

    def new_events(self) -> list[dict[str, Any]]:
        """Whole lines that came since the last call; a half-written one waits."""
        if not self._path.exists():
            return []
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [parse_event(line) for line in whole.splitlines()]


def read_events(path: Path) -> list[dict[str, Any]]:
    """Every whole line of history.jsonl."""
    return [parse_event(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def parse_event(line: bytes) -> dict[str, Any]:
    """Read a line of history.jsonl; one that holds no event, as a full or failing disk leaves it, is ``unreadable``."""
    try:
        event = json.loads(line)
    except ValueError:
        return {"event": "unreadable"}
    return event if isinstance(event, dict) and "event" in event else {"event": "unreadable"}
