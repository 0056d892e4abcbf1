"""Unfinished work that a later run may go on with: a folder that one process at a time works in and readers never see."""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.storage.atomic import safe_name

_LOCK = ".lock"
_GONE = ".gone-"


class WorkFolder:
    """A folder of unfinished work, locked for as long as this object is open; a killed process lets go of it.

    Parameters
    ----------
    path : Path
        Its name says what is made in it, so that what is found there belongs to that and nothing else.

    Raises
    ------
    StorageError
        If another process works in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = self._take(path)

    def remove(self) -> None:
        """Remove it with all that is in it: the work is done, or of no use."""
        # Moved aside at once: what a crash leaves of it must not be taken for work to go on with.
        aside = self.path.with_name(f"{_GONE}{os.getpid()}-{secrets.token_hex(4)}")
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
        self.close()

    def remove_others(self) -> None:
        """Remove its neighbours, which nobody goes on with, but for those that somebody works in."""
        for folder in self.path.parent.iterdir():
            if folder.name.startswith(_GONE):
                shutil.rmtree(folder, ignore_errors=True)
            if folder == self.path or not folder.is_dir():
                continue
            try:
                WorkFolder(folder).remove()
            except StorageError:
                continue

    def close(self) -> None:
        """Let go of it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @staticmethod
    def _take(path: Path) -> int | None:
        while True:
            path.mkdir(parents=True, exist_ok=True)
            lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.read(lock, 32).decode(errors="replace").strip()
                os.close(lock)
                raise StorageError(
                    f"process {holder or 'unknown'} is at work in {path} on the same thing. Wait until it is done, or stop "
                    "it; what it has finished is kept either way."
                ) from error
            # Whoever removed the folder between opening and locking left a lock that guards nothing.
            if (path / _LOCK).exists() and os.fstat(lock).st_ino == (path / _LOCK).stat().st_ino:
                os.truncate(lock, 0)
                os.write(lock, str(os.getpid()).encode())
                return lock
            os.close(lock)


def work_path(shelf: Path, name: str) -> Path:
    """Where unfinished work on an asset's versions stands."""
    return shelf / ".work" / safe_name(name, what="the name of a work folder")


@contextlib.contextmanager
def temporary_folder(shelf: Path) -> Iterator[Path]:
    """Lend a folder beside an asset's versions; what a killed process leaves of it goes with the next version."""
    work = WorkFolder(work_path(shelf, f"temporary-{os.getpid()}-{secrets.token_hex(4)}"))
    try:
        yield work.path
    finally:
        work.remove()
