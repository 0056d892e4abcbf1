"""Findings about what an evaluation is about to publish. Each says which rows, how many, why it matters and what next."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import polars as pl
import pyarrow as pa

from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.evaluation.attempted import UNACCOUNTED, Attempted
from lens_pipeline.evaluation.axes import ARC_SNR
from lens_pipeline.evaluation.metrics import BOUND, NULL_TEST, NULL_TEST_P, OK
from lens_pipeline.evaluation.wording import number

_AGAIN = "dagster asset materialize --select {} -m lens_pipeline.definitions -c PRESET"
_SATURATED_SHARE = 0.001


def both_classes_present(scores: pa.Table, splits: Iterable[str]) -> Check:
    """Ask that each split that thresholds and metrics rest on holds controls and injections.

    Parameters
    ----------
    scores : pyarrow.Table
        SCORES.
    """
    rows = pl.DataFrame(scores.select(["split", "label"]))
    empty, shown = [], []
    for split in splits:
        labels = rows.filter(pl.col("split") == split)["label"]
        n_lenses = int((labels > 0).sum())
        n_controls = labels.len() - n_lenses
        shown.append(f"{split} {n_controls:,} + {n_lenses:,}")
        empty += [f"{split} has no {what}" for n, what in ((n_controls, "control"), (n_lenses, "injection")) if n == 0]
    name = "both_classes_present"
    if not empty:
        return green(name, f"controls + injections: {', '.join(shown)}")
    return red(
        name,
        f"a class is empty: {'; '.join(empty)}",
        wrong=empty,
        why="no rate can be stated without both classes.",
        next_step="give the split a larger share of the regions (region_splits), or the survey more galaxies.",
    )


def scores_are_not_saturated(scores: pa.Table, split: str) -> Check:
    """Ask that at most 0.1 % of a split's controls share its highest logit: no threshold lies between ties."""
    rows = pl.DataFrame(scores.select(["task_id", "split", "label", "logit"])).filter(pl.col("split") == split)
    controls = rows.filter(pl.col("label") == 0)
    tied = controls.filter(pl.col("logit") == rows["logit"].max())
    share = tied.height / controls.height if controls.height else 0.0
    name = "scores_are_not_saturated"
    words = f"{tied.height:,} of {controls.height:,} controls of {split} share the highest logit"
    if tied.height < 2 or share <= _SATURATED_SHARE:
        return green(name, words, tied_controls=tied.height, distinct_logits=rows["logit"].n_unique())
    return red(
        name,
        words,
        wrong=tied["task_id"],
        why="probabilities or low precision were stored where logits belong; no threshold can divide what ties.",
        next_step=f"store float32 logits: {_AGAIN.format('scores')}",
        tied_controls=tied.height,
        distinct_logits=rows["logit"].n_unique(),
    )


def completeness_rises_with_arc_snr(completeness: pa.Table) -> Check:
    """Ask that brighter arcs are found more often: the brightest cell above the faintest, no fall beyond intervals.

    A finding that blocks nothing: physics says so, yet few rows may hide it.
    """
    name = "completeness_rises_with_arc_snr"
    rows = pl.DataFrame(completeness).filter((pl.col("axis") == ARC_SNR) & pl.col("completeness_low").is_not_null())
    rows = rows.filter(pl.col("low").is_not_null())
    points = [point for point in rows["operating_point"].unique(maintain_order=True) if _cells(rows, point).height > 1]
    if not points:
        return green(name, "not measured: fewer than two cells of arc_snr hold injections", blocking=False)
    falls = [fall for point in points for fall in _falls(_cells(rows, point), point)]
    if not falls:
        ends = [_cells(rows, point)["completeness"] for point in points]
        shown = ", ".join(f"{point} {end[0]:.2f} to {end[-1]:.2f}" for point, end in zip(points, ends, strict=True))
        return green(name, f"from the faintest to the brightest arcs: {shown}", blocking=False)
    return red(
        name,
        "completeness does not rise with the arc's signal-to-noise",
        wrong=falls,
        why="a model that finds bright arcs less often than faint ones looks at something else, or has learned nothing.",
        next_step="look at the galleries of the report (brightest arcs missed), then at its loss curves.",
        blocking=False,
    )


