"""What the events of a run amount to: an account in which the last word on an epoch or a step is the one that counts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.folder import parse_event

Event = dict[str, Any]
_ENDINGS = ("finished", "stopped")


@dataclass(frozen=True)
class Standing:
    """How far a run has come.

    Attributes
    ----------
    done, total : int
        Optimizer steps; a run whose patience runs out ends before `total`.
    seconds_left : float or None
        At most, at the speed since this attempt's first report, validation included; None before there is a speed.
    """

    done: int
    total: int
    seconds_left: float | None

    @property
    def share(self) -> float:
        """Part that is done, 0 to 1."""
        return self.done / self.total if self.total else 0.0


class History:
    """Takes in events as they come.

    A run that goes on from a checkpoint repeats what came after that checkpoint: what was told of it before is forgotten, and of
    two events of one epoch, or of one step of an epoch, the later one counts.

    Attributes
    ----------
    started : dict or None
        The last ``run_started``.
    ending : dict or None
        ``finished`` or ``stopped``, if that is the last that was heard.
    last : dict or None
        The last event of all.
    starts : int
        How often the run was started.
    unreadable : int
        Lines that hold no event: a disk that was full cuts one.
    """

    def __init__(self) -> None:
        self._epochs: dict[int, Event] = {}
        self._steps: dict[tuple[int, int], Event] = {}
        self.started: Event | None = None
        self.ending: Event | None = None
        self.last: Event | None = None
        self.starts = 0
        self.unreadable = 0
        self._done = 0
        self._first_report: Event | None = None

    @classmethod
    def of(cls, path: Path) -> "History":
        """Account of history.jsonl as it stands; empty if there is none."""
        history = cls()
        if path.exists():
            for event, _ in read_from(path, 0):
                history.add(event)
        return history

    def add(self, event: Event) -> None:
        """Take in the next event of history.jsonl."""
        kind = event.get("event")
        if kind == "unreadable":
            self.unreadable += 1
            return
        self.last = event
        self.ending = event if kind in _ENDINGS else None
        if kind == "run_started":
            self.started, self._first_report = event, None
            self.starts += 1
            at = (event.get("epoch") or 0, event.get("step") or 0)
            self._done = at[0] * (self.steps_per_epoch or 0) + at[1]
            self._epochs = {epoch: told for epoch, told in self._epochs.items() if epoch < at[0]}
            self._steps = {place: told for place, told in self._steps.items() if place <= at}
        elif kind == "epoch":
            self._epochs[event["epoch"]] = event
            self._done = max(self._done, (event["epoch"] + 1) * (self.steps_per_epoch or 0))
        elif kind == "step":
            self._steps[event["epoch"], event["step"]] = event
            self._done = max(self._done, event["epoch"] * event["steps_per_epoch"] + event["step"])
            self._first_report = self._first_report or event

    @property
    def epochs(self) -> list[Event]:
        """Finished epochs, ascending."""
        return [self._epochs[epoch] for epoch in sorted(self._epochs)]

    @property
    def steps(self) -> list[Event]:
        """Reported steps, ascending."""
        return [self._steps[place] for place in sorted(self._steps)]

    @property
    def steps_per_epoch(self) -> int | None:
        """Optimizer steps of an epoch; None before the run has started."""
        return None if self.started is None else self.started.get("steps_per_epoch")

    @property
    def standing(self) -> Standing | None:
        """How far the run has come; None before it has started."""
        if self.started is None or not self.steps_per_epoch:
            return None
        total = self.started["epochs"] * self.steps_per_epoch
        return Standing(self._done, total, self._seconds_left(self._done, total))

    def _seconds_left(self, done: int, total: int) -> float | None:
        if self.ending is not None and self.ending["event"] == "finished":
            return 0.0
        first, last, per_epoch = self._first_report, self.last, self.steps_per_epoch
        if first is None or last is None or per_epoch is None or "time" not in first or "time" not in last:
            return None
        begun = first["epoch"] * per_epoch + first["step"]
        elapsed = last["time"] - first["time"]
        if done <= begun or elapsed <= 0:
            return None
        return float((total - done) * elapsed / (done - begun))


def read_from(path: Path, offset: int) -> list[tuple[Event, int]]:
    """Read the whole lines of history.jsonl from a byte on, each with the byte after it; a half-written line waits.

    A line that is no event comes as ``{"event": "unreadable"}``, so that it is counted and never passed over in silence.
    """
    with open(path, "rb") as file:
        file.seek(offset)
        content = file.read()
    found = []
    for line in content[: content.rfind(b"\n") + 1].splitlines(keepends=True):
        offset += len(line)
        found.append((parse_event(line), offset))
    return found


def epochs_of(classifier: Publication) -> list[Event]:
    """Finished epochs as a published version tells of them: without wall times."""
    rows: list[Event] = classifier.read_table().to_pylist()
    return sorted(rows, key=lambda row: int(row["epoch"]))


def is_held(lock: Path) -> bool:
    """Whether a process holds the flock of a file, found without asking for it: nobody is ever kept waiting (Linux)."""
    try:
        status = lock.stat()
    except FileNotFoundError:
        return False
    held = (line.split() for line in Path("/proc/locks").read_text().splitlines())
    # The device number there is that of the file system, which an overlay reports otherwise: the inode has to do.
    return any(
        entry[1] == "FLOCK" and entry[5].rpartition(":")[2] == str(status.st_ino) for entry in held if len(entry) > 5
    )
