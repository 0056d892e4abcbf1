"""The stamp_store stage: every row of the input ends in a segment, or in the quarantine table with a reason.

Two passes. The first reads all columns but the blobs and settles which rows go on, their logical order (by the hash of the
key) and their place on disk (by another part of that hash, so that neighbours on disk have nothing in common). The second
decodes the blobs, in any order and by any number of workers, and writes each row where it belongs. Rows that the decoder
refuses leave holes, which are filled with the last rows in order of place. So segments, index and logical numbers depend on
the set of rows alone, not on how it was cut into files, fragments and row groups, nor on who finished first.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lens_pipeline.contracts.catalogue import QUARANTINE, STAMP_STORE
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import ContractError
from lens_pipeline.stamps.config import StoreConfig
from lens_pipeline.stamps.decode import DECODER_VERSION
from lens_pipeline.stamps.fragments import Fragments
from lens_pipeline.stamps.placing import close_holes, finish_segments, prepare_segments
from lens_pipeline.stamps.reasons import Quarantine, Reason
from lens_pipeline.stamps.rows import HASH_BYTES, InputRows, read_rows, strata_of
from lens_pipeline.stamps.segments import SegmentLayout
from lens_pipeline.stamps.work import Unit, UnitResult, available_cpus, cut_into_units, run_units
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging

QUARANTINE_TABLE = "quarantine"

Longs = NDArray[np.int64]


@dataclass(frozen=True)
class StoreResult:
    """What became of the rows: n_in = n_stored + n_quarantined + n_excluded."""

    n_in: int
    n_stored: int
    n_quarantined: int
    n_excluded: int
    n_segments: int
    by_reason: dict[str, int]


def build_store(config: StoreConfig, stamps: Publication, staging: Staging) -> StoreResult:
    """Decode every stamp once and write segments, index and quarantine table into a staging.

    Raises
    ------
    ContractError
        Before any work, if a column is missing or retyped in any file; or if there is no row at all.
    StorageError
        If a fragment is not what was published, or is damaged.
    """
    fragments = Fragments.open(stamps)
    contract = fragments.contract
    if fragments.n_rows == 0:
        raise ContractError(
            f"stamps {stamps.version} holds no row in {len(fragments.fragments)} fragments: nothing to store."
        )
    layout = SegmentLayout.of(contract, config.segment_bytes)
    workers = config.workers or available_cpus()
    rows = read_rows(fragments, config.galaxy_match_arcsec, workers)
    place = _first_places(rows)
    prepare_segments(staging.folder, layout, int((place >= 0).sum()))
    units = cut_into_units(fragments, place, layout, staging.folder, config.batch_rows)
    pixel_hash = np.zeros((len(place), HASH_BYTES), dtype=np.uint8)
    verdicts = dict(rows.verdicts)
    for unit, result in run_units(units, workers):
        _collect(unit, result, pixel_hash, verdicts)
    for fragment, identity in zip(fragments.fragments, rows.identities, strict=True):
        fragment.must_still_be(identity)
    refused = np.array([row for row in verdicts if place[row] >= 0], dtype=np.int64)
    n_stored = close_holes(staging.folder, layout, place, refused)
    finish_segments(staging.folder, layout, n_stored, contract, DECODER_VERSION)
    staging.write_table(None, _index(rows, place, pixel_hash, layout, contract), STAMP_STORE)
    staging.write_table(QUARANTINE_TABLE, _quarantine_table(fragments, rows, verdicts), QUARANTINE)
    result_ = _count(len(place), n_stored, layout, verdicts)
    staging.attributes.update(
        dataset_contract=contract.model_dump(mode="json"),
        decoder_version=DECODER_VERSION,
        n_in=result_.n_in,
        n_stored=result_.n_stored,
        n_quarantined=result_.n_quarantined,
        n_excluded=result_.n_excluded,
        n_segments=result_.n_segments,
        by_reason=result_.by_reason,
    )
    return result_


def _first_places(rows: InputRows) -> Longs:
    """Place of each row on disk, were every blob good; -1 for rows that are already refused."""
    place = np.full(len(rows.fragment), -1, dtype=np.int64)
    alive = np.ones(len(place), dtype=bool)
    alive[list(rows.verdicts)] = False
    alive_rows = np.flatnonzero(alive)
    # The index sorts by the hash's first half, so its second half is an order of its own.
    order = np.lexsort((rows.key_hash[alive_rows, 0], rows.key_hash[alive_rows, 1]))
    place[alive_rows[order]] = np.arange(len(order))
    return place


def _collect(unit: Unit, result: UnitResult, pixel_hash: NDArray[np.uint8], verdicts: dict[int, Quarantine]) -> None:
    pixel_hash[unit.first_row : unit.first_row + len(result.pixel_hash)] = result.pixel_hash
    for row, verdict in result.verdicts.items():
        verdicts[unit.first_row + row] = verdict


def _index(
    rows: InputRows, place: Longs, pixel_hash: NDArray[np.uint8], layout: SegmentLayout, contract: DatasetContract
) -> pa.Table:
    stored = np.flatnonzero(place >= 0)
    order = stored[np.lexsort((rows.key_hash[stored, 1], rows.key_hash[stored, 0]))]
    table = rows.table.take(pa.array(order))
    label = rows.label[order]
    made = {
        "logical": pa.array(np.arange(len(order))),
        "key_hash": _as_binary(rows.key_hash[order].view(np.uint8)),
        "segment": pa.array((place[order] // layout.rows_per_segment).astype(np.int32)),
        "segment_row": pa.array(place[order] % layout.rows_per_segment),
        "label": pa.array(label),
        "stratum": strata_of(table, label, contract),
        "pixel_hash": _as_binary(pixel_hash[order]),
    }
    columns = [column for column in STAMP_STORE.columns if column.name in made or column.name in table.column_names]
    return pa.table(
        [made.get(column.name) if column.name in made else table[column.name] for column in columns],
        schema=pa.schema([pa.field(column.name, column.dtype) for column in columns]),
    )


def _as_binary(hashes: NDArray[np.uint8]) -> pa.Array:
    content = pa.py_buffer(np.ascontiguousarray(hashes).tobytes())
    return pa.Array.from_buffers(pa.binary(HASH_BYTES), len(hashes), [None, content])


def _quarantine_table(fragments: Fragments, rows: InputRows, verdicts: dict[int, Quarantine]) -> pa.Table:
    order = sorted(verdicts, key=lambda row: (fragments.fragments[rows.fragment[row]].name, rows.fragment_row[row]))
    listed = [verdicts[row] for row in order]
    return pa.table(
        {
            "task_id": rows.table["task_id"].take(pa.array(order, pa.int64())),
            "fragment": pa.array([fragments.fragments[rows.fragment[row]].name for row in order], pa.string()),
            "fragment_row": pa.array([int(rows.fragment_row[row]) for row in order], pa.int64()),
            "reason": pa.array([verdict.reason.value for verdict in listed], pa.string()),
            "detail": pa.array([verdict.detail for verdict in listed], pa.string()),
            "excluded": pa.array([verdict.reason is Reason.CUTOUT_NOT_OK for verdict in listed], pa.bool_()),
        }
    )


def _count(n_in: int, n_stored: int, layout: SegmentLayout, verdicts: dict[int, Quarantine]) -> StoreResult:
    by_reason = Counter(verdict.reason.value for verdict in verdicts.values())
    n_excluded = by_reason[Reason.CUTOUT_NOT_OK.value]
    return StoreResult(
        n_in=n_in,
        n_stored=n_stored,
        n_quarantined=by_reason.total() - n_excluded,
        n_excluded=n_excluded,
        n_segments=layout.n_segments(n_stored),
        by_reason=dict(sorted(by_reason.items())),
    )
