from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from lens_pipeline.contracts.errors import ContractError
from lens_pipeline.survey.cutouts import PSF_PIXELS
from lens_pipeline.survey.light import Grid, Sersic, galaxy_light, lensed_light
from lens_pipeline.survey.measured_psf import image_kernel
from lens_pipeline.survey.optics import (
    OVERSAMPLING,
    cells_across,
    crop,
    moffat_kernel,
    observe,
    transform,
    white_sigma_of_depth,
)
from lens_pipeline.survey.psf_image import PsfImage, read_psf_image

from .test_optics import SCALE, SIZE, moffat


def gaussian_as_pixels_see_it(
    sx: float, sy: float, size: int = 63, angle: float = 0.0, sampling: float = 1.0
) -> np.ndarray:
    """A Gaussian of sigmas in image pixels, averaged over image pixels, on PSF pixels of `sampling` image pixels."""
    axis = sampling * (np.arange(size) - (size - 1) / 2)
    fine = (np.arange(11) - 5) / 11
    image = np.zeros((size, size))
    cos, sin = np.cos(angle), np.sin(angle)
    for dy in fine:
        for dx in fine:
            x, y = axis + dx, axis[:, None] + dy
            u, v = cos * x + sin * y, cos * y - sin * x
            image += np.exp(-0.5 * ((u / sx) ** 2 + (v / sy) ** 2))
    return image / image.sum()


def moffat_as_pixels_see_it(fwhm: float, size: int = 95, x0: float = 0.0, y0: float = 0.0) -> np.ndarray:
    """A Moffat profile averaged over pixels, at so many pixels from the middle."""
    axis = SCALE * (np.arange(size) - (size - 1) / 2)
    fine = SCALE * (np.arange(15) - 7) / 15
    along, down = axis - SCALE * x0, axis[:, None] - SCALE * y0
    image = sum(moffat(fwhm, along + dx, down + dy) for dx in fine for dy in fine)
    return np.asarray(image / image.sum())


@pytest.mark.parametrize("fwhm", [0.9, 1.35, 2.0])
def test_an_image_of_a_moffat_psf_gives_the_stamps_that_the_moffat_profile_gives(fwhm: float) -> None:
    grid = Grid.of(SIZE, SCALE)
    light = galaxy_light(grid, Sersic(1.0, 0.6, 1.0, 0.3, 0.4, 0.07, -0.21))[0]
    spectrum = transform(light)
    kernel = image_kernel(PsfImage.of(moffat_as_pixels_see_it(fwhm), where="here"), SIZE, SCALE)
    wanted = crop(observe(spectrum, moffat_kernel(fwhm, SIZE, SCALE)), SIZE)
    seen = crop(observe(spectrum, kernel), SIZE)
    assert np.abs(seen - wanted).max() < 2e-3 * wanted.max()
    # Half of a cell's width is missing in a Moffat kernel's own FWHM: 0.2 to 1 %.
    assert kernel.fwhm_arcsec == pytest.approx(moffat_kernel(fwhm, SIZE, SCALE).fwhm_arcsec, rel=0.012)


