"""The completeness stage: which share of the injected lenses is recovered, in cells, at each frozen threshold.

Completeness = sum of w x recovered / sum of w over the attempted injections of the test regions; those that were never
stored (quarantined, or excluded by the survey's own cut) are counted apart, cell by cell.
"""

from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from lens_pipeline.contracts.catalogue import COMPLETENESS
from lens_pipeline.contracts.errors import EvaluationError
from lens_pipeline.evaluation.cells import axes_of
from lens_pipeline.evaluation.config import CompletenessConfig
from lens_pipeline.evaluation.counting import axis_records, never_stored
from lens_pipeline.evaluation.out_of_fold import build_out_of_fold, is_cross_validated
from lens_pipeline.evaluation.parent_share import ParentShare
from lens_pipeline.evaluation.scored_rows import TEST, join_store, refuse_other
from lens_pipeline.evaluation.sealed import open_test_rows
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging


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
    rows = join_store(sealed.rows, scores=scores, store=store)
    lenses = rows.filter(pl.col("is_lens"))
    if lenses.is_empty():
        raise EvaluationError(
            f"{TEST} of scores {scores.version} has no injection ({rows.height:,} controls), so completeness is not "
            "defined. Next: inject into more galaxies (injection_manifest) or give test a larger share of the regions."
        )
    lost = never_stored(manifest, store, splits)
    share = ParentShare.of(parent)
    records = [
        record
        for point in sealed.usable.iter_rows(named=True)
        for axis in axes_of(lenses)
        for record in axis_records(axis, lenses, lost, point["operating_point"], point["threshold"], config, share)
    ]
    table = pa.Table.from_pylist(records, schema=COMPLETENESS.schema)
    staging.write_table(None, table, COMPLETENESS)
    if is_cross_validated(scores):
        build_out_of_fold(
            config, scores=scores, store=store, splits=splits, manifest=manifest, parent=share, staging=staging
        )
    reasons = dict(lost["reason"].value_counts(sort=True).iter_rows())
    staging.attributes["weighted"] = bool(lenses["weight"].n_unique() > 1)
    staging.attributes["quarantine_reasons"] = reasons
    return CompletenessResult(table, lenses.height + lost.height, lenses.height, lost.height, reasons)
