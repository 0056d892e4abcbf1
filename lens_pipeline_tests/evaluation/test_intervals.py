from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from lens_pipeline.evaluation.intervals import (
    Estimate,
    clopper_pearson,
    clustered_mean,
    clustered_proportion,
    kish,
    share_from_influence,
    wilson,
)
from lens_pipeline.evaluation.paired_difference import paired_difference


@pytest.mark.parametrize("n", [10, 50, 400])
def test_clopper_pearson_never_covers_less_than_it_says(n: int) -> None:
    limits = np.array([clopper_pearson(k, n) for k in range(n + 1)])
    for p in np.linspace(0.01, 0.99, 49):
        inside = (limits[:, 0] <= p) & (p <= limits[:, 1])
        assert stats.binom.pmf(np.flatnonzero(inside), n, p).sum() >= 0.95


def test_wilson_covers_95_percent_when_averaged_over_p() -> None:
    n = 50
    limits = np.array([wilson(k, n) for k in range(n + 1)])
    chances = np.linspace(0.01, 0.99, 99)
    covered = [stats.binom.pmf(np.flatnonzero((limits[:, 0] <= p) & (p <= limits[:, 1])), n, p).sum() for p in chances]
    assert 0.93 <= np.mean(covered) <= 0.97


def test_no_false_positive_among_600_leaves_open_what_the_rule_of_three_says() -> None:
    low, high = clopper_pearson(0, 600)
    assert low == 0
    assert high == pytest.approx(1 - 0.025 ** (1 / 600), rel=1e-9)


@pytest.mark.parametrize(("galaxies", "copies", "p"), [(30, 50, 0.8), (10, 50, 0.95), (200, 5, 0.5)])
def test_intervals_over_galaxies_cover_where_plain_ones_do_not(galaxies: int, copies: int, p: float) -> None:
    rng = np.random.default_rng(7)
    icc, draws = 0.1, 400
    a, b = p * (1 - icc) / icc, (1 - p) * (1 - icc) / icc
    cluster = np.repeat(np.arange(galaxies), copies)
    ours = plain = 0
    for _ in range(draws):
        success = rng.random((galaxies, copies)) < rng.beta(a, b, galaxies)[:, None]
        estimate = clustered_proportion(success.ravel(), cluster)
        assert estimate.low is not None
        assert estimate.high is not None
        ours += estimate.low <= p <= estimate.high
        low, high = wilson(int(success.sum()), success.size)
        plain += low <= p <= high
    assert ours / draws >= 0.92
    assert plain / draws < 0.92


def test_rows_alone_in_their_galaxies_get_the_plain_interval() -> None:
    success = np.arange(50) < 20
    estimate = clustered_proportion(success, np.arange(50), exact=True)
    assert (estimate.low, estimate.high) == pytest.approx(clopper_pearson(20, 50))
    assert estimate.n_eff == 50


def test_identical_repeats_of_a_galaxy_count_as_one() -> None:
    rng = np.random.default_rng(1)
    galaxy = rng.random(100) < 0.3
    once = clustered_proportion(galaxy, np.arange(100))
    often = clustered_proportion(np.repeat(galaxy, 40), np.repeat(np.arange(100), 40))
    assert often.n_eff == pytest.approx(100, rel=0.02)
    assert once.low is not None
    assert often.low == pytest.approx(once.low, abs=0.01)


def test_all_recovered_in_few_galaxies_is_no_more_sure_than_the_galaxies() -> None:
    estimate = clustered_proportion(np.ones(500), np.repeat(np.arange(10), 50))
    assert estimate.value == 1
    assert estimate.low is not None
    assert estimate.low < 0.75


def test_weights_lower_the_effective_number_to_that_of_kish() -> None:
    rng = np.random.default_rng(2)
    weights = rng.lognormal(0, 1, 400)
    success = rng.random(400) < 0.5
    estimate = clustered_proportion(success, np.arange(400), weights)
    assert estimate.value == pytest.approx(np.average(success, weights=weights))
    assert estimate.n_eff is not None
    assert estimate.n_eff <= kish(weights) < 250


def test_one_galaxy_and_no_rows_give_no_interval_and_say_why() -> None:
    alone = clustered_proportion([True, False], [0, 0])
    assert (alone.value, alone.low, alone.high) == (0.5, None, None)
    assert "one galaxy" in str(alone.reason)
    nothing = clustered_proportion([], [])
    assert (nothing.value, nothing.low) == (None, None)
    assert "no rows" in str(nothing.reason)
    assert clustered_mean([1.0, 2.0], [0, 0]).low is None


def test_a_mean_of_few_rows_has_no_interval_because_losses_are_skewed() -> None:
    losses = np.random.default_rng(0).exponential(size=150)
    few, enough = clustered_mean(losses[:149], np.arange(149)), clustered_mean(losses, np.arange(150))
    assert (few.value, few.low, few.high) == (pytest.approx(losses[:149].mean()), None, None)
    assert "a mean of 149 rows, fewer than 150" in str(few.reason)
    assert (enough.reason, enough.low is not None) == (None, True)


