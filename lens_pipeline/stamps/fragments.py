"""The input of the store, streamed: parquet fragments of our own, or a user's own files, read only when proven unchanged.

Belongs here: finding, proving and reading fragments under the contract's column names. Judging rows is for `rows.py`,
decoding blobs for `decode.py`. A fragment of ours lies beside its manifest and carries page checksums, which are verified
on reading. A user's own file is named by its absolute path; it carries none, so it is hashed whole when first read and must
then stay as it was.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lens_pipeline.contracts.catalogue import STAMPS
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import ContractError, StorageError, first_few
from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline.storage.publication import Publication

BLOB = "stamp_npz"
_STREAM_BUFFER = 1 << 20

Identity = tuple[int, int, int, int]


@dataclass(frozen=True)
class Fragment:
    """One parquet file of stamps.

    Attributes
    ----------
    name : str
        As the stamps publication lists it: a file name of its own, or a user's absolute path.
    sha256 : str
        Of the whole file, as published.
    is_own : bool
        Whether it was written by us, with page checksums.
    columns : dict
        Our name of each declared column that the file has, to the name it has in the file.
    """

    name: str
    path: Path
    n_rows: int
    sha256: str
    is_own: bool
    columns: dict[str, str] = field(hash=False)

    def identity(self) -> Identity:
        """Return what changes when somebody replaces or rewrites the file: device, inode, size, time of change.

        Raises
        ------
        StorageError
            If it is gone or a symbolic link.
        """
        try:
            status = self.path.lstat()
        except OSError as error:
            raise StorageError(f"{self.path} was there when the stamps were published and is gone: {error}.") from error
        _refuse_link(self.path)
        return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def prove(self) -> Identity:
        """Prove that the file is the one that was published, and return the identity that must stay.

        Raises
        ------
        StorageError
            If a user's own file has another SHA-256 than published. A file of ours is proven page by page as it is read.
        """
        before = self.identity()
        if not self.is_own and (found := sha256_of(self.path)) != self.sha256:
            raise StorageError(
                f"{self.path} has changed since the stamps were published: its SHA-256 starts with {found[:12]}, "
                f"published was {self.sha256[:12]}. Next: put the file back, or publish the new one with "
                "dagster asset materialize --select 'parent_sample*' -m lens_pipeline.definitions -c PRESET"
            )
        self.must_still_be(before)
        return before

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

    def row_groups(self) -> list[int]:
        """Rows of each row group, in order."""
        with _opened(self) as file:
            return [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]

    def batches(
        self, columns: Sequence[str], *, rows: int, row_groups: Sequence[int] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Stream columns under our names; memory doesn't grow with the file or its row groups.

        Parameters
        ----------
        columns : sequence of str
            Our names; one that the file lacks is left out.
        rows : int
            Most rows of a batch.
        row_groups : sequence of int, optional
            By default all.

        Raises
        ------
        StorageError
            If the file is damaged: a page checksum that is wrong, or no parquet.
        """
        there = [name for name in columns if name in self.columns]
        try:
            with _opened(self) as file:
                batches = file.iter_batches(
                    batch_size=rows,
                    row_groups=row_groups,
                    columns=[self.columns[name] for name in there],
                    use_threads=False,
                )
                for batch in batches:
                    yield pa.record_batch([batch.column(self.columns[name]) for name in there], names=there)
        except (pa.ArrowException, OSError) as error:
            raise StorageError(_damaged(self.path, error)) from error


