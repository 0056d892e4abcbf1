"""The completeness stage: which share of the injected lenses is recovered, in cells, at each frozen threshold.

Completeness = sum of w x recovered / sum of w over the attempted injections of the test regions; those that were never
stored (quarantined, or excluded by the survey's own cut) are counted apart, cell by cell.
"""

from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from lens_pipeline.contracts.catalogue import COMPLETENESS
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import EvaluationError
from lens_pipeline.evaluation.cells import ALL, AXES, Cell, cells_of
from lens_pipeline.evaluation.config import CompletenessConfig
from lens_pipeline.evaluation.intervals import clustered_proportion
from lens_pipeline.evaluation.scored_rows import TEST, galaxy_numbers, join_store, refuse_other
from lens_pipeline.evaluation.sealed import open_test_rows
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging

OK, SMALL, UNDEFINED = "ok", "small", "undefined"
_MANIFEST_COLUMNS = ("task_id", "region_id", "lens_model", "theta_e_arcsec", "psf_fwhm_used_r", "arc_snr")

UNACCOUNTED = "not in the quarantine table"


@dataclass(frozen=True)
class CompletenessResult:
    """What was counted.

    Attributes
    ----------
    table : pyarrow.Table
        COMPLETENESS.
    n_attempted, n_scored, n_quarantined : int
        Injections in test regions: in the manifest, of them scored, of them never stored.
    quarantine_reasons : dict
        Reason to number, of those never stored.
    """

    table: pa.Table
    n_attempted: int
    n_scored: int
    n_quarantined: int
    quarantine_reasons: dict[str, int]


def build_completeness(
    config: CompletenessConfig,
    *,
    scores: Publication,
    operating_point: Publication,
    store: Publication,
    splits: Publication,
    manifest: Publication,
    staging: Staging,
) -> CompletenessResult:
    """Count completeness on test at every operating point that has a threshold.

    Raises
    ------
    EvaluationError
        If the publications don't belong together, or test holds no injection.
    """
    refuse_other(splits, "region_splits", store)
    sealed = open_test_rows(scores, operating_point, staging)
    rows = join_store(sealed.rows, scores=scores, store=store)
    lenses = rows.filter(pl.col("is_lens"))
    if lenses.is_empty():
        raise EvaluationError(
            f"{TEST} of scores {scores.version} has no injection ({rows.height:,} controls), so completeness is not "
            "defined. Next: inject into more galaxies (injection_manifest) or give test a larger share of the regions."
        )
    lost = never_stored(manifest, store, splits)
    records = [
        record
        for point in sealed.usable.iter_rows(named=True)
        for axis in AXES
        for record in _axis_records(axis, lenses, lost, point["operating_point"], point["threshold"], config)
    ]
    table = pa.Table.from_pylist(records, schema=COMPLETENESS.schema)
    staging.write_table(None, table, COMPLETENESS)
    reasons = dict(lost["reason"].value_counts(sort=True).iter_rows())
    staging.attributes["weighted"] = bool(lenses["weight"].n_unique() > 1)
    staging.attributes["quarantine_reasons"] = reasons
    return CompletenessResult(table, lenses.height + lost.height, lenses.height, lost.height, reasons)


def never_stored(manifest: Publication, store: Publication, splits: Publication) -> pl.DataFrame:
    """Injections that the manifest asks for in test regions and the store doesn't have, with the quarantine's reason.

    A region none of whose rows was stored has no split, so its injections can't be told to be of test and aren't here.

    Returns
    -------
    polars.DataFrame
        Columns of the manifest that serve as axes, and `reason`.
    """
    available = manifest.entry(f"{manifest.asset}.parquet").schema or {}
    wanted = [name for name in _MANIFEST_COLUMNS if name in available]
    contract = DatasetContract.model_validate(store.attributes["dataset_contract"])
    lens_names = [name for name, label in contract.label_of.items() if label > 0]
    regions = pl.DataFrame(splits.read_table(columns=["region_id", "split"])).filter(pl.col("split") == TEST)
    stored = pl.DataFrame(store.read_table(columns=["task_id"]))
    quarantine = pl.DataFrame(store.read_table("quarantine", columns=["task_id", "reason"]))
    first_reason = quarantine.drop_nulls("task_id").unique("task_id", keep="first", maintain_order=True)
    attempted = pl.DataFrame(manifest.read_table(columns=wanted)).filter(pl.col("lens_model").is_in(lens_names))
    in_test = attempted.join(regions, on="region_id", how="semi")
    lost = in_test.join(stored, on="task_id", how="anti").join(first_reason, on="task_id", how="left", validate="1:1")
    return lost.with_columns(pl.col("reason").fill_null(UNACCOUNTED))


def _axis_records(
    axis: str, lenses: pl.DataFrame, lost: pl.DataFrame, point: str, threshold: float, config: CompletenessConfig
) -> list[dict[str, object]]:
    cells = cells_of(axis, _attempted(axis, lenses, lost), config)
    if not cells:
        whole = Cell(axis, ALL, None, None, pl.lit(True))
        record = _record(whole, lenses, lost, point, threshold, config)
        why = f"{axis} is null for all {lenses.height:,} injections of {TEST}"
        undefined = ("n_eff", "completeness", "completeness_low", "completeness_high")
        return [record | dict.fromkeys(undefined) | {"status": UNDEFINED, "reason": why}]
    return [_record(cell, lenses, lost, point, threshold, config) for cell in cells]


def _attempted(axis: str, lenses: pl.DataFrame, lost: pl.DataFrame) -> pl.DataFrame:
    """Return the rows to cut an axis by: those never stored too, so that each of them falls in a cell."""
    if axis == ALL or axis not in lost.columns or lenses[axis].null_count() == lenses.height:
        return lenses
    return pl.concat([lenses.select(axis), lost.select(axis)], how="vertical_relaxed")


def _record(
    cell: Cell, lenses: pl.DataFrame, lost: pl.DataFrame, point: str, threshold: float, config: CompletenessConfig
) -> dict[str, object]:
    rows = lenses.filter(cell.member)
    recovered = (rows["logit"] > threshold).to_numpy()
    found = clustered_proportion(recovered, galaxy_numbers(rows), rows["weight"].to_numpy())
    knows_axis = cell.axis == ALL or cell.axis in lost.columns
    status, reason = _status(found.n_eff, found.value, found.reason, config)
    return {
        "operating_point": point,
        "axis": cell.axis,
        "cell": cell.name,
        "low": cell.low,
        "high": cell.high,
        "n": rows.height,
        "n_quarantined": lost.filter(cell.member).height if knows_axis else None,
        "n_galaxies": found.n_clusters,
        "n_recovered": int(recovered.sum()),
        "n_eff": found.n_eff,
        "completeness": found.value,
        "completeness_low": found.low,
        "completeness_high": found.high,
        "status": status,
        "reason": reason,
    }


def _status(
    n_eff: float | None, value: float | None, reason: str | None, config: CompletenessConfig
) -> tuple[str, str | None]:
    if value is None:
        return UNDEFINED, reason
    if n_eff is None:
        return SMALL, reason
    if n_eff < config.min_n_eff:
        return SMALL, f"{n_eff:.3g} effective injections, fewer than {config.min_n_eff:g}"
    return OK, None
