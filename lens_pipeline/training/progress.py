"""Progress of a run in the terminal of whoever started it: one line that moves, or plain lines where there is no terminal."""

import sys
import time
from typing import Any, TextIO

_WIDTH = 24


class TerminalProgress:
    """Renders training events.

    Parameters
    ----------
    out : text stream, optional
        By default standard error.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._moving = self._out.isatty()
        self._line_open = False
        self._started = time.monotonic()
        self._first_done: int | None = None
        self._last_epoch = ""

    def show(self, event: dict[str, Any]) -> None:
        """Render one event of history.jsonl."""
        if event["event"] == "epoch":
            self._last_epoch = f"epoch {event['epoch']}: {_validation(event)}; "
        if self._moving:
            if event["event"] == "step":
                self._out.write("\r" + self._bar(event) + "\x1b[K")
                self._line_open = True
            elif self._line_open:
                # Whoever else writes to this terminal at the end of an epoch finds an empty line.
                self._out.write("\r\x1b[K")
                self._line_open = False
            self._out.flush()
        elif line := _plain(event):
            self._out.write(line + "\n")
            self._out.flush()

    def close(self) -> None:
        """Leave the terminal on a fresh line."""
        if self._line_open:
            self._out.write("\n")
            self._out.flush()
            self._line_open = False

    def _bar(self, event: dict[str, Any]) -> str:
        total = event["epochs"] * event["steps_per_epoch"]
        done = event["epoch"] * event["steps_per_epoch"] + event["step"]
        filled = round(_WIDTH * done / total)
        if self._first_done is None:
            self._first_done, self._started = done, time.monotonic()
        elapsed = time.monotonic() - self._started
        speed = (done - self._first_done) / elapsed if elapsed > 0 else 0.0
        left = f", at most {(total - done) / speed:.0f} s left" if speed > 0 else ""
        return (
            f"{self._last_epoch}[{'#' * filled}{'.' * (_WIDTH - filled)}] epoch {event['epoch']} step {event['step']}"
            f"/{event['steps_per_epoch']}, loss {event['loss']:.4f}, {event['stamps_per_second']:.0f} stamps/s{left}"
        )


def _plain(event: dict[str, Any]) -> str:
    if event["event"] == "run_started":
        resumed = f", resumed at epoch {event['epoch']}, step {event['step']}" if event["resumed_from"] else ""
        return (
            f"training {event['train_rows']:,} stamps on {event['ranks']} ranks for at most {event['epochs']} epochs"
            f"{resumed}"
        )
    if event["event"] == "epoch":
        best = ", best so far" if event["best"] else ""
        return (
            f"epoch {event['epoch']}: training loss {event['train_loss']:.4f}, {_validation(event)}, "
            f"{event['seconds']:.1f} s{best}"
        )
    if event["event"] == "finished":
        return f"training ended: {event['why']}; best epoch {event['best_epoch']}"
    return ""


def _validation(event: dict[str, Any]) -> str:
    auroc = "undefined" if event["val_auroc"] is None else f"{event['val_auroc']:.4f}"
    return f"validation loss {event['val_loss']:.4f}, AUROC {auroc}"
