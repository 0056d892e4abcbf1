"""Counting what is recovered and what was never stored, cell by cell: what every table of completeness is made of."""

from collections.abc import Sequence

import polars as pl

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.evaluation.cells import ALL, Cell, cells_of
from lens_pipeline.evaluation.config import CompletenessConfig
from lens_pipeline.evaluation.intervals import clustered_proportion
from lens_pipeline.evaluation.parent_share import ParentShare
from lens_pipeline.evaluation.scored_rows import TEST, galaxy_numbers
from lens_pipeline.storage.publication import Publication

OK, SMALL, UNDEFINED = "ok", "small", "undefined"
UNACCOUNTED = "not in the quarantine table"
_NUMBERS = (
    *("n_eff", "completeness", "completeness_low", "completeness_high"),
    *("parent_share", "total", "total_low", "total_high"),
)
_MANIFEST_COLUMNS = (
    "task_id", "region_id", "lens_model", "theta_e_arcsec", "psf_fwhm_used_r", "arc_snr", "source_id", "is_held_out",
)  # fmt: skip


def never_stored(
    manifest: Publication, store: Publication, splits: Publication, wanted_splits: Sequence[str] = (TEST,)
) -> pl.DataFrame:
    """Injections that the manifest asks for in some splits' regions and the store doesn't have, with the quarantine's reason.

    A region none of whose rows was stored has no split, so its injections can't be told to be of these splits and aren't here.

    Returns
    -------
    polars.DataFrame
        Columns of the manifest that serve as axes, and `reason`.
    """
    available = manifest.entry(f"{manifest.asset}.parquet").schema or {}
    wanted = [name for name in _MANIFEST_COLUMNS if name in available]
    contract = DatasetContract.model_validate(store.attributes["dataset_contract"])
    lens_names = [name for name, label in contract.label_of.items() if label > 0]
    regions = pl.DataFrame(splits.read_table(columns=["region_id", "split"]))
    in_splits = regions.filter(pl.col("split").is_in(wanted_splits))
    stored = pl.DataFrame(store.read_table(columns=["task_id"]))
    quarantine = pl.DataFrame(store.read_table("quarantine", columns=["task_id", "reason"]))
    first_reason = quarantine.drop_nulls("task_id").unique("task_id", keep="first", maintain_order=True)
    attempted = pl.DataFrame(manifest.read_table(columns=wanted)).filter(pl.col("lens_model").is_in(lens_names))
    asked = attempted.join(in_splits, on="region_id", how="semi")
    lost = asked.join(stored, on="task_id", how="anti").join(first_reason, on="task_id", how="left", validate="1:1")
    return lost.with_columns(pl.col("reason").fill_null(UNACCOUNTED))


def axis_records(
    axis: str,
    lenses: pl.DataFrame,
    lost: pl.DataFrame,
    point: str,
    threshold: float,
    config: CompletenessConfig,
    parent: ParentShare,
) -> list[dict[str, object]]:
    """Rows of COMPLETENESS along one axis, at one threshold.

    Parameters
    ----------
    lenses : polars.DataFrame
        Scored injections, as `join_store` gives them.
    lost : polars.DataFrame
        Those never stored, of `never_stored`.
    parent : ParentShare
        What the parent sample's cuts lose.
    """
    cells = cells_of(axis, _attempted(axis, lenses, lost), config)
    if not cells:
        whole = Cell(axis, ALL, None, None, pl.lit(True))
        record = _record(whole, lenses, lost, point, threshold, config, parent)
        why = f"{axis} is null for all {lenses.height:,} injections"
        return [record | dict.fromkeys(_NUMBERS) | {"status": UNDEFINED, "reason": why, "total_reason": why}]
    return [_record(cell, lenses, lost, point, threshold, config, parent) for cell in cells]


def _attempted(axis: str, lenses: pl.DataFrame, lost: pl.DataFrame) -> pl.DataFrame:
    """Return the rows to cut an axis by: those never stored too, so that each of them falls in a cell."""
    if axis == ALL or axis not in lost.columns or lenses[axis].null_count() == lenses.height:
        return lenses
    return pl.concat([lenses.select(axis), lost.select(axis)], how="vertical_relaxed")


def _record(
    cell: Cell,
    lenses: pl.DataFrame,
    lost: pl.DataFrame,
    point: str,
    threshold: float,
    config: CompletenessConfig,
    parent: ParentShare,
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
        **parent.total(rows, recovered, found),
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
