"""Attempt after attempt of a run, until it has ended: each a torchrun of its own with a rendezvous of its own.

Belongs here: starting, watching, ending, and whether to try again. Why an attempt failed is told in `failures.py`, how
processes are started and ended in `processes.py`. Imports no torch.

Only one attempt may write: before each, whatever is left of the one before is killed and the folder's fence moved
(`RunFolder.claim`), so that a rank that comes back to life elsewhere is refused by its own next write.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from lens_pipeline.contracts.errors import TrainingError, first_few
from lens_pipeline.training.checkpoint import Progress, newest_checkpoint
from lens_pipeline.training.failures import (
    AttemptFailure,
    Cause,
    TrainingCancelledError,
    TrainingInterruptedError,
    diagnose,
    log_of,
)
from lens_pipeline.training.folder import HistoryReader, HistoryWriter, RunFolder
from lens_pipeline.training.processes import (
    dump_stacks,
    end,
    end_all,
    start,
    stop_requests,
    torchrun_command,
    torchrun_environment,
    undisturbed,
)
from lens_pipeline.training.progress import TerminalProgress
from lens_pipeline.training.spec import RunSpec

Event = dict[str, Any]
_POLL_SECONDS = 0.2
# A cancelled run is gone within 10 seconds; one that a SIGTERM stops within 30, the notice that clouds give.
_CANCEL_SECONDS, _STOP_SECONDS = 7.0, 26.0
_DUMP_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 30.0
# Before its first step a rank imports torch, opens its inputs and may compile the model: it is given this many times longer.
_START_GRACE = 6
_GO_ON = "materialize lens_classifier again to go on from there"


class _Outcome(Enum):
    """What ended the watching of an attempt."""

    exited = "torchrun ended"
    hung = "no progress"
    cancelled = "cancelled"
    stopped = "SIGTERM"


@dataclass
class Retries:
    """Whether a failed attempt is worth another.

    Attributes
    ----------
    most : int
        Attempts in a row that may end without a new checkpoint.
    in_vain : int
        Such attempts so far.
    standing : tuple of int
        Epoch and step of the newest checkpoint so far.
    """

    most: int
    in_vain: int = 0
    standing: tuple[int, int] = (-1, -1)
    _crashes: set[tuple[str, str]] = field(default_factory=set)

    def refuse(self, failure: AttemptFailure, standing: tuple[int, int]) -> str | None:
        """Say why no other attempt is made, or None if one is.

        Parameters
        ----------
        standing : tuple of int
            Epoch and step of the newest checkpoint now.
        """
        if standing > self.standing:
            self.standing, self.in_vain = standing, 0
            self._crashes.clear()
        self.in_vain += 1
        crash = (failure.kind, failure.place)
        if failure.cause is Cause.refused:
            return "It was not tried again: the same would happen."
        if failure.cause is Cause.crashed and crash in self._crashes:
            return "It was not tried a third time: this happened twice at the same place."
        if self.in_vain >= self.most:
            return f"It was not tried again: {self.in_vain} starts in a row ended without a new checkpoint (attempts)."
        if failure.cause is Cause.crashed:
            self._crashes.add(crash)
        return None

    @property
    def pause(self) -> float:
        """Seconds to wait before the next attempt: 1, 2, 4 ... up to 30, for as long as nothing is gained."""
        return float(min(2 ** (self.in_vain - 1), _LONGEST_PAUSE_SECONDS))


class Watchdog:
    """Notices ranks that get no further, from the times of change of their heartbeats.

    Only whether a time moved is looked at, never its difference to a clock: a file server's clock may be another one, and
    a launcher that was itself stopped for a while sees a change and waits anew.

    Parameters
    ----------
    hang_seconds : float
        How long a rank may take for one step.
    """

    def __init__(self, attempt: Path, ranks: int, hang_seconds: float) -> None:
        self._files = [RunFolder.heartbeat(attempt, rank) for rank in range(ranks)]
        self._hang_seconds = hang_seconds
        self._seen: list[tuple[int | None, float]] = [(None, time.monotonic())] * ranks

    def late(self) -> list[int]:
        """Ranks that have got no further for too long."""
        now = time.monotonic()
        for rank, file in enumerate(self._files):
            beat = file.stat().st_mtime_ns if file.exists() else None
            if beat != self._seen[rank][0]:
                self._seen[rank] = (beat, now)
        return [rank for rank, (beat, since) in enumerate(self._seen) if now - since > self._patience(beat)]

    def _patience(self, beat: int | None) -> float:
        return self._hang_seconds if beat is not None else _START_GRACE * self._hang_seconds


class Supervisor:
    """Sees a run through to its end.

    Parameters
    ----------
    on_event : callable
        Called with each new event of history.jsonl.
    cancelled : callable
        Asked five times a second.
    """

    def __init__(
        self, spec: RunSpec, folder: RunFolder, on_event: Callable[[Event], None], cancelled: Callable[[], bool]
    ) -> None:
        self._spec, self._folder = spec, folder
        self._on_event, self._cancelled = on_event, cancelled
        self._reader, self._terminal = HistoryReader(folder.history), TerminalProgress()
        self._last_step = "before its first step"
        self._left: set[str] = set()

    def run(self) -> None:
        """Start attempts until one has trained to the end.

        Raises
        ------
        TrainingCancelledError, TrainingInterruptedError
            If somebody, or the machine, asked for it to stop; the last checkpoint stands.
        TrainingError
            If it failed and another attempt isn't worth it, naming rank, step, cause and log file.
        """
        if left := self._folder.claimed():
            # A launcher that was killed had no time to see to its processes; the kernel did, at most a moment ago.
            end_all(left[1])
        retries = Retries(self._spec.config.attempts)
        with stop_requests() as stop:
            try:
                while (failure := self._attempt(stop)) is not None:
                    if why_not := retries.refuse(failure, self._standing()):
                        raise TrainingError(f"{failure.said}\n{why_not} The last checkpoint stands: {_GO_ON}.")
                    self._tell_restart(failure, retries)
                    self._pause(retries.pause, stop)
            finally:
                self._terminal.close()

    def _attempt(self, stop: Callable[[], bool]) -> AttemptFailure | None:
        """Start torchrun once. Returns why it failed, or None if the run has ended."""
        attempt = self._folder.next_attempt()
        log, token = attempt / "torchrun.log", self._folder.claim(attempt)
        process = start(
            torchrun_command(self._spec.config, self._folder.specification, attempt),
            torchrun_environment(self._spec.config, attempt, token),
            log,
        )
        watchdog = Watchdog(attempt, self._spec.config.world_size, self._spec.config.hang_seconds)
        patience, hang = _CANCEL_SECONDS, None
        self._left.clear()
        try:
            while (outcome := self._look(process.poll() is not None, stop, watchdog)) is None:
                time.sleep(_POLL_SECONDS)
            if outcome is _Outcome.hung:
                hang, patience = self._explain_hang(attempt, token, watchdog.late()), 0.0
            elif outcome is _Outcome.stopped:
                patience = _STOP_SECONDS
        finally:
            with undisturbed():
                end(process, patience)
                end_all(token)
                self._folder.release(token)
        self._pass_on()
        if self._has_ended():
            return None
        if outcome in (_Outcome.cancelled, _Outcome.stopped):
            self._leave(outcome)
        left = attempt.name in self._left
        failure = hang or diagnose(attempt, log, self._last_step, process.returncode, left=left)
        failure.write(attempt)
        return failure

    def _look(self, exited: bool, stop: Callable[[], bool], watchdog: Watchdog) -> _Outcome | None:
        self._pass_on()
        if stop():
            return _Outcome.stopped
        if self._cancelled():
            return _Outcome.cancelled
        if exited:
            return _Outcome.exited
        return _Outcome.hung if watchdog.late() else None

    def _pass_on(self) -> None:
        for event in self._reader.new_events():
            if event["event"] == "step":
                self._last_step = f"after epoch {event['epoch']}, step {event['step']}"
            if event["event"] == "stopped":
                self._left.add(event["attempt"])
            self._terminal.show(event)
            self._on_event(event)

    def _explain_hang(self, attempt: Path, token: str, late: list[int]) -> AttemptFailure:
        stopped = dump_stacks(token)
        time.sleep(_DUMP_SECONDS)
        ranks = stopped or late
        who = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {first_few(ranks)}"
        why = (
            "stopped by a signal (SIGSTOP or a debugger)"
            if stopped
            else "not stopped; what its threads were doing stands at the end of its log, and of the others' beside it"
        )
        said = (
            f"{who} got no further for {self._spec.config.hang_seconds:g} s (hang_seconds) {self._last_step}: {why}. "
            f"Log: {log_of(attempt, ranks[0])}"
        )
        return AttemptFailure(Cause.hung, "hang", ranks[0], self._last_step, said)

    def _leave(self, outcome: _Outcome) -> None:
        epoch, step = self._standing()
        stands = f"Its last checkpoint is of epoch {epoch}, step {step}" if epoch >= 0 else "It has no checkpoint yet"
        where = f"{stands}, in {self._folder.path}: {_GO_ON}."
        if outcome is _Outcome.stopped:
            raise TrainingInterruptedError(f"training was interrupted (SIGTERM) {self._last_step}. {where}")
        raise TrainingCancelledError(f"training was cancelled {self._last_step}. {where}")

    def _tell_restart(self, failure: AttemptFailure, retries: Retries) -> None:
        """Write the failure into the history; no rank is alive that could write beside."""
        attempt = max(self._folder.path.glob("attempts/*")).name
        history = HistoryWriter(self._folder.history, attempt)
        history.write(
            "restart",
            cause=failure.cause.value,
            rank=failure.rank,
            why=failure.said.splitlines()[0],
            starts_left=retries.most - retries.in_vain,
        )
        history.close()
        self._pass_on()

    def _pause(self, seconds: float, stop: Callable[[], bool]) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if stop():
                self._leave(_Outcome.stopped)
            if self._cancelled():
                self._leave(_Outcome.cancelled)
            time.sleep(_POLL_SECONDS)

    def _standing(self) -> tuple[int, int]:
        progress = self._newest()
        return (progress.epoch, progress.step) if progress else (-1, -1)

    def _has_ended(self) -> bool:
        progress = self._newest()
        return progress is not None and progress.ended is not None

    def _newest(self) -> Progress | None:
        checkpoint, _ = newest_checkpoint(self._folder.checkpoints, run=self._spec.sha256())
        return checkpoint.progress if checkpoint else None
