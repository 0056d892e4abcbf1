"""How far long work has come and how long it will take yet, in a line of the log about every ten seconds."""

import logging
import time
from collections.abc import Callable

Tell = Callable[[str], object]
_EVERY_S = 10.0
_log = logging.getLogger(__name__)


class Pace:
    """The pace of work that is counted in rows, or another unit.

    The rate is that of what was done since the first answer came: before it, processes start and load, which is no part of the
    time that is left. It is told once that has been watched for as long as the first answer took to come.

    Parameters
    ----------
    what : str
        What is done to the rows, as ``rendering``.
    total : int
        Rows in all.
    unit : str
        What is counted, in the plural.
    tell : callable, optional
        Takes a line; by default the log.
    clock : callable
        Seconds, from any moment on.
    """

    def __init__(
        self,
        what: str,
        total: int,
        tell: Tell | None = None,
        *,
        unit: str = "rows",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._total, self._unit, self._clock = what, total, unit, clock
        self._tell = tell or _log.info
        self._began = self._told = self._awaited = clock()
        self._first: tuple[float, int] | None = None
        self.n_found = self.n_done = 0

    def find(self, n: int) -> None:
        """Say that so many rows are done already, in an earlier run: they count as done, and not towards the rate."""
        self.n_found += n
        if self._first is None:
            self._awaited = self._clock()
        self._report()

    def advance(self, n: int) -> None:
        """Say that so many more rows are done."""
        self.n_done += n
        if self._first is None and n:
            self._first = self._clock(), n
        self._report()

    def end(self) -> None:
        """Say what was done; nothing where the work was over before there was anything to tell."""
        seconds = self._clock() - self._began
        if seconds >= _EVERY_S:
            self._tell(f"{self._what}: {self.n_done:,} {self._unit} in {_span(seconds)}{self._of_before()}")

    def _report(self) -> None:
        now = self._clock()
        if now - self._told < _EVERY_S:
            return
        self._told = now
        here = self.n_found + self.n_done
        line = f"{self._what}: {here:,} of {self._total:,} {self._unit} ({here / max(self._total, 1):.1%})"
        if rate := self._rate(now):
            line += f", {rate:,.0f} {self._unit}/s, {_span((self._total - here) / rate)} left"
        elif here < self._total:
            line += ", too early to say how much time is left"
        self._tell(line + self._of_before())

    def _rate(self, now: float) -> float | None:
        """Rows a second; None as long as too little was seen."""
        if self._first is None:
            return None
        since, n_before = self._first
        if self.n_done == n_before or now - since < since - self._awaited:
            return None
        return (self.n_done - n_before) / (now - since)

    def _of_before(self) -> str:
        return f"; {self.n_found:,} were there already" if self.n_found else ""


def _span(seconds: float) -> str:
    """Say how long, to what a person wants to know."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
