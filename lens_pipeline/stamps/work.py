"""The second pass of ingest: blobs decoded in units that know nothing of one another, and a journal of those that are done.

Belongs here: decoding one unit, the pool, and when a unit counts as done. A unit is a pure function of a few row groups of
one fragment; all it touches is its own rows' places in the segments.
"""

import contextlib
import hashlib
import itertools
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import StorageError, first_few
from lens_pipeline.stamps.buckets import HASH_BYTES
from lens_pipeline.stamps.decode import Decoded, decode_batch
from lens_pipeline.stamps.fragments import BLOB, Fragment, Fragments
from lens_pipeline.stamps.journal import Journal
from lens_pipeline.stamps.placing import START_ANEW, RowWriter, make_durable
from lens_pipeline.stamps.plan import Plan, read_places
from lens_pipeline.stamps.segments import SegmentLayout
from lens_pipeline.storage.progress import progress

# Inflating, summarising, hashing and writing all let go of the interpreter's lock, so a few threads scale and start at once;
# beyond that the parsing between them, which doesn't, would have them queue.
_MOST_THREADS = 4
UNIT_ROWS = 2048
# Finished units that a crash may cost, in seconds of work.
_SYNC_EVERY_S = 5.0


@dataclass(frozen=True)
class Unit:
    """Some row groups of one fragment.

    Attributes
    ----------
    first_row : int
        Of the unit, counted over all fragments.
    """

    fragment: Fragment
    row_groups: tuple[int, ...]
    first_row: int
    n_rows: int
    folder: Path
    contract: DatasetContract
    layout: SegmentLayout
    batch_rows: int


@dataclass(frozen=True)
class UnitResult:
    """What a unit found.

    Attributes
    ----------
    n_decoded : int
        Rows that were looked at, good or not.
    n_bytes : int
        Bytes of their blobs.
    refused : list of (place, reason, detail)
        Those that are not good.
    written : str
        Hash of everything that was written of the others, in the order of the rows.
    """

    n_decoded: int
    n_bytes: int
    refused: list[tuple[int, str, str]]
    written: str


@dataclass
class Decoding:
    """What was decoded by this run, and by runs before it that were interrupted.

    Attributes
    ----------
    n_resumed, n_decoded : int
        Stamps that runs before it had decoded, and that this run did.
    blob_bytes : int
        Of the blobs of all of them.
    seconds, bytes_read : float, int
        Of this run alone.
    """

    n_resumed: int = 0
    n_decoded: int = 0
    blob_bytes: int = 0
    bytes_read: int = 0
    seconds: float = 0.0


