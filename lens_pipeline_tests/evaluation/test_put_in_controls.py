"""What is told of the survey isn't moved by controls that were put in beside its galaxies, at whatever share."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lens_pipeline.evaluation.config import OperatingPointConfig
from lens_pipeline.evaluation.negatives import PAIRED
from lens_pipeline_tests.evaluation.conftest import Evaluated
from lens_pipeline_tests.evaluation.synthetic import Stamps, draw, publish

BUDGET = OperatingPointConfig(
    max_contaminations=[0.2],
    lens_prevalence=0.1,
    lens_prevalence_low=0.05,
    lens_prevalence_high=0.2,
    lens_prevalence_source="told",
)
OF_THE_SURVEY = {
    "average_precision_at_survey_prevalence",
    "null_test_auroc",
    "null_test_p",
    "log_loss_calibrated",
    "brier_calibrated",
    "ece_calibrated",
}


def _with_blobs(stamps: Stamps, plain: bool = True) -> Stamps:
    """Add a blob beside each control that was not trained on, which scores like a lens; or make those spirals as well."""
    labels = zip(stamps.columns["label"], stamps.split, strict=True)
    of_controls = [row for row, (label, split) in enumerate(labels) if label == 0 and split != "train"]
    for name, values in stamps.columns.items():
        values += [values[row] for row in of_controls]
        if name == "task_id":
            values[-len(of_controls) :] = [f"blob-{row}" for row in of_controls]
        if name == "pixel_hash":
            values[-len(of_controls) :] = [f"blob-{row}".encode().ljust(16) for row in of_controls]
        if name == "lens_model":
            values[-len(of_controls) :] = ["FAKE_BLOB"] * len(of_controls)
            if not plain:
                values[:] = ["SPIRAL" if value == "CONTROL" else value for value in values]
    stamps.split += [stamps.split[row] for row in of_controls]
    blobs = np.random.default_rng(5).normal(1.5, 1, len(of_controls)).astype(np.float32)
    stamps.logit = np.concatenate([stamps.logit, blobs])
    return stamps


def _drawn() -> Stamps:
    return draw({"train": 60, "val_select": 60, "val_calibrate": 400, "test": 600})


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluated, Evaluated]:
    bare = Evaluated(publish(_drawn(), tmp_path_factory.mktemp("bare")), BUDGET)
    return bare, Evaluated(publish(_with_blobs(_drawn()), tmp_path_factory.mktemp("blobs")), BUDGET)


def test_a_contamination_purity_and_calibration_are_those_of_the_surveys_galaxies(
    both: tuple[Evaluated, Evaluated],
) -> None:
    bare, blobs = both
    points, yields = (
        [
            {row["operating_point"]: row for row in table.to_pylist()}["contamination_2e-01"]
            for table in (getattr(one.fit, name) for one in both)
        ]
        for name in ("table", "survey_yield")
    )
    assert points[0] == points[1]
    assert yields[0] == yields[1]
    assert blobs.fit.n_negatives == 2 * bare.fit.n_negatives
    assert blobs.fit.calibration.calibrator == bare.fit.calibration.calibrator
    assert blobs.fit.calibration.table == bare.fit.calibration.table
    assert blobs.fit.calibration.reliability == bare.fit.calibration.reliability


def test_the_controls_beside_a_rate_of_a_kind_are_those_that_it_is_of(both: tuple[Evaluated, Evaluated]) -> None:
    bare, blobs = (
        {row["operating_point"]: row for row in one.fit.by_negatives.to_pylist() if row["negatives"] == PAIRED}
        for one in both
    )
    assert bare["contamination_2e-01"]["n_negatives"] > 0
    assert blobs["contamination_2e-01"] == bare["contamination_2e-01"]
    for name in ("fpr_1e-01", "highest_control"):
        assert blobs[name]["n_negatives"] == 2 * bare[name]["n_negatives"]


def test_rates_are_of_every_control_and_the_report_says_what_leaves_the_put_in_out(
    both: tuple[Evaluated, Evaluated],
) -> None:
    (bare, _), (blobs, _) = (one.report() for one in both)
    rows = [
        {row["metric"]: row for row in one.table.to_pylist() if (row["split"], row["stratum"]) == ("test", "all")}
        for one in (bare, blobs)
    ]
    for name in OF_THE_SURVEY:
        assert rows[1][name]["n_negatives"] == rows[0][name]["n_negatives"], name
        assert rows[1][name]["value"] == pytest.approx(rows[0][name]["value"], rel=1e-9), name
    for name in ("auroc", "fpr_at_fpr_1e-01", "fpr_at_contamination_2e-01", "log_loss"):
        assert rows[1][name]["n_negatives"] == 2 * rows[0][name]["n_negatives"], name
    said = "400 of 800 distinct controls in val_calibrate are no galaxies as the survey has them (400 FAKE_BLOB)"
    text = [re.sub(r"\s+", " ", one.page.decode()) for one in (bare, blobs)]
    assert said in text[1]
    assert (
        "of this mix: on test at every threshold, on val_calibrate at those for an FPR and at the highest control"
        in text[1]
    )
    assert "Rows of a contamination leave out controls that were put in" in text[1]
    assert "Rows of a contamination leave out controls that were put in" not in text[0]
    assert "are left out here" in text[1]
    assert "are no galaxies as the survey" not in text[0]
    assert "are left out here" not in text[0]


def test_without_one_galaxy_as_the_survey_has_them_nothing_is_told_of_the_survey(
    evaluate: Callable[[Stamps], Evaluated], tmp_path: Path
) -> None:
    found = Evaluated(publish(_with_blobs(_drawn(), plain=False), tmp_path), BUDGET)
    point = {row["operating_point"]: row for row in found.fit.table.to_pylist()}
    why = "no control is a galaxy as the survey has them (lens_model CONTROL)"
    assert point["contamination_2e-01"]["reason"] == why
    assert point["fpr_1e-01"]["status"] == "resolved"
    for row in found.fit.survey_yield.to_pylist():
        assert (row["purity"], row["purity_low"], row["purity_high"], row["fpr"]) == (None,) * 4
        assert row["reason"].split("; ")[0] == why
        assert "there are no rows" not in row["reason"]
    assert "0 galaxies with controls" in str(found.fit.calibration.calibrator.why_no_p_lens)
    report, _ = found.report()
    page = report.page.decode()
    beside = page[page.index("Paired and unpaired controls") :].partition("</details>")[0]
    assert "no control is a galaxy as the survey has them" in beside
    metrics = {
        row["metric"]: row for row in report.table.to_pylist() if (row["split"], row["stratum"]) == ("test", "all")
    }
    for name in OF_THE_SURVEY:
        assert (metrics[name]["value"], metrics[name]["reason"]) == (None, why), name
    assert metrics["auroc"]["value"] is not None
