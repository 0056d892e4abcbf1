"""A folder of objects already fetched, found by the hash of their bytes, which is taken again whenever one is opened.

The account: bytes of the entries plus bytes reserved by those who are fetching never exceed the quota; both are counted under
one lock. Who fetches holds a lock on a folder of its own, so that what a killed one leaves is known for what it is.

Nothing that is current is ever put out for something else: an epoch over more objects than fit would otherwise put out just
what it needs next. What doesn't fit passes through a temporary file, the same bytes at the same checks. An entry goes when its
object was replaced (and nobody has it open), or by `prune`.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path

from lens_pipeline.contracts.errors import ConfigError, StorageError
from lens_pipeline.storage.atomic import write_atomically
from lens_pipeline.storage.s3 import Address, ObjectInfo, ObjectStore

_FOLDER = "LENS_PIPELINE_CACHE"
_BYTES = "LENS_PIPELINE_CACHE_BYTES"
_DEFAULT_BYTES = 50_000_000_000
_LOCK = ".lock"
_HASH = 64


@dataclass(frozen=True)
class Lease:
    """A local file with an object's verified bytes, which stays as long as the lease."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Cache:
    """Objects kept in a local folder that any number of threads and processes share.

    Attributes
    ----------
    folder : Path
        May not exist yet.
    quota : int
        Most bytes kept and being fetched to be kept. 0 keeps nothing.
    counts : Counter
        What this process met: ``kept`` (found and sound), ``fetched``, ``passed`` (fetched, not kept), ``damaged`` (found with
        other bytes than its name says, and dropped).
    """

    folder: Path
    quota: int
    counts: Counter[str] = field(default_factory=Counter, compare=False)

    @classmethod
    def from_environment(cls, home: Path) -> "Cache":
        """Cache in LENS_PIPELINE_CACHE, else in ``.cache`` under `home`, of LENS_PIPELINE_CACHE_BYTES, else 50 GB.

        Raises
        ------
        ConfigError
            If the quota is no whole number of bytes.
        """
        quota = os.environ.get(_BYTES) or str(_DEFAULT_BYTES)
        if not (quota.isascii() and quota.isdigit()):
            raise ConfigError(f"{_BYTES} is {quota!r}: write a whole number of bytes, 0 for no cache.")
        return cls(Path(os.environ.get(_FOLDER) or home / ".cache").absolute(), int(quota))

    @contextmanager
    def lease(self, store: ObjectStore, info: ObjectInfo, *, sha256: str | None) -> Iterator[Lease]:
        """Have an object's verified bytes in a local file.

        Parameters
        ----------
        info : ObjectInfo
            The object as it was listed: another size or ETag is another object, and is never answered with this one's bytes.
        sha256 : str, optional
            Of its bytes, where that is known. Else the hash under which they were first read and verified is remembered.

        Raises
        ------
        ObjectChangedError
            If the object is gone or isn't the listed one.
        StorageError
            If it can't be fetched, or the disk is full.
        """
        with contextlib.ExitStack() as stack:
            found = self._find(stack, store, info, sha256)
            if found is None:
                found = self._fetch(stack, store, info, sha256)
            yield found

    def used(self) -> int:
        """Bytes kept, and reserved by those who are fetching."""
        with self._locked():
            return self._used()

    def prune(self, to_bytes: int = 0) -> int:
        """Remove entries that nobody has open, those last used longest ago first, until at most so many bytes are kept.

        Returns
        -------
        int
            Bytes removed.
        """
        removed = 0
        with self._locked():
            self._remove_abandoned()
            entries = sorted(self._entries(), key=lambda path: path.stat().st_mtime_ns)
            kept = sum(path.stat().st_size for path in entries)
            for path in entries:
                if kept - removed <= to_bytes:
                    break
                removed += _remove_unless_open(path)
        return removed

    def _find(
        self, stack: contextlib.ExitStack, store: ObjectStore, info: ObjectInfo, sha256: str | None
    ) -> Lease | None:
        """Open the entry that holds this object, if there is one and it is sound."""
        sha256 = sha256 or self._recall(store, info)
        if sha256 is None:
            return None
        path = self._entry(sha256)
        file = _open_shared(path)
        if file is None:
            return None
        sound = (
            os.fstat(file.fileno()).st_size == info.size and hashlib.file_digest(file, "sha256").hexdigest() == sha256
        )
        if not sound:
            with file, self._locked():
                if _is_at(file, path):
                    path.unlink()
            self.counts["damaged"] += 1
            return None
        stack.callback(file.close)
        os.utime(file.fileno())
        self._remember(store, info, sha256)
        self.counts["kept"] += 1
        return Lease(path, sha256)

    def _fetch(self, stack: contextlib.ExitStack, store: ObjectStore, info: ObjectInfo, sha256: str | None) -> Lease:
        with self._one_fetches(store, info):
            found = self._find(stack, store, info, sha256)
            if found is not None:
                return found
            with self._place(info.size) as place:
                if place is not None:
                    found = self._download(store, info, sha256, place)
                    self.counts["fetched"] += 1
                    return self._keep(stack, store, info, found)
        place = stack.enter_context(self._place(None))
        found = self._download(store, info, sha256, place)
        self._remember(store, info, found.sha256)
        self.counts["passed"] += 1
        return found

    def _download(self, store: ObjectStore, info: ObjectInfo, sha256: str | None, place: Path | None) -> Lease:
        assert place is not None
        try:
            path = place / "object"
            found = store.download(info, path, sha256=sha256 or self._recall(store, info))
            path.chmod(0o444)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG):
                raise
            raise StorageError(
                f"{info.address} ({info.size:,} bytes) can't be written to {self.folder}: {os.strerror(error.errno)}. "
                f"Free some space ({shutil.disk_usage(self.folder).free / 1e9:.2f} GB left), or name another folder in {_FOLDER}."
            ) from error
        return Lease(path, found)

    def _keep(self, stack: contextlib.ExitStack, store: ObjectStore, info: ObjectInfo, fetched: Lease) -> Lease:
        """Give a fetched file its name in the cache. The same bytes may be there already, from another address."""
        entry = self._entry(fetched.sha256)
        entry.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = open(fetched.path, "rb")  # noqa: SIM115 (open as long as the lease)
            fcntl.flock(file, fcntl.LOCK_SH)
            try:
                os.link(fetched.path, entry)
            except FileExistsError:
                file.close()
                found = self._find(stack, store, info, fetched.sha256)
                if found is not None:
                    return found
                continue
            stack.callback(file.close)
            self._remember(store, info, fetched.sha256)
            return Lease(entry, fetched.sha256)

    def _entry(self, sha256: str) -> Path:
        return self.folder / "objects" / sha256[:2] / sha256

    def _entries(self) -> list[Path]:
        return [path for path in (self.folder / "objects").glob("??/*") if len(path.name) == _HASH]

    def _used(self) -> int:
        self._remove_abandoned()
        reserved = sum(int(place.name.partition("-")[0]) for place in (self.folder / "fetching").glob("*-*"))
        return reserved + sum(path.stat().st_size for path in self._entries())

    @contextmanager
    def _place(self, n_bytes: int | None) -> Iterator[Path | None]:
        """Have a folder to fetch into, its bytes reserved; None if they don't fit. Outside the account if `n_bytes` is None."""
        with self._locked():
            if n_bytes is not None and not self._has_room(n_bytes):
                folder, lock = None, None
            else:
                folder = self.folder / "fetching" / f"{n_bytes or 0}-{os.getpid()}-{secrets.token_hex(8)}"
                folder.mkdir(parents=True)
                lock = open(folder / _LOCK, "w")  # noqa: SIM115 (held until the place is left)
                fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            if folder is not None and lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                lock.close()

    def _has_room(self, n_bytes: int) -> bool:
        if n_bytes > self.quota:
            return False
        over = self._used() + n_bytes - self.quota
        if over > 0:
            current = self._current()
            for path in self._entries():
                if over > 0 and path.name not in current:
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
        with open(self.folder / _LOCK, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _one_fetches(self, store: ObjectStore, info: ObjectInfo) -> Iterator[None]:
        """Let one at a time fetch an object; the others then find it."""
        folder = self.folder / "turns"
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / _name_of(store, info.address)[:2], "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _recall(self, store: ObjectStore, info: ObjectInfo) -> str | None:
        """SHA-256 of the bytes that an object was read as before, if that was this very object."""
        noted = _read_note(self.folder / "known" / _name_of(store, info.address))
        return noted[2] if noted is not None and noted[:2] == (info.etag, str(info.size)) else None

    def _remember(self, store: ObjectStore, info: ObjectInfo, sha256: str) -> None:
        if self._recall(store, info) != sha256:
            path = self.folder / "known" / _name_of(store, info.address)
            path.parent.mkdir(parents=True, exist_ok=True)
            body = json.dumps([info.etag, str(info.size), sha256]).encode()
            write_atomically(path, hashlib.sha256(body).hexdigest().encode() + body)

    def _current(self) -> set[str]:
        """SHA-256 of the newest known bytes of every object."""
        notes = (_read_note(path) for path in (self.folder / "known").glob("*"))
        return {note[2] for note in notes if note is not None}


def _read_note(path: Path) -> tuple[str, str, str] | None:
    """Return ETag, size and SHA-256 of an object; None if nothing was noted, or what was noted is damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, body = content[:_HASH], content[_HASH:]
    if hashlib.sha256(body).hexdigest().encode() != digest:
        return None
    etag, size, sha256 = json.loads(body)
    return etag, size, sha256


def _name_of(store: ObjectStore, address: Address) -> str:
    return hashlib.sha256(f"{store.server.endpoint} {address}".encode()).hexdigest()


def _open_shared(path: Path) -> BufferedReader | None:
    """Open an entry so that nobody removes it until it is closed; None if there is none."""
    while True:
        try:
            file = open(path, "rb")  # noqa: SIM115 (closed by the caller)
        except FileNotFoundError:
            return None
        fcntl.flock(file, fcntl.LOCK_SH)
        if _is_at(file, path):
            return file
        file.close()


def _is_at(file: BufferedReader, path: Path) -> bool:
    """Whether the opened file still stands under its name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _remove_unless_open(path: Path) -> int:
    """Remove an entry that nobody leases; return the bytes that this freed."""
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        size = os.fstat(file.fileno()).st_size
        path.unlink()
    return size
