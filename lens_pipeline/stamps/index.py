"""The third pass of ingest: index, quarantine table and fragments table, written bucket by bucket.

Belongs here: the tables of a store and the numbers of its segments. The pixels are on disk when this begins.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lens_pipeline.contracts.catalogue import QUARANTINE, STAMP_STORE, STORED_FRAGMENTS
from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.stamps.buckets import BUCKET_ROWS, Buckets, as_column
from lens_pipeline.stamps.fragments import Fragments
from lens_pipeline.stamps.journal import Journal
from lens_pipeline.stamps.placing import START_ANEW, read_pixel_hashes
from lens_pipeline.stamps.plan import Plan
from lens_pipeline.stamps.previous import FRAGMENTS_TABLE, QUARANTINE_TABLE
from lens_pipeline.stamps.reasons import Reason
from lens_pipeline.stamps.rows import strata_of
from lens_pipeline.stamps.segments import SegmentLayout
from lens_pipeline.storage.staging import Staging

_REFUSED = pa.schema([("place", pa.int64()), ("reason", pa.string()), ("detail", pa.string())])


@dataclass
class Segments:
    """The segments of a store that is being made: those it keeps of the previous one, then its new ones.

    Attributes
    ----------
    kept : dict
        Number in the previous store to the number here.
    new : dict
        Number in the work folder to the number here; one that no row is left in has none.
    """

    kept: dict[int, int]
    new: dict[int, int]

    def __len__(self) -> int:
        return len(self.kept) + len(self.new)


@dataclass
class Written:
    """What went into the tables."""

    n_stored: int = 0
    by_reason: Counter[str] = field(default_factory=Counter)


class Refusals:
    """What the decoder refused, from the journal, by bucket."""

    def __init__(self, plan: Plan, layout: SegmentLayout, journal: Journal) -> None:
        self._buckets = Buckets(plan.folder, "refused", plan.n_buckets)
        self.by_segment = np.zeros(layout.n_segments(plan.n_places), dtype=np.int64)
        ends = np.array(plan.first_place[1:])
        with self._buckets:
            for entries in _in_parts(journal):
                columns = zip(zip(*entries, strict=True), _REFUSED, strict=True)
                rows = pa.Table.from_arrays([pa.array(values, item.type) for values, item in columns], schema=_REFUSED)
                place = rows["place"].to_numpy()
                self.by_segment += np.bincount(place // layout.rows_per_segment, minlength=len(self.by_segment))
                self._buckets.spread(rows, np.searchsorted(ends, place, side="right"))

    def read(self, bucket: int) -> pa.Table:
        """Read place, reason and detail of a bucket's refused rows."""
        rows = self._buckets.read(bucket)
        return _REFUSED.empty_table() if rows is None else rows


def number_segments(plan: Plan, layout: SegmentLayout, refusals: Refusals) -> Segments:
    """Give a number to each segment that holds at least one row."""
    kept = {int(old): number for number, old in enumerate(sorted(plan.kept, key=int))}
    rows = [layout.rows_in(segment, plan.n_places) for segment in range(layout.n_segments(plan.n_places))]
    living = [segment for segment, n in enumerate(rows) if n > refusals.by_segment[segment]]
    new = {segment: len(kept) + number for number, segment in enumerate(living)}
    return Segments(kept, new)


def write_tables(
    staging: Staging, fragments: Fragments, plan: Plan, layout: SegmentLayout, refusals: Refusals, segments: Segments
) -> Written:
    """Write the three tables; no more than a bucket of rows is in memory.

    Raises
    ------
    StorageError
        If the work folder isn't what this run, or the one before it, left there.
    """
    written = Written()
    columns = _index_columns(plan)
    starts = np.cumsum([0, *(fragment.n_rows for fragment in fragments.fragments)])
    names = pa.array([fragment.name for fragment in fragments.fragments], pa.string())
    with (
        staging.table_writer(None, STAMP_STORE, columns) as index,
        staging.table_writer(QUARANTINE_TABLE, QUARANTINE) as quarantine,
    ):
        for bucket in plan.filled:
            rows = _with_verdicts(plan.read(bucket), refusals.read(bucket))
            refused = rows["reason"].is_valid()
            stored = rows.filter(pc.invert(refused))
            index.write(_index_part(stored, plan, layout, segments, fragments, columns, written.n_stored))
            written.n_stored += stored.num_rows
            lost = rows.filter(refused)
            quarantine.write(_quarantine_part(lost, names, starts))
            written.by_reason.update(lost["reason"].to_pylist())
    staging.write_table(FRAGMENTS_TABLE, _fragments_table(fragments), STORED_FRAGMENTS)
    return written


