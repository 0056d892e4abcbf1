"""A store written anew: all its rows in full segments in the order of their keys, without holes.

Nothing is decoded: rows are copied as they are, so scores, splits and logical numbers stay what they were.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lens_pipeline.contracts.catalogue import STAMP_STORE
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import StorageError, first_few
from lens_pipeline.stamps.config import StoreConfig
from lens_pipeline.stamps.previous import FRAGMENTS_TABLE, INDEX_TABLE, QUARANTINE_TABLE
from lens_pipeline.stamps.segments import SegmentHeader, SegmentLayout, segment_name, stats_name
from lens_pipeline.stamps.store import StampStore, verify
from lens_pipeline.storage.parquet import iterate_parquet
from lens_pipeline.storage.progress import progress
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging

_COPIED_ROWS = 1024
_READ_ROWS = 65_536


@dataclass(frozen=True)
class Compaction:
    """What a store was before and after: bytes of its segments, places that no row owns, segments."""

    n_rows: int
    bytes_before: int
    bytes_after: int
    holes_before: int
    segments_before: int
    segments_after: int


def is_compact(config: StoreConfig, store: Publication) -> bool:
    """Whether a store's rows fill their segments in the order of their keys, as they would be written anew."""
    opened = StampStore.open(store)
    layout = SegmentLayout.of(opened.contract, config.segment_bytes)
    lengths = [layout.rows_in(segment, opened.n_rows) for segment in range(layout.n_segments(opened.n_rows))]
    if np.diff(opened.pixels.starts).tolist() != lengths:
        return False
    return all(np.array_equal(opened.place[part], part) for part in _parts(range(opened.n_rows)))


def refuse_to_compact_damaged(store: Publication) -> None:
    """Re-read every byte of a store.

    Raises
    ------
    StorageError
        If one isn't what was published.
    """
    if problems := verify(store):
        raise StorageError(
            f"stamp_store {store.version} is damaged: {first_few(problems, 3)} Nothing was written. Materialize it again: what "
            "is sound of it is kept."
        )


def compact(config: StoreConfig, store: Publication, staging: Staging) -> Compaction:
    """Write all rows of a store into a staging, in full segments; index, quarantine and attributes say the same as before.

    Raises
    ------
    StorageError
        If a byte of the store isn't what was published: a damaged row must not get a hash that says it is well.
    """
    refuse_to_compact_damaged(store)
    opened = StampStore.open(store)
    layout = SegmentLayout.of(opened.contract, config.segment_bytes)
    n_segments = layout.n_segments(opened.n_rows)
    with progress("copying rows", opened.n_rows) as bar:
        for segment in range(n_segments):
            first = segment * layout.rows_per_segment
            _write_segment(staging, opened, segment, range(first, first + layout.rows_in(segment, opened.n_rows)))
            bar.advance(layout.rows_in(segment, opened.n_rows))
    _write_index(staging, store, layout)
    for table in (QUARANTINE_TABLE, FRAGMENTS_TABLE):
        staging.adopt(store, f"{table}.parquet", f"{table}.parquet", verify=False)
    staging.attributes.update({**store.attributes, "n_segments": n_segments, "n_holes": 0})
    return Compaction(
        n_rows=opened.n_rows,
        bytes_before=_bytes_of(store),
        bytes_after=sum(path.stat().st_size for path in staging.folder.glob("segment-*")),
        holes_before=len(opened.pixels) - opened.n_rows,
        segments_before=int(store.attributes["n_segments"]),
        segments_after=n_segments,
    )


def _write_segment(staging: Staging, opened: StampStore, segment: int, logical: range) -> None:
    contract: DatasetContract = opened.contract
    header = SegmentHeader.of(
        contract, decoder_version=opened.publication.attributes["decoder_version"], n_rows=len(logical)
    )
    buffer = opened.empty(min(_COPIED_ROWS, len(logical)))
    with (
        open(staging.folder / segment_name(segment), "xb") as pixels,
        open(staging.folder / stats_name(segment), "xb") as stats,
    ):
        pixels.write(header.to_bytes())
        for part in _parts(logical):
            rows = opened.take(part, out=buffer.head(len(part)))
            pixels.write(rows.pixels.data)
            stats.write(np.stack([rows.median, rows.mad], axis=-1).astype("<f4").data)


def _parts(logical: range) -> Iterator[NDArray[np.int64]]:
    for start in range(logical.start, logical.stop, _COPIED_ROWS):
        yield np.arange(start, min(start + _COPIED_ROWS, logical.stop))


def _write_index(staging: Staging, store: Publication, layout: SegmentLayout) -> None:
    path = store.path(f"{INDEX_TABLE}.parquet", verify=False)
    columns = list(store.entry(path.name).schema or {})
    schema = pa.schema([(column.name, column.dtype) for column in STAMP_STORE.columns if column.name in columns])
    with staging.table_writer(None, STAMP_STORE, schema) as writer:
        for batch in iterate_parquet(path, schema.names, rows=_READ_ROWS):
            logical = batch.column("logical").to_numpy()
            placed = {
                "segment": pa.array((logical // layout.rows_per_segment).astype(np.int32)),
                "segment_row": pa.array(logical % layout.rows_per_segment),
            }
            writer.write(pa.table([placed.get(name, batch.column(name)) for name in schema.names], schema))


def _bytes_of(store: Publication) -> int:
    return sum(entry.size for name, entry in store.manifest.files.items() if name.startswith("segment-"))
