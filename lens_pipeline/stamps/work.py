"""The second pass of ingest, cut into units that know nothing of one another and run side by side.

Belongs here: decoding one unit, and the pool. A unit is a pure function of a few row groups of one fragment; the only thing
it touches is its own rows' places in the segments.
"""

import hashlib
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.stamps.decode import Decoded, decode_batch
from lens_pipeline.stamps.fragments import BLOB, Fragment, Fragments
from lens_pipeline.stamps.placing import RowWriter
from lens_pipeline.stamps.reasons import Quarantine
from lens_pipeline.stamps.rows import HASH_BYTES
from lens_pipeline.stamps.segments import SegmentLayout

# Inflating, summarising, hashing and writing all let go of the interpreter's lock, so a few threads scale and start at once;
# beyond that the parsing between them, which doesn't, would have them queue.
_MOST_THREADS = 4
_UNIT_ROWS = 2048


@dataclass(frozen=True)
class Unit:
    """Some row groups of one fragment.

    Attributes
    ----------
    first_row : int
        Of the unit, counted over all fragments.
    place : (n,) int64 array
        Where each of its rows goes; -1 for rows that are not to be decoded.
    """

    fragment: Fragment
    row_groups: tuple[int, ...]
    first_row: int
    place: NDArray[np.int64]
    contract: DatasetContract
    layout: SegmentLayout
    folder: Path
    batch_rows: int


@dataclass(frozen=True)
class UnitResult:
    """What a unit found.

    Attributes
    ----------
    pixel_hash : (n, 16) uint8 array
        BLAKE2b-128 of each row's float32 pixels, little-endian (band, y, x); zero where none was decoded.
    verdicts : dict
        Row of the unit to why it was refused.
    """

    pixel_hash: NDArray[np.uint8]
    verdicts: dict[int, Quarantine]


def available_cpus() -> int:
    """CPUs that this process may use, where the system tells; else all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cut_into_units(
    fragments: Fragments, place: NDArray[np.int64], layout: SegmentLayout, folder: Path, batch_rows: int
) -> list[Unit]:
    """Cut all fragments into units of a few thousand rows, at the borders of row groups."""
    units = []
    first_row = 0
    for fragment in fragments.fragments:
        groups: list[int] = []
        n_rows = 0
        lengths = fragment.row_groups()
        for group, length in enumerate(lengths):
            groups.append(group)
            n_rows += length
            if n_rows >= _UNIT_ROWS or group == len(lengths) - 1:
                part = place[first_row : first_row + n_rows]
                units.append(
                    Unit(fragment, tuple(groups), first_row, part, fragments.contract, layout, folder, batch_rows)
                )
                first_row, groups, n_rows = first_row + n_rows, [], 0
    return units


def run_units(units: Sequence[Unit], workers: int) -> Iterator[tuple[Unit, UnitResult]]:
    """Run units side by side and yield each with its result, in order.

    The first unit that fails ends it: units not begun are dropped, its error is raised.
    """
    n = max(1, min(workers, len(units)))
    if n == 1:
        yield from ((unit, decode_unit(unit)) for unit in units)
        return
    pool = _pool(n, in_threads=workers <= _MOST_THREADS)
    try:
        yield from zip(units, pool.map(decode_unit, units), strict=True)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def decode_unit(unit: Unit) -> UnitResult:
    """Decode a unit's rows and write each where it belongs.

    Raises
    ------
    StorageError
        If the fragment is damaged or has other rows than it had.
    """
    room = Decoded.room_for(min(unit.batch_rows, len(unit.place)), unit.contract)
    pixel_hash = np.zeros((len(unit.place), HASH_BYTES), dtype=np.uint8)
    verdicts: dict[int, Quarantine] = {}
    start = 0
    with RowWriter(unit.folder, unit.layout) as writer:
        for batch in unit.fragment.batches([BLOB], rows=unit.batch_rows, row_groups=unit.row_groups):
            wanted = np.flatnonzero(unit.place[start : start + batch.num_rows] >= 0)
            rows = (start + wanted).tolist()
            blobs = _blobs(batch.column(0), wanted)
            found = decode_batch(blobs, unit.contract, room)
            for slot, (row, verdict) in enumerate(zip(rows, found, strict=True)):
                if verdict is not None:
                    verdicts[row] = verdict
                    continue
                digest = hashlib.blake2b(room.pixels[slot].data, digest_size=HASH_BYTES).digest()
                pixel_hash[row] = np.frombuffer(digest, np.uint8)
                writer.write(int(unit.place[row]), room.half[slot].data.cast("B"), room.stats[slot].data.cast("B"))
            start += batch.num_rows
    return UnitResult(pixel_hash, verdicts)


def _blobs(column: pa.Array, wanted: NDArray[np.int64]) -> list[bytes | None]:
    picked = column if len(wanted) == len(column) else column.take(pa.array(wanted))
    blobs: list[bytes | None] = picked.to_pylist()
    return blobs


def _pool(n: int, *, in_threads: bool) -> Executor:
    if in_threads:
        return ThreadPoolExecutor(max_workers=n)
    # Forking a process that has threads (the orchestrator's, Arrow's) can hang.
    return ProcessPoolExecutor(max_workers=n, mp_context=multiprocessing.get_context("spawn"))
