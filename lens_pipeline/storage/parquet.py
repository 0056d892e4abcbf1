"""Parquet with a checksum on every page, written and read back verified.

Without page checksums most flipped bits pass unseen, and polars ignores them: tables are read here and handed on as Arrow.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import pyarrow as pa
import pyarrow.parquet as pq

from lens_pipeline.contracts.errors import StorageError

WRITE_OPTIONS: dict[str, Any] = {
    "compression": "zstd",
    "write_page_checksum": True,
    "store_schema": True,
    "use_dictionary": True,
}

ROW_GROUP_ROWS = 65_536
_PUBLISHED = "Materialize the asset that publishes it again; other versions are untouched."


def write_parquet(table: pa.Table, path: Path, **options: Any) -> None:
    """Write a table with page checksums; the same rows give the same bytes."""
    pq.write_table(table, path, **{**WRITE_OPTIONS, **options})


def parquet_writer(path: Path | BinaryIO, schema: pa.Schema, **options: Any) -> pq.ParquetWriter:
    """Open a writer that streams row groups with page checksums."""
    return pq.ParquetWriter(path, schema, **{**WRITE_OPTIONS, **options})


class RowGroups:
    """Writes a table piecemeal in row groups of one size, so that the bytes depend on the rows alone; a context manager.

    Memory holds one row group and the piece handed in.
    """

    def __init__(self, path: Path | BinaryIO, schema: pa.Schema, rows: int = ROW_GROUP_ROWS) -> None:
        self._writer = parquet_writer(path, schema)
        self._rows = rows
        self._waiting: list[pa.Table] = []
        self._n_waiting = 0
        self.n_rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._n_waiting:
            self._write_group(self._n_waiting)
        self._writer.close()

    def write(self, rows: pa.Table) -> None:
        """Add rows."""
        self._waiting.append(rows)
        self._n_waiting += rows.num_rows
        self.n_rows += rows.num_rows
        while self._n_waiting >= self._rows:
            self._write_group(self._rows)

    def _write_group(self, n: int) -> None:
        """Write the first n of the waiting rows, in one piece: how they came must not show in the bytes."""
        waiting = pa.concat_tables(self._waiting)
        self._waiting, self._n_waiting = [waiting.slice(n)], self._n_waiting - n
        self._writer.write_table(waiting.slice(0, n).combine_chunks(), row_group_size=self._rows)


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table, refusing a page whose checksum is wrong.

    Raises
    ------
    StorageError
        If the file is damaged or isn't parquet.
    """
    try:
        # Arrow takes a list and no other sequence.
        wanted = None if columns is None else list(columns)
        return pq.read_table(path, columns=wanted, page_checksum_verification=True, partitioning=None)
    except (pa.ArrowInvalid, OSError) as error:
        raise StorageError(_damaged(path, error, _PUBLISHED)) from error


def iterate_parquet(
    path: Path, columns: Sequence[str] | None = None, *, rows: int = 1024, remedy: str = _PUBLISHED
) -> Iterator[pa.RecordBatch]:
    """Stream a file's rows, refusing a page whose checksum is wrong; memory doesn't grow with the file.

    Parameters
    ----------
    remedy : str
        What to do about a damaged file; of a file that isn't the pipeline's own, another than to publish it again.

    Raises
    ------
    StorageError
        If the file is damaged or isn't parquet.
    """
    try:
        # Without this the columns of all row groups are read ahead, and memory does grow with the file.
        with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as file:
            yield from file.iter_batches(batch_size=rows, columns=columns)
    except (pa.ArrowInvalid, OSError) as error:
        raise StorageError(_damaged(path, error, remedy)) from error


def _damaged(path: Path, error: Exception, remedy: str) -> str:
    by = " or was not written by this pipeline" if remedy == _PUBLISHED else ""
    return f"{path} can't be read: {error}. The file is damaged{by}. {remedy}"