def test_a_small_source_anywhere_in_a_pixel_looks_like_its_psf_image_at_that_place() -> None:
    psf = PsfImage.of(gaussian_as_pixels_see_it(1.8, 1.4, angle=0.5), where="here")
    kernel = image_kernel(psf, SIZE, SCALE)
    n, x0, y0, sigma = cells_across(SIZE), -4.3, 6.15, 0.7

    def source(sx: float, sy: float, across: int, times: int) -> np.ndarray:
        """Mean over each of `across` squares a side, pixels from the middle, of a Gaussian of flux 1."""
        fine = (np.arange(across * times) - (across * times - 1) / 2) * (n / OVERSAMPLING / across / times)
        cos, sin = np.cos(0.5), np.sin(0.5)
        u, v = cos * (fine - x0) + sin * (fine - y0)[:, None], cos * (fine - y0)[:, None] - sin * (fine - x0)
        seen = np.exp(-0.5 * ((u / sx) ** 2 + (v / sy) ** 2)) / (2 * np.pi * sx * sy)
        return seen.reshape(across, times, across, times).mean(axis=(1, 3))

    seen = observe(transform(source(sigma, sigma, n, 4)), kernel)
    wanted = source(np.hypot(1.8, sigma), np.hypot(1.4, sigma), n // OVERSAMPLING, 8)
    assert seen.sum() == pytest.approx(1.0, rel=1e-6)
    assert np.abs(seen - wanted).max() < 1e-3 * wanted.max()


@pytest.mark.parametrize(("sx", "sy"), [(1.3, 1.3), (2.0, 1.5)])
def test_the_fwhm_is_that_of_the_circle_of_the_area_above_half_maximum(sx: float, sy: float) -> None:
    # The pixel's own width is in the image: a box adds a twelfth of a pixel squared of variance.
    wanted = np.sqrt(8 * np.log(2) * np.hypot(sx, 12**-0.5) * np.hypot(sy, 12**-0.5))
    psf = PsfImage.of(gaussian_as_pixels_see_it(sx, sy, angle=0.3), where="here")
    assert psf.fwhm_pixels == pytest.approx(wanted, rel=3e-3)


def test_a_finely_sampled_psf_is_the_same_kernel() -> None:
    coarse = image_kernel(PsfImage.of(gaussian_as_pixels_see_it(1.9, 1.6), where="here"), SIZE, SCALE)
    fine_pixels = gaussian_as_pixels_see_it(1.9, 1.6, size=101, sampling=0.5)
    fine = image_kernel(PsfImage.of(fine_pixels, where="here", sampling=0.5), SIZE, SCALE)
    assert np.abs(fine.transfer - coarse.transfer).max() < 1e-4 * np.abs(coarse.transfer).max()
    assert fine.fwhm_arcsec == pytest.approx(coarse.fwhm_arcsec, rel=2e-3)


def test_the_noise_of_a_depth_counts_every_direction_of_an_elongated_psf() -> None:
    pixels = gaussian_as_pixels_see_it(2.4, 1.2, angle=0.6)
    sigma = white_sigma_of_depth(900.0, image_kernel(PsfImage.of(pixels, where="here"), SIZE, SCALE), 0.0)
    # In white noise a point source has the inverse variance sum P^2 / sigma^2.
    assert (pixels**2).sum() / sigma**2 == pytest.approx(900.0, rel=2e-3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: 3.2 * p, r"isn't normalised: it sums to 3.2"),
        (lambda p: p[:, :-2], r"\(63, 61\), wanted a square"),
        (lambda p: np.where(p == p.max(), np.nan, p), "finite pixels"),
        (lambda p: np.roll(p, 3, axis=1), r"isn't centred: its light is at \(\+3.00, [+-]0.00\)"),
        (lambda p: 0 * p, "isn't normalised: it sums to 0"),
    ],
)
def test_an_image_that_is_no_psf_is_refused(change: object, said: str, tmp_path: Path) -> None:
    pixels = change(gaussian_as_pixels_see_it(1.8, 1.4))  # type: ignore[operator]
    fits.PrimaryHDU(pixels).writeto(tmp_path / "psf.fits")
    with pytest.raises(ContractError, match=said):
        read_psf_image(tmp_path / "psf.fits")


def test_a_psf_file_is_read_and_its_sum_is_kept(tmp_path: Path) -> None:
    pixels = gaussian_as_pixels_see_it(1.8, 1.4)
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(1.02 * pixels)]
    fits.HDUList(hdus).writeto(tmp_path / "psf.fits")
    psf = read_psf_image(tmp_path / "psf.fits")
    assert psf.sum_found == pytest.approx(1.02)
    assert psf.pixels == pytest.approx(pixels)
    (tmp_path / "psf.fits").write_bytes(b"SIMPLE  = broken")
    with pytest.raises(ContractError, match="can't be read as FITS"):
        read_psf_image(tmp_path / "psf.fits")
    fits.PrimaryHDU().writeto(tmp_path / "empty.fits")
    with pytest.raises(ContractError, match="holds no image"):
        read_psf_image(tmp_path / "empty.fits")


