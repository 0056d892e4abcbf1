"""Copies of a galaxy among cutouts are found whatever was done to them, and two galaxies are never taken for one."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from lens_pipeline.survey.galaxy_images import CutoutRefusedError, GalaxyImage
from lens_pipeline.survey.same_pixels import SeenPixels

SIZE, SIGMA, SCALE = 64, 0.004, 0.262
ORIENTATIONS = [(mirrored, turns) for mirrored in (False, True) for turns in range(4)]


def galaxy(seed: int, peak: float = 0.3) -> np.ndarray:
    """A round galaxy in three bands; of all seeds the same but for the noise and its place within a pixel."""
    random = np.random.default_rng(seed)
    axis = np.arange(SIZE) - (SIZE - 1) / 2
    x, y = random.uniform(-0.5, 0.5, 2)
    light = peak * np.exp(-np.hypot(axis[:, None] - y, axis - x) / 3)
    return (light + random.normal(0, SIGMA, (3, SIZE, SIZE))).astype(np.float32)


def turned(pixels: np.ndarray, mirrored: bool, turns: int) -> np.ndarray:
    return np.rot90(pixels[..., ::-1] if mirrored else pixels, turns, axes=(-2, -1))


def copies(galaxies: Iterable[np.ndarray]) -> list[int]:
    """Which of the galaxies are told to be copies of one before them."""
    pixels = np.stack(list(galaxies)).astype(np.float32)
    seen, found = SeenPixels(pixels), []
    for number, each in enumerate(pixels):
        image = GalaxyImage.of(("g", "r", "z"), each, None, None, pixel_scale_arcsec=SCALE)
        try:
            seen.must_be_new(f"{number}", number, image)
        except CutoutRefusedError:
            found.append(number)
    return found


@pytest.mark.parametrize(("mirrored", "turns"), ORIENTATIONS)
@pytest.mark.parametrize(("factor", "noise"), [(1.0, 0.0), (1.000001, 0.0), (1.3, 1e-6), (0.5, 1e-5)])
def test_a_copy_is_found_in_every_orientation_scaled_and_with_noise_of_its_own(
    mirrored: bool, turns: int, factor: float, noise: float
) -> None:
    others = [galaxy(seed) for seed in range(1, 4)]
    own = np.random.default_rng(99).normal(0, noise, (3, SIZE, SIZE))
    assert copies([galaxy(0), *others, factor * turned(galaxy(0), mirrored, turns) + own]) == [4]


def test_a_copy_is_found_in_any_one_band_and_with_another_sky_level() -> None:
    for band in range(3):
        other = galaxy(1)
        other[band] = galaxy(0)[band] + 0.05
        assert copies([galaxy(0), other]) == [1]


def test_every_copy_is_left_out_and_the_first_stays_however_many_there_are() -> None:
    many = [turned(galaxy(seed), *ORIENTATIONS[i % 8]) for i, seed in enumerate([0, 1, 0, 0, 1, 2, 0])]
    assert copies(many) == [2, 3, 4, 6]


@pytest.mark.parametrize("peak", [0.0, 0.3, 30.0])
def test_galaxies_that_differ_in_their_noise_alone_are_not_copies_of_each_other(peak: float) -> None:
    assert copies(galaxy(seed, peak) for seed in range(40)) == []


def test_bands_of_one_value_say_nothing_of_copies() -> None:
    flat = [galaxy(seed) for seed in range(3)]
    for each in flat:
        each[2] = 0
    assert copies(flat) == []


@pytest.mark.real_data
def test_real_galaxies_are_no_copies_of_each_other_and_their_copies_are_found(real_data: Path) -> None:
    planes = [fits.getdata(real_data / "des_lrg_cutouts" / f"{band}.fits") for band in "grz"]
    galaxies = np.stack(planes, axis=1)[..., 13:77, 13:77]
    assert copies(galaxies) == []
    noise = np.random.default_rng(0).normal(0, 1e-6, galaxies.shape)
    changed = [1.3 * turned(each, *ORIENTATIONS[i % 8]) + noise[i] for i, each in enumerate(galaxies)]
    assert copies([*galaxies, *changed]) == list(range(30, 60))
