import numpy as np
import pytest

from lens_pipeline.survey.cutout_measures import centroid
from lens_pipeline.survey.galaxy_images import CutoutRefusedError

SIZE, SIGMA = 64, 0.005


def sky(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, SIGMA, (SIZE, SIZE)).astype(np.float32)


def disk(scale: float, x: float, y: float, peak: float) -> np.ndarray:
    """An exponential galaxy of 1 arcsec scale length, its middle so many arcsec from that of the stamp."""
    axis = scale * (np.arange(SIZE) - (SIZE - 1) / 2)
    return np.asarray(peak * np.exp(-np.hypot(axis[:, None] - y, axis - x)), dtype=np.float32)


def verdict(pixels: np.ndarray, scale: float = 0.262) -> str:
    try:
        centroid(pixels, scale)
    except CutoutRefusedError as error:
        return error.reason
    return "found"


def test_a_galaxy_fainter_than_its_pixels_noise_suggests_is_found_and_noise_alone_never_is() -> None:
    faint = disk(0.262, 0.1, 0.0, 3.5 * SIGMA)
    assert {verdict(faint + sky(seed)) for seed in range(100)} == {"found"}
    assert {verdict(sky(seed)) for seed in range(500)} == {"no_galaxy"}


@pytest.mark.parametrize("scale", [0.1, 0.262, 0.5])
def test_a_galaxy_may_stand_half_an_arcsec_from_its_place_and_no_more_than_an_arcsec(scale: float) -> None:
    found = centroid(disk(scale, 0.3, -0.4, 1.0) + sky(0), scale)
    assert np.multiply(found, scale) == pytest.approx((0.3, -0.4), abs=0.5 * max(scale, 0.2))
    for off in (0.5, -0.5):
        assert verdict(disk(scale, off, 0, 1.0) + sky(1), scale) == "found"
    for off in (1.2, -1.2, 2.0, 3.0):
        assert verdict(disk(scale, 0, off, 1.0) + sky(2), scale) == "off_centre"
