"""What changes its sign from stamp to stamp is found by halves of stamps that agree; noise isn't."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from lens_pipeline.survey.half_features import Agreement, agreement, half_products
from lens_pipeline.survey.optics import Image, smooth

BANDS, SIZE = "gr", 40
MASK = np.hypot(*np.meshgrid(np.arange(SIZE) - 19.5, np.arange(SIZE) - 19.5)) > 4
Change = Callable[[Image, np.random.Generator], Image]


def pairs(n: int, seed: int, change: Change | None = None) -> list[NDArray[np.float32]]:
    """Stamps of one galaxy twice, with noise of its own each: correlated, and louder where the galaxy is bright."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        x, y = np.meshgrid(*(np.arange(SIZE + 2) - (SIZE + 1) / 2 - rng.uniform(-0.5, 0.5) for _ in "xy"))
        light = rng.uniform(20, 60) * np.exp(-np.hypot(x, rng.uniform(1, 1.5) * y) / rng.uniform(2, 4))
        base = np.stack([0.5 * light, light])
        noise = smooth(rng.standard_normal((2, *base.shape)) * np.sqrt(1 + 0.1 * base), 0.35)
        first = base if change is None else change(base, rng)
        made.append((np.stack([first, base])[..., 1:-1, 1:-1] + noise).astype(np.float32))
    return made


def asked(stamps: list[NDArray[np.float32]]) -> Agreement:
    products = [found for pair in stamps if (found := half_products(pair, MASK, BANDS)) is not None]
    return agreement(np.array(products), BANDS, false_alarms=5e-4)


def off(pixels: Image, rng: np.random.Generator) -> Image:
    angle = rng.uniform(0, 2 * np.pi)
    return ndimage.shift(pixels, (0, 0.3 * np.sin(angle), 0.3 * np.cos(angle)), order=3, mode="nearest")


# Of white noise of 1, that of a pixel is 0.5 once smoothed.
EITHER_WAY: dict[str, Change] = {
    "brightness": lambda pixels, rng: pixels * (1 + 0.05 * rng.choice([-1, 1])),
    "place": off,
    "level": lambda pixels, rng: pixels + 0.05 * 0.5 * rng.choice([-1, 1]),
}


@pytest.mark.parametrize("name", list(EITHER_WAY))
def test_a_difference_of_either_sign_is_found_and_named(name: str) -> None:
    found = asked(pairs(450, 1, EITHER_WAY[name]))
    assert any(said.startswith(name) for said in found.found), found


def test_noise_alone_is_found_in_none_of_120_sets_and_its_strengths_are_no_wider_than_chance() -> None:
    answers = [asked(pairs(24, seed)) for seed in range(100, 220)]
    assert not any(answer.found for answer in answers)
    strengths = np.array([answer.strength for answer in answers])
    assert strengths.std() < 1.1
    assert abs(strengths.mean()) < 0.1


def test_halves_with_next_to_no_pixels_say_nothing() -> None:
    (pair,) = pairs(1, 0)
    one_side = MASK & (np.arange(SIZE)[:, None] < 19) & (np.arange(SIZE) < 19)
    assert one_side.sum() > 200
    assert half_products(pair, one_side, BANDS) is None


def test_a_bound_holds_whatever_the_products_are_like() -> None:
    rng = np.random.default_rng(3)
    n_quantities = half_products(pairs(1, 0)[0], MASK, BANDS).shape[0]  # type: ignore[union-attr]
    alarms = 0
    for _ in range(300):
        heavy = rng.standard_t(1, (60, n_quantities)) * rng.standard_t(1, (60, 1))
        alarms += bool(agreement(heavy, BANDS, false_alarms=0.05).found)
    assert alarms <= 25  # 15 are the most that are expected.
