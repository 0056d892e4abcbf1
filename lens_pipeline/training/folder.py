"""Where a training run keeps its files: the border between the step that starts it and the ranks that torchrun runs.

Nothing here is published; `lens_pipeline.training.run.collect` copies the outcome into a version.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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

    def make(self) -> None:
        """Make the folders that the ranks write into."""
        for folder in (self.checkpoints, self.ledger(0).parent, self.validation(0).parent):
            folder.mkdir(parents=True, exist_ok=True)


class HistoryWriter:
    """Appends events to history.jsonl, a whole line at a time."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (open as long as the run)

    def write(self, event: str, **fields: Any) -> None:
        """Append one event; a reader sees the whole line or nothing."""
        self._file.write(json.dumps({"event": event, **fields}, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class HistoryReader:
    """Reads events that were appended since it was opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def new_events(self) -> list[dict[str, Any]]:
        """Whole lines that came since the last call; a half-written one waits."""
        if not self._path.exists():
            return []
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [json.loads(line) for line in whole.splitlines()]


def read_events(path: Path) -> list[dict[str, Any]]:
    """Every whole line of history.jsonl."""
    return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
