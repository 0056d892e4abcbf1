"""The operating_point stage: thresholds and calibration from val_calibrate alone, then frozen.

The published version's hash names the thresholds; whoever evaluates test rows hands it to `sealed.open_test_rows`.
"""

from dataclasses import asdict, dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from lens_pipeline.contracts.catalogue import (
    BY_NEGATIVES,
    MATCHED_FILTER_POINT,
    OPERATING_POINT,
    SURVEY_YIELD,
    TOP_CONTROLS,
)
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.evaluation.calibration import Calibration, prior_logit_of, publish_calibration
from lens_pipeline.evaluation.config import OperatingPointConfig
from lens_pipeline.evaluation.contamination import fpr_on_fitted, resolve_contamination
from lens_pipeline.evaluation.negatives import none_of_survey, of_survey, pairing_strata, put_in
from lens_pipeline.evaluation.prevalence import Prevalence
from lens_pipeline.evaluation.ranking import RankedScores, RocCurve, roc_curve
from lens_pipeline.evaluation.resolution import ResolutionRule, Resolved, resolve, smallest_resolvable_fpr
from lens_pipeline.evaluation.scored_rows import (
    CALIBRATE,
    MATCHED_FILTER,
    TRAIN,
    by_matched_filter,
    distinct_rows,
    galaxy_numbers,
    join_store,
    open_rows,
    refuse_empty_class,
)
from lens_pipeline.evaluation.survey_yield import Survey, survey_yield
from lens_pipeline.evaluation.top_controls import top_controls
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging

HIGHEST_CONTROL = "highest_control"
CONTAMINATION = "contamination_"
RESOLVED, UNRESOLVED, BOUND = "resolved", "unresolved", "bound"


@dataclass(frozen=True)
class OperatingPointResult:
    """What was fitted.

    Attributes
    ----------
    table, by_negatives, survey_yield : pyarrow.Table
        OPERATING_POINT, BY_NEGATIVES and SURVEY_YIELD.
    calibration : Calibration
        What a score is worth as a probability.
    n_repeats : int
        Controls left out because they repeat another's pixels.
    """

    table: pa.Table
    by_negatives: pa.Table
    survey_yield: pa.Table
    calibration: Calibration
    n_positives: int
    n_negatives: int
    n_repeats: int
    smallest_resolvable_fpr: float | None


def fit_operating_point(
    config: OperatingPointConfig,
    *,
    scores: Publication,
    store: Publication,
    staging: Staging,
    survey: Survey | None = None,
) -> OperatingPointResult:
    """Fit thresholds for target rates and contaminations, that at the highest control, and the calibration, on val_calibrate.

    The matched filter, where it has looked at the rows, gets thresholds of its own for the same targets.

    Of train only the mix of classes is read, which tells what odds the model's logits start from.

    Parameters
    ----------
    survey : Survey, optional
        What is known of the galaxies that a finder would be run on.

    Raises
    ------
    EvaluationError
        If val_calibrate or train lacks a class, or the scores were made from another store.
    """
    rows = join_store(open_rows(scores, CALIBRATE), scores=scores, store=store)
    refuse_empty_class(rows, f"{CALIBRATE} of scores {scores.version}")
    distinct = distinct_rows(rows)
    rule = ResolutionRule(config.min_false_positives, config.min_share_of_target)
    prevalence = Prevalence.of(config)
    contract = DatasetContract.model_validate(store.attributes["dataset_contract"])
    asked = _Asked(config, rule, prevalence, contract)
    curve, controls, alike = _curve(distinct), distinct.filter(~pl.col("is_lens")), of_survey(distinct, contract)
    table = pa.Table.from_pylist(_thresholds(asked, distinct), schema=OPERATING_POINT.schema)
    kinds = [
        record
        for name, part in pairing_strata(distinct).items()
        for record in _of_kind(asked, name, part.filter(~pl.col("is_lens")), distinct, table)
    ]
    by_negatives = pa.Table.from_pylist(kinds, schema=BY_NEGATIVES.schema)
    why = none_of_survey(alike, distinct, contract)
    yields = survey_yield(alike, table, prevalence, survey or Survey(), no_controls=why)
    staging.write_table(None, table, OPERATING_POINT)
    if (filtered := by_matched_filter(distinct, scores)) is not None:
        own = pa.Table.from_pylist(_thresholds(asked, filtered), schema=MATCHED_FILTER_POINT.schema)
        staging.write_table(MATCHED_FILTER, own, MATCHED_FILTER_POINT)
    staging.write_table("by_negatives", by_negatives, BY_NEGATIVES)
    staging.write_table("survey_yield", yields, SURVEY_YIELD)
    staging.attributes.update(
        fitted_on=CALIBRATE,
        rule=asdict(rule),
        scores_version=scores.version,
        prevalence=prevalence.as_attributes(),
        controls=put_in(distinct, contract),
    )
    trained = open_rows(scores, TRAIN)
    refuse_empty_class(
        trained, f"{TRAIN} of scores {scores.version}", "what odds the model's logits start from isn't known"
    )
    prior_logit = prior_logit_of(trained["is_lens"].to_numpy())
    calibration = publish_calibration(config, distinct, alike, prior_logit, staging)
    listed = top_controls(
        distinct, pl.DataFrame(table), calibration.calibrator, prevalence.value, store, config.n_listed_controls
    )
    staging.write_table("top_controls", listed, TOP_CONTROLS)
    staging.attributes["n_listed_controls"] = config.n_listed_controls
    return OperatingPointResult(
        table=table,
        by_negatives=by_negatives,
        survey_yield=yields,
        calibration=calibration,
        n_positives=distinct.height - controls.height,
        n_negatives=controls.height,
        n_repeats=rows.height - distinct.height,
        smallest_resolvable_fpr=smallest_resolvable_fpr(curve, rule),
    )


