"""The input of the store, streamed: parquet fragments of our own, or a user's own files, read only when proven unchanged.

Belongs here: finding, proving and reading fragments under the contract's column names. Judging rows is for `rows.py`,
decoding blobs for `decode.py`. A fragment of ours lies beside its manifest and carries page checksums, which are verified
on reading. A user's own file is named by its absolute path or its s3:// address, carries none, and was inspected before it
was published. Either is opened only once this process, or the one that handed it on, has seen its published SHA-256.
"""

import base64
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lens_pipeline.contracts.catalogue import STAMPS
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import ContractError, StorageError, first_few
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.sources import Identity, LocalFile, SourceFile, is_own, source_file

__all__ = ["BLOB", "Fragment", "Fragments", "Identity", "open_fragment", "our_names", "pack_schema", "unpack_schema"]

BLOB = "stamp_npz"
_STREAM_BUFFER = 1 << 20
_HASHERS = 4


@dataclass(frozen=True)
class Fragment:
    """One parquet file of stamps.

    Attributes
    ----------
    name : str
        As the stamps publication lists it: a file name of its own, a user's absolute path, or an s3:// address.
    source : LocalFile or RemoteFile
        Where it is read from.
    sha256 : str
        Of the whole file, as published.
    is_own : bool
        Whether it was written by us, with page checksums.
    groups : tuple of int
        Rows of each row group, in order.
    columns : dict
        Our name of each declared column that the file has, to the name it has in the file.
    """

    name: str
    source: SourceFile
    sha256: str
    is_own: bool
    groups: tuple[int, ...]
    columns: dict[str, str] = field(hash=False)

    @property
    def path(self) -> str:
        """What the file is called in an error: its whole path or address."""
        return self.source.name

    @property
    def n_rows(self) -> int:
        """Rows of the file."""
        return sum(self.groups)

    def prove(self) -> Identity:
        """Hash the whole file, and return the identity that must stay.

        Raises
        ------
        StorageError
            If its SHA-256 is another than published, or it is gone or a symbolic link.
        """
        return self.source.prove(self.sha256)

    def must_still_be(self, identity: Identity) -> None:
        """Refuse a file that was replaced or rewritten while it was being read.

        Raises
        ------
        StorageError
            If so.
        """
        self.source.must_still_be(identity)

    def row_groups(self) -> list[int]:
        """Rows of each row group, in order."""
        return list(self.groups)

    def batches(
        self, columns: Sequence[str], *, rows: int, row_groups: Sequence[int] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Stream columns under our names; memory doesn't grow with the file or its row groups.

        A file that this process hasn't seen yet is proven first.

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
            If the file is damaged (a page checksum that is wrong, or no parquet), isn't what was published, or changes
            while it is read.
        """
        there = [name for name in columns if name in self.columns]
        try:
            with self.source.lend(self.sha256) as path, _opened(path, is_own=self.is_own) as file:
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
        """Open the fragments that a publication lists, reading the footers of those whose schema it doesn't know.

        Raises
        ------
        ContractError
            If a column is missing or retyped, naming the column and the file.
        StorageError
            If a file is missing, is a symbolic link, isn't parquet, or isn't what was published.
        """
        contract = DatasetContract.model_validate(stamps.attributes["dataset_contract"])
        schemas = [unpack_schema(packed) for packed in stamps.attributes.get("schemas", ())]
        listed = stamps.attributes["fragments"]
        with ThreadPoolExecutor(_HASHERS) as pool:
            sources = [_source_of(stamps, entry) for entry in listed]
            opened = tuple(
                pool.map(lambda of: open_fragment(of[0], contract, schemas, of[1]), zip(sources, listed, strict=True))
            )
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


def _source_of(stamps: Publication, entry: dict[str, Any]) -> SourceFile:
    name = str(entry["file"])
    return LocalFile(stamps.path(name, verify=False)) if is_own(name) else source_file(entry, name)


def pack_schema(schema: pa.Schema) -> str:
    """Return a schema as text that `unpack_schema` reads."""
    return base64.b64encode(schema.remove_metadata().serialize()).decode()


def unpack_schema(packed: str) -> pa.Schema:
    """Return the schema that was packed."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(packed)))


def open_fragment(
    source: SourceFile, contract: DatasetContract, schemas: Sequence[pa.Schema], entry: dict[str, Any]
) -> Fragment:
    """Open one listed file.

    Parameters
    ----------
    schemas : sequence of pyarrow.Schema
        That entries refer to by their place; an entry without has its footer read, once its bytes are proven.
    entry : dict
        What the stamps publication says of it.

    Raises
    ------
    ContractError, StorageError
        As `Fragments.open`.
    """
    name = str(entry["file"])
    bare = Fragment(name, source, str(entry["sha256"]), is_own(name), (), {})
    if isinstance(source, LocalFile):
        source.identity()
    schema, groups = (schemas[entry["schema"]], tuple(entry["row_groups"])) if "schema" in entry else _footer(bare)
    if sum(groups) != entry["rows"]:
        raise StorageError(
            f"{source.name} has {sum(groups):,} rows, {entry['rows']:,} were published. Publish the stamps again."
        )
    return replace(bare, groups=groups, columns=_map_columns(schema, contract, source.name))


def _footer(fragment: Fragment) -> tuple[pa.Schema, tuple[int, ...]]:
    try:
        with fragment.source.lend(fragment.sha256) as path, _opened(path, is_own=fragment.is_own) as file:
            footer = file.metadata
            return file.schema_arrow, tuple(footer.row_group(group).num_rows for group in range(footer.num_row_groups))
    except FileNotFoundError as error:
        raise StorageError(f"{fragment.path} was there when the stamps were published and is gone.") from error
    except (pa.ArrowException, OSError) as error:
        raise StorageError(_damaged(fragment.path, error)) from error


def _map_columns(schema: pa.Schema, contract: DatasetContract, path: str) -> dict[str, str]:
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
    where = f"{path} (reading {', '.join(mapped)})" if mapped else path
    STAMPS.check_schema(
        pa.schema([item.with_name(name) for item, name in zip(schema, renamed, strict=True)]), where=where
    )
    declared = {column.name for column in STAMPS.columns}
    return {our: theirs for our, theirs in zip(renamed, schema.names, strict=True) if our in declared}


def _opened(path: Path, *, is_own: bool) -> pq.ParquetFile:
    return pq.ParquetFile(path, page_checksum_verification=is_own, buffer_size=_STREAM_BUFFER, pre_buffer=False)


def _damaged(path: str, error: Exception) -> str:
    return (
        f"{path} can't be read: {error}. It is damaged or no parquet. If this pipeline wrote it, materialize stamps again; "
        "if it is yours, restore it from where it came and materialize parent_sample, injection_manifest and stamps."
    )
