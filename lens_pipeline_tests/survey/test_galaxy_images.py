from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lens_pipeline.survey.cutout_measures import noise_per_pixel
from lens_pipeline.survey.galaxy_images import CutoutRefusedError, GalaxyImage, Quarantine
from lens_pipeline.survey.image_judgement import must_be_usable
from lens_pipeline.survey.psf_image import PsfImage

SIGMAS = np.array([0.0029, 0.0044, 0.0125])


def arrays(seed: int = 0) -> dict[str, Any]:
    """A bright galaxy in noise, its inverse variance, nothing masked; (band, y, x)."""
    axis = np.arange(64) - 31.5
    galaxy = 0.5 * np.exp(-np.hypot(axis, axis[:, None]) / 6)
    noise = np.random.default_rng(seed).normal(size=(3, 64, 64)) * SIGMAS[:, None, None]
    ivar = np.broadcast_to(SIGMAS[:, None, None] ** -2.0, noise.shape).copy()
    return {"pixels": galaxy + noise, "ivar": ivar, "bad": np.zeros(noise.shape, dtype=bool)}


def image(**changed: Any) -> GalaxyImage:
    return GalaxyImage.of(("g", "r", "z"), pixel_scale_arcsec=0.262, **(arrays() | changed))


def test_a_sound_cutout_is_taken_with_and_without_an_inverse_variance() -> None:
    assert must_be_usable(image()).bad_pixel_frac == 0
    assert must_be_usable(image(ivar=None, bad=None)).ivar is None
    assert must_be_usable(image(psf=(star(2.0, 31), None, None))).psf[1] is None


def test_pixels_that_are_not_finite_or_have_no_weight_are_marked_bad_and_counted() -> None:
    changed = arrays()
    changed["pixels"][0, 3, 4] = np.nan
    changed["ivar"][2, 3, 4:6] = 0
    cut = must_be_usable(image(**changed))
    assert cut.bad.sum() == 3
    assert cut.bad_pixel_frac == 2 / 64**2
    assert cut.pixels[0, 3, 4] == 0
    assert np.isfinite(cut.pixels).all()


def nan_centre(a: dict[str, Any]) -> None:
    a["pixels"][1, 31, 33] = np.nan


def masked_centre(a: dict[str, Any]) -> None:
    a["bad"][2, 28:31, 31] = True


def mostly_masked(a: dict[str, Any]) -> None:
    a["bad"][0, :20] = True


def not_observed(a: dict[str, Any]) -> None:
    a["ivar"][2] = 0


def all_zero(a: dict[str, Any]) -> None:
    a["pixels"][0], a["ivar"] = 0, None


def negative_ivar(a: dict[str, Any]) -> None:
    a["ivar"][1, 5, 5:9] = -1


def infinite_ivar(a: dict[str, Any]) -> None:
    a["ivar"][1, 5, 5] = np.inf


def adu(a: dict[str, Any]) -> None:
    # The disk-galaxy field's scale in r: 10^((25.27 + 4.89 - 22.5) / 2.5) ADU per nanomaggy.
    a["pixels"] *= 1156
    a["ivar"] = None


def adu_with_sky(a: dict[str, Any]) -> None:
    a["pixels"] = 1156 * a["pixels"] + 300
    a["ivar"] = None


def thirty_times(a: dict[str, Any]) -> None:
    a["pixels"] *= 30
    a["ivar"] /= 30.0**2


def sky_left_in_g(a: dict[str, Any]) -> None:
    a["pixels"][0] += 5 * SIGMAS[0]


def too_much_sky_taken_off_z(a: dict[str, Any]) -> None:
    a["pixels"][2] -= 3 * SIGMAS[2]


def seeing_in_pixels(a: dict[str, Any]) -> None:
    a["psf_fwhm_arcsec"] = (1.3, 4.94, 1.2)


def no_seeing_at_all(a: dict[str, Any]) -> None:
    a["psf_fwhm_arcsec"] = (None, 1.3, 0.05)


def star(width_pixels: float, size: int) -> PsfImage:
    axis = np.arange(size) - size // 2
    pixels = np.exp(-0.5 * (axis[:, None] ** 2 + axis**2) / width_pixels**2)
    return PsfImage.of(pixels / pixels.sum(), where="here")


def a_hot_pixel_as_psf(a: dict[str, Any]) -> None:
    a["psf"] = (None, star(0.3, 31), None)


def a_galaxy_as_psf(a: dict[str, Any]) -> None:
    a["psf"] = (star(2.0, 31), star(2.0, 31), star(7.0, 63))


def a_psf_of_half_the_seeing(a: dict[str, Any]) -> None:
    a["psf"], a["psf_fwhm_arcsec"] = (star(2.0, 31), star(1.0, 31), None), (1.3, 1.3, 1.2)


def a_psf_that_is_cut_off(a: dict[str, Any]) -> None:
    a["psf"] = (star(2.0, 5), None, None)


def maggy(a: dict[str, Any]) -> None:
    a["pixels"] *= 1e-9
    a["ivar"] = None


def ivar_in_adu(a: dict[str, Any]) -> None:
    a["ivar"] /= 1156.0**2