def null_injections_score_like_controls(metrics: pa.Table, confidence: float) -> Check:
    """Ask that injections too faint to see rank like controls, by the test of `null_rank_test`. Blocks nothing.

    The interval of their AUROC is shown and doesn't decide: it tells how far the area may be from what was measured, and of few
    or nearly perfect ranks reaches to 0.5 where no chance does.

    Parameters
    ----------
    metrics : pyarrow.Table
        METRICS.
    confidence : float
        Of the test: less than 1 - confidence is too improbable for arcs that score like controls.
    """
    name = "null_injections_score_like_controls"
    found = {row["metric"]: row for row in pl.DataFrame(metrics).iter_rows(named=True)}
    row, p = (found.get(metric, {"value": None, "reason": "no such metric"}) for metric in (NULL_TEST, NULL_TEST_P))
    if row["value"] is None or p["value"] is None:
        return green(name, f"not measured: {p['reason']}", blocking=False)
    words = (
        f"AUROC {number(row['value'], row['low'], row['high'])} of {row['n_positives']:,} injections and {row['n_negatives']:,} "
        f"controls; as far from 0.5 by chance with a probability of {p['value']:.2g} (asked for: {1 - confidence:.2g} or more)"
    )
    if p["value"] >= 1 - confidence:
        return green(name, words, blocking=False, auroc=row["value"], p=p["value"])
    return red(
        name,
        f"{words}: arcs too faint to see are told from controls",
        wrong=[NULL_TEST],
        why="the injection leaves a trace that is not the arc (noise, pixel values, background), and the model has found it.",
        next_step="compare a control with the injection of the same galaxy pixel by pixel, and mend the survey stage.",
        blocking=False,
        auroc=row["value"],
        p=p["value"],
    )


def metrics_are_complete(metrics: pa.Table) -> Check:
    """Ask that each metric has n and an interval, or says why not; and that nothing undefined carries a number."""
    name = "metrics_are_complete"
    rows = pl.DataFrame(metrics)
    has_interval = pl.col("low").is_not_null() & pl.col("high").is_not_null()
    explained = pl.col("reason").fill_null("") != ""
    silent = ~(pl.col("value").is_not_null() & has_interval) & ~explained
    false_number = (pl.col("status") != OK) & pl.col("value").is_not_null()
    disordered = (pl.col("value") < pl.col("low")) | (pl.col("value") > pl.col("high"))
    unbounded = (pl.col("status") == BOUND) & ~has_interval
    nothing = (pl.col("value").is_not_null()) & (pl.col("n_positives") + pl.col("n_negatives") == 0)
    bad = rows.filter((silent | false_number | unbounded | disordered.fill_null(False) | nothing).fill_null(True))
    if bad.is_empty() and rows.height:
        return green(name, f"{rows.height:,} metrics, each with n and an interval or a reason")
    return red(
        name,
        f"{bad.height:,} of {rows.height:,} metrics lack n, an interval or a reason",
        wrong=[f"{row['metric']} on {row['split']}, {row['stratum']}" for row in bad.iter_rows(named=True)],
        count=max(1, bad.height),
        why="a number without its interval says more than the data.",
        next_step=f"mend the metric in lens_pipeline/evaluation/metrics.py, then {_AGAIN.format('evaluation_report')}",
    )


def _cells(rows: pl.DataFrame, point: str) -> pl.DataFrame:
    return rows.filter(pl.col("operating_point") == point).sort("low")


def _falls(cells: pl.DataFrame, point: str) -> list[str]:
    first, last = cells.row(0, named=True), cells.row(-1, named=True)
    falls = []
    highest_low = None
    for cell in cells.iter_rows(named=True):
        if highest_low is not None and cell["completeness_high"] < highest_low["completeness_low"]:
            falls.append(_fall(point, highest_low, cell))
        if highest_low is None or cell["completeness_low"] > highest_low["completeness_low"]:
            highest_low = cell
    if not falls and last["completeness"] <= first["completeness"] < 1:
        falls.append(_fall(point, first, last))
    return falls


def _fall(point: str, before: dict[str, Any], after: dict[str, Any]) -> str:
    values = [f"{cell['completeness']:.2f} at S/N {cell['cell']}" for cell in (before, after)]
    return f"{point}: {values[0]}, then {values[1]}"


def attempts_are_conserved(attempted: Attempted, n_scored: int) -> Check:
    """Ask that every attempted injection of test was scored, is set aside or stands in the quarantine table with a reason.

    Parameters
    ----------
    attempted : Attempted
        Injections of the manifest.
    n_scored : int
        Injections of test that have a score.
    """
    name = "attempts_are_conserved"
    n_lost, aside = attempted.lost.height, attempted.n_set_aside
    reasons = Counter(attempted.reasons) + Counter(attempted.reasons_of_no_split)
    words = f"{attempted.n:,} injections were attempted in test, {n_scored:,} scored, {n_lost:,} quarantined"
    figures: dict[str, Any] = {"n_attempted": attempted.n, "n_scored": n_scored, "n_quarantined": n_lost}
    if aside:
        words += f", {aside:,} set aside with galaxies that are known lenses"
        figures["n_set_aside"] = aside
    if n_elsewhere := attempted.of_no_split.height:
        words += f"; {n_elsewhere:,} more, in regions of which no split is known, weren't stored either"
        figures["n_of_no_split"] = n_elsewhere
    lost = reasons[UNACCOUNTED] + abs(attempted.n - n_scored - n_lost - aside)
    if not lost:
        return green(name, words, **figures)
    return red(
        name,
        f"{words}, and {lost:,} are neither",
        wrong=[f"{reason}: {n:,}" for reason, n in reasons.items()],
        count=lost,
        why="rows were lost between the manifest and the scores, and completeness would be stated without them.",
        next_step=_AGAIN.format("'stamps*'"),
    )
