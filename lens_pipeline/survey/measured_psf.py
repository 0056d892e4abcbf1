"""A measured PSF as a kernel: the same role as `optics.moffat_kernel`, from an image instead of a profile.

A PSF image shows a point source as pixels see it, so the pixel's own width is in it already, while light on cells is the
mean over a cell. So its transform is divided by that of a cell, sinc(f_x / 2) sinc(f_y / 2) with f in cycles a pixel: at
least 0.81 up to the pixels' Nyquist frequency. What a PSF has beyond that frequency is unknown and left out.
"""

from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lens_pipeline.survey.optics import OVERSAMPLING, Image, Kernel, pixels_across
from lens_pipeline.survey.psf_image import PsfImage


def image_kernel(psf: PsfImage, stamp_size: int, pixel_scale_arcsec: float) -> Kernel:
    """Make the kernel of a PSF image.

    Returns
    -------
    Kernel
        Its `response` is the root mean square over the quadrants that `optics` takes for equal, so that sums of power
        over all frequencies are exact for a PSF of any shape.
    """
    n = pixels_across(stamp_size)
    half = n // 2
    down, along = _waves(n, psf.pixels.shape[0], psf.sampling)
    spectrum = down @ psf.pixels @ along.T
    sinc_down, sinc_along, place_down, place_along = _cells(n)
    transfer = spectrum / (sinc_down[:, None] * sinc_along) * (place_down[:, None] * place_along) / OVERSAMPLING**2
    power = np.abs(spectrum) ** 2
    # Rows of negative frequency stand from the end backwards; zero and Nyquist frequency have no other.
    other = power[np.r_[0, n - 1 : half : -1, half]]
    response = np.sqrt((power[: half + 1] + other) / 2)
    return Kernel(transfer=transfer, response=response, fwhm_arcsec=psf.fwhm_pixels * pixel_scale_arcsec)


def shifted(kernel: Kernel, x_pixels: float, y_pixels: float) -> Kernel:
    """Return the kernel of a band whose pixels stand elsewhere: light moves by (x, y) pixels; nothing else changes."""
    n = kernel.transfer.shape[0]
    turn = np.fft.fftfreq(n)[:, None] * y_pixels + np.fft.rfftfreq(n) * x_pixels
    return replace(kernel, transfer=kernel.transfer * np.exp(-2j * np.pi * turn))


@lru_cache(maxsize=8)
def _waves(n: int, size: int, sampling: float) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Transform of a PSF's pixels, about their middle, to the frequencies of an n x n image in the layout of rfft2."""
    place = sampling * (np.arange(size) - (size - 1) / 2)
    down = np.exp(-2j * np.pi * np.fft.fftfreq(n)[:, None] * place)
    return down, np.exp(-2j * np.pi * np.fft.rfftfreq(n)[:, None] * place)


@lru_cache(maxsize=8)
def _cells(n: int) -> tuple[Image, Image, NDArray[np.complex128], NDArray[np.complex128]]:
    """Transform of a cell, and the shift from a pixel's first cell to its middle; each down the rows and along."""
    down, along = np.fft.fftfreq(n), np.fft.rfftfreq(n)
    shift = (OVERSAMPLING - 1) / (2 * OVERSAMPLING)
    return (
        np.sinc(down / OVERSAMPLING),
        np.sinc(along / OVERSAMPLING),
        np.exp(2j * np.pi * down * shift),
        np.exp(2j * np.pi * along * shift),
    )
