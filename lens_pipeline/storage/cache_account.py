"""What a cache's folder holds and what is reserved in it: never more than the quota, whoever else is at work in it or dies.

Bytes of the entries plus bytes reserved by those who are fetching are counted under one lock. Who fetches holds a lock on a
folder of its own, so that what a killed one leaves is known for what it is; who reads an entry holds a shared lock on its file.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from lens_pipeline.storage.atomic import locked

_LOCK = ".lock"
_HASH = 64


@dataclass(frozen=True)
class Account:
    """The entries of a cache and the places where they are fetched.

    Attributes
    ----------
    folder : Path
        May not exist yet.
    quota : int
        Most bytes of entries and reservations.
    """

    folder: Path
    quota: int

    def entry(self, sha256: str) -> Path:
        """Path of the entry with these bytes; it may not exist."""
        return self.folder / "objects" / sha256[:2] / sha256

    def used(self) -> int:
        """Bytes kept, and reserved by those who are fetching."""
        with self._locked():
            return self._used()

    @contextmanager
    def place(self, n_bytes: int | None, current: Callable[[], set[str]]) -> Iterator[Path | None]:
        """Have a folder of one's own to fetch into.

        Parameters
        ----------
        n_bytes : int or None
            Reserved as long as the place is had; None is outside the account, for what will not be kept.
        current : callable
            Returns the names of the entries that nothing may put out.

        Yields
        ------
        Path or None
            None if the bytes don't fit.
        """
        folder, owner = None, os.getpid()
        with self._locked():
            if n_bytes is None or self._has_room(n_bytes, current):
                folder = self.folder / "fetching" / f"{n_bytes or 0}-{os.getpid()}-{secrets.token_hex(8)}"
                folder.mkdir(parents=True)
                lock = open(folder / _LOCK, "w")  # noqa: SIM115 (held until the place is left)
                fcntl.flock(lock, fcntl.LOCK_EX)
        if folder is None:
            yield None
            return
        try:
            yield folder
        finally:
            # Not by a process that was forked from its owner, and leaves what it inherited.
            if os.getpid() == owner:
                shutil.rmtree(folder, ignore_errors=True)
            lock.close()

    def keep(self, path: Path, sha256: str) -> BufferedReader | None:
        """Make a fetched file an entry, and return it open; None if there is such an entry already."""
        entry = self.entry(sha256)
        entry.parent.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if entry.exists():
                return None
            file = open(path, "rb")  # noqa: SIM115 (closed by who leases it)
            fcntl.flock(file, fcntl.LOCK_SH)
            path.rename(entry)
            return file

    def open(self, sha256: str) -> BufferedReader | None:
        """Open an entry so that nobody puts it out until it is closed; None if there is none."""
        path = self.entry(sha256)
        while True:
            try:
                file = open(path, "rb")  # noqa: SIM115 (closed by who leases it)
            except FileNotFoundError:
                return None
            fcntl.flock(file, fcntl.LOCK_SH)
            if _is_at(file, path):
                return file
            file.close()

    def drop(self, file: BufferedReader, sha256: str) -> None:
        """Remove an opened entry that turned out damaged, though others may have it open."""
        path = self.entry(sha256)
        with file, self._locked():
            if _is_at(file, path):
                path.unlink()

    def prune(self, to_bytes: int) -> int:
        """Remove entries that nobody has open, the longest unused first, until so many bytes are left; return bytes removed."""
        removed = 0
        with self._locked():
            self._remove_abandoned()
            entries = sorted(self._entries(), key=lambda path: path.stat().st_mtime_ns)
            kept = sum(path.stat().st_size for path in entries)
            for path in entries:
                if kept - removed > to_bytes:
                    removed += _remove_unless_open(path)
        return removed

    def _entries(self) -> list[Path]:
        return [path for path in (self.folder / "objects").glob("??/*") if len(path.name) == _HASH]

    def _used(self) -> int:
        self._remove_abandoned()
        reserved = sum(int(place.name.partition("-")[0]) for place in (self.folder / "fetching").glob("*-*"))
        return reserved + sum(path.stat().st_size for path in self._entries())

    def _has_room(self, n_bytes: int, current: Callable[[], set[str]]) -> bool:
        if n_bytes > self.quota:
            return False
        over = self._used() + n_bytes - self.quota
        if over > 0:
            wanted = current()
            for path in self._entries():
                if over > 0 and path.name not in wanted:
                    over -= _remove_unless_open(path)
        return over <= 0

    def _remove_abandoned(self) -> None:
        """Remove what killed processes were fetching. To be called under the lock, under which all places are made."""
        for place in (self.folder / "fetching").glob("*-*"):
            try:
                with open(place / _LOCK) as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            except FileNotFoundError:
                pass
            shutil.rmtree(place, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder):
            yield


def _is_at(file: BufferedReader, path: Path) -> bool:
    """Whether the opened file still stands under its name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _remove_unless_open(path: Path) -> int:
    """Remove an entry that nobody has open; return the bytes that this freed."""
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        size = os.fstat(file.fileno()).st_size
        path.unlink()
    return size
