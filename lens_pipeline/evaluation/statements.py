"""What the numbers of one evaluation can and cannot resolve, in sentences made from its tables alone."""

from typing import Any

import polars as pl

from lens_pipeline.evaluation.looks import LOOKS
from lens_pipeline.evaluation.metrics import ALL_ROWS, NULL_TEST, NULL_TEST_P
from lens_pipeline.evaluation.operating_point import BOUND, UNRESOLVED
from lens_pipeline.evaluation.regions import LEFT_OUT
from lens_pipeline.evaluation.scored_rows import CALIBRATE, TEST
from lens_pipeline.evaluation.wording import clusters, count, metric_words, number, rate_words, threshold_words


def claims(metrics: pl.DataFrame, completeness: pl.DataFrame, primary: str) -> list[str]:
    """First lines of the report: ranking, and what is found at one frozen threshold."""
    lines = []
    area = _row(metrics, "auroc")
    rests = f"{count(area['n_positives'], 'injection')} and {count(area['n_negatives'], 'distinct control')}"
    lines.append(
        f"{metric_words('auroc')} on {TEST}: {number(area['value'], area['low'], area['high'])}, from {rests} in "
        f"{clusters(area)}{_because(area)}."
    )
    found = completeness.filter((pl.col("operating_point") == primary) & (pl.col("axis") == "all"))
    false = _row(metrics, f"fpr_at_{primary}")
    for cell in found.iter_rows(named=True):
        interval = number(cell["completeness"], cell["completeness_low"], cell["completeness_high"])
        rate = number(false["value"], false["low"], false["high"])
        lines.append(
            f"At the threshold {threshold_words(primary)}, completeness is {interval} over "
            f"{count(cell['n'], 'injection')} in {count(cell['n_galaxies'], 'galaxy', 'galaxies')}{_because(cell)}; "
            f"the false-positive rate measured on {TEST} is {rate}, {_k_of_n(false)}{_because(false)}."
        )
        if cell["total"] is not None:
            total = number(cell["total"], cell["total_low"], cell["total_high"])
            lines.append(
                f"Of all such lenses whose galaxy alone meets the cuts of the parent sample, {total} are found at this "
                f"threshold: {cell['parent_share']:.3g} of those that the classifier finds are parents."
            )
    return lines


def cross_fit_claims(whole: dict[str, Any]) -> list[str]:
    """Line of the report on a cross-validation.

    Parameters
    ----------
    whole : dict
        The row of FOLD_THRESHOLDS for all folds.
    """
    interval = number(whole["completeness"], whole["completeness_low"], whole["completeness_high"])
    return [
        f"Cross-fitted, each galaxy judged by the model that was not trained on it, above the highest control of its fold: "
        f"completeness {interval} over {count(whole['n'], 'injection')} in {count(whole['n_galaxies'], 'galaxy', 'galaxies')}; "
        f"the false-positive rate there is at most {whole['fpr_high']:.3g} (95 % interval, from "
        f"{count(whole['n_negatives'], 'distinct control')})."
    ]


def limits(operating_points: pl.DataFrame, metrics: pl.DataFrame, completeness: pl.DataFrame) -> list[str]:
    """List what can't be told from so many rows, and why."""
    return [
        *_rate_limits(operating_points),
        *_test_limits(metrics),
        *_cell_limits(completeness),
        _null_test(metrics),
        "Completeness is told of the injected population, inside the range of its parameters, and of nothing beyond it.",
    ]


def undiscovered_lenses(survey_yield: pl.DataFrame, primary: str) -> str:
    """Say what lenses that nobody has found yet may do to false-positive rates.

    Parameters
    ----------
    survey_yield : polars.DataFrame
        SURVEY_YIELD.
    """
    row = survey_yield.row(by_predicate=pl.col("operating_point") == primary, named=True)
    if row["lens_floor_high"] == 0:
        return "Galaxies are made up, so no control is a lens that nobody has found yet."
    line = "Controls are taken to hold no lens; one that nobody has found yet counts as a false positive."
    if row["true_fpr_low"] is None or row["fpr_high"] is None:
        return f"{line} What that does to the false-positive rate isn't known: {row['reason']}."
    return (
        f"{line} At the threshold {threshold_words(primary)} such lenses may make up {row['lens_floor_high']:.2g} of the rate of "
        f"{CALIBRATE}: galaxies that are no lenses are mistaken at a rate between {row['true_fpr_low']:.2g} and "
        f"{row['fpr_high']:.2g} (95 % interval, from as many lenses among controls as may be to none). Purity and candidates are "
        "told as if controls held none; their intervals reach to as many as in the survey."
    )


def put_in_beside(controls: dict[str, Any] | None) -> list[str]:
    """Say which controls are no galaxies as the survey has them, and what leaves them out; nothing where there are none.

    Parameters
    ----------
    controls : dict, optional
        `negatives.put_in` of val_calibrate; None of an operating point that an earlier version of the pipeline made.
    """
    if not controls or not controls["put_in"]:
        return []
    most_first = sorted(controls["put_in"].items(), key=lambda kind: -kind[1])
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in most_first)
    put_in, all_of_them = sum(controls["put_in"].values()), count(controls["n"], "distinct control")
    return [
        f"{put_in:,} of {all_of_them} in {CALIBRATE} are no galaxies as the survey has them ({kinds}): they were put in beside "
        f"these, in a share that somebody chose. False-positive rates are of this mix: on {TEST} at every threshold, on "
        f"{CALIBRATE} at those for an FPR and at the highest control. Thresholds for a contamination and their rates on "
        f"{CALIBRATE}, what thresholds would give in the survey (FPR, purity, candidates), calibrated probabilities, the null "
        "test and the average precision at the survey's share of lenses leave them out."
    ]


