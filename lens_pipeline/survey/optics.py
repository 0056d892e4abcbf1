"""The point-spread function and the noise: kernels, their width, and the pixel noise that depth and seeing imply.

Belongs here: what turns light into a noiseless image and then into a noisy one. What shines is in `light.py`.

All light is made on a grid of half-pixel cells, `PAD` pixels wider than the stamp on each side, convolved there, and
averaged into pixels. Noise is white noise smoothed by a 3x3 kernel, as resampling in a coadd smooths it.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.special import kv

from lens_pipeline.contracts.errors import ContractError

OVERSAMPLING = 2
PAD = 16
MOFFAT_BETA = 3

Image = NDArray[np.float64]


@dataclass(frozen=True)
class Kernel:
    """A circular Moffat PSF on one stamp's grid.

    Attributes
    ----------
    transfer : (n, n // 2 + 1) complex array
        From the transform of light on cells to that of pixels: PSF, average over a pixel's cells, and sampling at once.
    response : (n // 2 + 1, n // 2 + 1) array
        Modulus of the PSF as pixels see it, one quadrant, 1 at zero frequency.
    fwhm_arcsec : float
        Of the kernel actually used: the Moffat averaged over a pixel's cells; 2 sqrt(area above half maximum / pi).
    """

    transfer: NDArray[np.complex128]
    response: Image
    fwhm_arcsec: float


def pixels_across(stamp_size: int) -> int:
    """Pixels on a side of the padded image."""
    return stamp_size + 2 * PAD


def cells_across(stamp_size: int) -> int:
    """Cells on a side of the padded grid."""
    return OVERSAMPLING * pixels_across(stamp_size)


def moffat_width_over_alpha() -> float:
    """FWHM over the scale radius alpha of a Moffat profile (1 + r^2 / alpha^2)^-beta."""
    return float(2 * np.sqrt(2 ** (1 / MOFFAT_BETA) - 1))


def moffat_kernel(fwhm_arcsec: float, stamp_size: int, pixel_scale_arcsec: float) -> Kernel:
    """Make the kernel of a Moffat PSF.

    Frequencies above the pixels' Nyquist frequency are left out: a Moffat of 3 pixels' FWHM keeps 1e-4 there. With light
    averaged over cells, the average over a pixel's cells makes the average over the pixel.

    Parameters
    ----------
    fwhm_arcsec : float
        FWHM of the Moffat profile itself; the kernel's own is a little larger because cells are averaged into pixels.

    Raises
    ------
    ContractError
        If it is narrower than a pixel or wider than 8 arcsec.
    """
    step = pixel_scale_arcsec / OVERSAMPLING
    half = pixels_across(stamp_size) // 2
    alpha = fwhm_arcsec / moffat_width_over_alpha()
    # The kernel is even in x and y: one quadrant of its transform says all.
    psf = np.interp(_frequencies(half, step) * alpha, *_moffat_transform())
    along, down = _averaging(half)
    both = np.concatenate([psf[:half], psf[half:0:-1]])
    return Kernel(
        transfer=both * (down[:, None] * along) / OVERSAMPLING**2,
        response=psf * np.abs(along)[:, None] * np.abs(along),
        fwhm_arcsec=_fwhm_on_pixels(fwhm_arcsec, step),
    )


def _fwhm_on_pixels(fwhm_arcsec: float, step_arcsec: float) -> float:
    widths, on_pixels = _fwhm_table(step_arcsec)
    if not widths[0] <= fwhm_arcsec <= widths[-1]:
        raise ContractError(
            f"a PSF of {fwhm_arcsec:g} arcsec FWHM can't be rendered: at {OVERSAMPLING * step_arcsec:g} arcsec a pixel it must "
            f"have {widths[0]:.3g} to {widths[-1]:.3g} arcsec."
        )
    return float(np.interp(fwhm_arcsec, widths, on_pixels))


@lru_cache(maxsize=8)
def _frequencies(half: int, step_arcsec: float) -> Image:
    """Angular frequencies that pixels can hold, one quadrant, radians per arcsec."""
    along = np.arange(half + 1) * (np.pi / (half * OVERSAMPLING * step_arcsec))
    return np.asarray(np.hypot(along[:, None], along))


@lru_cache(maxsize=1)
def _moffat_transform() -> tuple[Image, Image]:
    """Fourier transform of a Moffat profile with beta = 3 and alpha = 1: k^2 K_2(k) / 2; linear in between to 1e-6.

    In general it is 2 (k / 2)^(beta - 1) K_(beta - 1)(k) / Gamma(beta - 1), by Basset's integral.
    """
    k = np.linspace(0, 40, 8001)
    return k, np.concatenate([[1.0], k[1:] ** 2 * kv(MOFFAT_BETA - 1, k[1:]) / 2])


@lru_cache(maxsize=8)
def _averaging(half: int) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Transfer of the mean over a pixel's cells along the columns and down the rows, in the layout of rfft2."""
    frequency = np.arange(-half, half + 1) / (2 * half * OVERSAMPLING)
    mean = sum(np.exp(2j * np.pi * frequency * cell) for cell in range(OVERSAMPLING)) / OVERSAMPLING
    return np.asarray(mean[half:]), np.concatenate([mean[half:-1], mean[:half]])


def transform(cells: Image) -> NDArray[np.complex128]:
    """Fourier transform of light on cells, cut to the frequencies that pixels can hold; (2n, 2n) -> (n, n // 2 + 1)."""
    n = cells.shape[-1] // OVERSAMPLING
    spectrum = fft.fft(fft.rfft(cells)[:, : n // 2 + 1], axis=0, overwrite_x=True)
    return np.concatenate([spectrum[: n // 2], spectrum[-(n // 2) :]])


def observe(spectrum: NDArray[np.complex128], kernel: Kernel) -> Image:
    """Convolve light with the PSF and average it into pixels; the total is conserved (the grid is periodic).

    Parameters
    ----------
    spectrum : (n, n // 2 + 1) array
        From `transform`, of light in nanomaggy per *pixel* on each cell.

    Returns
    -------
    (n, n) array
        nanomaggy in each pixel of the padded image.
    """
    n = spectrum.shape[0]
    return np.asarray(fft.irfft2(spectrum * kernel.transfer, s=(n, n)))


@lru_cache(maxsize=8)
def _fwhm_table(step_arcsec: float) -> tuple[Image, Image]:
    """FWHM of Moffat profiles, and of the same averaged over a pixel's cells; linear in between to 1e-6 arcsec."""
    widths = np.arange(2 * step_arcsec, 8.0, 0.005)
    return widths, fwhm_of_averaged_moffat(widths, step_arcsec)


def fwhm_of_averaged_moffat(fwhm_arcsec: Image, step_arcsec: float) -> Image:
    """2 sqrt(area above half maximum / pi) of Moffat profiles averaged over the 2x2 cells of a pixel, arcsec.

    The half-maximum contour r(angle) is found by Newton's method and the area is the mean of pi r^2.

    Parameters
    ----------
    fwhm_arcsec : (n,) array
        Of the profiles themselves.
    """
    widths = np.asarray(fwhm_arcsec, dtype=float)[:, None, None]
    alpha2 = (widths / moffat_width_over_alpha()) ** 2
    angle = (np.arange(8) + 0.5) * (np.pi / 16)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    shift = step_arcsec / 2
    dx, dy = shift * np.array([-1.0, -1, 1, 1]), shift * np.array([-1.0, 1, -1, 1])
    half_maximum = 0.5 * (1 + 2 * shift**2 / alpha2) ** -MOFFAT_BETA
    r = widths / 2 + np.zeros((8, 1))
    for _ in range(6):
        x, y = r * cos + dx, r * sin + dy
        base = 1 + (x**2 + y**2) / alpha2
        value = (base**-MOFFAT_BETA).mean(axis=-1, keepdims=True) - half_maximum
        falls = (x * cos + y * sin) * base ** (-MOFFAT_BETA - 1)
        slope = (-2 * MOFFAT_BETA / alpha2) * falls.mean(axis=-1, keepdims=True)
        r = r - value / slope
    return np.asarray(2 * np.sqrt((r[..., 0] ** 2).mean(axis=-1)))


def crop(pixels: Image, stamp_size: int, margin: int = 0) -> Image:
    """Cut the stamp, and `margin` pixels around it, out of the padded image."""
    start = (pixels.shape[-1] - stamp_size) // 2 - margin
    stop = start + stamp_size + 2 * margin
    return pixels[..., start:stop, start:stop]


@lru_cache(maxsize=4096)
def smoothing_weight(correlation: float) -> float:
    """Side weight a of the smoothing kernel [a, 1 - 2a, a] that gives white noise a lag-1 correlation.

    From rho = 2 a (1 - 2a) / ((1 - 2a)^2 + 2 a^2), the smaller root.
    """
    # (6 rho + 4) a^2 - (4 rho + 2) a + rho = 0
    b, c = 4 * correlation + 2, 6 * correlation + 4
    return float((b - np.sqrt(b * b - 4 * c * correlation)) / (2 * c))


def smoothing_loss(correlation: float) -> float:
    """Marginal sigma of smoothed noise over that of the white noise it was made of (both directions)."""
    a = smoothing_weight(correlation)
    return (1 - 2 * a) ** 2 + 2 * a * a


def smooth(white: Image, correlation: float) -> Image:
    """Smooth noise that is one pixel wider on each side; (..., n + 2, n + 2) -> (..., n, n)."""
    a = smoothing_weight(correlation)
    rows = a * (white[..., :-2, :] + white[..., 2:, :]) + (1 - 2 * a) * white[..., 1:-1, :]
    return np.asarray(a * (rows[..., :-2] + rows[..., 2:]) + (1 - 2 * a) * rows[..., 1:-1])


def smooth_variance(variance: Image, correlation: float) -> Image:
    """Marginal variance per pixel of noise smoothed from independent noise of the given variance; shrinks as `smooth`."""
    a = smoothing_weight(correlation)
    side, middle = a * a, (1 - 2 * a) ** 2
    rows = side * (variance[..., :-2, :] + variance[..., 2:, :]) + middle * variance[..., 1:-1, :]
    return np.asarray(side * (rows[..., :-2] + rows[..., 2:]) + middle * rows[..., 1:-1])


def smoothing_transfer(n: int, correlation: float) -> Image:
    """Fourier transform of the smoothing kernel on n x n pixels, in the layout of rfft2; positive everywhere."""
    a = smoothing_weight(correlation)
    along = 1 - 2 * a + 2 * a * np.cos(2 * np.pi * np.arange(n) / n)
    return np.asarray(along[:, None] * along[: n // 2 + 1])


def white_sigma_of_depth(psfdepth: float, kernel: Kernel, correlation: float) -> float:
    """Sigma of the white noise, before smoothing, with which a point source has the inverse variance `psfdepth`.

    The best linear estimate of a point source's flux in stationary noise has the inverse variance
    sum over frequencies of |P|^2 / S, with P the kernel seen by pixels and S = sigma^2 |H|^2 the noise's spectrum. Without
    smoothing this is the usual 1 / (sigma^2 N_eff), N_eff = 1 / sum P^2 (4 pi (sigma_psf / pixel)^2 for a Gaussian).

    Returns
    -------
    float
        nanomaggy. The marginal sigma of a pixel is this times `smoothing_loss(correlation)`.
    """
    n = kernel.transfer.shape[0]
    power = (kernel.response / smoothing_transfer(n, correlation)[: n // 2 + 1]) ** 2
    # One quadrant stands for all four; zero and Nyquist frequency stand on its edges once.
    times = np.full(n // 2 + 1, 2.0)
    times[[0, -1]] = 1.0
    return float(np.sqrt((power * times[:, None] * times).sum() / n**2 / psfdepth))
