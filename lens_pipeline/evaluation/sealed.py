"""The one way to the rows of the test split: with a frozen operating point in hand, and on the record."""

from dataclasses import dataclass
from typing import Any

import polars as pl

from lens_pipeline.contracts.errors import EvaluationError
from lens_pipeline.evaluation.operating_point import HIGHEST_CONTROL
from lens_pipeline.evaluation.scored_rows import TEST, refuse_other, rows_of_split
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging


@dataclass(frozen=True)
class SealedRows:
    """Scored rows of the test split beside the thresholds that were frozen before anyone saw them.

    Attributes
    ----------
    rows : polars.DataFrame
        task_id, logical, label, logit (float64) and is_lens.
    operating_points : polars.DataFrame
        OPERATING_POINT.
    """

    rows: pl.DataFrame
    operating_points: pl.DataFrame

    @property
    def usable(self) -> pl.DataFrame:
        """Operating points that have a threshold."""
        return self.operating_points.filter(pl.col("threshold").is_not_null())


def open_test_rows(scores: Publication, operating_point: Publication, staging: Staging) -> SealedRows:
    """Read the scored rows of test, and log the read in ``staging.attributes["test_reads"]``, where `looks` counts it.

    Raises
    ------
    EvaluationError
        If the operating point was fitted on other scores, or test has no row.
    """
    refuse_other(operating_point, "operating_point", scores)
    fitted_on = operating_point.attributes.get("scores_version")
    if fitted_on != scores.version:
        raise EvaluationError(
            f"the thresholds of operating_point {operating_point.version} were fitted on scores {fitted_on}, not on "
            f"{scores.version}: they mean nothing on another model's logits. Next: dagster asset materialize --select "
            "operating_point -m lens_pipeline.definitions -c PRESET"
        )
    rows = rows_of_split(scores, TEST)
    if not rows.height:
        raise EvaluationError(
            f"scores {scores.version} has no row of {TEST}, so nothing can be evaluated. Next: give test a share of the "
            "regions (region_splits: train + validation < 1) and run again from region_splits."
        )
    read = {
        "by": staging.asset,
        "scores": scores.version,
        "operating_point": operating_point.version,
        "n_rows": rows.height,
    }
    staging.attributes["test_reads"] = [*staging.attributes.get("test_reads", []), read]
    return SealedRows(rows, pl.DataFrame(operating_point.read_table()))


def primary_point(usable: pl.DataFrame) -> dict[str, Any]:
    """Return the resolved operating point of the smallest rate, else the one at the highest control.

    Parameters
    ----------
    usable : polars.DataFrame
        Rows of OPERATING_POINT that have a threshold.
    """
    resolved = usable.filter(pl.col("target_fpr").is_not_null()).sort("target_fpr")
    return (resolved if resolved.height else usable.filter(pl.col("operating_point") == HIGHEST_CONTROL)).row(
        0, named=True
    )