def _index_columns(plan: Plan) -> pa.Schema:
    """Columns of the index: those that are made, and those that the input has."""
    there = {*plan.columns, "logical", "key_hash", "segment", "segment_row", "label", "stratum", "pixel_hash"}
    return pa.schema([(column.name, column.dtype) for column in STAMP_STORE.columns if column.name in there])


def _with_verdicts(rows: pa.Table, refused: pa.Table) -> pa.Table:
    """Put the decoder's verdicts beside those of the plan."""
    if not refused.num_rows:
        return rows
    # Rows of a bucket stand in the order of their places.
    placed = np.flatnonzero(rows["place"].is_valid())
    first = rows["place"].drop_null()[0].as_py()
    at = np.full(rows.num_rows, -1, dtype=np.int64)
    at[placed[refused["place"].to_numpy() - first]] = np.arange(refused.num_rows)
    index = pa.array(at, mask=at < 0)
    for name in ("reason", "detail"):
        found = pc.coalesce(rows[name], refused[name].take(index))
        rows = rows.set_column(rows.column_names.index(name), name, found)
    return rows


def _index_part(
    rows: pa.Table, plan: Plan, layout: SegmentLayout, segments: Segments, fragments: Fragments, schema: pa.Schema,
    first_logical: int,
) -> pa.Table:  # fmt: skip
    label = rows["label"].to_numpy()
    segment, segment_row = _where_it_lies(rows, layout, segments)
    made = {
        "logical": pa.array(np.arange(first_logical, first_logical + rows.num_rows)),
        "segment": pa.array(segment.astype(np.int32)),
        "segment_row": pa.array(segment_row),
        "stratum": strata_of(rows, label, fragments.contract),
        "pixel_hash": _pixel_hashes(rows, plan),
    }
    return pa.table([made[name] if name in made else rows[name] for name in schema.names], schema)


def _where_it_lies(
    rows: pa.Table, layout: SegmentLayout, segments: Segments
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Segment, as the new store numbers it, and row in it of each stored row."""
    place = pc.fill_null(rows["place"], -1).to_numpy()
    old = pc.fill_null(rows["segment"], -1).to_numpy()
    is_new = place >= 0
    segment = np.where(is_new, _renumbered(place // layout.rows_per_segment, segments.new), 0)
    segment = np.where(is_new, segment, _renumbered(old, segments.kept))
    old_row = pc.fill_null(rows["segment_row"], 0).to_numpy()
    return segment, np.where(is_new, place % layout.rows_per_segment, old_row)


def _renumbered(numbers: NDArray[np.integer[Any]], to: dict[int, int]) -> NDArray[np.int64]:
    table = np.full(max(to, default=-1) + 2, -1, dtype=np.int64)
    table[list(to)] = list(to.values())
    found: NDArray[np.int64] = table[numbers]
    return found


def _pixel_hashes(rows: pa.Table, plan: Plan) -> pa.Array:
    place = rows["place"].drop_null().to_numpy()
    is_new = rows["place"].is_valid()
    if not len(place):
        return rows["pixel_hash"].combine_chunks()
    made = read_pixel_hashes(plan.folder, int(place[0]), int(place[-1]) + 1)[place - place[0]]
    if not made.any(axis=1).all():
        raise StorageError(f"{plan.folder} lacks rows that its journal calls done. {START_ANEW}")
    at = np.cumsum(is_new.to_numpy()) - 1
    return pc.coalesce(rows["pixel_hash"], as_column(made).take(pa.array(np.maximum(at, 0))))


def _quarantine_part(rows: pa.Table, names: pa.Array, starts: NDArray[np.int64]) -> pa.Table:
    input_row = rows["input_row"].to_numpy()
    fragment = np.searchsorted(starts, input_row, side="right") - 1
    return pa.table(
        {
            "task_id": rows["task_id"],
            "fragment": names.take(pa.array(fragment)),
            "fragment_row": pa.array(input_row - starts[fragment]),
            "reason": rows["reason"],
            "detail": rows["detail"],
            "excluded": pc.equal(rows["reason"], Reason.CUTOUT_NOT_OK.value),
        }
    )


def _fragments_table(fragments: Fragments) -> pa.Table:
    return pa.table(
        {
            "file": pa.array([fragment.name for fragment in fragments.fragments], pa.string()),
            "sha256": pa.array([fragment.sha256 for fragment in fragments.fragments], pa.string()),
            "rows": pa.array([fragment.n_rows for fragment in fragments.fragments], pa.int64()),
        }
    )


def _in_parts(journal: Journal) -> Iterator[list[tuple[int, str, str]]]:
    waiting: list[tuple[int, str, str]] = []
    for entry in journal:
        waiting += entry["refused"]
        if len(waiting) > BUCKET_ROWS:
            yield waiting
            waiting = []
    if waiting:
        yield waiting
