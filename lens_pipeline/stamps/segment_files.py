"""A store's segments read as files: rows sorted by place, neighbours in one read, straight into where they go.

For a store that is larger than memory, where a memory map would fetch each page with a fault of its own.
"""

import os
import weakref
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.stamps.segments import read_header, segment_name
from lens_pipeline.stamps.store import Halves, StampStore

# At most so many rows in one read; Linux takes 1,024 pieces.
READ_ROWS = 256

Longs = npt.NDArray[np.int64]


class Run(NamedTuple):
    """Neighbouring rows of one segment: `n` of them from `row` on, the first of them the `first`-th of those asked for."""

    segment: int
    row: int
    first: int
    n: int


class SegmentFiles:
    """Open segments of a store. Threads may share one.

    Parameters
    ----------
    in_order : bool
        Whether rows will be read in the order of their places: the kernel then reads ahead, else not at all.
    """

    def __init__(self, store: StampStore, *, in_order: bool) -> None:
        self._starts, self._row_bytes = store.pixels.starts, 2 * int(np.prod(store.contract.stamp_shape))
        self._paths = [
            store.publication.path(segment_name(segment), verify=False) for segment in range(len(self._starts) - 1)
        ]
        self._headers = [read_header(path)[1] for path in self._paths]
        self._files = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in self._paths]
        self.close = weakref.finalize(self, _close, self._files)
        advice = os.POSIX_FADV_SEQUENTIAL if in_order else os.POSIX_FADV_RANDOM
        for file in self._files:
            os.posix_fadvise(file, 0, 0, advice)

    def runs(self, places: Longs) -> list[Run]:
        """Cut places, ascending and each once, into runs of neighbours of at most 256 rows."""
        if not len(places):
            return []
        segments = np.searchsorted(self._starts, places, side="right") - 1
        ends = np.flatnonzero((np.diff(places) != 1) | (np.diff(segments) != 0)) + 1
        cuts = [0, *ends.tolist(), len(places)]
        return [
            Run(int(segments[start]), int(places[first] - self._starts[segments[start]]), first, min(READ_ROWS, end - first))
            for start, end in pairwise(cuts)
            for first in range(start, end, READ_ROWS)
        ]  # fmt: skip

    def read(self, run: Run, out: Halves, rows: Longs) -> None:
        """Read a run into rows of `out`.

        Parameters
        ----------
        out : (m, band, y, x) float16 array
            C order.
        rows : int64 array
            Row of `out` for each of the places that the run was cut from.

        Raises
        ------
        StorageError
            If the file ends before the run does.
        """
        parts = [memoryview(out[row]).cast("B") for row in rows[run.first : run.first + run.n]]
        offset = self._headers[run.segment] + run.row * self._row_bytes
        while parts:
            n_bytes = os.preadv(self._files[run.segment], parts, offset)
            if not n_bytes:
                raise StorageError(
                    f"{self._paths[run.segment]} ends at byte {offset:,}, before its row {run.row + run.n - 1:,}: it was cut "
                    "off after it was opened. Materialize stamp_store again, or read another version of it."
                )
            offset += n_bytes
            parts = list(_rest(parts, n_bytes))

    def ask_for(self, runs: list[Run]) -> None:
        """Tell the kernel to fetch these runs, without waiting for them."""
        for run in runs:
            offset = self._headers[run.segment] + run.row * self._row_bytes
            os.posix_fadvise(self._files[run.segment], offset, run.n * self._row_bytes, os.POSIX_FADV_WILLNEED)


def _rest(parts: list[memoryview], n_bytes: int) -> Iterator[memoryview]:
    for part in parts:
        if n_bytes < len(part):
            yield part[n_bytes:]
        n_bytes = max(0, n_bytes - len(part))


def _close(files: list[int]) -> None:
    for file in files:
        os.close(file)
