"""Rows to their places on disk: segments preallocated, written anywhere, and closed without holes.

Belongs here: the bytes of segment files while they are being made. Their format is in `segments.py`.
"""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.stamps.segments import SegmentHeader, SegmentLayout, segment_name, stats_name

Longs = NDArray[np.int64]


class RowWriter:
    """Writes and reads whole rows by place; many may work on one store, each on rows of its own."""

    def __init__(self, folder: Path, layout: SegmentLayout) -> None:
        self._folder, self._layout = folder, layout
        self._files: dict[int, tuple[int, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pair in self._files.values():
            for descriptor in pair:
                os.close(descriptor)
        self._files.clear()

    def write(self, place: int, pixels: memoryview | bytes, stats: memoryview | bytes) -> None:
        """Write one row's float16 pixels and its float32 stats."""
        (pixel_file, stats_file), pixel_at, stats_at = self._find(place)
        _write_all(pixel_file, pixels, pixel_at)
        _write_all(stats_file, stats, stats_at)

    def move(self, source: int, target: int) -> None:
        """Copy one row to another place."""
        (pixel_file, stats_file), pixel_at, stats_at = self._find(source)
        pixels = os.pread(pixel_file, self._layout.row_bytes, pixel_at)
        self.write(target, pixels, os.pread(stats_file, self._layout.stats_bytes, stats_at))

    def _find(self, place: int) -> tuple[tuple[int, int], int, int]:
        segment, row = divmod(place, self._layout.rows_per_segment)
        if segment not in self._files:
            self._files[segment] = (
                os.open(self._folder / segment_name(segment), os.O_RDWR),
                os.open(self._folder / stats_name(segment), os.O_RDWR),
            )
        layout = self._layout
        return self._files[segment], layout.header_bytes + row * layout.row_bytes, row * layout.stats_bytes


def prepare_segments(folder: Path, layout: SegmentLayout, n_rows: int) -> None:
    """Make the files of so many rows, their space taken on disk: a disk too small says so now, not after hours.

    Raises
    ------
    OSError
        If the disk is too small.
    """
    for segment in range(layout.n_segments(n_rows)):
        rows = layout.rows_in(segment, n_rows)
        for name, size in (
            (segment_name(segment), layout.header_bytes + rows * layout.row_bytes),
            (stats_name(segment), rows * layout.stats_bytes),
        ):
            with open(folder / name, "xb") as file:
                if size and hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                else:  # macOS has no such call: there a full disk is noticed when it is full.
                    file.truncate(size)


def close_holes(folder: Path, layout: SegmentLayout, place: Longs, refused: Longs) -> int:
    """Fill the places of refused rows with the last rows, in order of place, and return how many rows are left.

    Parameters
    ----------
    place : (n,) int64 array
        Place of each row, -1 where it never had one; updated.
    refused : int64 array
        Rows that have a place and must lose it.
    """
    holes = np.sort(place[refused])
    place[refused] = -1
    n_left = int((place >= 0).sum())
    late = np.flatnonzero(place >= n_left)
    late = late[np.argsort(place[late])]
    targets = holes[holes < n_left]
    with RowWriter(folder, layout) as writer:
        for row, target in zip(late.tolist(), targets.tolist(), strict=True):
            writer.move(int(place[row]), target)
            place[row] = target
    return n_left


def finish_segments(
    folder: Path, layout: SegmentLayout, n_rows: int, contract: DatasetContract, decoder_version: int
) -> None:
    """Cut the files to so many rows, remove those that are left empty, and write the headers."""
    n_segments = layout.n_segments(n_rows)
    for segment in range(n_segments):
        rows = layout.rows_in(segment, n_rows)
        header = SegmentHeader.of(contract, decoder_version=decoder_version, n_rows=rows).to_bytes()
        with open(folder / segment_name(segment), "r+b") as file:
            file.truncate(layout.header_bytes + rows * layout.row_bytes)
            file.write(header)
        os.truncate(folder / stats_name(segment), rows * layout.stats_bytes)
    surplus = n_segments
    while (folder / segment_name(surplus)).exists():
        (folder / segment_name(surplus)).unlink()
        (folder / stats_name(surplus)).unlink()
        surplus += 1


def _write_all(descriptor: int, content: memoryview | bytes, at: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written
