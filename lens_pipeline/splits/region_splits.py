"""The region_splits stage: search a seed once, freeze it, and give every stored row its split."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lens_pipeline.contracts.catalogue import REGION_SPLITS, SET_ASIDE, SPLIT_ROWS
from lens_pipeline.contracts.errors import SplitError, first_few
from lens_pipeline.splits.assignment import (
    KNOWN_LENS,
    SPLITS,
    VAL_CALIBRATE,
    VAL_SELECT,
    assign,
    assign_within_survey_split,
    shares,
)
from lens_pipeline.splits.config import SplitConfig
from lens_pipeline.splits.set_aside import TABLE as SET_ASIDE_TABLE
from lens_pipeline.splits.set_aside import known_lens_rows
from lens_pipeline.storage.parquet import iterate_parquet
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging

ROWS = "rows"
SURVEY_SPLITS = ("train", "val", "val_select", "val_calibrate", "test")
_COLUMNS = ("task_id", "logical", "label", "stratum", "region_id", "galaxy_id", "ra", "dec")
_ROWS_TOGETHER = 65_536
_HALVES = (VAL_SELECT, VAL_CALIBRATE)
_FROZEN = ("train", "validation", "calibrate_share", "seed", "honour_survey_split")

Assign = Callable[[int], npt.NDArray[np.int8]]


@dataclass(frozen=True)
class SplitResult:
    """What was split: the seed that was kept, the rows of each split, and those of known lenses, which are in none."""

    seed: int
    seeds_tried: int
    was_frozen: bool
    by_survey: bool
    n_regions: int
    n_rows: dict[str, int]
    n_set_aside: int


@dataclass(frozen=True)
class _Counts:
    """Rows by region and stratum: `table` has shape (n_regions, n_strata). Held out for test or set aside isn't counted."""

    regions: list[str]
    strata: list[str]
    table: npt.NDArray[np.int64]
    region_of_row: npt.NDArray[np.int64]


def build_region_splits(
    config: SplitConfig, store: Publication, staging: Staging, *, frozen: Publication | None = None
) -> SplitResult:
    """Assign every region, and so every stored row, to one split.

    Parameters
    ----------
    frozen : Publication, optional
        The dataset's current region_splits: its seed is kept, so that no region ever moves.

    Raises
    ------
    SplitError
        If no seed gives each stratum its floor in each split, naming the stratum that failed most; or if the settings
        differ from those that the dataset was first split with.
    """
    available = store.entry(f"{store.asset}.parquet").schema or {}
    own_split = config.honour_survey_split and "region_split" in available
    further = [*(["region_split"] if own_split else []), *(["is_held_out"] if "is_held_out" in available else [])]
    rows = store.read_table(columns=[*_COLUMNS, *further])
    if rows.num_rows == 0:
        raise SplitError(
            "the store holds no row, so there is nothing to split. See read_table('stamp_store/quarantine')."
        )
    set_aside, lenses = known_lens_rows(rows, config)
    is_aside = pc.is_in(rows["task_id"], value_set=set_aside["task_id"].combine_chunks())
    counts = _count(rows, is_aside)
    by_survey = own_split and rows["region_split"].null_count < rows.num_rows
    assigner = _survey_assigner(rows, counts, config) if by_survey else _hash_assigner(counts, config)
    settings = {name: getattr(config, name) for name in _FROZEN}
    if frozen is not None:
        _refuse_other_settings(frozen, settings)
        seed, tried = int(frozen.attributes["seed"]), 0
    else:
        wanted = None if by_survey else shares(config)
        # Of a survey's own split only what it calls val is cut by the seed, into its two halves.
        is_cut = not by_survey or "val" in pc.unique(rows["region_split"]).to_pylist()
        moved = (SPLITS if wanted is not None else _HALVES) if is_cut else ()
        seed, tried = _search_seed(assigner, counts, config, wanted, moved)
    places = assigner(seed)
    if frozen is not None:
        _refuse_moved_regions(frozen, counts.regions, [SPLITS[place] for place in places])
    names = pa.array(SPLITS)
    row_split = pc.if_else(is_aside, KNOWN_LENS, names.take(pa.array(places[counts.region_of_row])))
    staging.write_table(None, _region_table(rows, counts, names.take(pa.array(places))), REGION_SPLITS)
    split_rows = (
        rows.select(["task_id", "logical"]).append_column("split", row_split).append_column("label", rows["label"])
    )
    staging.write_table(ROWS, split_rows, SPLIT_ROWS)
    staging.attributes.update(seed=seed, settings=settings, by_survey=by_survey, store_version=store.version)
    if config.known_lenses:
        staging.write_table(SET_ASIDE_TABLE, set_aside, SET_ASIDE)
        staging.attributes["known_lenses"] = lenses
    in_split = ~is_aside.to_numpy()
    per_split = np.bincount(places[counts.region_of_row[in_split]], minlength=len(SPLITS))
    return SplitResult(
        seed=seed,
        seeds_tried=tried,
        was_frozen=frozen is not None,
        by_survey=by_survey,
        n_regions=len(counts.regions),
        n_rows={split: int(n) for split, n in zip(SPLITS, per_split, strict=True)},
        n_set_aside=set_aside.num_rows,
    )


