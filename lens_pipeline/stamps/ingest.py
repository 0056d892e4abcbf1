"""The stamp_store stage: every row of the input ends in a segment, or in the quarantine table with a reason.

Three passes, each flat in memory. The first (`plan.py`) reads all columns but the blobs and settles which rows go on and
where on disk each goes: in the order of the hash of its key. The second (`work.py`) decodes the blobs in any order, with any
number of workers, and writes each row where it belongs; a row that the decoder refuses leaves its place empty, a *hole*. The
third (`index.py`) writes the tables. So segments, index and logical numbers depend on the set of rows alone, not on how it
was cut into files, fragments and row groups, nor on who finished first.

What is done stands in a work folder, so that a killed run is gone on with by the next. Rows that the current store has
decoded are kept: its segments are shared, and only rows of fragments it was not made from are decoded, into new segments.
"""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import ContractError
from lens_pipeline.stamps import work
from lens_pipeline.stamps.config import StoreConfig
from lens_pipeline.stamps.decode import DECODER_VERSION
from lens_pipeline.stamps.fragments import Fragments
from lens_pipeline.stamps.index import Refusals, Segments, number_segments, write_tables
from lens_pipeline.stamps.journal import Journal
from lens_pipeline.stamps.placing import must_be_prepared, prepare_segments, remove_segments
from lens_pipeline.stamps.plan import Plan, make_plan
from lens_pipeline.stamps.previous import Previous
from lens_pipeline.stamps.reasons import Reason
from lens_pipeline.stamps.segments import SegmentLayout, read_header, segment_name, stats_name
from lens_pipeline.stamps.work import Decoding, available_cpus, decode_all
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging

# Changes whenever a work folder of before would be understood otherwise.
_WORK_FORMAT = 2
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SegmentSummary:
    """One segment.

    Attributes
    ----------
    n_places : int
        Rows that it has room for, holes included.
    n_bytes : int
        Of pixels and stats, as files.
    is_kept : bool
        Whether it is an earlier store's.
    """

    name: str
    n_places: int
    n_bytes: int
    is_kept: bool


@dataclass(frozen=True)
class StoreResult:
    """What became of the rows: n_in = n_stored + n_quarantined + n_excluded.

    Attributes
    ----------
    n_holes : int
        Places in segments that no row owns.
    n_reused : int
        Stored rows that were kept as an earlier store had decoded them.
    segments : list of SegmentSummary
        Every segment, in order.
    decoding : Decoding
        What was decoded, how fast, and what an interrupted run had done before.
    """

    n_in: int
    n_stored: int
    n_quarantined: int
    n_excluded: int
    n_segments: int
    n_holes: int
    n_reused: int
    by_reason: dict[str, int]
    segments: list[SegmentSummary]
    decoding: Decoding