def name_of(target_fpr: float) -> str:
    """Name of the operating point of a target rate, e.g. ``fpr_1e-02``; distinct rates have distinct names."""
    return f"fpr_{_scientific(target_fpr)}"


@dataclass(frozen=True)
class _Asked:
    """What thresholds are asked for, and when they count as resolved."""

    config: OperatingPointConfig
    rule: ResolutionRule
    prevalence: Prevalence
    contract: DatasetContract


def _thresholds(asked: _Asked, rows: pl.DataFrame) -> list[dict[str, object]]:
    """Rows of OPERATING_POINT: rates with all controls among the rows, contaminations with those that the survey has."""
    curve, controls = _curve(rows), rows.filter(~pl.col("is_lens"))
    about = _about(curve, controls, asked.rule)
    records = []
    for rate in sorted(asked.config.target_fprs, reverse=True):
        aim = {"operating_point": name_of(rate), "target_fpr": rate}
        records.append(about | aim | _fitted(resolve(curve, rate, asked.rule), controls, for_contamination=False))
    for budget in sorted(asked.config.max_contaminations, reverse=True):
        aim = {"operating_point": f"{CONTAMINATION}{_scientific(budget)}", "max_contamination": budget}
        records.append(aim | _within_budget(asked, rows, budget))
    return [*records, about | _highest_control(controls)]


def _within_budget(asked: _Asked, rows: pl.DataFrame, budget: float) -> dict[str, object]:
    alike = of_survey(rows, asked.contract)
    controls = alike.filter(~pl.col("is_lens"))
    if reason := none_of_survey(alike, rows, asked.contract):
        counts = dict.fromkeys(("n_negatives", "n_galaxies", "n_distinct"), 0)
        return counts | {"smallest_resolvable_fpr": None, "status": UNRESOLVED, "reason": reason}
    curve, lenses = _curve(alike), alike.filter(pl.col("is_lens"))
    found = resolve_contamination(curve, lenses, budget, asked.prevalence, asked.rule)
    return _about(curve, controls, asked.rule) | _fitted(found, controls, for_contamination=True)


def _about(curve: RocCurve, controls: pl.DataFrame, rule: ResolutionRule) -> dict[str, object]:
    return {
        "n_negatives": controls.height,
        "n_galaxies": controls["galaxy_id"].n_unique(),
        "n_distinct": controls["logit"].n_unique(),
        "smallest_resolvable_fpr": smallest_resolvable_fpr(curve, rule),
    }


def _fitted(found: Resolved, controls: pl.DataFrame, *, for_contamination: bool) -> dict[str, object]:
    if found.threshold is None:
        return {"status": UNRESOLVED, "reason": found.reason}
    return _achieved(controls, found.threshold, for_contamination=for_contamination) | {"status": RESOLVED}


def _highest_control(controls: pl.DataFrame) -> dict[str, object]:
    achieved = _achieved(controls, float(controls["logit"].max()))  # type: ignore[arg-type]
    high = achieved["fpr_high"]
    bound = f"at most {high:.3g} (95 % interval)" if isinstance(high, float) else "not bounded, all are of one galaxy"
    reason = f"0 of {controls.height:,} distinct controls lie above the highest of them, so the rate is {bound}"
    if isinstance(high, float) and achieved["reason"]:
        reason += f"; {achieved['reason']}"
    return {"operating_point": HIGHEST_CONTROL} | achieved | {"status": BOUND, "reason": reason}


def _achieved(controls: pl.DataFrame, threshold: float, *, for_contamination: bool = False) -> dict[str, object]:
    rate = fpr_on_fitted(controls, threshold, for_contamination=for_contamination)
    return {
        "threshold": threshold,
        "n_false_positives": int((controls["logit"] > threshold).sum()),
        "fpr": rate.value,
        "fpr_low": rate.low,
        "fpr_high": rate.high,
        "reason": rate.reason,
    }


def _of_kind(
    asked: _Asked, kind: str, controls: pl.DataFrame, rows: pl.DataFrame, frozen: pa.Table
) -> list[dict[str, object]]:
    """Rows of BY_NEGATIVES of one kind of controls; of a contamination, of those among them that the survey has."""
    if controls.is_empty():
        nothing = {"negatives": kind, "n_negatives": 0, "n_galaxies": 0, "status": UNRESOLVED}
        reason = f"val_calibrate has no {kind}"
        return [nothing | {"operating_point": name, "reason": reason} for name in frozen["operating_point"].to_pylist()]
    mine = pl.concat([rows.filter(pl.col("is_lens")), controls])
    records = []
    for own, point in zip(_thresholds(asked, mine), frozen.to_pylist(), strict=True):
        record = {name: own.get(name) for name in ("operating_point", "n_negatives", "n_galaxies", "status", "reason")}
        record |= {f"own_{name}": own.get(name) for name in ("threshold", "fpr", "fpr_low", "fpr_high")}
        if point["threshold"] is not None:
            kept = point["max_contamination"] is not None
            judged = of_survey(controls, asked.contract) if kept else controls
            at_frozen = _achieved(judged, point["threshold"], for_contamination=kept)
            record |= {name: at_frozen[name] for name in ("fpr", "fpr_low", "fpr_high")}
        records.append(record | {"negatives": kind})
    return records


def _curve(rows: pl.DataFrame) -> RocCurve:
    return roc_curve(RankedScores.of(rows["logit"], rows["is_lens"], galaxy_numbers(rows)))


def _scientific(value: float) -> str:
    mantissa, exponent = np.format_float_scientific(value, trim="-", exp_digits=2).split("e")
    return f"{mantissa}e{exponent}"