def read_split_rows(splits: Publication, store: Publication, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the per-row split (SPLIT_ROWS), or some of its columns, in logical order.

    Raises
    ------
    SplitError
        If the splits were made for another version of the store: logical numbers mean something within one version only.
    """
    _refuse_other_store(splits, store)
    return splits.read_table(ROWS, columns)


def iterate_split_rows(
    splits: Publication, store: Publication, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Stream what `read_split_rows` reads; memory doesn't grow with the table.

    Raises
    ------
    SplitError
        If the splits were made for another version of the store.
    """
    _refuse_other_store(splits, store)
    yield from iterate_parquet(splits.path(f"{ROWS}.parquet"), columns, rows=_ROWS_TOGETHER)


def _refuse_other_store(splits: Publication, store: Publication) -> None:
    if splits.inputs.get(store.asset) != store.version:
        raise SplitError(
            f"region_splits {splits.version} was made for stamp_store {splits.inputs.get(store.asset)}, this store is "
            f"{store.version}. Next: dagster asset materialize --select region_splits -m lens_pipeline.definitions -c PRESET"
        )


def _count(rows: pa.Table, is_aside: pa.ChunkedArray) -> _Counts:
    region = pc.dictionary_encode(rows["region_id"].combine_chunks())
    region_of_row = region.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    counted = ~is_aside.to_numpy()
    if "is_held_out" in rows.column_names:
        counted &= ~pc.fill_null(rows["is_held_out"], False).to_numpy()
    stratum = pc.dictionary_encode(rows["stratum"].filter(pa.array(counted)).combine_chunks())
    n_strata = len(stratum.dictionary)
    cell = region_of_row[counted] * n_strata + stratum.indices.to_numpy(zero_copy_only=False)
    table = np.bincount(cell, minlength=len(region.dictionary) * n_strata).reshape(-1, n_strata)
    return _Counts(region.dictionary.to_pylist(), stratum.dictionary.to_pylist(), table, region_of_row)


def _hash_assigner(counts: _Counts, config: SplitConfig) -> Assign:
    return lambda seed: assign(counts.regions, seed, config)


def _survey_assigner(rows: pa.Table, counts: _Counts, config: SplitConfig) -> Assign:
    pairs = rows.select(["region_id", "region_split"]).group_by(["region_id", "region_split"]).aggregate([])
    given: dict[str, set[str | None]] = {}
    for region, split in zip(pairs["region_id"].to_pylist(), pairs["region_split"].to_pylist(), strict=True):
        given.setdefault(region, set()).add(split)
    torn = sorted(region for region, splits in given.items() if len(splits) > 1)
    if torn:
        raise SplitError(
            f"region_split puts {len(torn):,} of {len(given):,} regions into more than one split: {first_few(torn)}. "
            f"Rows of one region share sky, so this leaks. Mend region_split in the input, or set honour_survey_split: false."
        )
    unknown = sorted({str(split) for splits in given.values() for split in splits} - set(SURVEY_SPLITS))
    if unknown:
        raise SplitError(
            f"region_split has values that are none of {', '.join(SURVEY_SPLITS)}: {first_few(unknown)}. "
            f"Mend them in the input, or set honour_survey_split: false."
        )
    survey_split = [str(next(iter(given[region]))) for region in counts.regions]
    return lambda seed: assign_within_survey_split(counts.regions, survey_split, seed, config)


def _search_seed(
    assigner: Assign,
    counts: _Counts,
    config: SplitConfig,
    wanted: npt.NDArray[np.float64] | None,
    moved: Sequence[str],
) -> tuple[int, int]:
    """Return the first seed that will do and how many were tried; `moved` are the splits that depend on the seed at all."""
    stays = np.array([split not in moved for split in SPLITS])
    missed = np.zeros((len(SPLITS), len(counts.strata)), dtype=np.int64)
    off_share = 0
    for tried in range(1, config.max_seeds + 1):
        seed = config.seed + tried - 1
        cells = _cells(counts, assigner(seed))
        short = cells < config.floor_rows
        rows = cells.sum(axis=1)
        off = wanted is not None and bool(np.any(np.abs(rows / rows.sum() - wanted) > config.share_tolerance))
        if not short.any() and not off:
            return seed, tried
        if short[stays].any():
            raise SplitError(_no_seed(counts, config, short & stays[:, None], 0, None))
        missed += short
        off_share += off and not short.any()
    raise SplitError(_no_seed(counts, config, missed, off_share, config.max_seeds))


def _cells(counts: _Counts, places: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
    """Rows by split and stratum, shape (4, n_strata)."""
    return np.stack([counts.table[places == place].sum(axis=0) for place in range(len(SPLITS))])


def _no_seed(
    counts: _Counts, config: SplitConfig, missed: npt.NDArray[np.integer], off_share: int, tried: int | None
) -> str:
    """Say what was missed most; `tried` is None where the rows' own region_split decides it and no seed would help."""
    whose = "the rows' own region_split, which no seed changes, doesn't split"
    text = f"{whose if tried is None else f'none of {tried:,} seeds splits'} {len(counts.regions):,} regions as asked"
    if off_share:
        text += f"; {off_share:,} gave each stratum its floor but a share off by more than {config.share_tolerance}"
    if missed.any():
        split, stratum = np.unravel_index(int(missed.argmax()), missed.shape)
        rows, regions = counts.table[:, stratum].sum(), (counts.table[:, stratum] > 0).sum()
        often = "" if tried is None else f" for {missed[split, stratum]:,} of them"
        text += (
            f"; stratum {counts.strata[stratum]!r} fell under its floor of {config.floor_rows} rows in {SPLITS[split]}{often} "
            f"(it has {rows:,} rows in {regions:,} regions)"
        )
    last = (
        "or change region_split: another injection_manifest.seed or hold_out_*_share where the manifest drew it."
        if tried is None
        else "or raise share_tolerance or max_seeds."
    )
    return f"{text}. Next: make more rows of that stratum, spread them over more regions, lower region_splits.floor_rows, {last}"


def _refuse_other_settings(frozen: Publication, settings: dict[str, object]) -> None:
    before = frozen.attributes["settings"]
    changed = [f"{name} {before.get(name)} -> {value}" for name, value in settings.items() if before.get(name) != value]
    if changed:
        raise SplitError(
            f"dataset {frozen.dataset!r} was split before with other settings ({'; '.join(changed)}), and a split is frozen: "
            f"regions would move from test into training. Give the dataset another name (resources.workspace.config.dataset) "
            f"to split it anew, or put the settings back."
        )


def _refuse_moved_regions(frozen: Publication, regions: list[str], splits: list[str]) -> None:
    before = dict(zip(*(frozen.read_table()[name].to_pylist() for name in ("region_id", "split")), strict=True))
    moved = [
        f"{region} {before[region]} -> {split}"
        for region, split in zip(regions, splits, strict=True)
        if before.get(region, split) != split
    ]
    if moved:
        raise SplitError(
            f"{len(moved):,} of {len(regions):,} regions of dataset {frozen.dataset!r} would move to another split: "
            f"{first_few(moved)}. A split is frozen; the input's own region_split was added, dropped or changed since. "
            f"Put it back, or give the dataset another name (resources.workspace.config.dataset) to split it anew."
        )


def _region_table(rows: pa.Table, counts: _Counts, split: pa.Array) -> pa.Table:
    grouped = (
        rows.select(["region_id", "galaxy_id", "ra", "dec"])
        .group_by("region_id")
        .aggregate([([], "count_all"), ("galaxy_id", "count_distinct"), ("ra", "mean"), ("dec", "mean")])
    )
    where = {region: i for i, region in enumerate(grouped["region_id"].to_pylist())}
    grouped = grouped.take(pa.array([where[region] for region in counts.regions]))
    table = pa.table(
        {
            "region_id": pa.array(counts.regions),
            "split": split,
            "n_rows": grouped["count_all"],
            "n_galaxies": grouped["galaxy_id_count_distinct"],
            "ra": grouped["ra_mean"].cast(pa.float64()),
            "dec": grouped["dec_mean"].cast(pa.float64()),
        }
    )
    return table.sort_by("region_id")
