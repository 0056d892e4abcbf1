"""The completeness stage: which share of the injected lenses is recovered, in cells, at each frozen threshold.

Completeness = sum of w x recovered / sum of w over the attempted injections of the test regions; those that were never
stored (quarantined, or excluded by the survey's own cut) are counted apart, cell by cell.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from lens_pipeline.contracts.catalogue import COMPLETENESS, COMPLETENESS_FIT, COMPLETENESS_GRID, CONTAMINANTS, REGIONS
from lens_pipeline.contracts.errors import EvaluationError
from lens_pipeline.evaluation.attempted import Attempted, attempted_in
from lens_pipeline.evaluation.axes import AXES, COLUMNS
from lens_pipeline.evaluation.baseline import write_baseline
from lens_pipeline.evaluation.config import CompletenessConfig
from lens_pipeline.evaluation.counting import Attempts, Tally, Threshold
from lens_pipeline.evaluation.exports import THRESHOLDS, export_files
from lens_pipeline.evaluation.false_positives import at_thresholds, by_kind, by_region
from lens_pipeline.evaluation.fit_residuals import fit_selection
from lens_pipeline.evaluation.out_of_fold import build_out_of_fold, is_cross_validated
from lens_pipeline.evaluation.parent_share import ParentShare
from lens_pipeline.evaluation.scored_rows import TEST, distinct_rows, join_store, refuse_other
from lens_pipeline.evaluation.sealed import open_test_rows, primary_point
from lens_pipeline.evaluation.selection_function import FILE as SELECTION_FUNCTION
from lens_pipeline.evaluation.selection_function import FORMAT, selection_surfaces
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging

GRID_TABLE, FIT_TABLE, REGIONS_TABLE, CONTAMINANTS_TABLE = "grid", "fit", "regions", "contaminants"


@dataclass(frozen=True)
class CompletenessResult:
    """What was counted.

    Attributes
    ----------
    table : pyarrow.Table
        COMPLETENESS.
    attempted : Attempted
        Injections of the manifest in test regions.
    n_scored : int
        Injections of test that have a score.
    primary : str
        The operating point that the report leads with.
    """

    table: pa.Table
    attempted: Attempted
    n_scored: int
    primary: str


def build_completeness(
    config: CompletenessConfig,
    *,
    scores: Publication,
    operating_point: Publication,
    store: Publication,
    splits: Publication,
    manifest: Publication,
    parent: Publication,
    staging: Staging,
) -> CompletenessResult:
    """Count completeness on test at every operating point that has a threshold; of a cross-validation also out of fold.

    Raises
    ------
    EvaluationError
        If the publications don't belong together, or test holds no injection.
    """
    refuse_other(splits, "region_splits", store)
    sealed = open_test_rows(scores, operating_point, staging)
    rows = join_store(sealed.rows, scores=scores, store=store, more=(*COLUMNS, "region_id", "role"))
    lenses = rows.filter(pl.col("is_lens"))
    if lenses.is_empty():
        raise EvaluationError(
            f"{TEST} of scores {scores.version} has no injection ({rows.height:,} controls), so completeness is not "
            "defined. Next: inject into more galaxies (injection_manifest) or give test a larger share of the regions."
        )
    attempted = attempted_in(manifest, store, splits)
    share = ParentShare.of(parent)
    points = [Threshold(point["operating_point"], point["threshold"]) for point in sealed.usable.iter_rows(named=True)]
    attempts = Attempts.of(lenses, attempted.lost, share)
    tally = Tally(attempts, points, config)
    along_axes = tally.along_axes()
    table = pa.Table.from_pylist(along_axes, schema=COMPLETENESS.schema)
    staging.write_table(None, table, COMPLETENESS)
    write_baseline(
        config,
        rows=rows,
        attempts=attempts,
        network=along_axes,
        points=points,
        scores=scores,
        operating_point=operating_point,
        staging=staging,
    )
    grids = pa.Table.from_pylist(tally.on_grids(), schema=COMPLETENESS_GRID.schema)
    staging.write_table(GRID_TABLE, grids, COMPLETENESS_GRID)
    fits = fit_selection(attempts, points, config)
    staging.write_table(
        FIT_TABLE, pa.Table.from_pylist(fits.residuals, schema=COMPLETENESS_FIT.schema), COMPLETENESS_FIT
    )
    distinct = distinct_rows(rows)
    places = pl.DataFrame(splits.read_table(columns=["region_id", "ra", "dec"]))
    regions = pa.Table.from_pylist(by_region(distinct, places, points), schema=REGIONS.schema)
    staging.write_table(REGIONS_TABLE, regions, REGIONS)
    contaminants = pa.Table.from_pylist(by_kind(distinct, points), schema=CONTAMINANTS.schema)
    staging.write_table(CONTAMINANTS_TABLE, contaminants, CONTAMINANTS)
    provenance = _provenance(manifest, staging) | {THRESHOLDS: at_thresholds(distinct, points)}
    primary = primary_point(sealed.usable)["operating_point"]
    for name, content in export_files(pl.DataFrame(table), pl.DataFrame(grids), provenance).items():
        staging.write_bytes(name, content)
    selection = {
        "format": FORMAT,
        "primary": primary,
        "provenance": provenance,
        "fit_notes": fits.notes,
        "surfaces": [*selection_surfaces(pl.DataFrame(table), pl.DataFrame(grids), _ranges(attempts)), *fits.surfaces],
    }
    staging.write_json(SELECTION_FUNCTION, selection)
    if is_cross_validated(scores):
        build_out_of_fold(
            config, scores=scores, store=store, splits=splits, manifest=manifest, parent=share, staging=staging
        )
    staging.attributes["population"] = provenance["population"]
    staging.attributes["fit"] = {
        "notes": fits.notes,
        **{surface["operating_point"]: surface["calibration"] for surface in fits.surfaces},
    }
    staging.attributes["weighted"] = bool(lenses["weight"].n_unique() > 1)
    staging.attributes["quarantine_reasons"] = attempted.reasons
    return CompletenessResult(table, attempted, lenses.height, primary)


def _ranges(attempts: Attempts) -> dict[str, tuple[float, float]]:
    """Least and most attempted value of each continuous axis that anything is known of."""
    ranges = {}
    for axis in (name for name in attempts.stored.columns if name in AXES and AXES[name].continuous):
        parts = (attempts.stored, attempts.lost) if axis in attempts.known_of_lost else (attempts.stored,)
        known = np.concatenate([rows[axis].drop_nulls().drop_nans().to_numpy() for rows in parts])
        if known.size:
            ranges[axis] = float(known.min()), float(known.max())
    return ranges


def _provenance(manifest: Publication, staging: Staging) -> dict[str, Any]:
    """Say what the numbers are of: data set, model, the versions that were read, and the population injections stand for."""
    return {
        "dataset": staging.dataset,
        "model": staging.model,
        **{name: version for name, version in sorted(staging.inputs.items())},
        "population": manifest.attributes.get("population", "as injected: the manifest names none"),
    }
