"""An image of the point-spread function at a place: what a coadd or a PSFEx model says that a star looks like there.

Belongs here: the type, its normalisation and width, and reading one from a FITS file. Use as a kernel is in `measured_psf.py`.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from scipy import ndimage

from lens_pipeline.contracts.errors import ContractError

# PSFEx models of real exposures sum to 0.97 to 1.05, because their wings are cut and noisy.
_SUM_TOLERANCE = 0.1
_FARTHEST_CENTROID = 1.0
# Pixels out to this distance count for the centroid: the noise of the wings would pull it.
_CENTROID_REACH = 8
# A source off the middle by less, 0.005 arcsec, stays where it is.
_CENTRED = 0.02
_MOST_STEPS, _STEP_PIXELS = 50, 1e-6
# Rays along which half of the peak is looked for, and steps on them.
_ANGLES, _STEPS_PER_PIXEL = 64, 20


@dataclass(frozen=True)
class PsfImage:
    """A point source of flux 1 as the image's own pixels see it (the pixel's own width is in it).

    Attributes
    ----------
    pixels : (n, n) float64 array
        Sums to 1; the source is in the middle, at (n - 1) / 2.
    sampling : float
        Side of a PSF pixel in image pixels; 1 unless the model is sampled more finely.
    sum_found : float
        What the pixels summed to before they were divided by it.
    moved_pixels : tuple of float
        By how much, (x, y) in its own pixels, `recentred` moved the source; zeros where it didn't.
    """

    pixels: NDArray[np.float64]
    sampling: float
    sum_found: float
    moved_pixels: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(cls, pixels: Any, *, where: str, sampling: float = 1.0) -> "PsfImage":
        """Make one of an image that sums to 1 but for its cut wings.

        Raises
        ------
        ContractError
            If it isn't square and finite, doesn't sum to 1 within 10 %, or its light isn't in the middle.
        """
        pixels = np.asarray(pixels, dtype=np.float64)
        if pixels.ndim != 2 or pixels.shape[0] != pixels.shape[1] or not np.isfinite(pixels).all():
            raise ContractError(f"the PSF {where} has the shape {pixels.shape}, wanted a square of finite pixels.")
        total = float(pixels.sum())
        if not abs(total - 1) <= _SUM_TOLERANCE:
            raise ContractError(
                f"the PSF {where} isn't normalised: it sums to {total:.4g}, wanted 1 within {_SUM_TOLERANCE:.0%}. It may be "
                f"counts of a star, or cut too small; divide it by its total flux."
            )
        x, y = _centroid(pixels)
        if not max(abs(x), abs(y)) <= _FARTHEST_CENTROID:
            raise ContractError(
                f"the PSF {where} isn't centred: its light is at ({x:+.2f}, {y:+.2f}) pixels from the middle, at most "
                f"{_FARTHEST_CENTROID:g} is taken. Shift it, or arcs would be shifted."
            )
        return cls(pixels / total, sampling, total)

    def recentred(self) -> "PsfImage":
        """Return it with its source in the middle, itself where that is so within 0.02 pixels.

        It is cut about the pixel that is nearest to the source, and what is left of the way, up to half a pixel, is a turn of the
        phases of its Fourier transform, which neither widens nor sharpens it.
        """
        x, y = _source(self.pixels)
        if max(abs(x), abs(y)) <= _CENTRED:
            return self
        last = len(self.pixels) - 1
        column, row = round(last / 2 + x), round(last / 2 + y)
        half = min(column, row, last - column, last - row)
        cut = self.pixels[row - half : row + half + 1, column - half : column + half + 1]
        turned = ndimage.fourier_shift(np.fft.fft2(cut), (row - last / 2 - y, column - last / 2 - x))
        moved = np.fft.ifft2(turned).real
        return replace(self, pixels=moved / moved.sum(), moved_pixels=(-x, -y))

    @cached_property
    def fwhm_pixels(self) -> float:
        """2 sqrt(area above half maximum / pi), in image pixels; infinite where its image ends before half of the maximum.

        The image is interpolated by cubic splines along rays from its peak; the area is the mean of pi r^2 over them, r where
        the profile falls below half of the peak.
        """
        coefficients = ndimage.spline_filter(self.pixels)
        y0, x0 = _peak(self.pixels, coefficients)
        angle = (np.arange(_ANGLES) + 0.5) * (2 * np.pi / _ANGLES)
        r = np.arange(0, max(min(self.pixels.shape) / 2 - 2, 0.01), 1 / _STEPS_PER_PIXEL)
        rays = _at(coefficients, y0 + np.sin(angle)[:, None] * r, x0 + np.cos(angle)[:, None] * r)
        half_maximum = _at(coefficients, np.array([y0]), np.array([x0]))[0] / 2
        first = np.argmax(rays < half_maximum, axis=1)
        if not first.all():
            return float(np.inf)
        every = np.arange(_ANGLES)
        above, below = rays[every, first - 1], rays[every, first]
        crossing = (first - (half_maximum - below) / (above - below)) / _STEPS_PER_PIXEL
        return float(2 * np.sqrt((crossing**2).mean()) * self.sampling)

    def on_image_pixels(self, size: int) -> NDArray[np.float64]:
        """Return the PSF on a square of image pixels about its middle, summing to 1.

        It is cut or padded, and interpolated by cubic splines if it is sampled otherwise.

        Parameters
        ----------
        size : int
            Pixels on a side; odd, so that the middle is a pixel.
        """
        n = self.pixels.shape[0]
        if self.sampling == 1 and n % 2:
            half = max(0, (size - n) // 2)
            start = max(0, (n - size) // 2)
            image = np.pad(self.pixels[start : n - start, start : n - start], half)
        else:
            axis = (np.arange(size) - (size - 1) / 2) / self.sampling + (n - 1) / 2
            image = ndimage.map_coordinates(self.pixels, np.meshgrid(axis, axis, indexing="ij"), order=3)
        return np.asarray(image / image.sum())


def read_psf_image(path: Path, *, sampling: float = 1.0) -> PsfImage:
    """Read the PSF in the first image of a FITS file, as coadds and cutout services give it, and recentre it.

    Raises
    ------
    ContractError
        If it can't be read, isn't normalised or isn't centred.
    """
    try:
        with fits.open(path, memmap=False) as hdus:
            pixels = next((hdu.data for hdu in hdus if hdu.data is not None), None)
    except (OSError, TypeError, ValueError) as error:
        raise ContractError(f"{path} can't be read as FITS: {error}. Fetch or write it again.") from error
    if pixels is None:
        raise ContractError(f"{path} holds no image; wanted the PSF as one.")
    return PsfImage.of(pixels, where=str(path), sampling=sampling).recentred()


def _centroid(pixels: NDArray[np.float64]) -> tuple[float, float]:
    """Light-weighted centre (x, y) of the bright part, pixels from the middle."""
    axis = np.arange(pixels.shape[0]) - (pixels.shape[0] - 1) / 2
    near = np.hypot(axis, axis[:, None]) <= _CENTROID_REACH
    bright = np.where(near & (pixels > 0.05 * pixels.max()), pixels, 0)
    total = bright.sum()
    if not total > 0:
        return np.inf, np.inf
    return float(bright.sum(axis=0) @ axis / total), float(bright.sum(axis=1) @ axis / total)


def _source(pixels: NDArray[np.float64]) -> tuple[float, float]:
    """Place (x, y) of the source, pixels from the middle: the centroid under a Gaussian that stands there itself.

    The windowed position of SExtractor (https://sextractor.readthedocs.io/en/latest/PositionWin.html), which wings on one side
    hardly pull; the Gaussian is as wide as the area above half of the maximum.
    """
    axis = np.arange(pixels.shape[0]) - (pixels.shape[0] - 1) / 2
    variance = (pixels > pixels.max() / 2).sum() / (2 * np.pi * np.log(2))
    y, x = (float(axis[place]) for place in np.unravel_index(int(pixels.argmax()), pixels.shape))
    for _ in range(_MOST_STEPS):
        seen = pixels * np.exp(-((axis - x) ** 2 + (axis[:, None] - y) ** 2) / (2 * variance))
        dx, dy = seen.sum(axis=0) @ axis / seen.sum() - x, seen.sum(axis=1) @ axis / seen.sum() - y
        # Of a Gaussian under a window of its own width each step goes half of the way.
        x, y = float(x + 2 * dx), float(y + 2 * dy)
        if max(abs(dx), abs(dy)) < _STEP_PIXELS:
            break
    return x, y


def _peak(pixels: NDArray[np.float64], coefficients: NDArray[np.float64]) -> tuple[float, float]:
    """Place (y, x) of the interpolated image's maximum, to a fiftieth of a pixel."""
    y, x = (float(place) for place in np.unravel_index(int(pixels.argmax()), pixels.shape))
    for step in (0.1, 0.02):
        offsets = step * np.arange(-5, 6)
        dy, dx = np.meshgrid(offsets, offsets, indexing="ij")
        best = int(_at(coefficients, y + dy, x + dx).argmax())
        y, x = y + dy.flat[best], x + dx.flat[best]
    return y, x


def _at(coefficients: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(ndimage.map_coordinates(coefficients, [y, x], prefilter=False, mode="nearest"))
