"""The part of a home that stands at an s3:// address; the local tree is a copy of what was needed of it.

    ROOT/DATASET/ASSET/MODEL/VERSION/FILE ...     one object a file, manifest.json last: a version is there when its manifest is
    ROOT/_log/DATASET/ASSET/MODEL/EVENT.json      the verdicts, which say what is current (`remote_log`)

Objects are only ever created: nothing is overwritten and nothing removed. A local folder VERSION exists only where the manifest
does, so a reader that finds it need not ask.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lens_pipeline.contracts.errors import ConfigError, StorageError, first_few
from lens_pipeline.storage.atomic import write_atomically
from lens_pipeline.storage.manifest import MANIFEST_NAME, FileEntry, Manifest
from lens_pipeline.storage.remote_log import RemoteLog, Shelf, listed
from lens_pipeline.storage.s3 import Address, ObjectChangedError, ObjectInfo, ObjectStore
from lens_pipeline.storage.transfers import alone, in_parallel

_LOG = "_log"
_COPY_OF = ".copy_of"
_LARGEST_MANIFEST = 64 << 20
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

    def upload(self, staged: Path, manifest: Manifest, folder: Path) -> Manifest:
        """Publish a staged version, manifest last; what is there already is not sent again.

        An object that is there counts as the same if the server lists it with this file's size and MD5 (its ETag): the server
        computed that from the bytes that it stored, and compared it with ours when they came. Where the ETag is no MD5, the
        object is read and compared.

        Returns
        -------
        Manifest
            The one that stands: where the same content was published before, that of its first writer.

        Raises
        ------
        StorageError
            If the server couldn't be asked, or other bytes stand under one of the names. Nothing can be seen of the version.
        """
        top = self.address(folder)
        there = {info.address: info for info in listed(self.store, top)}

        def send(name: str, entry: FileEntry) -> None:
            address, path = top / name, staged / name
            if not _is_listed(there.get(address), entry, path):
                self.store.create(address, path, entry.sha256)

        in_parallel(f"publishing {top}", manifest.files, send)
        return self._put_manifest(manifest, top)

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
            with alone(path):
                if not path.exists():
                    self.store.fetch(address, path, size=entry.size, sha256=entry.sha256)

        in_parallel(f"fetching {self.address(folder)}", files, bring)

    def verify(self, folder: Path, manifest: Manifest) -> list[str]:
        """Read every object of a version, and return what is wrong with each bad one."""
        top = self.address(folder)
        problems: list[str] = []

        def look(name: str, entry: FileEntry) -> None:
            try:
                self.store.fetch(top / name, None, size=entry.size, sha256=entry.sha256)
            except ObjectChangedError as error:
                problems.append(str(error))

        in_parallel(f"reading {top}", manifest.files, look)
        return sorted(problems)

    def shelf(self, folder: Path) -> Shelf:
        """Return the dataset, asset and model that a shelf's folder stands for."""
        return folder.relative_to(self.local).parts

    @property
    def log(self) -> RemoteLog:
        """What is current."""
        return RemoteLog(self.root / _LOG, self.store)

    def versions(self, shelf: Path) -> list[str]:
        """Names of a shelf's committed versions: in the order of their first verdict, those without one last."""
        found = {folder.name for folder in self._folders(self.address(shelf), n=2)}
        concluded = dict.fromkeys(event.version for event in self.log.events(self.shelf(shelf)))
        return [version for version in concluded if version in found] + sorted(found - concluded.keys())

    def folders(self) -> list[Path]:
        """Local folders, there or not, of every version in this home."""
        return self._folders(self.root, n=5)

    def _folders(self, top: Address, *, n: int) -> list[Path]:
        keys = [self._parts(info.address, top) for info in listed(self.store, top)]
        below = self._parts(top, self.root) if top != self.root else []
        return [self.local.joinpath(*below, *key[:-1]) for key in keys if len(key) == n and key[-1] == MANIFEST_NAME]

    @staticmethod
    def _parts(address: Address, top: Address) -> list[str]:
        return address.key.removeprefix(top.key).removeprefix("/").split("/")

    def _manifest(self, top: Address) -> Manifest | None:
        address = top / MANIFEST_NAME
        content = self.store.read(address, at_most=_LARGEST_MANIFEST)
        if content is None:
            return None
        try:
            manifest = Manifest.from_json(content)
        except ValueError as error:
            raise StorageError(f"{address} is damaged: {error}. Nothing of this version is read.") from error
        if self._parts(top, self.root) != [manifest.dataset, manifest.asset, manifest.model, manifest.version]:
            raise StorageError(
                f"{address} is the manifest of {manifest.asset} {manifest.version} of {manifest.dataset!r}: "
                "it was copied there by hand. Remove it."
            )
        return manifest

    def _put_manifest(self, manifest: Manifest, top: Address) -> Manifest:
        # Who published the same content before names another run in it.
        if (standing := self._manifest(top)) is not None:
            return standing
        content = manifest.to_json()
        try:
            self.store.create(top / MANIFEST_NAME, content, hashlib.sha256(content).hexdigest())
        except StorageError:
            if (standing := self._manifest(top)) is None:
                raise
            return standing
        return manifest

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