@dataclass(frozen=True)
class Fragments:
    """Every fragment of one stamps publication, its columns checked.

    Attributes
    ----------
    contract : DatasetContract
        What the stamps say of themselves.
    """

    contract: DatasetContract
    fragments: tuple[Fragment, ...]

    @classmethod
    def open(cls, stamps: Publication) -> "Fragments":
        """Open the fragments that a publication lists, reading footers only.

        Raises
        ------
        ContractError
            If a column is missing or retyped, naming the column and the file.
        StorageError
            If a file is missing, is a symbolic link, isn't parquet, or has other rows than published.
        """
        contract = DatasetContract.model_validate(stamps.attributes["dataset_contract"])
        listed = stamps.attributes["fragments"]
        opened = tuple(_open_one(stamps, contract, entry) for entry in listed)
        return cls(contract=contract, fragments=opened)

    @property
    def n_rows(self) -> int:
        """Rows over all fragments."""
        return sum(fragment.n_rows for fragment in self.fragments)

    @property
    def columns(self) -> tuple[str, ...]:
        """Our names of the declared columns that at least one fragment has, without the blob, in the contract's order."""
        there = {name for fragment in self.fragments for name in fragment.columns}
        return tuple(column.name for column in STAMPS.columns if column.name in there and column.name != BLOB)

    def batches(self, columns: Sequence[str], *, rows: int = 256) -> Iterator[tuple[Fragment, int, pa.RecordBatch]]:
        """Stream (fragment, row in its file that the batch starts at, batch) over all fragments, each proven first."""
        for fragment in self.fragments:
            identity = fragment.prove()
            start = 0
            for batch in fragment.batches(columns, rows=rows):
                yield fragment, start, batch
                start += batch.num_rows
            fragment.must_still_be(identity)


def our_names(contract: DatasetContract) -> dict[str, str]:
    """Return the survey's name of each column that the dataset contract maps, to ours."""
    return {
        contract.key: "task_id",
        contract.region_column: "region_id",
        contract.galaxy_column: "galaxy_id",
        contract.label_column: "lens_model",
        contract.quality_column: "cutout_ok",
        contract.blob_column: BLOB,
    }


def _open_one(stamps: Publication, contract: DatasetContract, entry: dict[str, object]) -> Fragment:
    name = str(entry["file"])
    is_own = not os.path.isabs(name)
    path = stamps.path(name, verify=False) if is_own else Path(name)
    _refuse_link(path)
    try:
        with pq.ParquetFile(path) as file:
            schema, n_rows = file.schema_arrow, file.metadata.num_rows
    except FileNotFoundError as error:
        raise StorageError(f"{path} was there when the stamps were published and is gone.") from error
    except (pa.ArrowException, OSError) as error:
        raise StorageError(_damaged(path, error)) from error
    if n_rows != entry["rows"]:
        raise StorageError(f"{path} has {n_rows:,} rows, {entry['rows']:,} were published. Publish the stamps again.")
    columns = _map_columns(schema, contract, path)
    return Fragment(name, path, n_rows, str(entry["sha256"]), is_own, columns)


def _map_columns(schema: pa.Schema, contract: DatasetContract, path: Path) -> dict[str, str]:
    ours = our_names(contract)
    repeated = sorted({name for name in schema.names if schema.names.count(name) > 1})
    renamed = [ours.get(name, name) for name in schema.names]
    clashing = sorted({name for name in renamed if renamed.count(name) > 1})
    if repeated or clashing:
        raise ContractError(
            f"{path} has more than one column for {first_few(repeated or clashing)}, so which one is meant can't be told. "
            "Remove or rename the others."
        )
    mapped = [f"{theirs!r} as {our!r}" for theirs, our in ours.items() if theirs != our]
    where = f"{path} (reading {', '.join(mapped)})" if mapped else str(path)
    STAMPS.check_schema(
        pa.schema([item.with_name(name) for item, name in zip(schema, renamed, strict=True)]), where=where
    )
    declared = {column.name for column in STAMPS.columns}
    return {our: theirs for our, theirs in zip(renamed, schema.names, strict=True) if our in declared}


def _opened(fragment: Fragment) -> pq.ParquetFile:
    return pq.ParquetFile(
        fragment.path,
        page_checksum_verification=fragment.is_own,
        buffer_size=_STREAM_BUFFER,
        pre_buffer=False,
    )


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise StorageError(
            f"{path} is a symbolic link, which can come to mean another file unseen. Name the file itself."
        )


def _damaged(path: Path, error: Exception) -> str:
    return (
        f"{path} can't be read: {error}. It is damaged or no parquet. If this pipeline wrote it, materialize stamps again; "
        "if it is yours, restore it from where it came and materialize parent_sample, injection_manifest and stamps."
    )
