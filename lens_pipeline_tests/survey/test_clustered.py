"""Injections of one galaxy are alike: with the galaxy as unit, intervals hold the truth as often as they say."""

from itertools import repeat

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from lens_pipeline.survey.clustered import Clustered

# Galaxies, rows of each, correlation of the rows of a galaxy.
SURVEYS = ((30, 50, 0.3), (60, 10, 0.9), (40, 20, 0.0))


def alike(values: npt.ArrayLike, galaxies: npt.ArrayLike) -> Clustered:
    """Rows that all weigh the same."""
    found = np.asarray(values, float)
    return Clustered(found, np.asarray(galaxies), np.ones(len(found)))


@pytest.mark.parametrize("is_weighted", [False, True], ids=["alike", "weighted"])
@pytest.mark.parametrize(("n_galaxies", "n_rows", "correlation"), SURVEYS)
def test_intervals_hold_the_truth_as_often_as_they_say(
    n_galaxies: int, n_rows: int, correlation: float, is_weighted: bool
) -> None:
    random, n = np.random.default_rng(1), 300
    galaxies = np.repeat(np.arange(n_galaxies), n_rows)
    # A design that draws what is small a quarter as often, and weighs it four times.
    seldom = 0.25 if is_weighted else 1.0
    held = {16: 0, 50: 0, 84: 0, "share": 0}
    for _ in repeat(None, n):
        own = random.standard_normal(len(galaxies))
        values = correlation**0.5 * random.standard_normal(n_galaxies)[galaxies] + (1 - correlation) ** 0.5 * own
        chance = np.where(values > 0.5, 1.0, seldom)
        drawn = random.random(len(values)) < chance
        rows = Clustered(values[drawn], galaxies[drawn], 1 / chance[drawn])
        for percentile in (16, 50, 84):
            _, low, high = rows.percentile(percentile)
            assert low is not None
            assert high is not None
            held[percentile] += low <= stats.norm.ppf(percentile / 100) <= high
        _, low, high = rows.share(np.abs(rows.values) < 1)
        assert low is not None
        assert high is not None
        held["share"] += low <= 2 * stats.norm.cdf(1) - 1 <= high
    # Three standard errors below 95 %: what rows taken for independent would give is 0.3 to 0.6 in the first two.
    assert min(held.values()) / n > 0.91, held


def test_rows_that_know_nothing_of_each_other_are_worth_nearly_their_number() -> None:
    galaxies = np.repeat(np.arange(100), 20)
    member = np.random.default_rng(0).random(2000) < 0.4
    assert 1300 < alike(np.zeros(2000), galaxies).effective_size(member) <= 2000


def test_rows_that_repeat_their_galaxy_are_worth_nearly_one_each() -> None:
    once = np.random.default_rng(0).random(100) < 0.4
    assert 90 < alike(np.zeros(2000), np.repeat(np.arange(100), 20)).effective_size(np.repeat(once, 20)) <= 100


def test_rows_of_unlike_weights_are_worth_what_these_leave_of_them() -> None:
    random = np.random.default_rng(0)
    weights = np.where(np.arange(2000) % 10, 1.0, 91.0)
    rows = Clustered(random.random(2000), np.repeat(np.arange(100), 20), weights)
    # A tenth of the rows holds 91 % of the weights.
    assert rows.n_eff == pytest.approx(2000 / (10 * (0.91**2 + 0.09**2 / 9)), rel=1e-3)
    assert 150 < rows.effective_size(rows.values < 0.4) <= rows.n_eff


def test_weights_say_as_much_as_rows_that_stand_so_often() -> None:
    values, times = np.array([3.0, 1.0, 2.0, 5.0, 4.0]), np.array([1, 4, 2, 1, 2])
    weighted = Clustered(values, np.arange(5), times.astype(float))
    repeated = alike(np.repeat(values, times), np.repeat(np.arange(5), times))
    for percentile in (16, 50, 84):
        assert weighted.percentile(percentile)[0] == repeated.percentile(percentile)[0]
    assert weighted.share(values < 2.5)[0] == repeated.share(repeated.values < 2.5)[0] == 0.6


def test_one_row_a_galaxy_has_the_interval_of_order_statistics() -> None:
    values = np.random.default_rng(0).random(200)
    first, last = stats.binom.ppf((0.025, 0.975), 200, 0.5)
    ordered = np.sort(values)
    assert alike(values, np.arange(200)).percentile(50)[1:] == (ordered[int(first) - 1], ordered[int(last)])


def test_one_galaxy_has_no_interval_and_two_have_a_wide_one() -> None:
    values = np.arange(10.0)
    assert alike(values, np.zeros(10, int)).percentile(50) == (4.0, None, None)
    assert alike(values, np.zeros(10, int)).share(values > 5)[1:] == (None, None)
    assert alike(values, np.arange(10) // 5).percentile(50)[1:] == (0.0, 9.0)
