"""Legacy Surveys catalogues, sweep or Tractor, FITS or parquet, streamed as Arrow batches of the columns that are asked for.

Belongs here: how such files are laid out. What their columns mean, and which rows are kept, is for `legacy_catalogue.py`.
Column names are upper case whatever the file says: Tractor files write them in lower case, sweep files in upper case.
"""

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from astropy.io import fits
from numpy.typing import NDArray

from lens_pipeline.contracts.errors import ConfigError, ContractError, first_few
from lens_pipeline.storage.parquet import iterate_parquet

_FITS, _PARQUET = (".fits", ".fits.gz"), (".parquet",)
BATCH_ROWS = 131_072
# FITS pads text with blanks, numpy with NUL.
_PADDING = " \0"


@dataclass(frozen=True)
class Catalogue:
    """One catalogue file: its columns and rows, and a way to stream them.

    Attributes
    ----------
    columns : dict
        Upper-case name to the file's own name.
    """

    path: Path
    n_rows: int
    columns: dict[str, str]
    _table: "_FitsTable | None" = field(default=None, repr=False)

    @classmethod
    def open(cls, path: Path) -> "Catalogue":
        """Look at a file's head.

        Raises
        ------
        ContractError
            If it is no table, or can't be read.
        """
        if path.name.endswith(_PARQUET):
            try:
                with pq.ParquetFile(path) as file:
                    n_rows, names = file.metadata.num_rows, file.schema_arrow.names
            except (pa.ArrowInvalid, OSError) as error:
                raise ContractError(f"{path} can't be read as parquet: {error}. Fetch or write it again.") from error
            return cls(path, n_rows, _upper(path, names))
        table = _FitsTable.open(path)
        return cls(path, table.n_rows, _upper(path, table.dtype.names or ()), table)

    def require(self, names: Sequence[str], *, why: str) -> None:
        """Refuse a file that lacks columns.

        Raises
        ------
        ContractError
            Naming all that are missing.
        """
        missing = [name for name in names if name not in self.columns]
        if missing:
            raise ContractError(
                f"{self.path} lacks {len(missing)} of the columns that {why} needs: {first_few(missing, 40)}. Take sweep or "
                f"Tractor files that have them, or choose another parent_sample.selection; nothing is filled in for them."
            )

    def batches(self, names: Sequence[str], *, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Stream columns under their upper-case names, numbers in the machine's byte order and text without padding.

        Memory holds one batch, whatever the file's size.

        Raises
        ------
        ContractError
            If the file ends before its last row, or a column isn't one number or text a row.
        """
        own = [self.columns[name] for name in names]
        if self._table is not None:
            for chunk in self._table.chunks(rows):
                yield pa.record_batch([_column(self._table, chunk, name) for name in own], names=[*names])
            return
        for batch in iterate_parquet(self.path, own, rows=rows):
            yield pa.record_batch([_stripped(batch[name]) for name in own], names=[*names])


def catalogue_files(folder: str) -> list[Path]:
    """List the FITS and parquet files of a folder, by name; a file may be named itself.

    Raises
    ------
    ConfigError
        If there is no such folder or file, or no catalogue in it.
    ContractError
        If one of them is a symbolic link.
    """
    place = Path(folder).expanduser().absolute()
    if not place.exists():
        raise ConfigError(
            f"there is no {place}. Set parent_sample.folder to the folder that holds sweep or Tractor files."
        )
    paths = (
        [place] if place.is_file() else sorted(path for path in place.iterdir() if path.name.endswith(_FITS + _PARQUET))
    )
    links = [path for path in (place, *paths) if path.is_symlink()]
    if links:
        raise ContractError(
            f"{first_few(links)} is a symbolic link, which can come to mean other data unseen; {len(links)} were found. Name "
            f"the folder itself, and put the files in it."
        )
    if not paths or not all(path.name.endswith(_FITS + _PARQUET) for path in paths):
        raise ConfigError(
            f"{place} holds no catalogue: files end in {', '.join(_FITS + _PARQUET)}. Set parent_sample.folder to the folder "
            f"of the sweep or Tractor files."
        )
    return paths


def _upper(path: Path, names: Sequence[str]) -> dict[str, str]:
    columns = {name.upper(): name for name in names}
    if len(columns) < len(names):
        raise ContractError(f"{path} has columns that differ in upper and lower case only: {first_few(sorted(names))}.")
    return columns


@dataclass(frozen=True)
class _FitsTable:
    """Where a binary table's rows stand in its file, and how a row is laid out.

    Rows are read by plain reads of whole chunks: a memory map of a folder of sweep files would count as memory used.
    """

    path: Path
    start: int
    n_rows: int
    dtype: np.dtype[Any]
    scaled: dict[str, tuple[float, float]]
    logical: frozenset[str]

    @classmethod
    def open(cls, path: Path) -> "_FitsTable":
        try:
            with fits.open(path, memmap=False, lazy_load_hdus=True) as hdus:
                table = next((hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU)), None)
                if table is None:
                    raise ContractError(f"{path} holds no binary table. A catalogue is the first table of a FITS file.")
                scaled = {
                    column.name: (float(column.bscale or 1), float(column.bzero or 0))
                    for column in table.columns
                    if column.bscale not in (None, "", 1) or column.bzero not in (None, "", 0)
                }
                logical = frozenset(column.name for column in table.columns if column.format.endswith("L"))
                dtype = table.columns.dtype.newbyteorder(">")
                n_rows, start, length = table.header["NAXIS2"], table.fileinfo()["datLoc"], table.header["NAXIS1"]
        except (OSError, TypeError, ValueError, KeyError) as error:
            raise ContractError(f"{path} can't be read as FITS: {error}. Fetch or write it again.") from error
        if dtype.itemsize != length:
            raise ContractError(
                f"{path}: a row has {length} bytes (NAXIS1) and its columns {dtype.itemsize}. Fetch or write it again."
            )
        return cls(path, start, n_rows, dtype, scaled, logical)

    def chunks(self, rows: int) -> Iterator[NDArray[Any]]:
        """Read so many rows at a time."""
        opener: Any = gzip.open if self.path.suffix == ".gz" else open
        with cast(BinaryIO, opener(self.path, "rb")) as file:
            file.seek(self.start)
            for first in range(0, self.n_rows, rows):
                wanted = min(rows, self.n_rows - first)
                found = file.read(wanted * self.dtype.itemsize)
                if len(found) < wanted * self.dtype.itemsize:
                    there = first + len(found) // self.dtype.itemsize
                    raise ContractError(
                        f"{self.path} ends after {there:,} of {self.n_rows:,} rows. It was cut; fetch it again."
                    )
                yield np.frombuffer(found, self.dtype)


def _column(table: _FitsTable, chunk: NDArray[Any], name: str) -> pa.Array:
    values = chunk[name]
    if values.ndim > 1:
        raise ContractError(f"{table.path}: {name} has {values.shape[1:]} values a row, wanted one.")
    if values.dtype.kind == "S":
        width = values.dtype.itemsize
        raw = pa.Array.from_buffers(pa.binary(width), len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])
        return _stripped(raw.cast(pa.binary()).cast(pa.string()))
    if name in table.logical:
        return pa.array(values == ord("T"))
    native = values.astype(values.dtype.newbyteorder("="))
    if name in table.scaled:
        scale, zero = table.scaled[name]
        native = (native.astype(np.float64) * scale + zero) if scale != 1 else native.astype(np.int64) + int(zero)
    return pa.array(native)


def _stripped(values: pa.Array) -> pa.Array:
    if pa.types.is_binary(values.type) or pa.types.is_fixed_size_binary(values.type):
        values = values.cast(pa.binary()).cast(pa.string())
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    return pc.utf8_trim(values, characters=_PADDING) if pa.types.is_string(values.type) else values
