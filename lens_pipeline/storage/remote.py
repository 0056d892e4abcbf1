"""The part of a home that stands at an s3:// address; the local tree is a copy of what was needed of it.

    ROOT/DATASET/ASSET/MODEL/VERSION/FILE ...     one object a file, manifest.json last: a version is there when its manifest is
    ROOT/_log/DATASET/ASSET/MODEL/EVENT.json      the verdicts, which say what is current (`remote_log`)

Objects are only ever created: nothing is overwritten and nothing removed. A local folder VERSION exists only where the manifest
does, so a reader that finds it need not ask.
"""

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lens_pipeline.contracts.errors import ConfigError, StorageError, first_few
from lens_pipeline.storage.atomic import write_atomically
from lens_pipeline.storage.manifest import FileEntry, Manifest
from lens_pipeline.storage.remote_log import Event, last_event
from lens_pipeline.storage.s3 import Address, ListingChangedError, ObjectInfo, ObjectStore

MANIFEST_NAME = "manifest.json"
_LOG = "_log"
_COPY_OF = ".copy_of"
_LARGEST_JSON = 64 << 20
_TRANSFERS = 8
_LISTINGS = 10
_PIECE = 1 << 20


@dataclass(frozen=True)
class Remote:
    """A home's address, and the local folder that holds the same tree.

    Attributes
    ----------
    root : Address
        Everything is under it.
    local : Path
        Folder of the local copies.
    """

    root: Address
    local: Path
    store: ObjectStore

    @classmethod
    def open(cls, address: str, local: Path) -> "Remote":
        """Home at an address, with a folder for its local copies.

        Raises
        ------
        ConfigError
            If the address or the environment isn't sound, or the folder belongs to another home.
        """
        remote = cls(Address.parse(address), local, ObjectStore.from_environment())
        remote._claim_local()
        return remote

    def address(self, path: Path) -> Address:
        """Return the address of a folder or file of the tree."""
        address = self.root
        for part in path.relative_to(self.local).parts:
            address = address / part
        return address

    def upload(self, staged: Path, manifest: Manifest, folder: Path) -> None:
        """Publish a staged version, manifest last; what is there already is not sent again.

        An object that is there counts as the same if the server lists it with this file's size and MD5 (its ETag): the server
        computed that from the bytes that it stored, and compared it with ours when they came. Where the ETag is no MD5, the
        object is read and compared.

        Raises
        ------
        StorageError
            If the server couldn't be asked, or other bytes stand under one of the names. Nothing can be seen of the version.
        """
        top = self.address(folder)
        there = {info.address: info for info in self.store.list(top)}

        def send(name: str, entry: FileEntry) -> None:
            address, path = top / name, staged / name
            if not _is_listed(there.get(address), entry, path):
                self.store.create(address, path, entry.sha256)

        _in_parallel("publishing", top, manifest.files, send)
        self._put_manifest(manifest, top)

    def bring_manifest(self, folder: Path) -> bool:
        """Make a version's manifest stand in its local folder; False if there is no such version.

        Raises
        ------
        StorageError
            If it couldn't be read, is damaged, or belongs to another shelf.
        """
        path = folder / MANIFEST_NAME
        if path.exists():
            return True
        manifest = self._manifest(self.address(folder))
        if manifest is None:
            return False
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, manifest.to_json())
        return True

    def fetch(self, folder: Path, files: Mapping[str, FileEntry]) -> None:
        """Make files of a version stand in its local folder, each whole and with the SHA-256 that the manifest says.

        Raises
        ------
        StorageError
            If one is gone, or isn't what was published.
        """

        def bring(name: str, entry: FileEntry) -> None:
            address, path = self.address(folder) / name, folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with _alone(path):
                if path.exists():
                    return
                info = self.store.head(address)
                if info is None:
                    raise StorageError(f"{address} was published and is gone. Nothing of ours removes objects: ask who did.")
                if info.size != entry.size:
                    raise StorageError(f"{address} has {info.size:,} bytes, {entry.size:,} were published.")
                self.store.download(info, path, sha256=entry.sha256)

        _in_parallel("fetching", self.address(folder), files, bring)

    def versions(self, shelf: Path) -> list[str]:
        """Names of a shelf's committed versions: in the order of their first verdict, those without one last."""
        top = self.address(shelf)
        found = {version for version, name in _two_parts(self.store.list(top), top) if name == MANIFEST_NAME}
        concluded = dict.fromkeys(event.version for event in self.events(shelf))
        return [version for version in concluded if version in found] + sorted(found - concluded.keys())

    def events(self, shelf: Path) -> list[Event]:
        """Every verdict on a shelf's versions, in the order that counts."""
        top = self._log(shelf)
        return Event.parse_all([info.address.name for info in self._listed_while_growing(top)], where=top)

    def all_events(self) -> dict[tuple[str, str, str], list[Event]]:
        """Every verdict in this home, by (dataset, asset, model)."""
        top = self.root / _LOG
        names: dict[tuple[str, str, str], list[str]] = {}
        for info in self._listed_while_growing(top):
            dataset, asset, model, name = _parts(info.address, top, 4)
            names.setdefault((dataset, asset, model), []).append(name)
        return {shelf: Event.parse_all(found, where=top / "/".join(shelf)) for shelf, found in names.items()}

    def all_manifests(self) -> list[Path]:
        """Local folders, there or not, of every version in this home."""
        found = (info.address for info in self.store.list(self.root))
        keys = (address.key.removeprefix(self.root.key).lstrip("/").split("/") for address in found)
        return sorted(self.local.joinpath(*key[:4]) for key in keys if len(key) == 5 and key[4] == MANIFEST_NAME)

    def conclude(self, shelf: Path, version: str, verdict: dict[str, Any]) -> Event:
        """Put a verdict at the end of the shelf's log."""
        event = Event.after(self.events(shelf), version, passed=bool(verdict["passed"]))
        content = event.content(verdict)
        self.store.create(self._log(shelf) / event.name, content, hashlib.sha256(content).hexdigest())
        return event

    def verdict(self, folder: Path) -> dict[str, Any] | None:
        """Read the last verdict on a version; None if there is none."""
        event = last_event(self.events(folder.parent), folder.name)
        if event is None:
            return None
        address = self._log(folder.parent) / event.name
        content = self.store.read(address, at_most=_LARGEST_JSON)
        if content is None:
            raise StorageError(f"{address} was listed and is gone. Nothing of ours removes objects: ask who did.")
        verdict: dict[str, Any] = json.loads(content)
        if verdict.pop("version", None) != event.version or verdict.get("passed") != event.passed:
            raise StorageError(f"{address} says something else than its name: it was changed by hand.")
        return verdict

    def _log(self, shelf: Path) -> Address:
        top = self.root / _LOG
        for part in shelf.relative_to(self.local).parts:
            top = top / part
        return top

    def _listed_while_growing(self, top: Address) -> list[ObjectInfo]:
        for _ in range(_LISTINGS - 1):
            # Others may be writing verdicts; a listing that two requests agree on comes between two of them.
            with suppress(ListingChangedError):
                return self.store.list(top)
        return self.store.list(top)

    def _manifest(self, top: Address) -> Manifest | None:
        address = top / MANIFEST_NAME
        content = self.store.read(address, at_most=_LARGEST_JSON)
        if content is None:
            return None
        try:
            manifest = Manifest.from_json(content)
        except ValueError as error:
            raise StorageError(f"{address} is damaged: {error}. Nothing of this version is read.") from error
        shelf = top.key.removeprefix(self.root.key).lstrip("/").split("/")
        if shelf != [manifest.dataset, manifest.asset, manifest.model, manifest.version]:
            raise StorageError(
                f"{address} is the manifest of {manifest.asset} {manifest.version} of {manifest.dataset!r}: "
                "it was copied there by hand. Remove it."
            )
        return manifest

    def _put_manifest(self, manifest: Manifest, top: Address) -> None:
        # Who published the same content before named another run in it: theirs stands.
        if self._manifest(top) is not None:
            return
        content = manifest.to_json()
        try:
            self.store.create(top / MANIFEST_NAME, content, hashlib.sha256(content).hexdigest())
        except StorageError:
            if self._manifest(top) is None:
                raise

    def _claim_local(self) -> None:
        marker = self.local / _COPY_OF
        if marker.exists():
            of = marker.read_text().strip()
            if of != str(self.root):
                raise ConfigError(
                    f"{self.local} holds local copies of {of}, not of {self.root}. Set LENS_PIPELINE_LOCAL to another folder."
                )
            return
        published = [path.parent.relative_to(self.local) for path in self.local.glob(f"*/*/*/*/{MANIFEST_NAME}")]
        if published:
            raise ConfigError(
                f"{self.local} is a home of its own: it holds {first_few(published)}, which {self.root} may not have. "
                "Set LENS_PIPELINE_LOCAL to another folder."
            )
        self.local.mkdir(parents=True, exist_ok=True)
        write_atomically(marker, f"{self.root}\n".encode())


