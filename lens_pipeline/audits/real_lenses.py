"""Which share of real lenses is found, beside that of the injections: the one number that no simulation can flatter.

Belongs here: which stamps show a real lens as it is, and what is recovered of them at each frozen threshold. They come from the
store, where `region_splits` set them aside, or from files of the user's. Thresholds are those of the operating point; real lenses
choose nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
from pydantic import Field

from lens_pipeline.audits.lens_copies import told_of_copies, with_copies_told
from lens_pipeline.audits.lens_names import FACTS, read_names, refuse_one_stamp_of_two_lenses
from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.contracts.config import Section
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import first_few
from lens_pipeline.contracts.real_lens_tables import REAL_LENS_RECOVERY, REAL_LENS_STAMPS
from lens_pipeline.evaluation.intervals import clustered_proportion
from lens_pipeline.evaluation.scored_rows import refuse_other
from lens_pipeline.scoring.files import score_files
from lens_pipeline.splits.assignment import KNOWN_LENS
from lens_pipeline.splits.set_aside import TABLE as SET_ASIDE_TABLE
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging

CHECK = "real_lenses_are_found_like_injections"
NOT_GIVEN = "no known-lens stamps were given"
STAMPS_TABLE = "stamps"
_ALL, _CONFIDENT, _INDEPENDENT = "all", "confident", "independent of networks"
_OK, _UNDEFINED = "ok", "undefined"
_STORE = "store"


class RealLensConfig(Section):
    """Stamps of real lenses beside those that region_splits.known_lenses set aside."""

    stamps: list[str] = Field(
        [], description="files of stamps of known lenses as `lens_pipeline predict` takes them; * is expanded"
    )
    flux_unit: str = Field("", description="unit of FITS files that have no BUNIT, e.g. nanomaggy; empty: all have one")
    cut_centre: bool = Field(False, description="take the central pixels of FITS images that are larger than a stamp")
    names: str = Field(
        "",
        description="CSV or parquet that says of each stamp, by its task_id (or FILE:ROW where it has none), lens_name and, "
        "where known, methods, is_confident and independent_of_networks; empty: each stamp is a lens of its own",
    )


@dataclass(frozen=True)
class Recovery:
    """REAL_LENS_RECOVERY and REAL_LENS_STAMPS."""

    table: pa.Table
    stamps: pa.Table


def measure_recovery(
    config: RealLensConfig,
    *,
    scores: Publication,
    operating_point: Publication,
    completeness: Publication,
    splits: Publication,
    store: Publication,
    classifiers: Sequence[Publication],
    staging: Staging,
) -> Recovery:
    """Score the real lenses that are given, and count what lies above each threshold.

    Raises
    ------
    EvaluationError
        If the publications were not made from each other.
    ConfigError, ContractError
        If `names` can't be used.
    ScoringError
        If the files can't be scored.
    """
    refuse_other(operating_point, "operating_point", scores)
    refuse_other(completeness, "completeness", operating_point)
    refuse_other(splits, "region_splits", store)
    given = _given(config, scores, classifiers, store) if config.stamps else _no_stamps()
    stamps = with_copies_told(pl.concat([_set_aside(scores, splits, store), given]))
    points = pl.DataFrame(operating_point.read_table()).filter(pl.col("threshold").is_not_null())
    injected = pl.DataFrame(completeness.read_table()).filter(pl.col("axis") == "all")
    records = [
        _record(stratum, stamps.filter(member), point, injected)
        for point in points.iter_rows(named=True)
        for stratum, member in _strata(stamps)
    ]
    table = pa.Table.from_pylist(records, schema=REAL_LENS_RECOVERY.schema)
    shown = stamps.select(REAL_LENS_STAMPS.schema.names).to_arrow().cast(REAL_LENS_STAMPS.schema)
    staging.write_table(None, table, REAL_LENS_RECOVERY)
    staging.write_table(STAMPS_TABLE, shown, REAL_LENS_STAMPS)
    return Recovery(table, shown)


def real_lenses_are_found_like_injections(recovery: pa.Table) -> Check:
    """Ask that the intervals of recall and of the injections' completeness touch. Blocks nothing: the populations differ."""
    rows = pl.DataFrame(recovery).filter(pl.col("stratum") == _ALL)
    known = rows.drop_nulls(["recall_high", "injected_low"])
    if known.is_empty():
        reasons = rows["reason"].drop_nulls().unique().to_list()
        return green(CHECK, f"not measured: {first_few(reasons) or 'no threshold was fitted'}", blocking=False)
    told = {row["operating_point"]: _comparison(row) for row in known.iter_rows(named=True)}
    short = known.filter(pl.col("recall_high") < pl.col("injected_low"))["operating_point"].to_list()
    if not short:
        return green(CHECK, "; ".join(told.values()), blocking=False)
    return red(
        CHECK,
        f"fewer real lenses are found than injections at {len(short):,} of {known.height:,} thresholds",
        wrong=[told[point] for point in short],
        why="the model finds what was injected; completeness measured by injections doesn't hold for real lenses.",
        next_step="look at real_lens_recovery/stamps and the realism report: which of the lenses are missed, and what injections "
        "lack that they have (colour, size, brightness, image separation).",
        blocking=False,
    )


def _comparison(row: dict[str, Any]) -> str:
    return (
        f"{row['operating_point']}: {row['n_recovered']:,} of {_counted(row)}, {_words(row, 'recall')}, and "
        f"{_words(row, 'injected')} of the injections{f' ({reason})' if (reason := row['reason']) else ''}"
    )


def _counted(row: dict[str, Any]) -> str:
    lenses = f"{row['n_lenses']:,} real lenses"
    return lenses if row["n"] == row["n_lenses"] else f"{row['n']:,} stamps of {lenses}"


