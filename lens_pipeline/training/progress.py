"""Progress of a run in the terminal of whoever started it: one line that moves, or plain lines where there is no terminal."""

import sys
from typing import Any, TextIO

from lens_pipeline.training.history import Event, History

_WIDTH = 24
# What a person must not miss stays on the terminal.
_REMAINING = ("restart", "stopped")


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
        self._history = History()
        self._last_epoch = ""

    def show(self, event: Event) -> None:
        """Render one event of history.jsonl."""
        self._history.add(event)
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
            if event["event"] in _REMAINING or event.get("damaged_checkpoints"):
                self._out.write(plain_line(event) + "\n")
            self._out.flush()
        elif line := self._plain(event):
            self._out.write(line + "\n")
            self._out.flush()

    def close(self) -> None:
        """Leave the terminal on a fresh line."""
        if self._line_open:
            self._out.write("\n")
            self._out.flush()
            self._line_open = False

    def _bar(self, event: Event) -> str:
        total = event["epochs"] * event["steps_per_epoch"]
        filled = round(_WIDTH * (event["epoch"] * event["steps_per_epoch"] + event["step"]) / total)
        return (
            f"{self._last_epoch}[{'#' * filled}{'.' * (_WIDTH - filled)}] epoch {event['epoch']} step {event['step']}"
            f"/{event['steps_per_epoch']}, loss {event['loss']:.4f}, {event['stamps_per_second']:.0f} stamps/s"
            f"{self._time_left()}"
        )

    def _plain(self, event: Event) -> str:
        line = plain_line(event)
        return line + self._time_left() if event["event"] == "epoch" else line

    def _time_left(self) -> str:
        standing = self._history.standing
        if standing is None or not standing.seconds_left:
            return ""
        return f", at most {in_words(standing.seconds_left)} left"


def plain_line(event: Event) -> str:
    """Say in one line what an event means to a person; nothing for those that only a moving display shows."""
    if event["event"] == "run_started":
        damaged = event.get("damaged_checkpoints") or []
        lost = (
            f"; {len(damaged)} newer checkpoints could not be used, what they held is trained again: {' '.join(damaged)}"
            if damaged
            else ""
        )
        resumed = f", resumed at epoch {event['epoch']}, step {event['step']}" if event["resumed_from"] else ""
        return (
            f"training {event['train_rows']:,} stamps on {event['ranks']} ranks for at most {event['epochs']} epochs"
            f"{resumed}{lost}"
        )
    if event["event"] == "epoch":
        best = ", best so far" if event["best"] else ""
        return (
            f"epoch {event['epoch']}: training loss {event['train_loss']:.4f}, {_validation(event)}, "
            f"{event['seconds']:.1f} s{best}"
        )
    if event["event"] == "finished":
        return f"training ended: {event['why']}; best epoch {event['best_epoch']}"
    if event["event"] == "restart":
        rank = "" if event["rank"] is None else f" (rank {event['rank']})"
        return f"an attempt failed{rank}, another starts, {event['starts_left']} are left: {event['why']}"
    if event["event"] == "stopped":
        return f"training stopped after epoch {event['epoch']}, step {event['step']}: {event['why']}; it can go on from there"
    return ""


def in_words(seconds: float) -> str:
    """Say how long that is: 42 s, 3 min, 2.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _validation(event: dict[str, Any]) -> str:
    auroc = "undefined" if event["val_auroc"] is None else f"{event['val_auroc']:.4f}"
    return f"validation loss {event['val_loss']:.4f}, AUROC {auroc}"