def refuse_copies(path: Path) -> None:
    """Refuse a local home whose folder holds the copies of a remote one.

    Raises
    ------
    ConfigError
        Naming the remote one.
    """
    marker = path / _COPY_OF
    if marker.exists():
        of = marker.read_text().strip()
        raise ConfigError(
            f"{path} holds local copies of {of}, and is no home of its own. Set LENS_PIPELINE_HOME to {of} or to another folder."
        )


def _is_listed(info: ObjectInfo | None, entry: FileEntry, path: Path) -> bool:
    if info is None or info.size != entry.size:
        return False
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return info.etag == digest.hexdigest()


def _two_parts(found: Sequence[ObjectInfo], top: Address) -> Iterator[tuple[str, str]]:
    for info in found:
        version, _, name = info.address.key.removeprefix(f"{top.key}/").partition("/")
        yield version, name


def _parts(address: Address, top: Address, n: int) -> list[str]:
    parts = address.key.removeprefix(f"{top.key}/").split("/")
    if len(parts) != n:
        raise StorageError(f"{address} is no event of a log. Look who wrote it, and remove it by hand.")
    return parts


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process or thread at a time fetch a file; the others find it there."""
    lock = path.with_name(f".{path.name}.lock")
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # Who waits on the removed name, and who makes it anew, may both go on: they look for the file first.
            lock.unlink(missing_ok=True)


def _in_parallel(
    what: str, top: Address, files: Mapping[str, FileEntry], each: Callable[[str, FileEntry], None]
) -> None:
    """Call for every file, several at a time; the first error ends it. Shows progress on a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with (
        Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress,
        ThreadPoolExecutor(_TRANSFERS, thread_name_prefix=what) as pool,
    ):
        bar = progress.add_task(f"{what} {top}", total=sum(entry.size for entry in files.values()))
        waiting = {pool.submit(each, name, entry): entry for name, entry in files.items()}
        try:
            for done in as_completed(waiting):
                done.result()
                progress.advance(bar, waiting[done].size)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
