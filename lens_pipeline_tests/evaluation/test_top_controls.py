from collections.abc import Callable

import polars as pl
import pytest

from lens_pipeline.evaluation.config import OperatingPointConfig
from lens_pipeline_tests.evaluation.conftest import Evaluated
from lens_pipeline_tests.evaluation.synthetic import Chain, Stamps, draw

Evaluate = Callable[[Stamps], Evaluated]


def _controls_of(chain: Chain, split: str) -> pl.DataFrame:
    scores = pl.DataFrame(chain.scores.read_table())
    mine = scores.filter((pl.col("split") == split) & (pl.col("label") == 0))
    return mine.sort("logit", "task_id", descending=[True, False])


def test_the_highest_controls_of_both_splits_are_listed_with_what_they_pass(survey: Evaluated) -> None:
    _, report = survey.report()
    thresholds = {row["operating_point"]: row["threshold"] for row in survey.fit.table.to_pylist()}
    for published, split in ((survey.operating_point, "val_calibrate"), (report, "test")):
        table = published.read_table("top_controls").to_pylist()
        assert [row["task_id"] for row in table] == _controls_of(survey.chain, split)["task_id"][:50].to_list()
        assert [row["rank"] for row in table] == list(range(1, 51))
        for row in table:
            passed = [name for name, at in thresholds.items() if at is not None and row["logit"] > at]
            assert row["above"] == (", ".join(passed) or None)
    assert "The 50 controls of test with the highest scores" in survey.report()[0].page.decode()


def test_a_store_without_positions_lists_them_as_null(survey: Evaluated) -> None:
    table = pl.DataFrame(survey.operating_point.read_table("top_controls"))
    assert table["ra"].null_count() == table["dec"].null_count() == 50


def test_positions_of_the_store_stand_beside_their_stamp(tmp_path, evaluate: Evaluate) -> None:  # type: ignore[no-untyped-def]
    stamps = draw({"train": 5, "val_select": 5, "val_calibrate": 30, "test": 5})
    n = len(stamps.split)
    stamps.columns |= {"ra": [float(i % 360) for i in range(n)], "dec": [float(i % 90) for i in range(n)]}
    place = dict(
        zip(stamps.columns["task_id"], zip(stamps.columns["ra"], stamps.columns["dec"], strict=True), strict=True)
    )
    table = evaluate(stamps).operating_point.read_table("top_controls").to_pylist()
    assert len(table) == 30
    assert all((row["ra"], row["dec"]) == place[row["task_id"]] for row in table)


def test_a_control_that_repeats_another_is_listed_once(evaluate: Evaluate) -> None:
    stamps = draw({"train": 5, "val_select": 5, "val_calibrate": 10, "test": 5}, injections_per_galaxy=2)
    for i in range(len(stamps.split)):
        if stamps.columns["task_id"][i].endswith("-2"):
            copied = stamps.columns["task_id"].index(stamps.columns["task_id"][i][:-1] + "0")
            for name in ("label", "lens_model", "pixel_hash", "theta_e_arcsec"):
                stamps.columns[name][i] = stamps.columns[name][copied]
            stamps.logit[i] = stamps.logit[copied]
    table = pl.DataFrame(evaluate(stamps).operating_point.read_table("top_controls"))
    assert table.height == table["galaxy_id"].n_unique() == 10


@pytest.mark.parametrize("n", [0, 3])
def test_as_many_are_listed_as_are_asked_for(n: int, tmp_path) -> None:  # type: ignore[no-untyped-def]
    from lens_pipeline_tests.evaluation.synthetic import publish

    chain = publish(draw({"train": 5, "val_select": 5, "val_calibrate": 10, "test": 5}), tmp_path)
    evaluated = Evaluated(chain, OperatingPointConfig(n_listed_controls=n))
    assert evaluated.operating_point.read_table("top_controls").num_rows == n
    _, report = evaluated.report()
    assert report.read_table("top_controls").num_rows == n
