"""Files that others own, on disk or at s3://: listed, told apart, and read here only when they are what was published.

Belongs here: what a file of somebody else's is called, when it counts as another one, and lending it as a local path whose
bytes have the SHA-256 that was published. What is inside is for `stamps/`; whether it may be opened at all was settled by
`stamps/inspection.py` before it was published.
"""

import atexit
import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline.storage.cache import Cache, Lease
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.s3 import ObjectStore
from lens_pipeline.storage.s3_address import Address, ObjectInfo, is_address

Identity = tuple[int | str, ...]

_PUBLISH_AGAIN = (
    "Next: put it back as it was, or publish the new one with "
    "dagster asset materialize --select 'parent_sample*' -m lens_pipeline.definitions -c PRESET"
)
# What this process has seen to have a SHA-256: path and identity to it. A file that was hashed is hashed again when it is
# another file, was rewritten, or when somebody asks for a proof.
_PROVEN: dict[tuple[str, Identity], str] = {}


@dataclass(frozen=True)
class LocalFile:
    """A file on disk."""

    path: Path

    @property
    def name(self) -> str:
        """As it is published and called in errors."""
        return str(self.path)

    def identity(self) -> Identity:
        """Return what changes when somebody replaces or rewrites the file: device, inode, size, time of change.

        Raises
        ------
        StorageError
            If it is gone or a symbolic link.
        """
        refuse_link(self.path)
        try:
            status = self.path.lstat()
        except OSError as error:
            raise StorageError(f"{self.path} was there when the stamps were published and is gone: {error}.") from error
        return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def prove(self, sha256: str) -> Identity:
        """Hash the whole file and return the identity that it must keep.

        Raises
        ------
        StorageError
            If its SHA-256 is another, or it changes while it is read.
        """
        before = self.identity()
        found = sha256_of(self.path)
        if found != sha256:
            raise StorageError(
                f"{self.path} has changed since the stamps were published: its SHA-256 starts with {found[:12]}, published "
                f"was {sha256[:12]}. {_PUBLISH_AGAIN}"
            )
        self.must_still_be(before)
        self.vouch(before, sha256)
        return before

    def vouch(self, identity: Identity, sha256: str) -> None:
        """Remember that the file with this identity was seen to have this SHA-256."""
        _PROVEN[str(self.path), identity] = sha256

    def must_still_be(self, identity: Identity) -> None:
        """Refuse a file that was replaced or rewritten while it was being read.

        Raises
        ------
        StorageError
            If so.
        """
        if self.identity() != identity:
            raise StorageError(
                f"{self.path} changed while it was being read. Wait until its writer is done and run again."
            )

    @contextmanager
    def lend(self, sha256: str | None) -> Iterator[Path]:
        """Lend the file, proven if this process hasn't seen its bytes yet, and refuse it if it changed meanwhile.

        Without a SHA-256 it is lent as it is, for its first reading.

        Raises
        ------
        StorageError
            If its SHA-256 is another than given, or it changes while it is lent.
        """
        identity = self.identity()
        if sha256 is not None and _PROVEN.get((str(self.path), identity)) != sha256:
            identity = self.prove(sha256)
        yield self.path
        self.must_still_be(identity)

    def __getstate__(self) -> dict[str, Any]:
        # A decoding process takes over what this one has proven, and doesn't hash every file anew.
        mine = {identity: sha256 for (path, identity), sha256 in _PROVEN.items() if path == str(self.path)}
        return {"path": self.path, "proven": mine}

    def __setstate__(self, state: dict[str, Any]) -> None:
        object.__setattr__(self, "path", state["path"])
        for identity, sha256 in state["proven"].items():
            self.vouch(identity, sha256)


@dataclass(frozen=True)
class RemoteFile:
    """An object on an S3 server, read whole through the local cache.

    Attributes
    ----------
    info : ObjectInfo
        Address, size and ETag as listed or published.
    """

    info: ObjectInfo

    @property
    def name(self) -> str:
        """As it is published and called in errors."""
        return str(self.info.address)

    def identity(self) -> Identity:
        """Ask the server which object is there: its ETag and size.

        Raises
        ------
        StorageError
            If it is gone.
        """
        found = _server().head(self.info.address)
        if found is None:
            raise StorageError(f"{self.name} was there when the stamps were published and is gone. {_PUBLISH_AGAIN}")
        return (found.etag, found.size)

    def prove(self, sha256: str) -> Identity:
        """Prove that the object which is there has these bytes, reading it if the cache hasn't got them.

        Raises
        ------
        StorageError
            If it is another object, its SHA-256 is another, or it can't be read.
        """
        with self.lend(sha256):
            return (self.info.etag, self.info.size)

    def must_still_be(self, identity: Identity) -> None:
        """Refuse an object that was replaced while it was being read.

        Raises
        ------
        StorageError
            If so.
        """
        if self.identity() != identity:
            raise StorageError(
                f"{self.name} was replaced while it was being read. Wait until its writer is done and run again."
            )

    @contextmanager
    def lend(self, sha256: str | None) -> Iterator[Path]:
        """Lend the object as a local file whose bytes have this SHA-256, or, without one, are as the server has them.

        Raises
        ------
        StorageError
            If another object is there than was listed or published, or it can't be read.
        """
        etag, size = self.identity()
        if (etag, size) != (self.info.etag, self.info.size):
            raise StorageError(
                f"{self.name} has changed since it was listed: it has {size:,} bytes and the ETag {etag}, it had "
                f"{self.info.size:,} and {self.info.etag}. {_PUBLISH_AGAIN}"
            )
        with _held(self.info, sha256) as path:
            yield path


