"""A folder of objects already fetched, found by the hash of their bytes, which is taken again whenever one is opened.

Nothing that is current is ever put out for something else: an epoch over more objects than fit would otherwise put out just
what it needs next. What doesn't fit passes through a temporary file, the same bytes at the same checks. An entry goes when its
object was replaced (and nobody has it open), or by `prune`. The folder must be on a disk of this machine, for its locks to hold.
"""

import fcntl
import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.storage.atomic import disk_errors
from lens_pipeline.storage.cache_account import Account
from lens_pipeline.storage.cache_notes import Notes
from lens_pipeline.storage.s3 import ObjectInfo, ObjectStore
from lens_pipeline.storage.s3_address import refuse_as_folder

_FOLDER = "LENS_PIPELINE_CACHE"
_BYTES = "LENS_PIPELINE_CACHE_BYTES"
_DEFAULT_BYTES = 50_000_000_000


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
            If the quota is no whole number of bytes, or the folder is an address.
        """
        quota = os.environ.get(_BYTES) or str(_DEFAULT_BYTES)
        if not (quota.isascii() and quota.isdigit()):
            raise ConfigError(f"{_BYTES} is {quota!r}: write a whole number of bytes, 0 for no cache.")
        folder = os.environ.get(_FOLDER) or str(home / ".cache")
        refuse_as_folder(folder, _FOLDER)
        return cls(Path(folder).absolute(), int(quota))

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
        with ExitStack() as stack:
            found = self._find(stack, store, info, sha256)
            if found is None:
                found = self._fetch(stack, store, info, sha256)
            yield found

    def used(self) -> int:
        """Bytes kept, and reserved by those who are fetching."""
        return self._account.used()

    def prune(self, to_bytes: int = 0) -> int:
        """Remove entries that nobody has open, the longest unused first, until at most so many bytes are kept.

        Returns
        -------
        int
            Bytes removed.
        """
        return self._account.prune(to_bytes)

    @property
    def _account(self) -> Account:
        return Account(self.folder, self.quota)

    @property
    def _notes(self) -> Notes:
        return Notes(self.folder / "known")

    def _find(self, stack: ExitStack, store: ObjectStore, info: ObjectInfo, sha256: str | None) -> Lease | None:
        """Open the entry that holds this object, if there is one and it is sound."""
        sha256 = sha256 or self._notes.recall(store, info)
        file = self._account.open(sha256) if sha256 else None
        if sha256 is None or file is None:
            return None
        size = os.fstat(file.fileno()).st_size
        if size != info.size or hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            self._account.drop(file, sha256)
            self.counts["damaged"] += 1
            return None
        stack.callback(file.close)
        os.utime(file.fileno())
        self.counts["kept"] += 1
        return Lease(self._account.entry(sha256), sha256)

    def _fetch(self, stack: ExitStack, store: ObjectStore, info: ObjectInfo, sha256: str | None) -> Lease:
        with self._one_fetches(store, info):
            found = self._find(stack, store, info, sha256)
            if found is not None:
                return found
            with self._account.place(info.size, self._notes.current) as place:
                if place is not None:
                    self.counts["fetched"] += 1
                    return self._keep(stack, store, info, self._download(store, info, sha256, place))
        place = stack.enter_context(self._account.place(None, self._notes.current))
        assert place is not None
        self.counts["passed"] += 1
        return self._download(store, info, sha256, place)

    def _download(self, store: ObjectStore, info: ObjectInfo, sha256: str | None, place: Path) -> Lease:
        path = place / "object"
        stands = f"Nothing of it was kept; {_FOLDER} can name another folder."
        with disk_errors(f"{info.address} ({info.size:,} bytes)", self.folder, stands=stands):
            found = store.download(info, path, sha256=sha256 or self._notes.recall(store, info))
            path.chmod(0o444)
            # Noted only by who has read it just so: a hash that somebody expects proves nothing of this ETag.
            self._notes.remember(store, info, found)
        return Lease(path, found)

    def _keep(self, stack: ExitStack, store: ObjectStore, info: ObjectInfo, fetched: Lease) -> Lease:
        """Give a fetched file its name in the cache. The same bytes may be there already, from another address."""
        while True:
            file = self._account.keep(fetched.path, fetched.sha256)
            if file is not None:
                stack.callback(file.close)
                return Lease(self._account.entry(fetched.sha256), fetched.sha256)
            found = self._find(stack, store, info, fetched.sha256)
            if found is not None:
                return found

    @contextmanager
    def _one_fetches(self, store: ObjectStore, info: ObjectInfo) -> Iterator[None]:
        """Let one at a time fetch an object; the others then find it."""
        folder = self.folder / "turns"
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / self._notes.name(store, info)[:2], "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
