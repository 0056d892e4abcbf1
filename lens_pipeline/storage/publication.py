"""A committed version, opened to read: only files that its manifest names, and only unharmed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from lens_pipeline.contracts.errors import StorageError, first_few
from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline.storage.manifest import FileEntry, Manifest
from lens_pipeline.storage.parquet import read_parquet

MANIFEST_NAME = "manifest.json"
VERDICT_NAME = "verdict.json"


@dataclass(frozen=True)
class Publication:
    """A committed, immutable version of one asset."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> "Publication":
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
        return cls(folder=folder, manifest=manifest)

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
        """Upstream asset to the version that was read."""
        return self.manifest.inputs

    @property
    def verdict(self) -> dict[str, Any] | None:
        """Result of the checks that ran when it was made; None if that run ended before they were done."""
        path = self.folder / VERDICT_NAME
        return json.loads(path.read_bytes()) if path.exists() else None

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
        """Re-read every file and return what is wrong with each bad one; empty when all is well."""
        problems = []
        for name in self.manifest.files:
            try:
                self.path(name)
            except StorageError as error:
                problems.append(str(error))
        return problems

    def _mend(self) -> str:
        return f"Materialize {self.asset} again, or read another version of it."