def available_cpus() -> int:
    """CPUs that this process may use, where the system tells; else all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decode_all(
    fragments: Fragments, plan: Plan, layout: SegmentLayout, batch_rows: int, workers: int, journal: Journal
) -> Decoding:
    """Decode every row that has a place, but for the units that the journal names.

    The first unit that fails ends it: units not begun are dropped, those that are done are kept, its error is raised.

    Raises
    ------
    StorageError
        If what the journal calls done is not what was written; or from a unit.
    """
    began = time.monotonic()
    _refuse_harmed(plan.folder, layout, journal, workers)
    done: set[tuple[int, int]] = set()
    decoding = Decoding()
    for entry in journal:
        done.add((entry["first_row"], entry["n_rows"]))
        decoding.n_resumed += entry["n_decoded"]
        decoding.blob_bytes += entry["n_bytes"]
    units = (
        unit
        for unit in _cut_into_units(fragments, plan.folder, layout, batch_rows)
        if (unit.first_row, unit.n_rows) not in done
    )
    finished: list[dict[str, object]] = []

    def settle() -> None:
        make_durable(plan.folder, layout, plan.n_places)
        journal.append(finished)
        finished.clear()

    with progress("decoding", plan.n_places) as bar:
        bar.advance(decoding.n_resumed)
        settled = time.monotonic()
        try:
            for unit, result in run_units(units, workers):
                finished.append(
                    {
                        "first_row": unit.first_row,
                        "n_rows": unit.n_rows,
                        "n_decoded": result.n_decoded,
                        "n_bytes": result.n_bytes,
                        "refused": result.refused,
                        "written": result.written,
                    }
                )
                decoding.n_decoded += result.n_decoded
                decoding.bytes_read += result.n_bytes
                bar.advance(result.n_decoded)
                if time.monotonic() - settled > _SYNC_EVERY_S:
                    settle()
                    settled = time.monotonic()
        except BaseException:
            with contextlib.suppress(OSError):
                settle()
            raise
        if finished:
            settle()
    decoding.blob_bytes += decoding.bytes_read
    decoding.seconds = time.monotonic() - began
    return decoding


def run_units(units: Iterable[Unit], workers: int) -> Iterator[tuple[Unit, UnitResult]]:
    """Run units side by side and yield each with its result, as they end."""
    coming = iter(units)
    first = list(itertools.islice(coming, 2))
    coming = itertools.chain(first, coming)
    if workers == 1 or len(first) < 2:
        yield from ((unit, decode_unit(unit)) for unit in coming)
        return
    pool = _pool(workers)
    running: dict[Future[UnitResult], Unit] = {}
    try:
        for unit in coming:
            running[pool.submit(decode_unit, unit)] = unit
            if len(running) >= 2 * workers:
                yield from _ended(running)
        while running:
            yield from _ended(running)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def decode_unit(unit: Unit) -> UnitResult:
    """Decode a unit's rows and write each where it belongs.

    Raises
    ------
    StorageError
        If the fragment is damaged or has other rows than it had.
    """
    places = read_places(unit.folder, unit.first_row, unit.n_rows)
    room = Decoded.room_for(min(unit.batch_rows, unit.n_rows), unit.contract)
    refused: list[tuple[int, str, str]] = []
    written = hashlib.blake2b(digest_size=HASH_BYTES)
    start = n_decoded = n_bytes = 0
    with RowWriter(unit.folder, unit.layout) as writer:
        for batch in unit.fragment.batches([BLOB], rows=unit.batch_rows, row_groups=unit.row_groups):
            here = places[start : start + batch.num_rows]
            start += batch.num_rows
            wanted = np.flatnonzero(here >= 0)
            blobs = _Blobs(batch.column(0), wanted)
            n_decoded += len(blobs)
            n_bytes += blobs.n_bytes
            verdicts = decode_batch(blobs, unit.contract, room)
            for slot, (place, verdict) in enumerate(zip(here[wanted].tolist(), verdicts, strict=True)):
                if verdict is not None:
                    refused.append((place, verdict.reason.value, verdict.detail))
                    continue
                pixels = room.half[slot].data.cast("B")
                digest = hashlib.blake2b(pixels, digest_size=HASH_BYTES).digest()
                stats = room.stats[slot].data.cast("B")
                writer.write(place, pixels, stats, digest)
                written.update(digest + stats)
    return UnitResult(n_decoded, n_bytes, refused, written.hexdigest())


def _refuse_harmed(folder: Path, layout: SegmentLayout, journal: Journal, workers: int) -> None:
    """Read back what the journal calls done: a byte that changed since would be published with a hash that says it is well."""
    with ThreadPoolExecutor(min(workers, _MOST_THREADS)) as pool:
        checked = pool.map(lambda entry: (entry, _is_as_written(folder, layout, entry)), journal)
        harmed = [
            f"rows {entry['first_row']:,} to {entry['first_row'] + entry['n_rows']:,}"
            for entry, ok in checked
            if not ok
        ]
    if harmed:
        raise StorageError(
            f"{len(harmed):,} finished parts of the work in {folder} are not what was written there: {first_few(harmed)} of the "
            f"input. {START_ANEW}"
        )


def _is_as_written(folder: Path, layout: SegmentLayout, entry: dict[str, Any]) -> bool:
    places = read_places(folder, entry["first_row"], entry["n_rows"])
    refused = {place for place, _, _ in entry["refused"]}
    written = hashlib.blake2b(digest_size=HASH_BYTES)
    with RowWriter(folder, layout) as rows:
        for place in places[places >= 0].tolist():
            if place not in refused:
                pixels, stats, pixel_hash = rows.read(place)
                if hashlib.blake2b(pixels, digest_size=HASH_BYTES).digest() != pixel_hash:
                    return False
                written.update(pixel_hash + stats)
    return bool(written.hexdigest() == entry["written"])


def _cut_into_units(fragments: Fragments, folder: Path, layout: SegmentLayout, batch_rows: int) -> Iterator[Unit]:
    """Cut fragments into units of a few thousand rows at the borders of row groups, leaving out what needs no decoding."""
    first_row = 0
    for fragment in fragments.fragments:
        if not (read_places(folder, first_row, fragment.n_rows) >= 0).any():
            first_row += fragment.n_rows
            continue
        groups: list[int] = []
        n_rows = 0
        lengths = fragment.row_groups()
        for group, length in enumerate(lengths):
            groups.append(group)
            n_rows += length
            if n_rows >= UNIT_ROWS or group == len(lengths) - 1:
                if (read_places(folder, first_row, n_rows) >= 0).any():
                    yield Unit(
                        fragment, tuple(groups), first_row, n_rows, folder, fragments.contract, layout, batch_rows
                    )
                first_row, groups, n_rows = first_row + n_rows, [], 0


def _ended(running: dict[Future[UnitResult], Unit]) -> Iterator[tuple[Unit, UnitResult]]:
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        yield running.pop(future), future.result()


class _Blobs:
    """Some rows of a blob column, each copied when it is asked for: one at a time, the copies share a place in memory."""

    def __init__(self, column: pa.Array, rows: NDArray[np.int64]) -> None:
        self._column, self._rows = column, rows.tolist()
        self.n_bytes: int = pc.sum(pc.binary_length(column).take(pa.array(rows))).as_py() or 0

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[bytes | None]:
        return (self._column[row].as_py() for row in self._rows)


def _pool(n: int) -> Executor:
    if n <= _MOST_THREADS:
        return ThreadPoolExecutor(max_workers=n)
    # Forking a process that has threads (the orchestrator's, Arrow's) can hang.
    return ProcessPoolExecutor(max_workers=n, mp_context=multiprocessing.get_context("spawn"))
