import tracemalloc
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lens_pipeline.scoring.checks import score_conservation, score_saturation
from lens_pipeline.scoring.config import ScoringConfig

N = 200


def _index() -> pa.Table:
    return pa.table(
        {
            "task_id": [f"t{row}" for row in range(N)],
            "logical": np.arange(N),
            "label": pa.array(np.arange(N) % 2, pa.int8()),
        }
    )


def _scores(**columns: Any) -> pa.Table:
    logit = np.random.default_rng(0).normal(size=N).astype(np.float32)
    table = _index().append_column("logit", pa.array(logit))
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    return table


def test_rows_that_are_scored_one_to_one_in_any_order_are_green() -> None:
    shuffled = _scores().take(np.random.default_rng(1).permutation(N))
    assert score_conservation(shuffled, _index()).passed


def test_a_lost_row_is_red_and_named() -> None:
    check = score_conservation(_scores().slice(0, N - 1), _index())
    assert (check.passed, check.count, check.first) == (False, 1, ("t199 has no score",))


def test_a_row_scored_twice_is_red_and_named() -> None:
    twice = pa.concat_tables([_scores(), _scores().slice(3, 1)])
    assert score_conservation(twice, _index()).first == ("t3 is scored twice",)


def test_a_row_that_was_never_stored_is_red_and_named() -> None:
    keys = [*_index()["task_id"].to_pylist()[:-1], "stranger"]
    assert "stranger is not in the store" in score_conservation(_scores(task_id=keys), _index()).first


@pytest.mark.parametrize("pair", [(0, 1), (4, 6), (10, 199)])
def test_two_rows_that_exchanged_their_keys_are_red(pair: tuple[int, int]) -> None:
    keys = _index()["task_id"].to_pylist()
    keys[pair[0]], keys[pair[1]] = keys[pair[1]], keys[pair[0]]
    check = score_conservation(_scores(task_id=keys), _index())
    assert not check.passed
    assert check.count == 2


def test_every_kind_of_wrong_row_is_named_in_the_order_of_the_scores_whatever_number_it_stands_under() -> None:
    index = _index()
    spoiled = pa.concat_tables([_scores().slice(1), _scores().slice(5, 2)]).to_pydict()
    spoiled["task_id"][9] = "stranger"
    spoiled["logical"][19] = N + 7
    spoiled["logical"][20] = -1
    spoiled["label"][29] = 1
    check = score_conservation(pa.table(spoiled, schema=_scores().schema), index)
    assert check.count == 8
    assert check.first == (
        "t0 has no score",
        "t10 has no score",
        "stranger is not in the store",
        "t20 is scored as row 207 of label 0, the store has row 20 of label 0",
        "t21 is scored as row -1 of label 1, the store has row 21 of label 1",
    )


def test_an_index_that_is_not_in_logical_order_is_compared_all_the_same() -> None:
    turned = _index().take(np.random.default_rng(1).permutation(N))
    assert score_conservation(_scores(), turned).passed
    assert score_conservation(_scores().slice(1), turned).first == ("t0 has no score",)


def test_where_all_is_well_a_key_never_becomes_a_python_object() -> None:
    n = 100_000
    rows = {"task_id": [f"t{row}" for row in range(n)], "logical": np.arange(n), "label": np.zeros(n, np.int8)}
    index, order = pa.table(rows), np.random.default_rng(1).permutation(n)
    scores = index.take(order)
    tracemalloc.start()
    assert score_conservation(scores, index).passed
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60 * n


def test_logits_that_tell_rows_apart_are_green() -> None:
    assert score_saturation(_scores(), ScoringConfig()).passed


def test_logits_that_went_through_a_float16_sigmoid_are_red() -> None:
    # What a saturated sigmoid does: confident negatives share the top.
    logit = np.minimum(_scores()["logit"].to_numpy(), np.float32(0.5))
    check = score_saturation(_scores(logit=logit), ScoringConfig())
    assert not check.passed
    assert "negatives share the highest negative logit" in check.what


def test_a_model_that_says_the_same_of_everything_is_red() -> None:
    check = score_saturation(_scores(logit=np.zeros(N, np.float32)), ScoringConfig())
    assert not check.passed
    assert "only 0.5% of 200 logits are distinct" in check.what


def test_one_negative_at_the_top_is_no_tie_however_few_negatives_there_are() -> None:
    few = _scores().slice(0, 4)
    assert score_saturation(few, ScoringConfig()).passed


@pytest.mark.parametrize("change", [{"max_tied_share": 0.6}, {"min_distinct_share": 0.1}])
def test_each_threshold_acts(change: dict[str, float]) -> None:
    logit = np.minimum(_scores()["logit"].to_numpy(), np.float32(0.0))
    strict = score_saturation(_scores(logit=logit), ScoringConfig(max_tied_share=0.01, min_distinct_share=0.9))
    loose = score_saturation(
        _scores(logit=logit),
        ScoringConfig.model_validate({"max_tied_share": 0.01, "min_distinct_share": 0.9, **change}),
    )
    assert loose.what != strict.what
