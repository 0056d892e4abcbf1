"""Bands of one cutout that show different places, or have other zero points."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from lens_pipeline.contracts.errors import ContractError
from lens_pipeline.survey.band_agreement import bands_must_agree, sample_must_agree
from lens_pipeline.survey.cutout_measures import noise_per_pixel
from lens_pipeline.survey.galaxy_images import CutoutRefusedError, GalaxyImage
from lens_pipeline.survey.image_judgement import must_be_usable

from .conftest import Survey, real_config

SIZE, SCALE = 64, 0.262
SIGMA = {"g": 0.003, "r": 0.005, "z": 0.012}
# Of a luminous red galaxy of r = 20.
MAGS = {"g": 21.7, "r": 20.0, "z": 18.9}


def cutout(
    mags: dict[str, float] = MAGS, moved: dict[str, float] | None = None, said: dict[str, float] | None = None
) -> GalaxyImage:
    """A round exponential galaxy of 0.5 arcsec scale length in noise.

    Parameters
    ----------
    moved : dict
        By how many arcsec along x a band's light stands off the middle.
    said : dict
        By how many arcsec along x it is known to.
    """
    moved, said = moved or {}, said or {}
    axis = SCALE * (np.arange(SIZE) - (SIZE - 1) / 2)
    planes = []
    for i, (band, mag) in enumerate(mags.items()):
        profile = np.exp(-np.hypot(axis[:, None], axis - moved.get(band, 0.0)) / 0.5)
        noise = np.random.default_rng(i).normal(0, SIGMA[band], (SIZE, SIZE))
        planes.append(10 ** ((22.5 - mag) / 2.5) * profile / profile.sum() + noise)
    offset = np.array([(said.get(band, 0.0), 0.0) for band in mags])
    return GalaxyImage.of(tuple(mags), np.array(planes), None, None, pixel_scale_arcsec=SCALE, offset_arcsec=offset)


def verdict(image: GalaxyImage, **known: Any) -> str:
    try:
        bands_must_agree(image, known)
    except CutoutRefusedError as error:
        return error.reason
    return "one galaxy"


@pytest.mark.parametrize("band", ["g", "z"])
def test_a_band_whose_light_stands_elsewhere_than_that_of_r_is_refused(band: str) -> None:
    assert verdict(cutout()) == verdict(cutout(moved={band: 0.4})) == "one galaxy"
    for arcsec in (0.9, -0.9, 2.62):
        assert verdict(cutout(moved={band: arcsec})) == "bands_apart"
    # Exposures are cut to whole pixels of their own, and say where the place stands in each.
    assert verdict(cutout(moved={band: 0.8}, said={band: 0.4})) == "one galaxy"
    assert verdict(cutout(moved={band: 0.4}, said={band: -0.4})) == "bands_apart"


def test_a_band_that_is_too_faint_to_be_placed_is_not_held_against_r() -> None:
    for faint in (24.5, 25.5, 30.0):
        assert verdict(cutout(MAGS | {"r": 21.0, "g": faint})) == "one galaxy"


@pytest.mark.parametrize("band", ["g", "r", "z"])
def test_each_bands_brightness_is_held_against_its_own_magnitude_of_the_catalogue(band: str) -> None:
    assert verdict(cutout(), **{f"mag_{name}": mag for name, mag in MAGS.items()}) == "one galaxy"
    for off in (2.0, -3.0):
        assert verdict(cutout(), **{f"mag_{band}": MAGS[band] + off}) == "mag_unlike_catalogue"
    with pytest.raises(CutoutRefusedError, match=f"mag in {band} within 2.5 arcsec, the catalogue says 15.00"):
        bands_must_agree(cutout(), {f"mag_{band}": 15.0})


def test_a_galaxy_that_noise_hides_in_a_band_may_have_any_magnitude_there_that_noise_hides() -> None:
    dark = cutout(MAGS | {"r": 21.0, "g": 30.0})
    assert verdict(dark, mag_g=24.5) == "one galaxy"
    assert verdict(dark, mag_g=20.0) == "mag_unlike_catalogue"


@pytest.mark.parametrize(
    ("mags", "reason"),
    [
        ({"g": 19.9}, "one galaxy"),
        ({"g": 18.3}, "absurd_colour"),
        ({"g": 24.9}, "absurd_colour"),
        ({"z": 16.3}, "absurd_colour"),
        ({"z": 21.5}, "absurd_colour"),
        ({"z": 40.0}, "absurd_colour"),
        ({"r": 17.5}, "absurd_colour"),
    ],
)
def test_colours_that_no_galaxy_has_are_refused_without_a_catalogue(mags: dict[str, float], reason: str) -> None:
    assert verdict(cutout(MAGS | {"r": 19.5} | mags)) == reason


def test_a_sample_whose_colours_no_sample_has_is_refused_where_each_galaxy_alone_could_be() -> None:
    rows = [{f"mag_aperture_{band}": mag for band, mag in MAGS.items()}] * 5
    sample_must_agree(rows, "grz")
    for band, off, said in (("g", -2.5, r"g - r of 5 galaxies .* is -0\.80"), ("z", -1.5, r"r - z .* is 2\.60")):
        name = f"mag_aperture_{band}"
        moved = [row | {name: row[name] + off} for row in rows]
        with pytest.raises(ContractError, match=said + r" in the median, wanted -0\.3 to 2\.5.*another zero point"):
            sample_must_agree(moved, "grz")
        sample_must_agree(moved[:4], "grz")


@pytest.mark.parametrize("band", ["g", "z"])
def test_a_sample_as_bright_as_its_catalogue_in_r_alone_is_refused(band: str) -> None:
    row = {f"mag_aperture_{name}": mag + 0.3 for name, mag in MAGS.items()}
    rows = [row | {f"mag_{name}": mag for name, mag in MAGS.items()}] * 5
    sample_must_agree(rows, "grz")
    with pytest.raises(ContractError, match=rf"mag_aperture_{band} - mag_{band} of 5 galaxies is -0\.70 in the median"):
        sample_must_agree([one | {f"mag_{band}": MAGS[band] + 1.0} for one in rows], "grz")


def real_planes(real_data: Path) -> np.ndarray:
    """The shared galaxies, (galaxy, band, y, x)."""
    cubes = [fits.getdata(real_data / "des_lrg_cutouts" / f"{band}.fits") for band in "grz"]
    return np.stack(cubes, axis=1)[..., 13:77, 13:77].astype(np.float32)


def real_verdicts(planes: np.ndarray) -> list[str]:
    return [verdict(GalaxyImage.of(tuple("grz"), galaxy, None, None, pixel_scale_arcsec=0.263)) for galaxy in planes]


@pytest.mark.real_data
def test_bands_of_real_galaxies_agree_until_one_is_moved_or_scaled(real_data: Path) -> None:
    planes = real_planes(real_data)
    assert real_verdicts(planes) == ["one galaxy"] * 30
    moved, scaled = planes.copy(), planes.copy()
    moved[:, 2] = np.roll(planes[:, 2], -10, axis=-2)
    scaled[:, 1] *= 10
    assert real_verdicts(moved) == ["bands_apart"] * 30
    assert real_verdicts(scaled) == ["absurd_colour"] * 30


@pytest.mark.real_data
@pytest.mark.parametrize("sigmas", [3, -3])
def test_real_galaxies_have_no_sky_left_until_some_is_added_to_one_band(real_data: Path, sigmas: float) -> None:
    for galaxy in real_planes(real_data):
        must_be_usable(GalaxyImage.of(tuple("grz"), galaxy, None, None, pixel_scale_arcsec=0.263))
        for i in range(3):
            lifted = galaxy.copy()
            lifted[i] += sigmas * noise_per_pixel(galaxy[i], np.zeros(galaxy.shape[1:], dtype=bool))
            with pytest.raises(CutoutRefusedError, match=f"sky_not_subtracted: the corners in {'grz'[i]} have"):
                must_be_usable(GalaxyImage.of(tuple("grz"), lifted, None, None, pixel_scale_arcsec=0.263))


@pytest.mark.real_data
def test_real_cubes_of_which_one_has_another_zero_point_are_refused(
    survey: Survey, real_data: Path, tmp_path: Path
) -> None:
    for band in "grz":
        with fits.open(real_data / "des_lrg_cutouts" / f"{band}.fits") as hdus:
            if band == "g":
                hdus[0].data = hdus[0].data * 10
            hdus.writeto(tmp_path / f"{band}.fits")
    with pytest.raises(ContractError, match=r"g - r of 2\d galaxies within 2.5 arcsec is -0\.\d+ in the median"):
        survey.parents(real_config(tmp_path))
