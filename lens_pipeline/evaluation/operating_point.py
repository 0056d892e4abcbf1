"""The operating_point stage: thresholds for target false-positive rates, from val_calibrate alone, then frozen.

The published version's hash names the thresholds; whoever evaluates test rows hands it to `sealed.open_test_rows`.
"""

from dataclasses import asdict, dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from lens_pipeline.contracts.catalogue import OPERATING_POINT
from lens_pipeline.evaluation.calibration import Calibration, prior_logit_of, publish_calibration
from lens_pipeline.evaluation.config import OperatingPointConfig
from lens_pipeline.evaluation.intervals import clustered_proportion
from lens_pipeline.evaluation.ranking import RankedScores, RocCurve, roc_curve
from lens_pipeline.evaluation.resolution import ResolutionRule, resolve, smallest_resolvable_fpr
from lens_pipeline.evaluation.scored_rows import (
    CALIBRATE,
    TRAIN,
    distinct_rows,
    galaxy_numbers,
    join_store,
    open_rows,
    refuse_empty_class,
)
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging

HIGHEST_CONTROL = "highest_control"
RESOLVED, UNRESOLVED, BOUND = "resolved", "unresolved", "bound"


@dataclass(frozen=True)
class OperatingPointResult:
    """What was fitted.

    Attributes
    ----------
    table : pyarrow.Table
        OPERATING_POINT.
    calibration : Calibration
        What a score is worth as a probability.
    n_repeats : int
        Controls left out because they repeat another's pixels.
    """

    table: pa.Table
    calibration: Calibration
    n_positives: int
    n_negatives: int
    n_repeats: int
    smallest_resolvable_fpr: float | None


def fit_operating_point(
    config: OperatingPointConfig, *, scores: Publication, store: Publication, staging: Staging
) -> OperatingPointResult:
    """Fit a threshold for each target rate, the threshold at the highest control, and the calibration, on val_calibrate.

    Of train only the mix of classes is read, which tells what odds the model's logits start from.

    Raises
    ------
    EvaluationError
        If val_calibrate lacks a class, or the scores were made from another store.
    """
    rows = join_store(open_rows(scores, CALIBRATE), scores=scores, store=store)
    refuse_empty_class(rows, f"{CALIBRATE} of scores {scores.version}")
    distinct = distinct_rows(rows)
    curve = roc_curve(RankedScores.of(distinct["logit"], distinct["is_lens"], galaxy_numbers(distinct)))
    rule = ResolutionRule(config.min_false_positives, config.min_share_of_target)
    controls = distinct.filter(~pl.col("is_lens"))
    fitted = [_fitted_row(target, curve, controls, rule) for target in sorted(config.target_fprs, reverse=True)]
    table = pa.Table.from_pylist([*fitted, _highest_control_row(curve, controls, rule)], schema=OPERATING_POINT.schema)
    staging.write_table(None, table, OPERATING_POINT)
    staging.attributes.update(fitted_on=CALIBRATE, rule=asdict(rule), scores_version=scores.version)
    prior_logit = prior_logit_of(open_rows(scores, TRAIN)["is_lens"].to_numpy())
    return OperatingPointResult(
        table=table,
        calibration=publish_calibration(config, distinct, prior_logit, staging),
        n_positives=distinct.height - controls.height,
        n_negatives=controls.height,
        n_repeats=rows.height - distinct.height,
        smallest_resolvable_fpr=smallest_resolvable_fpr(curve, rule),
    )


def name_of(target_fpr: float) -> str:
    """Name of the operating point of a target rate, e.g. ``fpr_1e-02``; distinct rates have distinct names."""
    mantissa, exponent = np.format_float_scientific(target_fpr, trim="-", exp_digits=2).split("e")
    return f"fpr_{mantissa}e{exponent}"


def _fitted_row(target: float, curve: RocCurve, controls: pl.DataFrame, rule: ResolutionRule) -> dict[str, object]:
    found = resolve(curve, target, rule)
    row = _row(name_of(target), target, curve, controls, rule)
    if found.threshold is None:
        return row | {"status": UNRESOLVED, "reason": found.reason}
    return row | _achieved(controls, found.threshold) | {"status": RESOLVED}


def _highest_control_row(curve: RocCurve, controls: pl.DataFrame, rule: ResolutionRule) -> dict[str, object]:
    threshold = float(controls["logit"].max())  # type: ignore[arg-type]
    achieved = _achieved(controls, threshold)
    high = achieved["fpr_high"]
    bound = f"at most {high:.3g} (95 % interval)" if isinstance(high, float) else "not bounded, all are of one galaxy"
    reason = f"0 of {controls.height:,} distinct controls lie above the highest of them, so the rate is {bound}"
    return _row(HIGHEST_CONTROL, None, curve, controls, rule) | achieved | {"status": BOUND, "reason": reason}


def _row(
    name: str, target: float | None, curve: RocCurve, controls: pl.DataFrame, rule: ResolutionRule
) -> dict[str, object]:
    return {
        "operating_point": name,
        "target_fpr": target,
        "n_negatives": controls.height,
        "n_galaxies": controls["galaxy_id"].n_unique(),
        "n_distinct": controls["logit"].n_unique(),
        "smallest_resolvable_fpr": smallest_resolvable_fpr(curve, rule),
    }


def _achieved(controls: pl.DataFrame, threshold: float) -> dict[str, object]:
    above = (controls["logit"] > threshold).to_numpy()
    rate = clustered_proportion(above, galaxy_numbers(controls), exact=True)
    return {
        "threshold": threshold,
        "n_false_positives": int(above.sum()),
        "fpr": rate.value,
        "fpr_low": rate.low,
        "fpr_high": rate.high,
    }
