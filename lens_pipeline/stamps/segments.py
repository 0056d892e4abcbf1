"""The store's file format: segments of float16 stamps behind a header, and each stamp's median and MAD beside them.

``segment-00000.f16``: a header padded with zeros to a multiple of 4096 bytes (magic, format version, header bytes, JSON
bytes, CRC-32 of the JSON, all little-endian; then the JSON), then rows of float16 (band, y, x), C order, little-endian,
unclipped, in the contract's unit. ``segment-00000.stats.f32``: float32 (row, band, 2), the band's median and raw MAD over
its float32 pixels. A segment has any number of rows; one that the index doesn't name is a *hole*, which nobody reads: the
decoder refused it, or it is gone from a store that was grown. Rows of a segment that was made at once stand in the order of
their key hash.
"""

import json
import struct
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import ConfigError, StorageError

MAGIC = b"LENSSTMP"
FORMAT = 1
PAGE = 4096
_FIXED = struct.Struct("<8sIIII")


@dataclass(frozen=True)
class SegmentHeader:
    """What a segment says of itself.

    Attributes
    ----------
    contract_sha256 : str
        Hash of the whole dataset contract.
    n_rows : int
        Rows in this segment.
    """

    contract_sha256: str
    bands: tuple[str, ...]
    stamp_size: int
    flux_unit: str
    decoder_version: int
    n_rows: int
    dtype: str = "<f2"

    @classmethod
    def of(cls, contract: DatasetContract, *, decoder_version: int, n_rows: int) -> "SegmentHeader":
        """Header of a segment of this contract's stamps."""
        return cls(contract.sha256(), contract.bands, contract.stamp_size, contract.flux_unit, decoder_version, n_rows)

    def to_bytes(self) -> bytes:
        """Serialize, padded to a whole number of pages; the length doesn't depend on the row count."""
        text = json.dumps({**asdict(self), "n_rows": f"{self.n_rows:020d}"}, sort_keys=True).encode()
        length = -(-(_FIXED.size + len(text)) // PAGE) * PAGE
        return (_FIXED.pack(MAGIC, FORMAT, length, len(text), zlib.crc32(text)) + text).ljust(length, b"\0")


@dataclass(frozen=True)
class SegmentLayout:
    """Where rows lie: `n_rows` rows over segments of `rows_per_segment` each."""

    header_bytes: int
    row_bytes: int
    stats_bytes: int
    rows_per_segment: int

    @classmethod
    def of(cls, contract: DatasetContract, segment_bytes: int) -> "SegmentLayout":
        """Lay out this contract's stamps.

        Raises
        ------
        ConfigError
            If not even one stamp fits a segment.
        """
        header = len(SegmentHeader.of(contract, decoder_version=2**31, n_rows=0).to_bytes())
        row = 2 * int(np.prod(contract.stamp_shape))
        if header + row > segment_bytes:
            raise ConfigError(
                f"one stamp of {contract.stamp_shape} takes {row:,} bytes behind a header of {header:,} and doesn't fit a "
                f"segment of {segment_bytes:,}. Raise stamp_store.segment_bytes."
            )
        return cls(header, row, 8 * len(contract.bands), (segment_bytes - header) // row)

    def n_segments(self, n_rows: int) -> int:
        """Segments that hold so many rows."""
        return -(-n_rows // self.rows_per_segment)

    def rows_in(self, segment: int, n_rows: int) -> int:
        """Rows of one segment of a store of n_rows."""
        return min(self.rows_per_segment, n_rows - segment * self.rows_per_segment)


def segment_name(segment: int) -> str:
    """Name of a segment's pixel file."""
    return f"segment-{segment:05d}.f16"


def stats_name(segment: int) -> str:
    """Name of a segment's file of medians and MADs."""
    return f"segment-{segment:05d}.stats.f32"


def read_header(path: Path) -> tuple[SegmentHeader, int]:
    """Read a segment's header, and how many bytes it takes.

    Raises
    ------
    StorageError
        If it isn't a segment of this format, or the header is damaged.
    """
    with open(path, "rb") as file:
        fixed = file.read(_FIXED.size)
        if len(fixed) != _FIXED.size:
            raise StorageError(f"{path} is no segment: it has {len(fixed)} bytes. {_MEND}")
        magic, version, header_bytes, text_bytes, crc = _FIXED.unpack(fixed)
        if magic != MAGIC or version != FORMAT:
            raise StorageError(
                f"{path} is no segment of format {FORMAT}: it starts with {magic!r}, format {version}. {_MEND}"
            )
        text = file.read(text_bytes)
    if zlib.crc32(text) != crc or header_bytes % PAGE or header_bytes < _FIXED.size + text_bytes:
        raise StorageError(f"the header of {path} is damaged. {_MEND}")
    loaded: dict[str, Any] = json.loads(text)
    loaded["bands"], loaded["n_rows"] = tuple(loaded["bands"]), int(loaded["n_rows"])
    return SegmentHeader(**loaded), header_bytes


def map_segment(
    pixels: Path, stats: Path, contract: DatasetContract
) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """Map one segment read-only: pixels (n, band, y, x) float16, and median and MAD (n, band, 2) float32.

    Raises
    ------
    StorageError
        If the header is not that of this contract, or a file's size is not that of its rows.
    """
    header, header_bytes = read_header(pixels)
    expected = SegmentHeader.of(contract, decoder_version=header.decoder_version, n_rows=header.n_rows)
    if header != expected:
        raise StorageError(
            f"{pixels} was made under another dataset contract: {header}, the store's is {expected}. {_MEND}"
        )
    shape = (header.n_rows, *contract.stamp_shape)
    stats_shape = (header.n_rows, len(contract.bands), 2)
    wanted = (header_bytes + 2 * int(np.prod(shape)), 4 * int(np.prod(stats_shape)))
    found = (pixels.stat().st_size, stats.stat().st_size)
    if found != wanted:
        raise StorageError(f"{pixels} and its stats have {found} bytes, {header.n_rows:,} rows take {wanted}. {_MEND}")
    # np.asarray strips the memmap type, whose per-row bookkeeping makes a gather 1.6 times slower.
    return (
        np.asarray(np.memmap(pixels, dtype="<f2", mode="r", offset=header_bytes, shape=shape)),
        np.asarray(np.memmap(stats, dtype="<f4", mode="r", shape=stats_shape)),
    )


_MEND = "Materialize stamp_store again, or read another version of it."
