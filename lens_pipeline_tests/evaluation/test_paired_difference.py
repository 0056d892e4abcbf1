import numpy as np
import pytest
from scipy import optimize, special, stats

from lens_pipeline.evaluation.clustered_cells import clustered_proportions
from lens_pipeline.evaluation.paired_difference import paired_difference, paired_differences, tango

Z = float(special.ndtri(0.975))


def _statistic_by_likelihood(b: float, c: float, n: float, difference: float) -> float:
    """Score statistic with the other's share found by maximizing the likelihood, not by its formula."""

    def minus_log_likelihood(q: float) -> float:
        return -(
            special.xlogy(b, q + difference) + special.xlogy(c, q) + special.xlogy(n - b - c, 1 - 2 * q - difference)
        )

    least, most = max(0.0, -difference), (1 - difference) / 2
    q = optimize.minimize_scalar(
        minus_log_likelihood, bounds=(least, most), method="bounded", options={"xatol": 1e-12}
    ).x
    return (b - c - n * difference) / np.sqrt(n * (2 * q + difference * (1 - difference)))


@pytest.mark.parametrize(("b", "c", "n"), [(12, 5, 60), (1, 9, 30), (0, 4, 25), (30, 2, 40), (3.5, 2.25, 20.5)])
def test_the_ends_of_tangos_interval_are_where_the_score_statistic_is_z(b: float, c: float, n: float) -> None:
    low, high = tango([b], [c], [n])
    assert low[0] < (b - c) / n < high[0]
    assert _statistic_by_likelihood(b, c, n, low[0]) == pytest.approx(Z, abs=1e-4)
    assert _statistic_by_likelihood(b, c, n, high[0]) == pytest.approx(-Z, abs=1e-4)


def test_finders_that_agree_on_every_row_are_not_shown_to_be_equal() -> None:
    low, high = tango([0], [0], [100])
    assert -low[0] == pytest.approx(high[0]) == pytest.approx(Z**2 / (100 + Z**2))
    assert tango([7], [0], [7])[1][0] == pytest.approx(1)


def test_cells_and_weights_are_those_of_completeness() -> None:
    rng = np.random.default_rng(0)
    n, n_cells = 5000, 7
    galaxies = np.sort(rng.integers(0, 800, n))
    cells, weights = rng.integers(0, n_cells, n).astype(np.uint16), rng.lognormal(0, 1, n)
    this, other = rng.random(n) < 0.7, rng.random(n) < 0.4
    found = paired_differences(this, other, cells, n_cells, galaxies, weights)
    mine, theirs = clustered_proportions([this, other], cells, n_cells, galaxies, weights)
    for difference, one, two in zip(found, mine, theirs, strict=True):
        assert difference.value == pytest.approx(one.proportion.value - two.proportion.value)  # type: ignore[operator]
        assert (difference.n, difference.n_clusters) == (one.proportion.n, one.proportion.n_clusters)


def test_a_difference_over_unequal_galaxies_is_tangos_at_the_number_that_they_leave() -> None:
    size = np.array([30, 25, 20, 12, 8, 5])
    galaxy, rng = np.repeat(np.arange(6), size), np.random.default_rng(4)
    this, other = (rng.random(100) < rng.beta(1, 1, 6)[galaxy] for _ in range(2))
    d = this.astype(float) - other
    left_out = np.array([d[galaxy != one].mean() - d.mean() for one in range(6)])
    n_eff = (np.abs(d).mean() - d.mean() ** 2) / (5 / 6 * np.sum(left_out**2))
    few = (stats.t.ppf(0.975, 99) / stats.t.ppf(0.975, 100**2 / np.sum(size**2) - 1)) ** 2
    found = paired_difference(this, other, galaxy)
    low, high = tango((d > 0).mean() * n_eff * few, (d < 0).mean() * n_eff * few, n_eff * few)
    assert n_eff < 100
    assert found.n_eff == pytest.approx(n_eff)
    assert (found.low, found.high) == pytest.approx((float(low), float(high)))


def test_galaxies_that_happen_to_agree_are_worth_no_more_than_their_rows() -> None:
    ahead = np.tile(np.arange(10) < 4, 10)
    behind = np.tile(np.arange(10) >= 7, 10)
    ahead[5] = True
    found = paired_difference(ahead, behind, np.repeat(np.arange(10), 10))
    assert found.value == pytest.approx(0.11)
    assert found.n_eff == pytest.approx(100)


def _covers(rng: np.random.Generator, copies: int, n_galaxies: int) -> bool:
    """Whether one draw's interval holds the truth, 0.2: two finders that share luck, each with galaxies it likes."""
    galaxies = np.repeat(np.arange(n_galaxies), copies)
    shared = rng.normal(size=galaxies.size)
    luck = [shared + rng.normal(size=galaxies.size) + rng.normal(0, 0.5, n_galaxies)[galaxies] for _ in range(2)]
    this, other = (one < 1.5 * special.ndtri(p) for one, p in zip(luck, (0.7, 0.5), strict=True))
    (found,) = paired_differences(this, other, np.zeros(galaxies.size, np.uint16), 1, galaxies, np.ones(galaxies.size))
    return found.low <= 0.2 <= found.high  # type: ignore[operator]


@pytest.mark.parametrize(("copies", "n_galaxies"), [(1, 60), (20, 30)])
def test_the_interval_holds_the_truth_as_often_as_it_says(copies: int, n_galaxies: int) -> None:
    rng = np.random.default_rng(5)
    share = np.mean([_covers(rng, copies, n_galaxies) for _ in range(500)])
    assert 0.93 <= share <= 0.98


def test_rows_of_one_galaxy_and_empty_cells_have_no_interval() -> None:
    yes = np.ones(4, bool)
    cells = np.zeros(4, np.uint16)
    one, none = paired_differences(yes, ~yes, cells, 2, np.zeros(4, np.int64), np.ones(4))
    assert (one.value, one.low, one.reason) == (1.0, None, "all rows come from one galaxy, so their spread is unknown")
    assert (none.value, none.low, none.reason) == (None, None, "there are no rows")
    (weightless,) = paired_differences(yes, ~yes, cells, 1, np.arange(4), np.zeros(4))
    assert (weightless.value, weightless.reason) == (None, "all weights are 0")


def test_rows_out_of_the_order_of_their_galaxies_are_refused() -> None:
    yes = np.ones(2, bool)
    with pytest.raises(ValueError, match="order of their galaxies"):
        paired_differences(yes, yes, np.zeros(2, np.uint16), 1, np.array([1, 0]), np.ones(2))