def build_store(
    config: StoreConfig, stamps: Publication, staging: Staging, previous: Publication | None = None
) -> StoreResult:
    """Decode every stamp once and write segments, index, quarantine table and fragments table into a staging.

    Parameters
    ----------
    previous : Publication, optional
        A store to keep decoded rows of, if `config.incremental`. What is kept is re-read and compared with its hash first;
        rows of a damaged segment are decoded anew.

    Raises
    ------
    ContractError
        Before any work, if a column is missing or retyped in any file; or if there is no row at all.
    StorageError
        If a fragment is not what was published, or is damaged; or if another process is at work on the same store.
    """
    fragments = Fragments.open(stamps)
    if fragments.n_rows == 0:
        raise ContractError(
            f"stamps {stamps.version} holds no row in {len(fragments.fragments)} fragments: nothing to store."
        )
    layout = SegmentLayout.of(fragments.contract, config.segment_bytes)
    workers = config.workers or available_cpus()
    earlier = Previous.open(previous if config.incremental else None, fragments, workers)
    folder = staging.work_folder(_work_name(config, stamps, layout, earlier)).path
    _log.info("stamp_store: %d rows in %d fragments, work in %s", fragments.n_rows, len(fragments.fragments), folder)
    plan = make_plan(fragments, earlier, config.galaxy_match_arcsec, workers, folder)
    with Journal(folder / "journal") as journal:
        _prepare(plan, layout, fragments.contract, journal)
        decoding = decode_all(fragments, plan, layout, config.batch_rows, workers, journal)
        refusals = Refusals(plan, layout, journal)
    for fragment, identity in zip(fragments.fragments, plan.identities, strict=True):
        fragment.must_still_be(identity)
    segments = number_segments(plan, layout, refusals)
    taken = _take_in_segments(staging, plan, segments, earlier)
    written = write_tables(staging, fragments, plan, layout, refusals, segments)
    # What comes next, hashing and checking, is long and needs none of it.
    pa.default_memory_pool().release_unused()
    n_excluded = written.by_reason[Reason.CUTOUT_NOT_OK.value]
    result = StoreResult(
        n_in=fragments.n_rows,
        n_stored=written.n_stored,
        n_quarantined=written.by_reason.total() - n_excluded,
        n_excluded=n_excluded,
        n_segments=len(segments),
        n_holes=sum(segment.n_places for segment in taken) - written.n_stored,
        n_reused=plan.n_kept,
        by_reason=dict(sorted(written.by_reason.items())),
        segments=taken,
        decoding=decoding,
    )
    _describe(staging, fragments.contract, result)
    _log.info(
        "stamp_store: %d rows stored, %d of them kept, %d quarantined, %d excluded; %d stamps decoded in %.1f s",
        result.n_stored, result.n_reused, result.n_quarantined, n_excluded, decoding.n_decoded, decoding.seconds,
    )  # fmt: skip
    return result


def _work_name(config: StoreConfig, stamps: Publication, layout: SegmentLayout, earlier: Previous | None) -> str:
    """Name the work after all that its content depends on: a killed run is found again, and another never is."""
    kept_from = (earlier.publication.version, earlier.sound) if earlier else None
    made_of = (
        _WORK_FORMAT,
        DECODER_VERSION,
        stamps.version,
        layout,
        work.UNIT_ROWS,
        config.galaxy_match_arcsec,
        kept_from,
    )
    return hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]


def _prepare(plan: Plan, layout: SegmentLayout, contract: DatasetContract, journal: Journal) -> None:
    if next(iter(journal), None) is not None:
        must_be_prepared(plan.folder, layout, plan.n_places)
        return
    try:
        prepare_segments(plan.folder, layout, plan.n_places, contract, DECODER_VERSION)
    except OSError:
        remove_segments(plan.folder)
        raise


def _take_in_segments(
    staging: Staging, plan: Plan, segments: Segments, earlier: Previous | None
) -> list[SegmentSummary]:
    """Make the segments files of the new version, kept ones first."""
    taken = []
    for old, number in segments.kept.items():
        assert earlier is not None
        for name in (segment_name, stats_name):
            staging.adopt(earlier.publication, name(old), name(number), verify=False)
        taken.append(_summarise(staging.folder, number, is_kept=True))
    for made, number in segments.new.items():
        for name in (segment_name, stats_name):
            staging.take_in(plan.folder / name(made), name(number))
        taken.append(_summarise(staging.folder, number, is_kept=False))
    return taken


def _summarise(folder: Path, number: int, *, is_kept: bool) -> SegmentSummary:
    sizes = [(folder / name(number)).stat().st_size for name in (segment_name, stats_name)]
    header, _ = read_header(folder / segment_name(number))
    return SegmentSummary(segment_name(number), header.n_rows, sum(sizes), is_kept)


def _describe(staging: Staging, contract: DatasetContract, result: StoreResult) -> None:
    staging.attributes.update(
        dataset_contract=contract.model_dump(mode="json"),
        decoder_version=DECODER_VERSION,
        n_in=result.n_in,
        n_stored=result.n_stored,
        n_quarantined=result.n_quarantined,
        n_excluded=result.n_excluded,
        n_segments=result.n_segments,
        n_holes=result.n_holes,
        by_reason=result.by_reason,
    )
    staging.provenance["reused_rows"] = result.n_reused
