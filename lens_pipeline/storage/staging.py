"""A version that is being written: nobody can read it until it is committed, and a crash leaves nothing behind."""

import errno
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.contracts.tables import TableContract
from lens_pipeline.storage.atomic import (
    disk_errors,
    fsync_file,
    fsync_folder,
    locked,
    make_folder,
    remove_temporaries,
    safe_name,
    sha256_of,
    write_atomically,
)
from lens_pipeline.storage.manifest import MANIFEST_NAME, FileEntry, Manifest, published_name
from lens_pipeline.storage.parquet import RowGroups, write_parquet
from lens_pipeline.storage.publication import Publication, input_name
from lens_pipeline.storage.remote import Remote
from lens_pipeline.storage.work_folder import WorkFolder, work_path

_PREFIX = ".staging-"
_LOCK = ".lock"


class Staging:
    """A version being written, as a context manager: leaving it without `commit` removes every trace.

    Parameters
    ----------
    shelf : Path
        Folder that the asset's versions stand in.
    inputs : list of Publication
        What was read to make it.
    provenance : dict
        Who made it and with which settings; not part of the version's hash.
    remote : Remote, optional
        Where `commit` publishes it, beside the shelf.

    Attributes
    ----------
    folder : Path
        Files written here are hashed and published by `commit`.
    attributes : dict
        JSON-able facts that the version says of itself; part of its hash.
    provenance : dict
        JSON-able facts of how it was made; not part of its hash.
    """

    def __init__(
        self,
        shelf: Path,
        *,
        dataset: str,
        asset: str,
        model: str,
        inputs: list[Publication],
        provenance: dict[str, Any] | None = None,
        remote: Remote | None = None,
    ) -> None:
        self.dataset, self.asset, self.model = dataset, asset, model
        self.inputs = {input_name(publication, model): publication.version for publication in inputs}
        self.attributes: dict[str, Any] = {}
        self.provenance = dict(provenance or {})
        self._shelf = shelf
        self._remote = remote
        self._adopted: dict[str, FileEntry] = {}
        self._work: list[WorkFolder] = []
        self.folder = shelf / f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        with self._disk_errors():
            make_folder(shelf)
            # Under the shelf's lock nobody takes a staging that has no lock of its own yet for an abandoned one.
            with locked(shelf):
                remove_abandoned(shelf)
                self.folder.mkdir()
                self._lock = open(self.folder / _LOCK, "w")  # noqa: SIM115 (held until the staging ends)
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()
        for work in self._work:
            work.close()
        if isinstance(error, OSError):
            with self._disk_errors():
                raise error

    def _disk_errors(self) -> AbstractContextManager[None]:
        stands = "Nothing was published and the version before it stands."
        return disk_errors(self.asset, self._shelf, stands=stands)

    def write_table(self, name: str | None, table: pa.Table, contract: TableContract | None = None) -> Path:
        """Write a table with page checksums; without a name the asset's own.

        Raises
        ------
        ContractError
            If it doesn't follow the contract.
        """
        stem = name or self.asset
        if contract is not None:
            contract.validate(table, where=f"the {stem} table that {self.asset} is about to publish")
        path = self.folder / f"{safe_name(stem, what='the name of a table')}.parquet"
        write_parquet(table, path)
        return path

    @contextmanager
    def table_writer(
        self, name: str | None, contract: TableContract, schema: pa.Schema | None = None
    ) -> Iterator[RowGroups]:
        """Write a table piecemeal, in row groups of one size; without a name the asset's own.

        Parameters
        ----------
        schema : pa.Schema, optional
            By default the contract's.

        Raises
        ------
        ContractError
            If the schema doesn't follow the contract. Values are for the asset's checks.
        """
        stem = name or self.asset
        schema = schema or pa.schema([(column.name, column.dtype) for column in contract.columns])
        contract.check_schema(schema, where=f"the {stem} table that {self.asset} is about to publish")
        with RowGroups(self.folder / f"{safe_name(stem, what='the name of a table')}.parquet", schema) as rows:
            yield rows

    def write_json(self, name: str, content: Any) -> Path:
        """Write a JSON file."""
        return self.write_bytes(name, json.dumps(content, indent=1, sort_keys=True, allow_nan=False).encode())

    def write_bytes(self, name: str, content: bytes) -> Path:
        """Write a file."""
        path = self.folder / safe_name(name, what="the name of a file")
        path.write_bytes(content)
        return path

    def work_folder(self, name: str) -> WorkFolder:
        """Open a folder for unfinished work on this version; it is locked until the staging ends, and goes when it is committed.

        Raises
        ------
        StorageError
            If another process works in it.
        """
        work = WorkFolder(work_path(self._shelf, name))
        self._work.append(work)
        return work

    def take_in(self, path: Path, as_name: str) -> None:
        """Make a file of a work folder a file of this version, without moving it: the work isn't lost if this fails."""
        _link_or_copy(path, self.folder / safe_name(as_name, what="the name of a file"))

    def adopt(self, publication: Publication, name: str, as_name: str, *, verify: bool = True) -> None:
        """Make a file of a committed version a file of this one, sharing its bytes on disk where the disk can.

        Parameters
        ----------
        verify : bool
            Whether to re-read it first; False is for a caller that has. `commit` doesn't hash it again.

        Raises
        ------
        StorageError
            If it isn't what was published.
        """
        source = publication.path(name, verify=verify)
        target = self.folder / safe_name(as_name, what="the name of a file")
        if _link_or_copy(source, target):
            self._adopted[as_name] = publication.entry(name)

    def commit(self) -> Publication:
        """Make the version durable and readable by its id; it does not become the current one yet.

        Committing content that was committed before gives the version that is already there, if that is unharmed.

        Raises
        ------
        StorageError
            If something is staged that is neither a file nor a folder, or under a name that could leave the folder.
        """
        files = {}
        folders = {self.folder}
        for path in sorted(self.folder.rglob("*")):
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise StorageError(f"{path} is a link or a device: {self.asset} can publish files only.")
            if path.is_dir():
                folders.add(path)
            elif path.name != _LOCK:
                name = published_name(path.relative_to(self.folder).as_posix())
                if name not in self._adopted:
                    fsync_file(path)
                files[name] = self._adopted.get(name) or _describe(path)
        manifest = Manifest(
            dataset=self.dataset,
            asset=self.asset,
            model=self.model,
            files=files,
            inputs=self.inputs,
            attributes=self.attributes,
            provenance=self.provenance,
        )
        write_atomically(self.folder / MANIFEST_NAME, manifest.to_json())
        for folder in folders:
            fsync_folder(folder)
        publication = self._move_into_place(manifest)
        for work in self._work:
            work.remove_others()
            work.remove()
        return publication

    def _move_into_place(self, manifest: Manifest) -> Publication:
        final = self._shelf / manifest.version
        if self._remote is not None:
            return self._publish_remotely(manifest, self._remote)
        damaged = None
        while True:
            there = _inode(final)
            if there is not None and there != damaged:
                # Reads every byte, so not under the lock: others may put another one there meanwhile.
                if _is_sound(final):
                    return Publication.open(final)
                damaged = there
            with locked(self._shelf):
                if _inode(final) not in (None, damaged):
                    continue
                if damaged is not None and final.exists():
                    final.rename(self._shelf / f".damaged-{manifest.version}-{secrets.token_hex(4)}")
                    fsync_folder(self._shelf)
                (self.folder / _LOCK).unlink()
                fsync_folder(self.folder)
                self.folder.rename(final)
                fsync_folder(self._shelf)
                return Publication.open(final)

    def _publish_remotely(self, manifest: Manifest, remote: Remote) -> Publication:
        final = self._shelf / manifest.version
        # First there, then here: what stands under a version's name here is published there.
        standing = remote.upload(self.folder, manifest, final)
        write_atomically(self.folder / MANIFEST_NAME, standing.to_json())
        with locked(self._shelf):
            (self.folder / _LOCK).unlink()
            try:
                self.folder.rename(final)
            except OSError:
                if not final.is_dir():
                    raise
                _complete(final, self.folder, standing)
            fsync_folder(self._shelf)
        return Publication.open(final, remote)


