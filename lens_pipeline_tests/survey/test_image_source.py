from typing import Any

import numpy as np
import pytest

from lens_pipeline.contracts.errors import PipelineError
from lens_pipeline.survey.image_source import ImageSource
from lens_pipeline.survey.light import Grid, Sersic, galaxy_light, lensed_light

GRID = Grid.of(64, 0.262)
LENS = {"theta_e_arcsec": 1.4, "lens_e": 0.15, "lens_phi_rad": 0.6, "shear": 0.04, "shear_phi_rad": 1.0}
SCALE = 0.03


def disk(**change: Any) -> Sersic:
    values = {
        "flux": 2.0, "reff_arcsec": 0.3, "n": 1.0, "ellipticity": 0.25, "phi_rad": 0.5, "x_arcsec": 0.0, "y_arcsec": 0.0,
    }  # fmt: skip
    return Sersic(**{**values, **change})


def picture(profile: Sersic, across: int = 141, times: int = 8) -> np.ndarray:
    """Sample a profile finely: each pixel the mean over itself."""
    shape = profile.shape()
    axis = ((np.arange(across * times) + 0.5) / times - across / 2) * SCALE
    x, y = np.meshgrid(axis, axis)
    p, s = shape.xx * x + shape.xy * y, shape.yx * x + shape.yy * y
    values = shape.peak * np.exp(-shape.b * np.hypot(p, s) ** (2 * shape.power))
    return values.reshape(across, times, across, times).mean(axis=(1, 3))


def placed(pixels: np.ndarray, **change: Any) -> ImageSource:
    values = {"flux": 2.0, "pixel_scale_arcsec": SCALE, "phi_rad": 0.0, "x_arcsec": 0.0, "y_arcsec": 0.0}
    return ImageSource.of(pixels, **{**values, **change})


def test_a_picture_of_a_galaxy_is_lensed_as_the_galaxy_is() -> None:
    drawn = lensed_light(GRID, disk(x_arcsec=0.3, y_arcsec=-0.2), LENS, 0.1, 0.0)
    seen = lensed_light(GRID, placed(picture(disk()), x_arcsec=0.3, y_arcsec=-0.2), LENS, 0.1, 0.0)
    assert seen.sum() == pytest.approx(drawn.sum(), rel=2e-3)
    assert np.abs(seen - drawn).max() < 0.02 * drawn.max()


def test_turning_and_moving_a_picture_turns_and_moves_the_galaxy() -> None:
    turned, _ = galaxy_light(GRID, placed(picture(disk(phi_rad=0.0)), phi_rad=0.5, x_arcsec=0.4, y_arcsec=0.1))
    drawn, _ = galaxy_light(GRID, disk(phi_rad=0.5, x_arcsec=0.4, y_arcsec=0.1))
    assert np.abs(turned - drawn).max() < 0.02 * drawn.max()


def test_a_picture_keeps_its_flux_whatever_its_pixels_and_shape() -> None:
    pixels = np.random.default_rng(3).exponential(1.0, (20, 31))
    light, _ = galaxy_light(GRID, placed(pixels, flux=5.0, phi_rad=0.7, x_arcsec=1.0))
    assert light.sum() / 4 == pytest.approx(5.0, rel=2e-3)


def test_every_detail_of_a_picture_is_found_wherever_it_stands() -> None:
    pixels = np.zeros((201, 201))
    pixels[30, 150] = 1.0
    light, _ = galaxy_light(GRID, placed(pixels))
    assert light.sum() / 4 == pytest.approx(2.0, rel=2e-3)
    place = [(light * axis).sum() / light.sum() for axis in (GRID.x, GRID.y)]
    assert place == pytest.approx([50 * SCALE, -70 * SCALE], abs=GRID.step / 2)


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.zeros((3, 9, 9)), "has 3 axes"),
        (np.where(np.eye(9) > 0, np.nan, 1.0), r"9 of 81 pixels of a source picture aren't finite: .*\(0, 0\)"),
        (np.full((9, 9), -1.0), "sum to -81"),
    ],
)
def test_a_picture_that_is_none_is_refused(pixels: np.ndarray, said: str) -> None:
    with pytest.raises(PipelineError, match=said):
        placed(pixels)
