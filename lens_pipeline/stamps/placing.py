"""Rows to their places on disk: segments preallocated with their headers, and rows written in any order.

Belongs here: the bytes of segment files while they are being made, and the pixel hash of each place beside them. The
segments' format is in `segments.py`.
"""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.stamps.buckets import HASH_BYTES
from lens_pipeline.stamps.segments import SegmentHeader, SegmentLayout, segment_name, stats_name
from lens_pipeline.storage.atomic import fsync_folder

_HASHES = "pixel-hashes"
START_ANEW = "Remove that folder and run again; every stamp is then decoded anew."


class RowWriter:
    """Writes whole rows by place; many may work on one folder, each on rows of its own."""

    def __init__(self, folder: Path, layout: SegmentLayout) -> None:
        self._folder, self._layout = folder, layout
        self._files: dict[int, tuple[int, int]] = {}
        self._hashes = os.open(folder / _HASHES, os.O_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pair in self._files.values():
            for descriptor in pair:
                os.close(descriptor)
        self._files.clear()
        os.close(self._hashes)

    def write(self, place: int, pixels: memoryview, stats: memoryview, pixel_hash: bytes) -> None:
        """Write one row's float16 pixels, its float32 stats and the hash of its pixels."""
        segment, row = divmod(place, self._layout.rows_per_segment)
        pixel_file, stats_file = self._open(segment)
        _write_all(pixel_file, pixels, self._layout.header_bytes + row * self._layout.row_bytes)
        _write_all(stats_file, stats, row * self._layout.stats_bytes)
        _write_all(self._hashes, pixel_hash, place * HASH_BYTES)

    def read(self, place: int) -> tuple[bytes, bytes, bytes]:
        """Read back what `write` was given."""
        segment, row = divmod(place, self._layout.rows_per_segment)
        pixel_file, stats_file = self._open(segment)
        layout = self._layout
        return (
            os.pread(pixel_file, layout.row_bytes, layout.header_bytes + row * layout.row_bytes),
            os.pread(stats_file, layout.stats_bytes, row * layout.stats_bytes),
            os.pread(self._hashes, HASH_BYTES, place * HASH_BYTES),
        )

    def _open(self, segment: int) -> tuple[int, int]:
        if segment not in self._files:
            self._files[segment] = (
                os.open(self._folder / segment_name(segment), os.O_RDWR),
                os.open(self._folder / stats_name(segment), os.O_RDWR),
            )
        return self._files[segment]


def prepare_segments(
    folder: Path, layout: SegmentLayout, n_rows: int, contract: DatasetContract, decoder_version: int
) -> None:
    """Make the files of so many places, zero but for their headers.

    Their space is taken on disk: a disk too small says so at once, and not after hours.

    Raises
    ------
    OSError
        If the disk is too small.
    """
    for segment in range(layout.n_segments(n_rows)):
        n = layout.rows_in(segment, n_rows)
        header = SegmentHeader.of(contract, decoder_version=decoder_version, n_rows=n).to_bytes()
        allocate(folder / segment_name(segment), layout.header_bytes + n * layout.row_bytes, header)
    for name, size in _sizes(layout, n_rows).items():
        allocate(folder / name, size)
    make_durable(folder, layout, n_rows)
    fsync_folder(folder)


def must_be_prepared(folder: Path, layout: SegmentLayout, n_rows: int) -> None:
    """Refuse a folder that isn't what `prepare_segments` left: rows that were written there would be lost.

    Raises
    ------
    StorageError
        Naming a file that is gone or of another size.
    """
    for name, size in _sizes(layout, n_rows).items():
        path = folder / name
        if not path.exists() or path.stat().st_size != size:
            raise StorageError(f"{path} is gone or has lost bytes since rows were written to it. {START_ANEW}")


def make_durable(folder: Path, layout: SegmentLayout, n_rows: int) -> None:
    """Make every row durable that was written so far."""
    for name in _sizes(layout, n_rows):
        descriptor = os.open(folder / name, os.O_RDWR)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)


def remove_segments(folder: Path) -> None:
    """Remove every segment file of a folder, whose space is needed more elsewhere."""
    for path in folder.glob("segment-*"):
        path.unlink()


def read_pixel_hashes(folder: Path, start: int, end: int) -> NDArray[np.uint8]:
    """Read the pixel hash of each place from start to end, (n, 16); zeros where no row was written."""
    with open(folder / _HASHES, "rb") as file:
        file.seek(start * HASH_BYTES)
        return np.frombuffer(file.read((end - start) * HASH_BYTES), np.uint8).reshape(-1, HASH_BYTES)


def _sizes(layout: SegmentLayout, n_rows: int) -> dict[str, int]:
    sizes = {_HASHES: n_rows * HASH_BYTES}
    for segment in range(layout.n_segments(n_rows)):
        n = layout.rows_in(segment, n_rows)
        sizes[segment_name(segment)] = layout.header_bytes + n * layout.row_bytes
        sizes[stats_name(segment)] = n * layout.stats_bytes
    return sizes


def allocate(path: Path, size: int, start: bytes = b"") -> None:
    """Make a file of zeros, its space taken on disk, or leave what is there; then write how it starts."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if size and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        else:  # macOS has no such call: there a full disk is noticed when it is full.
            os.ftruncate(descriptor, size)
        _write_all(descriptor, start, 0)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: memoryview | bytes, at: int) -> None:
    written = os.pwrite(descriptor, content, at)
    while written < len(content):
        written += os.pwrite(descriptor, memoryview(content)[written:], at + written)
