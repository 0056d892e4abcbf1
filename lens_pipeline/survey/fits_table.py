"""The first binary table of a FITS file, plain or compressed, read in chunks of rows.

Belongs here: where rows stand and how a row is laid out, and telling a file that was cut or damaged from one without a table.
"""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from astropy.io import fits
from numpy.typing import NDArray

from lens_pipeline.contracts.errors import ContractError

AGAIN = "Fetch or write it again."
_PIECE = 1 << 20
# What a file that was cut or damaged raises, compressed or not.
_UNREADABLE = (OSError, EOFError, zlib.error)
# FITS pads text with blanks, numpy with NUL.
_PADDING = " \0"


@dataclass(frozen=True)
class FitsTable:
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
    def open(cls, path: Path) -> "FitsTable":
        """Look at the heads of a file's parts up to its first table.

        Raises
        ------
        ContractError
            If it holds no table, breaks off before it, or isn't FITS.
        """
        try:
            with fits.open(path, memmap=False, lazy_load_hdus=True) as hdus:
                table = next((hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU)), None)
                if table is None:
                    place = hdus[-1].fileinfo()
                    raise ContractError(_why_no_table(path, place["datLoc"] + place["datSpan"]))
                scaled = {
                    column.name: (float(column.bscale or 1), float(column.bzero or 0))
                    for column in table.columns
                    if column.bscale not in (None, "", 1) or column.bzero not in (None, "", 0)
                }
                logical = frozenset(column.name for column in table.columns if column.format.endswith("L"))
                dtype = table.columns.dtype.newbyteorder(">")
                n_rows, start, length = table.header["NAXIS2"], table.fileinfo()["datLoc"], table.header["NAXIS1"]
        except (*_UNREADABLE, TypeError, ValueError, KeyError) as error:
            raise ContractError(f"{path} can't be read as FITS: {error}. {AGAIN}") from error
        if dtype.itemsize != length:
            raise ContractError(
                f"{path}: a row has {length} bytes (NAXIS1) and its columns {dtype.itemsize}. Fetch or write it again."
            )
        return cls(path, start, n_rows, dtype, scaled, logical)

    def chunks(self, rows: int) -> Iterator[NDArray[Any]]:
        """Read so many rows at a time, and what follows the table, so that a compressed file's checksum is looked at."""
        with _refusing_damage(self.path), _opened(self.path) as file:
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
            while self.path.suffix == ".gz" and file.read(_PIECE):
                pass

    def column(self, chunk: NDArray[Any], name: str) -> pa.Array:
        """Take one column of a chunk as Arrow, in the machine's byte order, scaled as the header says.

        Raises
        ------
        ContractError
            If it holds several values a row.
        """
        values = chunk[name]
        if values.ndim > 1:
            raise ContractError(f"{self.path}: {name} has {values.shape[1:]} values a row, wanted one.")
        if values.dtype.kind == "S":
            width = values.dtype.itemsize
            raw = pa.Array.from_buffers(
                pa.binary(width), len(values), [None, pa.py_buffer(np.ascontiguousarray(values))]
            )
            return stripped(raw)
        if name in self.logical:
            return pa.array(values == ord("T"))
        native = values.astype(values.dtype.newbyteorder("="))
        if name in self.scaled:
            scale, zero = self.scaled[name]
            native = (native.astype(np.float64) * scale + zero) if scale != 1 else native.astype(np.int64) + int(zero)
        return pa.array(native)


@contextmanager
def _refusing_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        raise ContractError(f"{path} is cut or damaged: {error}. {AGAIN}") from error


def _why_no_table(path: Path, end: int) -> str:
    """Tell a file that goes on after the last part that could be read, or breaks off in it, from one without a table."""
    with _opened(path) as file:
        size = sum(map(len, iter(lambda: file.read(_PIECE), b"")))
    if size > end:
        return f"{path} breaks off before its table: it was cut or damaged. {AGAIN}"
    return f"{path} holds no binary table. A catalogue is the first table of a FITS file; fetch it again if it should have one."


def _opened(path: Path) -> BinaryIO:
    opener: Any = gzip.open if path.suffix == ".gz" else open
    return cast(BinaryIO, opener(path, "rb"))


def stripped(values: pa.Array) -> pa.Array:
    """Text as such and without padding, whether it was bytes, indices or text; anything else as it is."""
    if pa.types.is_binary(values.type) or pa.types.is_fixed_size_binary(values.type):
        values = values.cast(pa.binary()).cast(pa.string())
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    return pc.utf8_trim(values, characters=_PADDING) if pa.types.is_string(values.type) else values
