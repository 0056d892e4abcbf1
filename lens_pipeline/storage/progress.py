"""A bar for long transfers, for a person at a terminal; logs and pipes get nothing."""

import io
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_WORTH_A_BAR = 64 << 20


@contextmanager
def progress(what: str, n_bytes: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr while so many bytes move, if that is a terminal and they are many.

    Only the main thread shows one: where many threads transfer, who started them shows how they do together.

    Yields
    ------
    callable
        To be told how many bytes have moved in all.
    """
    if n_bytes < _WORTH_A_BAR or not sys.stderr.isatty() or not _in_main_thread():
        yield lambda n_moved: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task(what, total=n_bytes)
        yield lambda n_moved: bar.update(task, completed=n_moved)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


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