def looks_at_test(metrics: pl.DataFrame) -> str:
    """Say whether the figures of test are blind."""
    n = round(_row(metrics, LOOKS)["value"])
    if n == 1:
        return (
            f"Nothing of this model was evaluated on {TEST} before these scores and thresholds: the figures are blind."
        )
    return (
        f"{n} pairs of scores and thresholds of this model were evaluated on {TEST}, this one included. What was changed in "
        "between may have been chosen by what they showed: the figures are no longer blind."
    )


def _rate_limits(operating_points: pl.DataFrame) -> list[str]:
    first = operating_points.row(0, named=True)
    fitted = (
        f"Thresholds were fitted on {count(first['n_negatives'], 'distinct control')} of "
        f"{count(first['n_galaxies'], 'galaxy', 'galaxies')} in {CALIBRATE}"
    )
    smallest = first["smallest_resolvable_fpr"]
    can = "which resolve no false-positive rate" if smallest is None else f"which resolve rates down to {smallest:.3g}"
    lines = [f"{fitted}, {can}."]
    unresolved = operating_points.filter(pl.col("status") == UNRESOLVED)
    if unresolved.height:
        rates = unresolved.drop_nulls("target_fpr")
        if rates.height:
            shown = ", ".join(f"{rate:g}" for rate in rates["target_fpr"])
            lines.append(f"No threshold was fitted for FPR {shown}: {rates['reason'][0]}.")
        for point in unresolved.drop_nulls("max_contamination").iter_rows(named=True):
            lines.append(
                f"No threshold was fitted for a contamination of {point['max_contamination']:g}: {point['reason']}."
            )
    for point in operating_points.filter(pl.col("status") == BOUND).iter_rows(named=True):
        lines.append(f"The threshold {threshold_words(point['operating_point'])}: {point['reason']}.")
    return lines


def _test_limits(metrics: pl.DataFrame) -> list[str]:
    whole = (pl.col("split") == TEST) & (pl.col("stratum") == ALL_ROWS)
    mine = metrics.filter(whole & (pl.col("status") == UNRESOLVED))
    mine = mine.filter(pl.col("metric").str.starts_with("tpr_at_"))
    lines = []
    if mine.height:
        rates = ", ".join(rate_words(name.removeprefix("tpr_at_")) for name in mine["metric"])
        lines.append(f"The ROC of {TEST} is unresolved at FPR {rates}: {mine['reason'][0]}.")
    area = _row(metrics, "auroc")
    if area["value"] is not None and area["low"] is None:
        lines.append(f"Ranking metrics on {TEST}: {area['reason']}.")
    intervals = metrics.filter((pl.col("split") == TEST) & pl.col("low").is_not_null())
    without = intervals.filter(pl.col("reason").fill_null("").str.starts_with(LEFT_OUT))
    if without.height:
        why = "; ".join(without["reason"].str.strip_prefix(f"{LEFT_OUT}: ").unique(maintain_order=True))
        lines.append(
            f"{without.height:,} of {intervals.height:,} intervals on {TEST} take galaxies alone as independent and leave out "
            f"how much regions differ, which isn't known: {why}."
        )
    return lines


def _cell_limits(completeness: pl.DataFrame) -> list[str]:
    lines = []
    undefined = completeness.filter((pl.col("status") == "undefined") & (pl.col("n") > 0))
    for axis, reason in undefined.select("axis", "reason").unique(maintain_order=True).iter_rows():
        lines.append(f"Completeness against {axis} is undefined: {reason}.")
    small = completeness.filter(pl.col("status") == "small")
    if small.height:
        lines.append(
            f"{small.height:,} of {completeness.height:,} cells of completeness rest on few effective injections and are drawn "
            "hollow: read their intervals, not their values."
        )
    return lines


def _null_test(metrics: pl.DataFrame) -> str:
    row = _row(metrics, NULL_TEST)
    name = metric_words(NULL_TEST)
    if row["value"] is None:
        return f"{name}: not measured, {row['reason']}."
    measured = f"{name}: {number(row['value'], row['low'], row['high'])} from {count(row['n_positives'], 'injection')}"
    told = f"{measured}{_because(row)}; 0.5 means that nothing but the arc gives an injection away"
    # An earlier version of the pipeline didn't write it.
    p = metrics.filter(pl.col("metric") == NULL_TEST_P)["value"]
    return f"{told}, and chance alone is as far from it with a probability of {p[0]:.2g}." if p.len() else f"{told}."


def _row(metrics: pl.DataFrame, name: str) -> dict[str, Any]:
    whole = (pl.col("split") == TEST) & (pl.col("stratum") == ALL_ROWS)
    return metrics.row(by_predicate=(pl.col("metric") == name) & whole, named=True)


def _k_of_n(rate: dict[str, Any]) -> str:
    if rate["value"] is None:
        return "not measured"
    return f"{round(rate['value'] * rate['n_negatives']):,} of {count(rate['n_negatives'], 'distinct control')}"


def _because(row: dict[str, Any]) -> str:
    """Say why, but of regions: `limits` says that once for all."""
    return f" ({row['reason']})" if row["reason"] and not row["reason"].startswith(LEFT_OUT) else ""
