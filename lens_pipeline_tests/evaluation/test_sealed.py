import ast
from collections.abc import Callable
from pathlib import Path

import pytest

import lens_pipeline.evaluation as room
from lens_pipeline.contracts.errors import EvaluationError
from lens_pipeline.evaluation.scored_rows import open_rows
from lens_pipeline.evaluation.sealed import open_test_rows
from lens_pipeline_tests.evaluation.conftest import Evaluated
from lens_pipeline_tests.evaluation.synthetic import Stamps, draw


def test_reading_test_rows_is_on_the_record(survey: Evaluated) -> None:
    _, completeness = survey.completeness()
    assert completeness.attributes["test_reads"] == [
        {
            "by": "completeness",
            "scores": survey.chain.scores.version,
            "operating_point": survey.operating_point.version,
            "n_rows": 1600,
        }
    ]


def test_thresholds_fitted_on_other_scores_are_refused(
    evaluate: Callable[[Stamps], Evaluated], survey: Evaluated
) -> None:
    other = evaluate(draw({"train": 5, "val_select": 5, "val_calibrate": 30, "test": 5}, seed=1))
    with (
        survey.chain.stage("completeness") as staging,
        pytest.raises(EvaluationError, match=r"operating_point \w+ was made from scores \w+, not from"),
    ):
        open_test_rows(survey.chain.scores, other.operating_point, staging)
    assert "test_reads" not in staging.attributes


def test_thresholds_that_only_claim_to_be_of_these_scores_are_refused(
    evaluate: Callable[[Stamps], Evaluated], survey: Evaluated
) -> None:
    other = evaluate(draw({"train": 5, "val_select": 5, "val_calibrate": 30, "test": 5}, seed=1)).operating_point
    with survey.chain.stage("operating_point", survey.chain.scores, survey.chain.store) as staging:
        staging.write_table(None, other.read_table())
        staging.attributes.update(other.attributes)
        claims = staging.commit()
    with (
        survey.chain.stage("completeness") as staging,
        pytest.raises(EvaluationError, match=r"were fitted on scores \w+, not on \w+: they mean nothing"),
    ):
        open_test_rows(survey.chain.scores, claims, staging)
    assert "test_reads" not in staging.attributes


def test_test_rows_can_not_be_read_without_an_operating_point(survey: Evaluated) -> None:
    with pytest.raises(EvaluationError, match="read by open_test_rows only"):
        open_rows(survey.chain.scores, "test")


def test_a_test_split_without_rows_is_a_clear_error(evaluate: Callable[[Stamps], Evaluated]) -> None:
    evaluated = evaluate(draw({"train": 5, "val_select": 5, "val_calibrate": 30, "test": 0}))
    with pytest.raises(EvaluationError, match="has no row of test"):
        evaluated.completeness()


def test_only_the_sealed_module_can_name_rows_of_any_split() -> None:
    folder = Path(next(iter(room.__path__)))
    users = set()
    for path in folder.glob("*.py"):
        names = {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.alias)}
        if "rows_of_split" in names:
            users.add(path.stem)
    assert users == {"sealed"}
