"""A bar for long transfers, for a person at a terminal; logs and pipes get nothing."""

import io
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_WORTH_A_BAR = 64 << 20
_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def progress(what: str, n_bytes: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr while so many bytes move, if that is a terminal, they are many, and no other bar is shown.

    Yields
    ------
    callable
        To be told how many bytes have moved in all.
    """
    if n_bytes < _WORTH_A_BAR or not sys.stderr.isatty() or not _ONE_AT_A_TIME.acquire(blocking=False):
        yield lambda n_moved: None
        return
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        console = Console(file=sys.stderr)
        with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
            task = bar.add_task(what, total=n_bytes)
            yield lambda n_moved: bar.update(task, completed=n_moved)
    finally:
        _ONE_AT_A_TIME.release()


class ShownFile(io.FileIO):
    """A file whose reader is shown how far it has come.

    Parameters
    ----------
    reached : callable
        Told the position after every read.
    """

    def __init__(self, path: Path, reached: Callable[[int], None]) -> None:
        super().__init__(path, "rb")
        self._reached = reached

    def read(self, size: int | None = -1, /) -> Any:
        """Read, and tell."""
        content = super().read(-1 if size is None else size)
        self._reached(self.tell())
        return content
