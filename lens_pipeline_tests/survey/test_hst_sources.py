from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lens_pipeline.contracts.errors import ConfigError, ContractError
from lens_pipeline.survey.galaxy_images import Quarantine
from lens_pipeline.survey.hst_sources import HstSource, denoise, read_hst_sources
from lens_pipeline.survey.light import Sersic
from lens_pipeline_tests.survey.hst_catalogues import MAG, SCALE, SIGMA, galaxy, noise, write


def read(path: Path) -> tuple[HstSource, ...]:
    quarantine = Quarantine()
    sources = read_hst_sources(path, quarantine)
    assert quarantine.rows == []
    return sources


def test_a_noisy_image_becomes_the_light_of_its_galaxy(tmp_path: Path) -> None:
    truth = galaxy()
    seen = truth + noise(truth.shape) + 0.0005
    source, other = read(write(tmp_path, [seen, np.flipud(seen)]))
    assert (source.source_id, source.band, source.mag, source.redshift) == ("cosmos-100", "F814W", MAG, 0.7)
    assert other.redshift is None
    assert source.pixel_scale_arcsec == SCALE
    assert source.light.sum() == pytest.approx(1)
    assert source.light.min() == 0
    # The radius is of a circle, the galaxy is an ellipse: the truth is measured in the same way.
    y, x = np.indices(truth.shape) - np.array([60, 60.5])[:, None, None]
    radius, light = np.hypot(y, x).ravel(), truth.ravel() / truth.sum()
    order = np.argsort(radius)
    wanted = np.interp(0.5, np.cumsum(light[order]), radius[order]) * SCALE
    assert source.half_light_radius_arcsec == pytest.approx(wanted, rel=0.04)
    assert source.flux_kept == pytest.approx(1, abs=0.06)


def test_noise_is_removed_and_the_galaxy_is_not() -> None:
    truth = galaxy()
    noises = [noise(truth.shape, seed) for seed in range(4)]
    left = np.array([denoise(truth + each, SIGMA) - truth for each in noises])
    y, x = np.indices(truth.shape) - 60
    core, sky = np.hypot(y, x) < 12, np.hypot(y, x) > 45
    assert left[:, sky].std() < SIGMA / 8
    assert left[:, core].std() < 0.75 * SIGMA
    # What is left averages out: no structure of the galaxy was thresholded away.
    assert abs(left[:, core].mean()) < 0.01 * truth[core].mean()


def test_neighbours_are_cut_off_and_a_galaxy_off_the_middle_is_centred(tmp_path: Path) -> None:
    small = Sersic(flux=5.0, reff_arcsec=0.15, n=1.0, ellipticity=0.0, phi_rad=0.0, x_arcsec=0.0, y_arcsec=0.0)
    truth = galaxy(161, 162, x=6.0, y=-4.0)
    seen = truth + galaxy(161, 162, x=60.0, y=50.0, sersic=small) + noise(truth.shape)
    (source,) = read(write(tmp_path, [seen]))
    assert source.flux_kept == pytest.approx(1, abs=0.06)
    for axis in (0, 1):
        n = source.light.shape[axis]
        assert abs(source.light.sum(axis=1 - axis) @ (np.arange(n) - (n - 1) / 2)) <= 0.5


def test_an_image_that_is_hardly_larger_than_its_galaxy_is_cut_at_a_brighter_isophote(tmp_path: Path) -> None:
    truth = galaxy(70, 70, sersic=Sersic(30.0, 0.25, 1.0, 0.1, 0.3, 0.0, 0.0))
    (source,) = read(write(tmp_path, [truth + noise(truth.shape)]))
    assert source.light[[0, -1]].max() == source.light[:, [0, -1]].max() == 0
    assert source.flux_kept > 0.9


def nothing(image: np.ndarray) -> np.ndarray:
    return noise(image.shape, 5) - 0.001


def off_the_middle(image: np.ndarray) -> np.ndarray:
    return np.roll(image, 45, axis=1)


