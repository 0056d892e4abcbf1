"""Intervals of mean losses: classes keep their shares in every draw, and a few large losses leave more open above than below."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy import special

from lens_pipeline.evaluation.intervals import Estimate
from lens_pipeline.evaluation.likelihood_metrics import log_losses
from lens_pipeline.evaluation.mean_losses import mean_loss

SHIFT = 2.5


def _even(lens: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    return np.where(lens, lens.size / 2 / lens.sum(), lens.size / 2 / (~lens).sum())


def _found(losses: npt.NDArray[np.float64], n_lenses: int) -> Estimate:
    lens = np.arange(losses.size) < n_lenses
    return mean_loss(losses, lens, _even(lens), np.arange(losses.size))


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


def test_a_mean_that_twenty_lenses_vary_has_no_interval_but_the_reason() -> None:
    losses = np.r_[np.random.default_rng(0).exponential(size=20), np.zeros(3000)]
    found = _found(losses, 20)
    assert found.value == pytest.approx(losses[:20].mean() / 2)
    assert (found.low, found.high, found.interval) == (None, None, None)
    assert str(found.reason).startswith("no interval: a mean worth 20 rows of equal spread, fewer than 30")
