"""How far long work has come: a bar on a terminal, nothing where nobody watches."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(what: str, total: int, *, is_bytes: bool = False) -> Iterator[Callable[[int], None]]:
    """Show a bar on standard error if that is a terminal, and yield what moves it forward by so many.

    Parameters
    ----------
    total : int
        Rows or bytes in all.
    """
    if not sys.stderr.isatty():
        yield lambda n: None
        return
    # Here and not at the top: most runs have no terminal.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    counted = DownloadColumn() if is_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), counted, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda n: bar.update(task, advance=n)