def test_the_interval_of_a_mean_widens_with_galaxies_that_agree_with_themselves() -> None:
    rng = np.random.default_rng(3)
    galaxy = rng.normal(size=40)
    spread = clustered_mean(np.repeat(galaxy, 25), np.repeat(np.arange(40), 25))
    assert spread.low is not None
    assert spread.high is not None
    expected = 2 * stats.t.ppf(0.975, 39) * galaxy.std(ddof=1) / np.sqrt(40)
    assert spread.high - spread.low == pytest.approx(expected, rel=0.01)


def _unequal(galaxies: int, rng: np.random.Generator) -> np.ndarray:
    return np.ceil(rng.pareto(1, galaxies) + 1).clip(max=5000).astype(int)


def _refuse_narrow(measured: Callable[[np.random.Generator, np.ndarray], list[tuple[Estimate, float]]]) -> None:
    """Draw sixty galaxies of very unequal numbers of rows, measure, and hold each interval against its truth."""
    rng, draws = np.random.default_rng(5), 300
    held, given = np.zeros(2), np.zeros(2)
    for _ in range(draws):
        for i, (found, truth) in enumerate(measured(rng, np.repeat(np.arange(60), _unequal(60, rng)))):
            if found.low is not None and found.high is not None:
                held[i] += found.low <= truth <= found.high
                given[i] += 1
    assert (given > 0.7 * draws).all()
    # Of 200 intervals that hold in 95 of 100, fewer than 91 % do by chance in 1 of 100 such runs.
    assert (held / given >= 0.91).all()


def test_intervals_over_galaxies_of_very_unequal_numbers_of_rows_hold_the_truth() -> None:
    def measured(rng: np.random.Generator, galaxy: np.ndarray) -> list[tuple[Estimate, float]]:
        own = rng.normal(0, 0.5, 60)[galaxy] + rng.normal(0, np.sqrt(0.75), galaxy.size)
        return [(clustered_proportion(own > 0, galaxy), 0.5), (clustered_mean(own, galaxy), 0)]

    _refuse_narrow(measured)


def test_shares_by_influence_and_differences_of_pairs_know_that_galaxies_are_unequal() -> None:
    def measured(rng: np.random.Generator, galaxy: np.ndarray) -> list[tuple[Estimate, float]]:
        first, second = (rng.normal(0, 0.6, 60)[galaxy] + rng.normal(0, 0.8, galaxy.size) > 0 for _ in range(2))
        share = float(first.mean())
        by_influence = share_from_influence(share, (first - share) / first.size, galaxy)
        return [(by_influence, 0.5), (paired_difference(first, second, galaxy), 0)]

    _refuse_narrow(measured)


def test_a_mean_over_unequal_galaxies_leaves_each_out_and_counts_them_for_what_they_are_worth() -> None:
    size = np.array([100, 60, 40, 30, 20, 10])
    galaxy, values = np.repeat(np.arange(6), size), np.random.default_rng(1).normal(size=size.sum())
    left_out = np.array([values[galaxy != one].mean() - values.mean() for one in range(6)])
    worth = size.sum() ** 2 / np.sum(size**2)
    found = clustered_mean(values, galaxy)
    assert found.high is not None
    half = stats.t.ppf(0.975, worth - 1) * np.sqrt(5 / 6 * np.sum(left_out**2))
    assert found.high - values.mean() == pytest.approx(half)


def test_a_share_over_unequal_galaxies_is_wilsons_at_the_number_that_they_leave() -> None:
    size = np.array([30, 25, 20, 12, 8, 5])
    galaxy, rng = np.repeat(np.arange(6), size), np.random.default_rng(4)
    success = rng.random(100) < rng.beta(2, 2, 6)[galaxy]
    p = success.mean()
    left_out = np.array([success[galaxy != one].mean() - p for one in range(6)])
    n_eff = p * (1 - p) / (5 / 6 * np.sum(left_out**2))
    few = (stats.t.ppf(0.975, 99) / stats.t.ppf(0.975, 100**2 / np.sum(size**2) - 1)) ** 2
    found = clustered_proportion(success, galaxy)
    assert n_eff < 100
    assert found.n_eff == pytest.approx(n_eff)
    assert (found.low, found.high) == pytest.approx(wilson(p * n_eff * few, n_eff * few))


def test_one_galaxy_that_outweighs_all_others_leaves_no_interval_and_is_named() -> None:
    galaxy = np.repeat(np.arange(30), [1000, *[5] * 29])
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 1145)) < 0.5
    for found in (
        clustered_proportion(first, galaxy), clustered_mean(rng.random(1145), galaxy),
        share_from_influence(0.5, (first - 0.5) / 1145, galaxy), paired_difference(first, second, galaxy),
    ):  # fmt: skip
        assert found.low is None
        assert "one of 30 clusters has 87% of the weight" in str(found.reason)
