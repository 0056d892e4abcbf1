"""Leaving in order when asked to (SIGTERM): all ranks after the same step, with a checkpoint.

The ranks agree through a file of the attempt, without a word between them in a step: one that was asked names the next
boundary that lies ahead of it, and as no rank can pass a step that another hasn't taken, each finds the file when it gets there.
"""

import contextlib
import os
import signal
from pathlib import Path
from types import FrameType

_NAME = "stop"


class InterruptedRunError(Exception):
    """A rank was asked to stop where no step separates it from its last checkpoint."""


class Interruption:
    """Knows whether to stop, and after which step.

    Parameters
    ----------
    attempt : Path
        Folder of this start of the ranks.
    every : int
        Boundaries lie at multiples of this many steps of an epoch, and at its end.
    """

    def __init__(self, attempt: Path, *, every: int) -> None:
        self._path, self._every = attempt / _NAME, every
        self.asked = False

    def listen(self) -> None:
        """Take SIGTERM as the request from now on."""
        signal.signal(signal.SIGTERM, self._note)

    def before_step(self, epoch: int, step: int, steps_per_epoch: int) -> None:
        """Tell the other ranks where to stop, if this one was asked and none was told before."""
        if not self.asked or self._path.exists():
            return
        boundary = min(step - step % self._every + self._every, steps_per_epoch)
        with contextlib.suppress(FileExistsError):
            temporary = self._path.with_name(f".{_NAME}-{os.getpid()}")
            temporary.write_text(f"{epoch * steps_per_epoch + boundary}")
            # Linked, not renamed: the first one counts, whole from the moment it is seen.
            try:
                os.link(temporary, self._path)
            finally:
                temporary.unlink()

    def is_boundary(self, done: int, steps_per_epoch: int) -> bool:
        """Whether ranks may stop after so many steps of an epoch."""
        return done % self._every == 0 or done == steps_per_epoch

    def due(self, done_in_all: int) -> bool:
        """Whether to stop now, at a boundary, after so many steps over all epochs."""
        try:
            return done_in_all >= int(self._path.read_text())
        except FileNotFoundError:
            return False

    def leave_if_asked(self) -> None:
        """Between validation batches, where nothing would be lost.

        Raises
        ------
        InterruptedRunError
            If this rank was asked to stop.
        """
        if self.asked:
            raise InterruptedRunError

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
