from pathlib import Path

import pytest

from lens_pipeline.evaluation import looks
from lens_pipeline.evaluation.config import OperatingPointConfig, ReportConfig
from lens_pipeline.evaluation.report import ReportResult
from lens_pipeline.evaluation.sealed import open_test_rows
from lens_pipeline_tests.evaluation.conftest import Evaluated
from lens_pipeline_tests.evaluation.synthetic import DATASET, draw, publish

MODEL = "default"


def _report(evaluated: Evaluated) -> ReportResult:
    """Build and commit a report that knows what was published before."""
    past = looks.published_reads(evaluated.chain.home, DATASET, MODEL)
    return evaluated.report(ReportConfig(n_bootstrap=200, n_gallery=0), past_reads=past)[0]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ReportResult]:
    """A first look, the same again, and one with other thresholds."""
    folder: Path = tmp_path_factory.mktemp("looks")
    stamps = draw({"train": 10, "val_select": 10, "val_calibrate": 60, "test": 60})
    first = Evaluated(publish(stamps, folder))
    made = {"first": _report(first), "again": _report(first)}
    other = Evaluated(first.chain, OperatingPointConfig(target_fprs=[0.2]))
    return made | {"other thresholds": _report(other)}


def _count(report: ReportResult) -> float:
    return next(row["value"] for row in report.table.to_pylist() if row["metric"] == "test_looks")


def test_the_first_look_is_blind_and_the_same_again_is_no_second_one(reports: dict[str, ReportResult]) -> None:
    for name in ("first", "again"):
        assert _count(reports[name]) == 1
        assert looks.looked_at_once(reports[name].looks).passed
        assert "the figures are blind" in reports[name].page.decode()
    assert reports["first"].page == reports["again"].page


def test_a_look_with_other_thresholds_is_shown_as_the_second(reports: dict[str, ReportResult]) -> None:
    report = reports["other thresholds"]
    assert _count(report) == 2
    check = looks.looked_at_once(report.looks)
    assert not check.passed
    assert not check.blocking
    page = report.page.decode()
    assert "2 pairs of scores and thresholds of this model were evaluated on test" in page
    assert all(look.operating_point in page for look in report.looks)
    assert {look.readers for look in report.looks} == {("completeness", "evaluation_report")}


def test_reads_of_another_model_are_not_counted(tmp_path: Path) -> None:
    first = Evaluated(publish(draw({"train": 5, "val_select": 5, "val_calibrate": 30, "test": 30}), tmp_path))
    first.completeness()
    assert len(looks.published_reads(first.chain.home, DATASET, MODEL)) == 1
    assert looks.published_reads(first.chain.home, DATASET, "another") == []
    with first.chain.stage("model_comparison", first.chain.scores) as staging:
        staging.attributes["test_reads"] = [
            {"by": "model_comparison", "scores": "another's", "operating_point": "its own"}
        ]
        staging.write_json("told.json", {})
        staging.commit()
    assert len(looks.published_reads(first.chain.home, DATASET, MODEL)) == 1


def test_a_comparison_of_another_model_with_this_one_is_a_look_at_this_one(tmp_path: Path) -> None:
    stamps = draw({"train": 10, "val_select": 10, "val_calibrate": 60, "test": 60})
    first = Evaluated(publish(stamps, tmp_path))
    home, scores = first.chain.home, first.chain.scores
    with home.stage(DATASET, "model_comparison", model="rival", inputs=[scores, first.operating_point]) as staging:
        open_test_rows(scores, first.operating_point, staging)
        staging.write_json("told.json", {})
        staging.commit()
    assert [read["by"] for read in looks.published_reads(home, DATASET, MODEL)] == ["model_comparison"]
    report = _report(Evaluated(first.chain, OperatingPointConfig(target_fprs=[0.2])))
    assert _count(report) == 2
    assert "the figures are blind" not in report.page.decode()