def _words(row: dict[str, Any], name: str) -> str:
    return f"{row[name]:.2f} ({row[f'{name}_low']:.2f} to {row[f'{name}_high']:.2f})"


def _set_aside(scores: Publication, splits: Publication, store: Publication) -> pl.DataFrame:
    """Rows of the store that show a known lens as it is: an injection into one doesn't."""
    if f"{SET_ASIDE_TABLE}.parquet" not in splits.manifest.files:
        return _no_stamps()
    contract = DatasetContract.model_validate(store.attributes["dataset_contract"])
    lenses = pl.DataFrame(splits.read_table(SET_ASIDE_TABLE))
    index = pl.DataFrame(store.read_table(columns=["task_id", "lens_model", "pixel_hash"]))
    logits = pl.DataFrame(scores.read_table(columns=["task_id", "split", "logit"])).filter(
        pl.col("split") == KNOWN_LENS
    )
    rows = lenses.join(index, on="task_id", validate="1:1").filter(pl.col("lens_model") == contract.control_value)
    rows = rows.join(logits, on="task_id", how="left", validate="1:1").unique(
        ["lens_name", "pixel_hash"], keep="first", maintain_order=True
    )
    return rows.select(
        "lens_name",
        "task_id",
        pl.lit(_STORE).alias("origin"),
        "methods",
        (pl.col("grade") == _CONFIDENT).alias("is_confident"),
        "independent_of_networks",
        pl.col("logit").cast(pl.Float64),
        pl.when(pl.col("logit").is_null()).then(pl.lit("not among the scores")).alias("reason"),
        pl.col("task_id").alias("key"),
        "pixel_hash",
    )


def _given(
    config: RealLensConfig, scores: Publication, classifiers: Sequence[Publication], store: Publication
) -> pl.DataFrame:
    """Stamps of the user's files with their scores, and what is known of each."""
    tta = bool(scores.attributes.get("tta", False))
    found = pl.DataFrame(
        score_files(classifiers, config.stamps, flux_unit=config.flux_unit, tta=tta, cut_centre=config.cut_centre)
    )
    rows = found.select(
        pl.coalesce("task_id", pl.format("{}:{}", "input", pl.col("row").fill_null(0))).alias("key"),
        "task_id",
        "row",
        pl.col("input").alias("origin"),
        pl.col("logit").cast(pl.Float64),
        pl.when(pl.col("reason").is_not_null()).then(pl.format("{}: {}", "reason", "detail")).alias("reason"),
        "pixel_hash",
    )
    # A file that is named twice, or matched by two patterns, shows no more lenses.
    rows = rows.unique(["key", "pixel_hash"], keep="first", maintain_order=True)
    unnamed = _no_stamps().select(pl.col("task_id").alias("key"), *FACTS)
    names = read_names(config.names, rows) if config.names else unnamed
    told = rows.join(names, on="key", how="left", validate="m:1", maintain_order="left")
    refuse_one_stamp_of_two_lenses(told, config.names)
    return told.select(_no_stamps().columns)


def _strata(stamps: pl.DataFrame) -> Iterator[tuple[str, pl.Expr]]:
    yield _ALL, pl.lit(True)
    if stamps["is_confident"].any():
        yield _CONFIDENT, pl.col("is_confident").fill_null(False)
    if stamps["independent_of_networks"].any():
        yield _INDEPENDENT, pl.col("independent_of_networks").fill_null(False)
    methods = {method for listed in stamps["methods"].drop_nulls() for method in listed.split(", ")}
    for method in sorted(methods):
        yield method, pl.col("methods").fill_null("").str.split(", ").list.contains(method)


def _record(stratum: str, stamps: pl.DataFrame, point: dict[str, Any], injected: pl.DataFrame) -> dict[str, Any]:
    counted = stamps.filter(pl.col("same_as").is_null())
    scored = counted.drop_nulls("logit")
    above = (scored["logit"] > point["threshold"]).to_numpy()
    recall = clustered_proportion(above, scored["lens_name"].to_numpy())
    beside = injected.filter(pl.col("operating_point") == point["operating_point"]).to_dicts()
    cell = beside[0] if beside else {}
    reason = NOT_GIVEN if stamps.is_empty() else recall.reason
    if unscored := counted.height - scored.height:
        n = "none has a" if scored.is_empty() else f"{unscored:,} {'has' if unscored == 1 else 'have'} no"
        why = first_few(counted["reason"].drop_nulls().unique(maintain_order=True).to_list())
        told = f"of {counted.height:,} stamps {n} score: {why}"
        reason = f"{reason}; {told}" if reason and scored.height else told
    return {
        "operating_point": point["operating_point"],
        "stratum": stratum,
        "n": scored.height,
        "n_lenses": scored["lens_name"].n_unique(),
        "n_recovered": int(above.sum()),
        "recall": recall.value,
        "recall_low": recall.low,
        "recall_high": recall.high,
        "injected": cell.get("completeness"),
        "injected_low": cell.get("completeness_low"),
        "injected_high": cell.get("completeness_high"),
        "status": _UNDEFINED if recall.value is None else _OK,
        "reason": "; ".join([*([reason] if reason else []), *told_of_copies(stamps)]) or None,
    }


def _no_stamps() -> pl.DataFrame:
    """Return no rows of REAL_LENS_STAMPS, with `key` and `pixel_hash` in place of what is told of copies."""
    empty: pl.DataFrame = pl.DataFrame(REAL_LENS_STAMPS.schema.empty_table())
    return empty.drop("same_as").with_columns(key=pl.lit(None, pl.String), pixel_hash=pl.lit(None, pl.Binary))
