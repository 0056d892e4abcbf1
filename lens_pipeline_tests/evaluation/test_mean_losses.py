"""Intervals of mean losses: classes keep their shares in every draw, and a few large losses leave more open above than below."""

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from scipy import special

from lens_pipeline.evaluation.intervals import Estimate
from lens_pipeline.evaluation.likelihood_metrics import likelihood_metrics, log_losses
from lens_pipeline.evaluation.mean_losses import Losses

SHIFT = 2.5


def _even(lens: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    return np.where(lens, lens.size / 2 / lens.sum(), lens.size / 2 / (~lens).sum())


def _found(losses: npt.NDArray[np.float64], n_lenses: int) -> Estimate:
    lens = np.arange(losses.size) < n_lenses
    return Losses.of(losses, lens, _even(lens)).mean_over(np.arange(losses.size))


@pytest.mark.parametrize(("certain", "n_lenses", "n_controls"), [(3.0, 200, 5000), (1.0, 100, 3000)], ids=str)
def test_losses_of_few_lenses_are_missed_from_below_and_from_above_alike(
    certain: float, n_lenses: int, n_controls: int
) -> None:
    rng, lens = np.random.default_rng(0), np.arange(n_lenses + n_controls) < n_lenses

    def losses(noise: npt.NDArray[np.float64], are: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        return log_losses(certain * SHIFT * (noise + SHIFT * are - SHIFT / 2), are)

    middles = special.ndtri((np.arange(40_000) + 0.5) / 40_000)
    truth = np.mean([losses(middles, np.full(middles.size, side)).mean() for side in (True, False)])
    drawn = [_found(losses(rng.normal(size=lens.size), lens), n_lenses) for _ in range(800)]
    below, above = (np.mean([truth < one.low for one in drawn]), np.mean([truth > one.high for one in drawn]))  # type: ignore[operator]
    assert below + above < 0.07
    assert above < 0.05


def test_classes_whose_losses_lie_far_apart_leave_no_more_open() -> None:
    rng, lens = np.random.default_rng(0), np.arange(3300) < 300
    losses = rng.exponential(size=lens.size)
    near, far = _found(losses, 300), _found(losses + 4.0 * lens, 300)
    assert near.value is not None
    assert far.value == pytest.approx(near.value + 2)
    assert (far.low, far.high) == pytest.approx((near.low + 2, near.high + 2))  # type: ignore[operator]


def test_a_mean_that_forty_lenses_vary_has_their_degrees_of_freedom() -> None:
    losses = np.zeros(3040)
    losses[:40] = np.tile([-1.0, 1.0], 20)
    found = _found(losses, 40)
    assert found.high == pytest.approx(special.stdtrit(39, 0.975) / 2 / np.sqrt(40), rel=1e-3)
    assert found.low == pytest.approx(-found.high)


@pytest.mark.parametrize(
    ("n_few", "has"), [(1, "1 galaxy"), (2, "2 galaxies"), (20, "20 galaxies"), (39, "39 galaxies")]
)
@pytest.mark.parametrize("few_are_lenses", [True, False])
@pytest.mark.parametrize("even", [True, False])
def test_a_mean_of_few_galaxies_of_a_class_has_no_interval_but_the_reason(
    n_few: int, has: str, few_are_lenses: bool, even: bool
) -> None:
    losses = np.random.default_rng(0).exponential(size=500)
    lens = (np.arange(500) < n_few) == few_are_lenses
    weights = _even(lens) if even else np.ones(500)
    found = Losses.of(losses, lens, weights).mean_over(np.arange(500))
    assert found.value == pytest.approx(np.average(losses, weights=weights))
    assert (found.low, found.high, found.n_eff, found.interval) == (None, None, None, None)
    assert found.reason == f"no interval: a class has {has}, a mean over fewer than 40 rests on a few large losses"


def test_one_lens_among_controls_that_are_all_alike_has_no_interval_of_no_width() -> None:
    found = Losses.of(np.r_[1.3, np.full(499, 0.01)], np.arange(500) < 1, np.ones(500)).mean_over(np.arange(500))
    assert found.value == pytest.approx((1.3 + 499 * 0.01) / 500)
    assert (found.low, found.high) == (None, None)
    assert "a class has 1 galaxy, " in str(found.reason)


def test_many_rows_of_a_class_are_no_more_than_the_galaxies_that_they_are_of() -> None:
    lens = np.arange(3400) < 400
    losses = np.random.default_rng(0).exponential(size=lens.size)
    of_thirty = np.where(lens, np.arange(lens.size) % 30, np.arange(lens.size))
    assert "a class has 30 galaxies, " in str(Losses.of(losses, lens, np.ones(lens.size)).mean_over(of_thirty).reason)
    of_fifty = np.where(lens, np.arange(lens.size) % 50, np.arange(lens.size))
    assert Losses.of(losses, lens, np.ones(lens.size)).mean_over(of_fifty).low is not None


def test_galaxies_of_which_one_outweighs_the_others_are_worth_few_equal_ones() -> None:
    lens = np.arange(3100) < 100
    weights = np.where(np.arange(3100) == 7, 10.0, 1.0)
    found = Losses.of(np.random.default_rng(0).exponential(size=3100), lens, weights / weights.mean()).mean_over(
        np.arange(3100)
    )
    worth = (100 + 99) ** 2 / (100**2 + 99)
    assert (found.low, found.high) == (None, None)
    assert f"a class has 100 galaxies worth {worth:.1f} equal ones, " in str(found.reason)


def test_a_log_loss_that_one_region_makes_is_not_said_to_be_below_zero() -> None:
    place = np.arange(240)
    # Every score of one region in six is wrong, all others are right.
    wrong, lens = place % 6 == 0, place < 120
    rows = pl.DataFrame(
        {
            "logit": np.where(lens != wrong, 8.0, -8.0),
            "is_lens": lens,
            "galaxy_id": [f"galaxy {n}" for n in place],
            "region_id": [f"region {n % 6}" for n in place],
        }
    )
    for metric in likelihood_metrics(rows, "test"):
        assert metric.low == 0, metric