def remove_abandoned(shelf: Path) -> int:
    """Remove what killed writers left on a shelf, whose lock the caller holds, and return how many stagings that were.

    A living writer holds a lock on its own staging; a temporary file is removed when the process that its name gives is gone,
    since a living one may be fetching it.
    """
    for folder in (shelf, *shelf.glob("[0-9a-f]*/")):
        remove_temporaries(folder)
    removed = 0
    for folder in shelf.glob(f"{_PREFIX}*"):
        try:
            with open(folder / _LOCK) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            pass  # Killed before it had a lock, or after it gave it up.
        except BlockingIOError:
            continue
        shutil.rmtree(folder, ignore_errors=True)
        removed += 1
    return removed


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _is_sound(folder: Path) -> bool:
    try:
        return not Publication.open(folder).verify()
    except StorageError:
        return False


def _complete(copy: Path, staged: Path, manifest: Manifest) -> None:
    """Put the files that a local copy lacks, or has damaged, into their place."""
    for name, entry in manifest.files.items():
        path = copy / name
        if not path.is_file() or path.stat().st_size != entry.size or sha256_of(path) != entry.sha256:
            path.parent.mkdir(parents=True, exist_ok=True)
            (staged / name).replace(path)
    (staged / MANIFEST_NAME).replace(copy / MANIFEST_NAME)


def _describe(path: Path) -> FileEntry:
    rows, schema = None, None
    if path.suffix == ".parquet":
        try:
            metadata = pq.read_metadata(path)
        except pa.ArrowInvalid as error:
            raise StorageError(f"{path} is staged under a table's name and is no parquet: {error}.") from error
        rows = metadata.num_rows
        schema = {field.name: str(field.type) for field in metadata.schema.to_arrow_schema()}
    return FileEntry(sha256=sha256_of(path), size=path.stat().st_size, rows=rows, schema=schema)


def _link_or_copy(source: Path, target: Path) -> bool:
    """Whether it could be linked."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS):
            raise
        shutil.copyfile(source, target)
        return False
    return True
