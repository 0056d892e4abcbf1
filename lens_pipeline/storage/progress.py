"""How far long work has come: a bar on a terminal, nothing where nobody watches."""

import io
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Transfers of fewer bytes than this come and go without a bar.
WORTH_A_BAR = 64 << 20
_ONE_AT_A_TIME = threading.Lock()


class Bar:
    """What a piece of work tells of itself; nobody may be listening.

    Parameters
    ----------
    update : callable, optional
        Takes ``advance`` (so many more) or ``completed`` (so many in all).
    """

    def __init__(self, update: Callable[..., None] | None = None) -> None:
        self._update = update

    def advance(self, n: int) -> None:
        """Say that so many more are done."""
        if self._update is not None:
            self._update(advance=n)

    def reach(self, n: int) -> None:
        """Say how many are done in all; a transfer that begins anew goes back."""
        if self._update is not None:
            self._update(completed=n)


@contextmanager
def progress(what: str, total: int, *, is_bytes: bool = False, at_least: int = 0) -> Iterator[Bar]:
    """Show a bar on standard error, if that is a terminal, the work is large, and no other bar is shown.

    Parameters
    ----------
    total : int
        Rows, or with `is_bytes` bytes, in all.
    at_least : int
        Totals below this are not worth a bar.
    """
    if total < at_least or not sys.stderr.isatty() or not _ONE_AT_A_TIME.acquire(blocking=False):
        yield Bar()
        return
    try:
        # Here and not at the top: most runs have no terminal.
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        counted = DownloadColumn() if is_bytes else MofNCompleteColumn()
        columns = (TextColumn("{task.description}"), BarColumn(), counted, TimeRemainingColumn())
        with Progress(*columns, console=Console(file=sys.stderr), transient=True) as shown:
            task = shown.add_task(what, total=total)
            yield Bar(lambda **changes: shown.update(task, **changes))
    finally:
        _ONE_AT_A_TIME.release()


class ShownFile(io.FileIO):
    """A file whose reader is shown how far it has come."""

    def __init__(self, path: Path, bar: Bar) -> None:
        super().__init__(path, "rb")
        self._bar = bar

    def read(self, size: int | None = -1, /) -> Any:
        """Read, and tell."""
        content = super().read(-1 if size is None else size)
        self._bar.reach(self.tell())
        return content
