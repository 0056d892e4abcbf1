from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from lens_pipeline.contracts.errors import EvaluationError
from lens_pipeline.evaluation.config import OperatingPointConfig
from lens_pipeline.evaluation.operating_point import name_of
from lens_pipeline_tests.evaluation.conftest import Evaluated
from lens_pipeline_tests.evaluation.synthetic import Stamps, draw

Evaluate = Callable[[Stamps], Evaluated]


def _rows(evaluated: Evaluated) -> dict[str, dict[str, object]]:
    return {row["operating_point"]: row for row in evaluated.fit.table.to_pylist()}


def test_thresholds_keep_the_rate_on_val_calibrate_alone(survey: Evaluated) -> None:
    scores = pl.DataFrame(survey.chain.scores.read_table()).filter(pl.col("split") == "val_calibrate")
    controls = scores.filter(pl.col("label") == 0)["logit"].cast(pl.Float64)
    row = _rows(survey)["fpr_1e-02"]
    assert row["status"] == "resolved"
    assert row["n_false_positives"] == (controls > row["threshold"]).sum() == 6
    assert row["fpr"] == pytest.approx(0.01)
    assert row["fpr_low"] < 0.01 < row["fpr_high"]  # type: ignore[operator]


def test_the_rate_that_600_controls_can_not_resolve_has_no_threshold(survey: Evaluated) -> None:
    row = _rows(survey)["fpr_1e-03"]
    assert (row["status"], row["threshold"], row["fpr"], row["n_false_positives"]) == ("unresolved", None, None, None)
    assert row["smallest_resolvable_fpr"] == pytest.approx(5 / 600)
    assert "0.00833" in str(row["reason"])


def test_the_highest_control_is_a_bound_with_zero_of_n(ten_galaxies: Evaluated) -> None:
    rows = _rows(ten_galaxies)
    assert all(row["status"] == "unresolved" for name, row in rows.items() if name != "highest_control")
    highest = rows["highest_control"]
    assert (highest["status"], highest["n_false_positives"], highest["n_negatives"]) == ("bound", 0, 5)
    assert highest["fpr_high"] == pytest.approx(1 - 0.025 ** (1 / 5))


def test_identical_repeats_of_a_control_do_not_resolve_a_smaller_rate(evaluate: Evaluate) -> None:
    stamps = draw({"train": 20, "val_select": 20, "val_calibrate": 40, "test": 40})
    wanted = [i for i, split in enumerate(stamps.split) if split == "val_calibrate" and stamps.columns["label"][i] == 0]
    for copy in range(20):
        for i in wanted:
            for name, values in stamps.columns.items():
                values.append(f"{values[i]}-copy{copy}" if name == "task_id" else values[i])
            stamps.split.append("val_calibrate")
    stamps.logit = np.concatenate([stamps.logit, np.tile(stamps.logit[wanted], 20)])
    fit = evaluate(stamps).fit
    assert (fit.n_negatives, fit.n_repeats) == (40, 800)
    assert fit.smallest_resolvable_fpr == pytest.approx(5 / 40)


def test_scores_of_test_do_not_move_a_threshold(evaluate: Evaluate, survey: Evaluated) -> None:
    stamps = draw({"train": 60, "val_select": 60, "val_calibrate": 600, "test": 800})
    stamps.logit[np.array(stamps.split) == "test"] += 5
    moved = evaluate(stamps)
    assert moved.fit.table.equals(survey.fit.table)


@pytest.mark.parametrize(("label", "name"), [(0, "controls"), (1, "injections")])
def test_an_empty_class_in_val_calibrate_is_a_clear_error(evaluate: Evaluate, label: int, name: str) -> None:
    stamps = draw({"train": 5, "val_select": 5, "val_calibrate": 20, "test": 5})
    kept = [i for i, s in enumerate(stamps.split) if not (s == "val_calibrate" and stamps.columns["label"][i] == label)]
    stamps.columns = {key: [values[i] for i in kept] for key, values in stamps.columns.items()}
    stamps.split, stamps.logit = [stamps.split[i] for i in kept], stamps.logit[kept]
    with pytest.raises(EvaluationError, match=f"has no {name} .20 rows of the other class."):
        evaluate(stamps)


def test_constant_scores_are_unresolved_and_recover_nothing(evaluate: Evaluate) -> None:
    stamps = draw({"train": 5, "val_select": 5, "val_calibrate": 200, "test": 50})
    stamps.logit[:] = 0.5
    evaluated = evaluate(stamps)
    assert [row["status"] for row in evaluated.fit.table.to_pylist()] == ["unresolved"] * 4 + ["bound"]
    result, _ = evaluated.completeness()
    assert result.table.to_pylist()[0]["n_recovered"] == 0


def test_rates_have_distinct_names() -> None:
    assert [name_of(rate) for rate in (0.1, 0.01, 0.015, 0.001)] == [
        "fpr_1e-01",
        "fpr_1e-02",
        "fpr_1.5e-02",
        "fpr_1e-03",
    ]


@pytest.mark.parametrize("rates", [[0.0], [1.0], [0.1, 0.1], []])
def test_rates_that_mean_nothing_are_refused(rates: list[float]) -> None:
    with pytest.raises(ValidationError):
        OperatingPointConfig(target_fprs=rates)
