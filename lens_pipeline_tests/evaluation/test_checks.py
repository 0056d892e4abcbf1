from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
from scipy import special

from lens_pipeline.contracts.catalogue import COMPLETENESS, METRICS
from lens_pipeline.contracts.checks import Check
from lens_pipeline.evaluation.checks import (
    both_classes_present,
    completeness_rises_with_arc_snr,
    metrics_are_complete,
    null_injections_score_like_controls,
    scores_are_not_saturated,
)
from lens_pipeline_tests.evaluation.conftest import Evaluated
from lens_pipeline_tests.evaluation.synthetic import Stamps, draw, publish


def _metric(**changed: object) -> dict[str, object]:
    row: dict[str, object] = {
        "metric": "auroc",
        "split": "test",
        "stratum": "all",
        "value": 0.9,
        "low": 0.88,
        "high": 0.92,
        "n_positives": 100,
        "n_negatives": 100,
        "n_clusters": 100,
        "unit": "fraction",
        "status": "ok",
        "reason": None,
    }
    return row | changed


def _metrics(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=METRICS.schema)


def _cells(*values: float, n: int = 400) -> pa.Table:
    rows = []
    for i, value in enumerate(values):
        row: dict[str, object] = dict.fromkeys(COMPLETENESS.schema.names)
        row |= {"operating_point": "fpr_1e-02", "axis": "arc_snr", "cell": f"{i} to {i + 1}", "low": float(i)}
        row |= {"high": i + 1.0, "n": n, "n_galaxies": n, "n_recovered": 0, "status": "ok", "completeness": value}
        row |= {"completeness_low": max(0.0, value - 0.05), "completeness_high": min(1.0, value + 0.05)}
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=COMPLETENESS.schema)


def test_a_healthy_evaluation_is_green(survey: Evaluated) -> None:
    scores = survey.chain.scores.read_table()
    report, _ = survey.report()
    completeness, _ = survey.completeness()
    assert both_classes_present(scores, ("val_calibrate", "test")).passed
    assert scores_are_not_saturated(scores, "val_calibrate").passed
    assert completeness_rises_with_arc_snr(completeness.table).passed
    assert null_injections_score_like_controls(report.table, report.null_test_confidence).passed
    assert metrics_are_complete(report.table).passed


def test_a_split_without_a_class_is_red_and_named(survey: Evaluated) -> None:
    rows = pl.DataFrame(survey.chain.scores.read_table())
    table = rows.filter((pl.col("split") != "test") | (pl.col("label") == 1)).to_arrow()
    check = both_classes_present(table, ("val_calibrate", "test"))
    assert not check.passed
    assert check.first == ("test has no control",)


def test_saturated_probabilities_in_place_of_logits_are_red(tmp_path: Path) -> None:
    stamps = draw({"train": 5, "val_select": 5, "val_calibrate": 300, "test": 5})
    stamps.logit = special.expit(30 * stamps.logit)
    check = scores_are_not_saturated(publish(stamps, tmp_path).scores.read_table(), "val_calibrate")
    assert not check.passed
    assert check.count > 10


def test_completeness_that_falls_beyond_its_intervals_is_found_and_blocks_nothing() -> None:
    check = completeness_rises_with_arc_snr(_cells(0.2, 0.8, 0.5, 0.9))
    assert not check.passed
    assert not check.blocking
    assert "0.80 at S/N 1 to 2, then 0.50 at S/N 2 to 3" in check.first[0]
    assert not completeness_rises_with_arc_snr(_cells(0.5, 0.5)).passed
    assert completeness_rises_with_arc_snr(_cells(0.2, 0.8, 0.78, 0.9)).passed
    assert "not measured" in completeness_rises_with_arc_snr(_cells(0.5)).what


def test_injections_too_faint_to_see_that_are_told_from_controls_are_red() -> None:
    def judged(p: float | None, confidence: float) -> Check:
        area = _metric(metric="null_test_auroc", value=0.89, low=0.45, high=0.99, n_positives=21)
        chance = _metric(metric="null_test_p", value=p, low=None, high=None, reason="no such arcs")
        return null_injections_score_like_controls(_metrics(area, chance), confidence)

    told = judged(2e-9, 0.999)
    assert not told.passed
    assert "AUROC 0.89 (0.45 to 0.99) of 21 injections" in told.what
    assert "by chance with a probability of 2e-09" in told.what
    assert judged(0.01, 0.999).passed
    assert not judged(0.01, 0.95).passed
    assert judged(None, 0.999).what == "not measured: no such arcs"


def test_a_model_that_sees_a_fingerprint_fails_the_null_test(evaluate: Callable[[Stamps], Evaluated]) -> None:
    stamps = draw({"train": 5, "val_select": 5, "val_calibrate": 50, "test": 1200})
    stamps.logit += 2 * pl.Series(stamps.columns["label"]).to_numpy()
    report, _ = evaluate(stamps).report()
    check = null_injections_score_like_controls(report.table, report.null_test_confidence)
    assert not check.passed
    assert "trace that is not the arc" in check.why


def test_a_metric_without_interval_reason_or_n_is_red() -> None:
    assert metrics_are_complete(_metrics(_metric())).passed
    assert metrics_are_complete(_metrics(_metric(low=None, high=None, reason="few galaxies"))).passed
    for wrong in (
        {"low": None},
        {"value": None, "low": None, "high": None, "status": "undefined"},
        {"status": "unresolved", "reason": "few controls"},
        {"n_positives": 0, "n_negatives": 0},
        {"status": "bound", "value": None, "high": None, "reason": "nothing above"},
        {"value": 0.5},
    ):
        check = metrics_are_complete(_metrics(_metric(), _metric(metric="other", **wrong)))
        assert not check.passed, wrong
        assert check.first == ("other on test, all",)
    assert not metrics_are_complete(_metrics()).passed
