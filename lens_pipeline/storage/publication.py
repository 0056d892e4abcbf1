"""A committed version, opened to read: only files that its manifest names, and only unharmed."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from lens_pipeline.contracts.errors import StorageError, first_few
from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline.storage.manifest import MANIFEST_NAME, FileEntry, Manifest
from lens_pipeline.storage.parquet import read_parquet
from lens_pipeline.storage.progress import Bar
from lens_pipeline.storage.remote import Remote

VERDICT_NAME = "verdict.json"
# In place of a model's name, of what belongs to no model.
SHARED = "shared"
_READERS = 4


@dataclass(frozen=True)
class Publication:
    """A committed, immutable version of one asset.

    Attributes
    ----------
    folder : Path
        Where its files stand, or will once they are asked for.
    remote : Remote or None
        What the folder is a copy of.
    """

    folder: Path
    manifest: Manifest
    remote: Remote | None = field(default=None, repr=False, compare=False)

    @classmethod
    def open(cls, folder: Path, remote: Remote | None = None) -> "Publication":
        """Open the version that stands in a folder.

        Raises
        ------
        StorageError
            If there is no manifest, or it is damaged.
        """
        path = folder / MANIFEST_NAME
        try:
            manifest = Manifest.from_json(path.read_bytes())
        except FileNotFoundError as error:
            raise StorageError(f"{folder} holds no committed version: {MANIFEST_NAME} is not there.") from error
        except ValueError as error:
            raise StorageError(
                f"{path} is damaged: {error}. Nothing of this version is read; materialize the asset again."
            ) from error
        return cls(folder=folder, manifest=manifest, remote=remote)

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return self.manifest.dataset

    @property
    def asset(self) -> str:
        """Name of the asset."""
        return self.manifest.asset

    @property
    def model(self) -> str:
        """Name of the model, or ``shared`` for assets that all models share."""
        return self.manifest.model

    @property
    def version(self) -> str:
        """Hash of the content."""
        return self.manifest.version

    @property
    def attributes(self) -> dict[str, Any]:
        """What the asset says of itself."""
        return self.manifest.attributes

    @property
    def inputs(self) -> dict[str, str]:
        """Upstream asset, with ``@model`` where that is another model's, to the version that was read."""
        return self.manifest.inputs

    def version_read(self, source: "Publication") -> str | None:
        """Return the version of this asset of this model that was read; None where none was."""
        return self.inputs.get(input_name(source, self.model))

    @property
    def verdict(self) -> dict[str, Any] | None:
        """Result of the checks that ran when it was made; None if that run ended before they were done."""
        if self.remote is not None:
            return self.remote.log.verdict(self.remote.shelf(self.folder.parent), self.version)
        path = self.folder / VERDICT_NAME
        return json.loads(path.read_bytes()) if path.exists() else None

    @property
    def address(self) -> str:
        """Where it was published: an s3:// address, or the folder."""
        return str(self.folder if self.remote is None else self.remote.address(self.folder))

    def entry(self, name: str) -> FileEntry:
        """Return what the manifest says of one file.

        Raises
        ------
        StorageError
            If the manifest doesn't name it.
        """
        if name not in self.manifest.files:
            raise StorageError(
                f"{self.asset} {self.version} has no file {name!r}; it has {first_few(self.manifest.files, 12)}."
            )
        return self.manifest.files[name]

    def path(self, name: str, *, verify: bool = True) -> Path:
        """Return the path of a published file whose size, and by default SHA-256, is what the manifest says.

        A file that was published at an s3:// address and isn't here yet is fetched first.

        Parameters
        ----------
        verify : bool
            False skips the hash, for big files that carry checksums of their own or are verified by a command.

        Raises
        ------
        StorageError
            If the file is not named, missing, or not what was published.
        """
        entry = self.entry(name)
        self.fetch([name])
        path, within = self.folder / name, PurePosixPath(name)
        linked = any((self.folder / part).is_symlink() for part in (within, *within.parents))
        if linked or not path.is_file():
            raise StorageError(f"{path} was published and is gone. {self._mend()}")
        try:
            size = path.stat().st_size
            found = sha256_of(path) if verify and size == entry.size else None
        except FileNotFoundError as error:  # A damaged version is moved aside when it is made again.
            raise StorageError(f"{path} was published and is gone. {self._mend()}") from error
        if size != entry.size:
            raise StorageError(f"{path} has {size:,} bytes, {entry.size:,} were published. {self._mend()}")
        if verify and found != entry.sha256:
            raise StorageError(
                f"{path} is damaged: its SHA-256 starts with {str(found)[:12]}, published was {entry.sha256[:12]}. {self._mend()}"
            )
        return path

    def fetch(self, names: Sequence[str] | None = None) -> None:
        """Bring files here that were published at an s3:// address, several at a time; by default all that are missing.

        Raises
        ------
        StorageError
            If one is gone there, or isn't what was published.
        """
        if self.remote is not None:
            wanted = {name: self.entry(name) for name in names or self.manifest.files}
            missing = {name: entry for name, entry in wanted.items() if not (self.folder / name).exists()}
            self.remote.fetch(self.folder, missing)

    def is_here(self, name: str) -> bool:
        """Whether a file stands in the folder."""
        return (self.folder / name).exists()

    def read_table(self, name: str | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one published table, verified; without a name the asset's own.

        Raises
        ------
        StorageError
            If it isn't there or is damaged.
        """
        file = f"{name or self.asset}.parquet"
        entry = self.entry(file)
        unknown = [column for column in columns or () if column not in (entry.schema or {})]
        if unknown:
            raise StorageError(
                f"{self.asset} has no column {first_few(unknown)} in {file}; it has {first_few(entry.schema or {}, 60)}."
            )
        table = read_parquet(self.path(file), columns)
        if table.num_rows != entry.rows:
            raise StorageError(f"{self.folder / file} has {table.num_rows:,} rows, {entry.rows:,} were published.")
        return table

    def read_json(self, name: str) -> Any:
        """Read one published JSON file, verified."""
        return json.loads(self.path(name).read_bytes())

    def verify(self) -> list[str]:
        """Re-read every file and return what is wrong with each bad one; empty when all is well.

        Raises
        ------
        StorageError
            If a file that isn't here yet couldn't be fetched.
        """
        self.fetch()
        return self.verify_here()

    def verify_here(self, bar: Bar | None = None) -> list[str]:
        """Re-read the files that stand here, several at a time; those published at an s3:// address need not be here yet."""

        def read(name: str) -> str | None:
            try:
                self.path(name)
            except StorageError as error:
                return str(error)
            finally:
                (bar or Bar()).advance(self.entry(name).size)
            return None

        here = [name for name in self.manifest.files if self.remote is None or self.is_here(name)]
        with ThreadPoolExecutor(_READERS) as pool:
            return [problem for problem in pool.map(read, here) if problem]

    def verify_there(self) -> list[str]:
        """Re-read every object of a version that was published at an s3:// address, keeping nothing."""
        return [] if self.remote is None else self.remote.verify(self.folder, self.manifest)

    def _mend(self) -> str:
        if self.remote is not None:
            return f"Remove this file: it is fetched again from {self.address}."
        return f"Materialize {self.asset} again, or read another version of it."


def input_name(publication: Publication, model: str) -> str:
    """Name of what was read, among a version's inputs: its asset; with ``@model`` where that is another model's than its own."""
    is_others = publication.model not in (SHARED, model) and model != SHARED
    return f"{publication.asset}@{publication.model}" if is_others else publication.asset
