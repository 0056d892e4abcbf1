"""Many files sent or fetched at a time, and a file fetched by one process while the others wait for it."""

import fcntl
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

from lens_pipeline.storage.manifest import FileEntry
from lens_pipeline.storage.progress import WORTH_A_BAR, progress

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
    """Call for every file, several at a time; the first error ends it. Long ones show a bar on a terminal."""
    if not files:
        return
    n_bytes = sum(entry.size for entry in files.values())
    with (
        progress(title, n_bytes, is_bytes=True, at_least=WORTH_A_BAR) as bar,
        ThreadPoolExecutor(_AT_A_TIME) as pool,
    ):
        waiting = {pool.submit(each, name, entry): entry for name, entry in files.items()}
        try:
            for done in as_completed(waiting):
                done.result()
                bar.advance(waiting[done].size)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
