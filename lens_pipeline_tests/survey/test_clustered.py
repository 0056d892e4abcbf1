"""Injections of one galaxy are alike: with the galaxy as unit, intervals hold the truth as often as they say."""

from itertools import repeat

import numpy as np
import pytest
from scipy import stats

from lens_pipeline.survey.clustered import clustered_percentile, clustered_share, effective_size

# Galaxies, rows of each, correlation of the rows of a galaxy.
SURVEYS = ((30, 50, 0.3), (60, 10, 0.9), (40, 20, 0.0))


@pytest.mark.parametrize(("n_galaxies", "n_rows", "correlation"), SURVEYS)
def test_intervals_hold_the_truth_as_often_as_they_say(n_galaxies: int, n_rows: int, correlation: float) -> None:
    random, n = np.random.default_rng(1), 300
    galaxies = np.repeat(np.arange(n_galaxies), n_rows)
    held = {16: 0, 50: 0, 84: 0, "share": 0}
    for _ in repeat(None, n):
        own = random.standard_normal(len(galaxies))
        values = correlation**0.5 * random.standard_normal(n_galaxies)[galaxies] + (1 - correlation) ** 0.5 * own
        for percentile in (16, 50, 84):
            _, low, high = clustered_percentile(values, galaxies, percentile)
            assert low is not None
            assert high is not None
            held[percentile] += low <= stats.norm.ppf(percentile / 100) <= high
        _, low, high = clustered_share(np.abs(values) < 1, galaxies)
        assert low is not None
        assert high is not None
        held["share"] += low <= 2 * stats.norm.cdf(1) - 1 <= high
    # Three standard errors below 95 %: what rows taken for independent would give is 0.3 to 0.6 in the first two.
    assert min(held.values()) / n > 0.91, held


def test_rows_that_know_nothing_of_each_other_are_worth_nearly_their_number() -> None:
    galaxies = np.repeat(np.arange(100), 20)
    member = np.random.default_rng(0).random(2000) < 0.4
    assert 1300 < effective_size(member, galaxies) <= 2000


def test_rows_that_repeat_their_galaxy_are_worth_nearly_one_each() -> None:
    once = np.random.default_rng(0).random(100) < 0.4
    assert 90 < effective_size(np.repeat(once, 20), np.repeat(np.arange(100), 20)) <= 100


def test_one_row_a_galaxy_has_the_interval_of_order_statistics() -> None:
    values = np.random.default_rng(0).random(200)
    first, last = stats.binom.ppf((0.025, 0.975), 200, 0.5)
    ordered = np.sort(values)
    assert clustered_percentile(values, np.arange(200), 50)[1:] == (ordered[int(first) - 1], ordered[int(last)])


def test_one_galaxy_has_no_interval_and_two_have_a_wide_one() -> None:
    values = np.arange(10.0)
    assert clustered_percentile(values, np.zeros(10, int), 50) == (4.5, None, None)
    assert clustered_share(values > 5, np.zeros(10, int))[1:] == (None, None)
    assert clustered_percentile(values, np.arange(10) // 5, 50)[1:] == (0.0, 9.0)