@pytest.mark.parametrize(
    ("change", "reason", "said"),
    [
        (nan_centre, "centre_masked", "1 pixels within 1.5 arcsec of the galaxy .* in r"),
        (masked_centre, "centre_masked", "3 pixels .* in z"),
        (mostly_masked, "too_many_bad_pixels", "31%"),
        (not_observed, "missing_band", "nothing was observed in z"),
        (all_zero, "missing_band", "nothing was observed in g"),
        (negative_ivar, "bad_ivar", "4 pixels of the inverse variance in r"),
        (infinite_ivar, "bad_ivar", "1 pixels"),
        (adu, "wrong_unit", "look like ADU or electrons"),
        (adu_with_sky, "wrong_unit", "look like ADU or electrons"),
        (thirty_times, "wrong_unit", "in r have a noise of 0.13"),
        (
            sky_left_in_g,
            "sky_not_subtracted",
            r"corners in g have 0\.0\d+ nanomaggy a pixel, [2-4]\.\d times the noise",
        ),
        (too_much_sky_taken_off_z, "sky_not_subtracted", r"corners in z have -0\.03\d* .* -[23]\.\d times the noise"),
        (a_hot_pixel_as_psf, "wrong_seeing", r"its PSF image in r has a FWHM of 0\.30\d+, wanted 0.314 to 4 arcsec"),
        (a_galaxy_as_psf, "wrong_seeing", r"its PSF image in z has a FWHM of 4\.3\d+, wanted 0.314 to 4 arcsec"),
        (
            a_psf_of_half_the_seeing,
            "wrong_seeing",
            r"its PSF image in r has a FWHM of 0\.6\d+ arcsec, the survey's seeing there is 1\.3: 0\.7 to 1\.4 times",
        ),
        (a_psf_that_is_cut_off, "wrong_seeing", "its PSF image in g has a FWHM of inf"),
        (seeing_in_pixels, "wrong_seeing", r"in r is said to be 4.94, wanted 0.3 to 4 arcsec"),
        (no_seeing_at_all, "wrong_seeing", "in z is said to be 0.05"),
        (maggy, "wrong_unit", "look like maggy, Jansky"),
        (ivar_in_adu, "ivar_unlike_noise", "noise of 0.003[0-9]*, their inverse variance says 3.3"),
    ],
)
def test_a_cutout_that_no_arc_can_be_put_into_is_refused_with_its_reason(
    change: Callable[[dict[str, Any]], None], reason: str, said: str
) -> None:
    changed = arrays()
    change(changed)
    with pytest.raises(CutoutRefusedError, match=said) as refused:
        must_be_usable(image(**changed))
    assert refused.value.reason == reason


def test_the_centre_is_where_the_galaxy_stands_in_each_band() -> None:
    changed = arrays()
    changed["bad"][1, 31, 38] = True
    must_be_usable(image(**changed))
    offset = np.array([[0, 0], [6.5 * 0.262, 0], [0, 0]])
    with pytest.raises(CutoutRefusedError, match="centre_masked"):
        must_be_usable(image(**changed, offset_arcsec=offset))


def test_a_bright_galaxy_and_a_sky_level_do_not_pass_for_noise() -> None:
    axis = np.arange(64) - 31.5
    host = 10 * np.exp(-np.hypot(axis, axis[:, None]) / 12)
    none = np.zeros((64, 64), dtype=bool)
    quiet = np.random.default_rng(1).normal(0, 0.005, (64, 64))
    assert noise_per_pixel((quiet + 100).astype(np.float32), none) == pytest.approx(0.005, rel=0.05)
    must_be_usable(image(pixels=arrays()["pixels"] + host, ivar=None))


@pytest.mark.parametrize("size", [32, 64])
def test_large_galaxies_neighbours_and_masked_corners_do_not_pass_for_a_sky_that_was_left(size: int) -> None:
    axis = np.arange(size) - (size - 1) / 2
    radius = np.hypot(axis, axis[:, None])
    noise = np.random.default_rng(1).normal(size=(3, size, size)) * SIGMAS[:, None, None]
    # A half-light radius of 1.4 half widths: ten times the noise in the corners, and falling.
    elliptical = 0.03 * np.exp(-7.67 * ((radius / (0.7 * size)) ** 0.25 - 1))
    galaxy = 0.5 * np.exp(-radius / 3)
    beside = galaxy + np.exp(-np.hypot(axis + size / 2, axis[:, None]) / (size / 16))
    for light in (elliptical, galaxy, beside):
        must_be_usable(image(pixels=light + noise, ivar=None, bad=None))
    masked = np.zeros_like(noise, dtype=bool)
    masked[:, : size // 6, :] = True
    must_be_usable(image(pixels=galaxy + noise, ivar=None, bad=masked))
    with pytest.raises(CutoutRefusedError, match="sky_not_subtracted"):
        must_be_usable(image(pixels=galaxy + noise + 4 * SIGMAS[:, None, None], ivar=None, bad=masked))


def test_a_quarantine_counts_what_was_left_out_by_reason() -> None:
    quarantine = Quarantine()
    for name, reason in (("a", "wrong_unit"), ("b", "centre_masked"), ("c", "wrong_unit")):
        quarantine.add(name, CutoutRefusedError(reason, "because"))
    assert quarantine.counts == {"centre_masked": 1, "wrong_unit": 2}
    assert quarantine.rows[1] == {"galaxy_id": "b", "reason": "centre_masked", "detail": "because"}