def faint(image: np.ndarray) -> np.ndarray:
    return 0.01 * image + noise(image.shape, 7)


def larger_than_the_image(image: np.ndarray) -> np.ndarray:
    return image[45:75, 45:75].copy()


def two_in_one(image: np.ndarray) -> np.ndarray:
    return image + np.roll(0.7 * image, 12, axis=0)


def nan(image: np.ndarray) -> np.ndarray:
    image[3, 4] = np.nan
    return image


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        (nothing, {"not_centred", "too_faint"}),
        (off_the_middle, {"not_centred"}),
        (faint, {"too_faint", "not_centred"}),
        (two_in_one, {"blended"}),
        (larger_than_the_image, {"cut_off"}),
        (nan, {"not_finite"}),
    ],
)
def test_an_image_that_shows_no_whole_galaxy_is_left_out_with_its_reason(
    tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], reasons: set[str]
) -> None:
    seen = galaxy() + noise((121, 122))
    quarantine = Quarantine()
    sources = read_hst_sources(write(tmp_path, [seen, change(seen.copy())]), quarantine)
    assert [source.source_id for source in sources] == ["cosmos-100"]
    assert [row["galaxy_id"] for row in quarantine.rows] == ["cosmos-101"]
    assert quarantine.rows[0]["reason"] in reasons


def test_a_catalogue_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    seen = galaxy() + noise((121, 122))
    with pytest.raises(ConfigError, match="there is no catalogue"):
        read_hst_sources(tmp_path / "nothing.fits", Quarantine())
    with pytest.raises(ContractError, match="lacks noise_variance"):
        read_hst_sources(write(tmp_path, [seen], NOISE_VARIANCE=None), Quarantine())
    with pytest.raises(ContractError, match="names galaxies more than once: 7"):
        read_hst_sources(write(tmp_path, [seen, seen], IDENT=[7, 7]), Quarantine())
    with pytest.raises(ContractError, match=r"there is no .*other.fits, which the catalogue names"):
        read_hst_sources(write(tmp_path, [seen], GAL_FILENAME=["other.fits"]), Quarantine())
    with pytest.raises(ContractError, match=r"the images in .* can't be read"):
        read_hst_sources(write(tmp_path, [seen], GAL_HDU=[3]), Quarantine())
    with pytest.raises(ContractError, match=r"holds no usable galaxy of 1: \{'bad_catalogue': 1\}"):
        read_hst_sources(write(tmp_path, [seen], NOISE_VARIANCE=[0.0]), Quarantine())
    (tmp_path / "catalog.fits").write_bytes(b"nothing")
    with pytest.raises(ContractError, match="can't be read as a FITS table"):
        read_hst_sources(tmp_path / "catalog.fits", Quarantine())


@pytest.mark.real_data
def test_real_hst_galaxies_become_sources(real_data: Path) -> None:
    quarantine = Quarantine()
    sources = read_hst_sources(real_data / "hst_sources" / "real_galaxy_catalog_23.5.fits", quarantine)
    # Two of the ten lose a third of their light and more to noise and to the border of a tight image.
    assert [(row["galaxy_id"], row["reason"]) for row in quarantine.rows] == [
        ("cosmos-129658", "cut_off"),
        ("cosmos-178249", "cut_off"),
    ]
    # Half-light radii as the catalogue measured them on the whole mosaic (flux_radius, 0.03 arcsec each).
    said = {
        141190: 27.87,
        143346: 18.60,
        93315: 6.84,
        166341: 17.90,
        176290: 5.52,
        9205: 14.49,
        110283: 12.75,
        29162: 8.61,
    }
    assert {source.source_id for source in sources} == {f"cosmos-{ident}" for ident in said}
    for source in sources:
        wanted = 0.03 * said[int(source.source_id.removeprefix("cosmos-"))]
        assert source.half_light_radius_arcsec == pytest.approx(wanted, rel=0.08)
        assert source.light.sum() == pytest.approx(1)
        assert source.redshift is not None