SourceFile = LocalFile | RemoteFile


def size_of(name: str) -> int:
    """Bytes that stand under a path or an s3:// address now; nothing is fetched.

    Raises
    ------
    StorageError
        If there is no such object, or the server can't be asked.
    OSError
        If there is no such file.
    """
    return _object(name).size if is_address(name) else Path(name).stat().st_size


def identity_of(name: str) -> Identity:
    """Return what changes when somebody replaces or rewrites what a path or an s3:// address names; nothing is fetched.

    Raises
    ------
    StorageError
        If there is no such object, or the server can't be asked.
    OSError
        If there is no such file.
    """
    if is_address(name):
        found = _object(name)
        return (found.etag, found.size)
    status = Path(name).stat()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@contextmanager
def lent(name: str) -> Iterator[Path]:
    """Lend whatever stands under a path or an s3:// address now as a local file; an object is read whole and verified.

    Raises
    ------
    StorageError
        If there is no such object, or it can't be read. A file that isn't there is for whoever opens it to find out.
    """
    if not is_address(name):
        yield Path(name)
        return
    with RemoteFile(_object(name)).lend(None) as path:
        yield path


def _object(name: str) -> ObjectInfo:
    found = _server().head(Address.parse(name))
    if found is None:
        raise StorageError(f"there is no object {name}.")
    return found


def addresses_below(folder: str) -> list[str]:
    """Addresses of every object below a prefix, however deep, by key.

    Raises
    ------
    StorageError
        If the server can't be asked, or lists torn pages.
    """
    return [str(info.address) for info in _server().list(Address.parse(folder))]


def source_file(published: dict[str, Any], name: str) -> SourceFile:
    """Return the file that a publication lists under a name, with what it says of it."""
    if is_address(name):
        return RemoteFile(ObjectInfo(Address.parse(name), int(published["size"]), str(published["etag"])))
    return LocalFile(Path(name))


def is_own(name: str) -> bool:
    """Whether a listed name is a file of ours, beside its manifest, and not somebody else's path or address."""
    return not (os.path.isabs(name) or is_address(name))


def objects_below(folder: str, suffix: str) -> list[RemoteFile]:
    """List the objects that stand directly below a prefix, by key.

    Raises
    ------
    StorageError
        If the server can't be asked, or lists torn pages.
    """
    prefix = Address.parse(folder)
    below = f"{prefix.key}/" if prefix.key else ""
    return [
        RemoteFile(info)
        for info in _server().list(prefix)
        if info.address.key.startswith(below)
        and "/" not in info.address.key[len(below) :]
        and info.address.key.endswith(suffix)
    ]


def refuse_link(path: Path) -> None:
    """Refuse a symbolic link.

    Raises
    ------
    StorageError
        If it is one.
    """
    if path.is_symlink():
        raise StorageError(
            f"{path} is a symbolic link, which can come to mean another file unseen. Name the file itself."
        )


@dataclass
class _Held:
    """A lease that outlives its users for a while, so that many short readings of an object fetch and hash it once."""

    users: int = 0
    lease: Lease | None = None
    opening: Lock = field(default_factory=Lock)
    stack: ExitStack = field(default_factory=ExitStack)


_HELD: OrderedDict[tuple[Any, ...], _Held] = OrderedDict()
_HOLDING = Lock()
_MOST_IDLE = 2


@contextmanager
def _held(info: ObjectInfo, sha256: str | None) -> Iterator[Path]:
    store, cache = _connection()
    key = (store, cache.folder, info)
    with _HOLDING:
        held = _HELD.setdefault(key, _Held())
        _HELD.move_to_end(key)
        held.users += 1
    try:
        with held.opening:
            if held.lease is None:
                held.lease = held.stack.enter_context(cache.lease(store, info, sha256=sha256))
        if sha256 not in (None, held.lease.sha256):
            raise StorageError(
                f"{info.address} reads as other bytes than were published: its SHA-256 starts with {held.lease.sha256[:12]}, "
                f"published was {str(sha256)[:12]}. {_PUBLISH_AGAIN}"
            )
        yield held.lease.path
    finally:
        with _HOLDING:
            held.users -= 1
            idle = [key for key, each in _HELD.items() if not each.users]
            ended = [_HELD.pop(key) for key in idle[: max(0, len(idle) - _MOST_IDLE)]]
        for each in ended:
            each.stack.close()


@atexit.register
def _let_go() -> None:
    """End the leases that nobody uses any more."""
    with _HOLDING:
        ended = [_HELD.pop(key) for key in [key for key, held in _HELD.items() if not held.users]]
    for held in ended:
        held.stack.close()


def _server() -> ObjectStore:
    return _connection()[0]


def _connection() -> tuple[ObjectStore, Cache]:
    named = sorted((key, value) for key, value in os.environ.items() if key.startswith(("AWS_", "LENS_PIPELINE_")))
    # A hash, since secrets are among them.
    return _connect(hashlib.sha256(repr(named).encode()).hexdigest())


@lru_cache(maxsize=1)
def _connect(_environment: str) -> tuple[ObjectStore, Cache]:
    return ObjectStore.from_environment(), Cache.from_environment(Home.from_environment().path)
