"""Where rows are taken from: one interface, and the ways that differ in speed only. A `StampStore` itself is the mapped one.

Belongs here: host memory and files. Rows on a GPU are in `batches/device_rows.py`, the choice among them in
`batches/reader.py`. No torch.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import first_few
from lens_pipeline.stamps.gather import Joined, must_take
from lens_pipeline.stamps.segment_files import Run, SegmentFiles
from lens_pipeline.stamps.store import Logical, Rows, StampStore

# What keeps a solid-state drive busy; more gains nothing.
_READS_AT_ONCE = 8


class RowSource(Protocol):
    """Rows by logical number, the same bytes from every source; threads may share one."""

    @property
    def contract(self) -> DatasetContract:
        """What the stamps are."""

    def take(self, logical: Logical, out: Rows) -> object:
        """Fill `out` with the rows, in the order given, repeats allowed.

        Raises
        ------
        IndexError
            If a number is outside the store, or not among the rows that the source was opened for.
        """

    def expect(self, logical: Logical) -> None:
        """Hear which rows will be taken soon, and get them going; returns at once."""


class FileRows:
    """Rows read from the segment files, for a store larger than memory: several reads at work, and more asked for ahead.

    Medians and MADs, a thousandth of the bytes, stay mapped.
    """

    def __init__(self, store: StampStore) -> None:
        self._store, self._files = store, SegmentFiles(store, in_order=False)
        self._pool = ThreadPoolExecutor(_READS_AT_ONCE, thread_name_prefix="pread")
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="ask")

    @property
    def contract(self) -> DatasetContract:
        """What the stamps are."""
        return self._store.contract

    def take(self, logical: Logical, out: Rows) -> Rows:
        """Read rows; a repeated one is read once."""
        places = self._store.places_of(logical)
        must_take(out.pixels, (len(places), *self.contract.stamp_shape), np.float16)
        wanted, first, which = np.unique(places, return_index=True, return_inverse=True)
        runs = self._files.runs(wanted)

        def read(part: list[Run]) -> None:
            for run in part:
                self._files.read(run, out.pixels, first)

        parts = [runs[start::_READS_AT_ONCE] for start in range(min(_READS_AT_ONCE, len(runs)))]
        for done in [self._pool.submit(read, part) for part in parts]:
            done.result()
        again = np.flatnonzero(first[which] != np.arange(len(places)))
        out.pixels[again] = out.pixels[first[which[again]]]
        self._store.take_stats(places, out)
        return out

    def expect(self, logical: Logical) -> None:
        """Ask the kernel for these rows."""
        self._ahead.submit(self._ask_for, logical)

    def _ask_for(self, logical: Logical) -> None:
        self._files.ask_for(self._files.runs(np.unique(self._store.places_of(logical))))


class MemoryRows:
    """Rows that were read once, in the order of the files, into this process's memory.

    Parameters
    ----------
    rows : (n,) int64 array
        Logical numbers of the rows to hold; no others can be taken.
    """

    def __init__(self, store: StampStore, rows: Logical) -> None:
        self.contract = store.contract
        self._held = HeldRows(store, rows)
        held = store.empty(len(self._held.places))
        files = SegmentFiles(store, in_order=True)
        slots = np.arange(len(held), dtype=np.int64)
        for run in files.runs(self._held.places):
            files.read(run, held.pixels, slots)
        files.close()
        stats = np.empty((len(held), *store.stats.row_shape), np.float32)
        store.stats.take(self._held.places, stats)
        self._pixels = Joined([held.pixels], store.contract.stamp_shape, np.float16)
        self._stats = Joined([stats], store.stats.row_shape, np.float32)

    def take(self, logical: Logical, out: Rows) -> Rows:
        """Copy rows."""
        slots = self._held.slots_of(logical)
        self._pixels.take(slots, out.pixels)
        stats = np.empty((len(slots), *self._stats.row_shape), np.float32)
        self._stats.take(slots, stats)
        out.median[:], out.mad[:] = stats[..., 0], stats[..., 1]
        return out

    def expect(self, logical: Logical) -> None:
        """Rows in memory need no preparation."""


class HeldRows:
    """Which rows are held, and in which slot: in the order of their places on disk, so that they are read in order.

    Attributes
    ----------
    places : (n,) int64 array
        Place of each slot's row, ascending.
    """

    def __init__(self, store: StampStore, rows: Logical) -> None:
        places = store.places_of(rows)
        self.places, first = np.unique(places, return_index=True)
        self._slot = np.full(store.n_rows, -1, np.int32)
        self._slot[np.asarray(rows)[first]] = np.arange(len(first), dtype=np.int32)

    def slots_of(self, logical: Logical) -> Logical:
        """Return the slot of each row.

        Raises
        ------
        IndexError
            If a row isn't held.
        """
        logical = np.asarray(logical)
        if logical.size and not (logical.min() >= 0 and logical.max() < len(self._slot)):
            raise IndexError(
                f"rows {logical.min()} to {logical.max()} were asked for, the store has 0 to {len(self._slot) - 1}"
            )
        slots: Logical = self._slot[logical].astype(np.int64)
        if (slots < 0).any():
            missing = logical[slots < 0].tolist()
            raise IndexError(f"rows {first_few(missing)} are not among those that this source was opened for")
        return slots