def test_a_psf_of_any_size_and_sampling_is_laid_on_image_pixels() -> None:
    wanted = gaussian_as_pixels_see_it(1.9, 1.6, size=41)
    for size in (25, 41, 63):
        psf = PsfImage.of(gaussian_as_pixels_see_it(1.9, 1.6, size=size), where="here")
        assert psf.on_image_pixels(41) == pytest.approx(wanted, abs=1e-6)
    fine = PsfImage.of(gaussian_as_pixels_see_it(1.9, 1.6, size=100, sampling=0.5), where="here", sampling=0.5)
    assert fine.on_image_pixels(41) == pytest.approx(wanted, abs=2e-5)


def ring_centroid(psf: PsfImage) -> np.ndarray:
    """Where the light of the ring of a round lens with its source behind it stands, (x, y) arcsec from the middle."""
    lens = {"theta_e_arcsec": 1.2, "lens_e": 0.0, "lens_phi_rad": 0.0, "shear": 0.0, "shear_phi_rad": 0.0}
    grid = Grid.of(SIZE, SCALE)
    ring = lensed_light(grid, Sersic(1.0, 0.2, 1.0, 0.0, 0.0, 0.0, 0.0), lens, 0.0, 0.0)
    seen = crop(observe(transform(ring), image_kernel(psf, SIZE, SCALE)), SIZE)
    axis = SCALE * (np.arange(SIZE) - (SIZE - 1) / 2)
    return np.array([seen.sum(axis=0) @ axis, seen.sum(axis=1) @ axis]) / seen.sum()


@pytest.mark.parametrize(("size", "x", "y"), [(64, 0.5, 0.5), (63, 0.9, 0.0), (63, -0.04, 0.3), (64, -0.5, 0.2)])
def test_a_psf_off_its_images_middle_moves_no_arc(size: int, x: float, y: float, tmp_path: Path) -> None:
    fits.PrimaryHDU(moffat_as_pixels_see_it(1.3, size, x, y)).writeto(tmp_path / "psf.fits")
    psf = read_psf_image(tmp_path / "psf.fits")
    assert psf.moved_pixels == pytest.approx((-x, -y), abs=2e-3)
    centred = PsfImage.of(moffat_as_pixels_see_it(1.3, 63), where="here")
    assert np.abs(ring_centroid(psf) - ring_centroid(centred)).max() < 1e-3
    wanted = centred.on_image_pixels(PSF_PIXELS)
    assert np.abs(psf.on_image_pixels(PSF_PIXELS) - wanted).max() < 2e-3 * wanted.max()
    assert psf.fwhm_pixels == pytest.approx(centred.fwhm_pixels, rel=2e-3)


@pytest.mark.parametrize("size", [63, 64])
def test_a_psf_in_the_middle_keeps_its_bytes_whatever_its_wings(size: int, tmp_path: Path) -> None:
    pixels = moffat_as_pixels_see_it(1.3, size)
    # A wing on one side that pulls the centroid of all light by a third of a pixel, as in models of the shared exposures.
    axis = np.arange(size) - (size - 1) / 2
    wing = np.exp(-0.5 * ((axis - 12) ** 2 + axis[:, None] ** 2) / 4**2)
    for made in (pixels, 0.97 * pixels + 0.03 * wing / wing.sum()):
        fits.PrimaryHDU(made).writeto(tmp_path / "psf.fits", overwrite=True)
        psf = read_psf_image(tmp_path / "psf.fits")
        assert psf.moved_pixels == (0.0, 0.0)
        assert np.array_equal(psf.pixels, made / made.sum())
