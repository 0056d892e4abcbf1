import numpy as np
import pytest
from scipy import signal

from lens_pipeline.contracts.errors import ContractError
from lens_pipeline.survey.optics import (
    OVERSAMPLING,
    PAD,
    cells_across,
    fwhm_of_averaged_moffat,
    moffat_kernel,
    moffat_width_over_alpha,
    observe,
    smooth,
    smooth_variance,
    smoothing_loss,
    smoothing_transfer,
    smoothing_weight,
    transform,
    white_sigma_of_depth,
)

SCALE, SIZE = 0.262, 64


def moffat(fwhm: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (1 + (x**2 + y**2) / (fwhm / moffat_width_over_alpha()) ** 2) ** -3.0


def averaged_moffat(fwhm: float, x: np.ndarray, y: np.ndarray, step: float) -> np.ndarray:
    h = step / 2
    return sum(moffat(fwhm, x + dx, y + dy) for dx in (-h, h) for dy in (-h, h)) / 4


@pytest.mark.parametrize("fwhm", [0.9, 1.35, 2.0])
def test_the_fwhm_is_twice_the_radius_of_the_circle_of_the_area_above_half_maximum(fwhm: float) -> None:
    fine = 0.01
    axis = np.arange(-150, 151) * fine
    x, y = np.meshgrid(axis, axis)
    step = SCALE / OVERSAMPLING
    image = averaged_moffat(fwhm, x, y, step)
    counted = 2 * np.sqrt((image > image.max() / 2).sum() * fine**2 / np.pi)
    assert moffat_kernel(fwhm, SIZE, SCALE).fwhm_arcsec == pytest.approx(counted, abs=0.003)
    assert fwhm_of_averaged_moffat(np.array([fwhm]), 1e-6)[0] == pytest.approx(fwhm, abs=1e-6)
    assert counted > fwhm


def test_the_psf_conserves_flux_and_spreads_it_as_a_direct_convolution_does() -> None:
    cells = np.zeros((cells_across(SIZE),) * 2)
    cells[74:78, 90:93] = [[1.0, 2.0, 0.5]] * 4
    fwhm = 1.1
    seen = observe(transform(cells), moffat_kernel(fwhm, SIZE, SCALE))
    assert seen.sum() == pytest.approx(cells.sum() / OVERSAMPLING**2, rel=1e-12)
    half = len(cells) // 2
    axis = np.arange(1 - half, half) * SCALE / OVERSAMPLING
    psf = moffat(fwhm, *np.meshgrid(axis, axis))
    direct = signal.fftconvolve(cells, psf / psf.sum(), mode="same")
    n = len(cells) // OVERSAMPLING
    direct = direct.reshape(n, OVERSAMPLING, n, OVERSAMPLING).mean(axis=(1, 3))
    assert np.abs(seen - direct).max() < 1e-4 * direct.max()


@pytest.mark.parametrize("correlation", [0.0, 0.2, 0.3, 0.4])
def test_smoothed_noise_has_the_stated_sigma_and_neighbour_correlation(correlation: float) -> None:
    white = np.random.default_rng(3).standard_normal((40, 130, 130))
    noise = smooth(white, correlation)
    assert noise.shape == (40, 128, 128)
    assert noise.std() == pytest.approx(smoothing_loss(correlation), rel=0.005)
    for a, b in ((noise[:, 1:], noise[:, :-1]), (noise[..., 1:], noise[..., :-1])):
        assert (a * b).mean() / noise.var() == pytest.approx(correlation, abs=0.01)
    assert smooth_variance(np.full((5, 5), 2.0), correlation) == pytest.approx(2 * smoothing_loss(correlation) ** 2)
    assert smoothing_transfer(96, correlation).min() > 0


def test_smoothing_transfer_is_the_transform_of_the_smoothing_kernel() -> None:
    a = smoothing_weight(0.3)
    along = np.array([a, 1 - 2 * a, a])
    kernel = np.zeros((16, 16))
    kernel[np.ix_([-1, 0, 1], [-1, 0, 1])] = np.outer(along, along)
    assert np.fft.rfft2(kernel).real == pytest.approx(smoothing_transfer(16, 0.3), abs=1e-12)


@pytest.mark.parametrize("correlation", [0.0, 0.3])
def test_a_point_source_fitted_in_the_noise_has_the_depth_that_the_noise_was_made_from(correlation: float) -> None:
    psfdepth, kernel = 900.0, moffat_kernel(1.35, SIZE, SCALE)
    sigma = white_sigma_of_depth(psfdepth, kernel, correlation)
    cells = np.zeros((cells_across(SIZE),) * 2)
    cells[96, 96] = OVERSAMPLING**2
    point = observe(transform(cells), kernel)[PAD : PAD + SIZE, PAD : PAD + SIZE]
    # The full covariance of smoothed noise on a small stamp, and the best linear estimate of the flux in it.
    n = 24
    point = point[20 : 20 + n, 20 : 20 + n]
    a = smoothing_weight(correlation)
    line = np.zeros((n, n + 2))
    for i in range(n):
        line[i, i : i + 3] = [a, 1 - 2 * a, a]
    h = np.kron(line, line)
    covariance = sigma**2 * h @ h.T
    information = point.ravel() @ np.linalg.solve(covariance, point.ravel())
    assert information == pytest.approx(psfdepth, rel=0.01)


def test_a_typical_r_image_has_the_noise_per_pixel_that_surveys_of_that_depth_have() -> None:
    kernel = moffat_kernel(1.35, SIZE, SCALE)
    depth = (5 / 10 ** ((22.5 - 24.5) / 2.5)) ** 2
    marginal = white_sigma_of_depth(depth, kernel, 0.3) * smoothing_loss(0.3)
    # 0.0027 nanomaggy was measured in six DR10 cutouts of unequal depth.
    assert 0.0027 / 1.6 < marginal < 0.0027 * 1.6


def test_a_psf_that_is_too_wide_or_too_narrow_to_be_measured_is_refused_rather_than_given_another_width() -> None:
    for width in (52.0, 0.1):
        with pytest.raises(ContractError, match=r"can't be rendered: at 0.262 arcsec a pixel it must have 0.262 to 8"):
            moffat_kernel(width, 64, 0.262)
