"""What can't be told apart isn't, and what can is found, whatever the features are like."""

import numpy as np
import pytest

from lens_pipeline.audits.chance import chance_limit, tell_pairs
from lens_pipeline.contracts.errors import EvaluationError


def features(n: int, width: int, seed: int = 0) -> np.ndarray:
    """Differences that are heavy-tailed and correlated, and as likely as their negatives."""
    rng = np.random.default_rng(seed)
    return rng.standard_t(2.5, (n, width)) @ (np.eye(width) + 0.5 * rng.standard_normal((width, width)))


def names(rows: np.ndarray) -> list[str]:
    return [f"feature {i}" for i in range(rows.shape[1])]


def test_the_limit_is_051_for_a_hundred_thousand_rows_and_wider_for_fewer_or_for_classes_of_other_sizes() -> None:
    assert chance_limit(50_000, 50_000) == pytest.approx(0.51)
    assert chance_limit(500, 500) == pytest.approx(0.6)
    assert chance_limit(50_000, 500) == pytest.approx(0.5 + 0.01 * np.sqrt(100_000 / (4 / (1 / 50_000 + 1 / 500))))
    # No AUROC exceeds 1, so 5 galaxies can't be red.
    assert chance_limit(5, 5) == chance_limit(0, 10) == 1


def test_clean_pairs_are_won_as_often_as_fair_coins_are() -> None:
    """The better of two classifiers is judged: its excess over a half, in spreads of a coin, is what two coins would have."""
    n = 200
    excesses = []
    for seed in range(40):
        rows = features(n, 6, seed)
        told = tell_pairs(rows, names(rows), seed=seed)
        assert told.value < chance_limit(n, n)
        assert told.low <= told.value <= told.high
        excesses.append((told.value - 0.5) / (0.5 / np.sqrt(0.9 * n)))
    # Of the larger of two standard normal numbers: at most 0.56 in the mean and 1 in the mean square.
    assert np.mean(excesses) < 0.56 + 3 * 0.83 / np.sqrt(len(excesses))
    assert np.mean(np.square(excesses)) < 1 + 3 * np.sqrt(2 / len(excesses))


def test_a_mark_on_six_percent_of_a_hundred_thousand_rows_is_found_and_named() -> None:
    rows = features(50_000, 4)
    rows[np.random.default_rng(1).random(len(rows)) < 0.06, 2] += 60
    told = tell_pairs(rows, names(rows))
    assert told.value == pytest.approx(0.53, abs=0.006)
    assert told.low > 0.51
    assert told.most[0].startswith("feature 2 (+")


def test_a_difference_of_no_sign_in_any_one_feature_is_found_by_trees() -> None:
    rows = np.random.default_rng(0).standard_normal((2000, 3))
    rows[:, 0] = np.abs(rows[:, 0]) * np.sign(np.abs(rows[:, 1]) - 0.67)
    told = tell_pairs(rows, names(rows))
    assert told.classifier == "trees"
    assert told.value > 0.9


def test_swapping_all_pairs_changes_no_answer_and_what_never_differs_is_at_one_half() -> None:
    rows = features(300, 3) + 0.5
    there, back = tell_pairs(rows, names(rows)), tell_pairs(-rows, names(rows))
    assert there.value == pytest.approx(back.value, abs=0.02)
    nothing = tell_pairs(np.zeros((300, 3)), names(rows))
    assert (nothing.value, nothing.most) == (0.5, ())


def test_pairs_that_nothing_tells_apart_leave_open_what_may_tell_others() -> None:
    for n, reach in ((30, 0.072), (1000, 0.0024)):
        told = tell_pairs(np.zeros((n, 3)), ["a", "b", "c"])
        assert (told.value, told.low, told.high) == pytest.approx((0.5, 0.5 - reach, 0.5 + reach), rel=0.02)


def test_pairs_that_are_mostly_equal_count_as_ties() -> None:
    rows = np.zeros((1000, 1))
    rows[:60] = 1.0
    told = tell_pairs(rows, ["mark"])
    assert told.value == pytest.approx(0.53, abs=0.01)
    assert 0.5 < told.low < told.value


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("n_absurd", [1, 8, 60])
def test_absurd_values_of_a_few_pairs_hide_nothing_that_tells_the_others_apart(n_absurd: int, sign: int) -> None:
    rows = features(1000, 3)
    rows[:, 1] = 0.2 + 0.1 * np.random.default_rng(1).standard_normal(1000)
    told = tell_pairs(rows, names(rows))
    rows[:n_absurd, 1] = sign * np.finfo(float).max
    absurd = tell_pairs(rows, names(rows))
    assert told.value > 0.95
    assert absurd.value > told.value - 1.5 * n_absurd / len(rows) - 0.01
    if n_absurd < 0.01 * len(rows):
        assert absurd.classifier == told.classifier
        assert absurd.most[0].startswith("feature 1 (+")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_difference_that_is_not_finite_is_refused_by_the_name_of_its_feature(value: float) -> None:
    rows = features(100, 3)
    rows[7, 1] = value
    with pytest.raises(EvaluationError, match=r"1 of 3 features .* feature 1\."):
        tell_pairs(rows, names(rows))
