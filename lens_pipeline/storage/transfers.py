"""Many files sent or fetched at a time, and a file fetched by one process while the others wait for it."""

import fcntl
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

from lens_pipeline.storage.manifest import FileEntry

_AT_A_TIME = 8


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Let one process or thread at a time fetch a file; the others find it there."""
    lock = path.with_name(f".{path.name}.lock")
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # Who waits on the removed name, and who makes it anew, may both go on: they look for the file first.
            lock.unlink(missing_ok=True)


def in_parallel(title: str, files: Mapping[str, FileEntry], each: Callable[[str, FileEntry], None]) -> None:
    """Call for every file, several at a time; the first error ends it. Shows progress on a terminal only."""
    if not files:
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
    console = Console(stderr=True)
    with (
        Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress,
        ThreadPoolExecutor(_AT_A_TIME) as pool,
    ):
        bar = progress.add_task(title, total=sum(entry.size for entry in files.values()))
        waiting = {pool.submit(each, name, entry): entry for name, entry in files.items()}
        try:
            for done in as_completed(waiting):
                done.result()
                progress.advance(bar, waiting[done].size)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
