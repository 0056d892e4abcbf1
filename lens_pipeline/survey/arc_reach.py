"""Where an arc shines next to nothing: the pixels in which an injection must be like its control.

Belongs here: a quick estimate of the noiseless arc on whole pixels, apart from the integration that stamps are made with, so that
light which that one lost or misplaced isn't hidden by its own account of where it is.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage, signal

from lens_pipeline.survey.conditions import flux_of_mag, transmission
from lens_pipeline.survey.lensing import source_position
from lens_pipeline.survey.light import Sersic
from lens_pipeline.survey.optics import Image, crop, moffat_kernel, pixels_across

# Arc light, in sigmas of a pixel, that is next to nothing: what is left of it moves the mean of the pixels outside by a third
# as much, less than 500 pairs of the default survey can see.
NEGLIGIBLE_SIGMA = 0.003
# A cusp is known at pixel centres only: nearer to a source's centre than this many half-light radii it is taken as flat.
_CORE_REFF = 0.05
# Seeing is known to a few percent where a kernel is measured or assumed: the arc is spread a little further.
_WIDER = 1.05
# Images this near to the lens, with their PSF, are demagnified to less than a pixel.
_CENTRE_FWHM = 1.5

# A picture of a real galaxy is taken for a round and wide profile: it reaches further than others of its half-light radius.
_PICTURE = {"src_n": 1.5, "src_e": 0.0, "src_phi_rad": 0.0}
_PICTURE_WIDER = 1.5

NEEDED = ("theta_e_arcsec", "lens_e", "lens_phi_rad", "shear", "src_reff_arcsec", "src_x_arcsec", "src_y_arcsec")

Row = Mapping[str, Any]


def needed_columns(bands: Sequence[str]) -> tuple[str, ...]:
    """Columns of a stamp's row without which its arc can't be estimated."""
    return (*NEEDED, *(f"src_mag_{band}" for band in bands))


def outside_arc(
    row: Row, *, bands: Sequence[str], stamp_size: int, pixel_scale_arcsec: float, host: tuple[float, float],
    fwhm_arcsec: float, sigma: Image, ebv: float | None, psfs: NDArray[np.float32] | None = None,
) -> NDArray[np.bool_]:  # fmt: skip
    """Mark the pixels in which an arc is below `NEGLIGIBLE_SIGMA` in every band.

    Those within 1.5 FWHM of the lens's centre are never marked: images there are demagnified, and so smaller than the pixels at
    whose centres the source is looked up.

    Parameters
    ----------
    row : mapping
        The columns of `needed_columns`; lens_gamma, shear_phi_rad, src_n, src_e and src_phi_rad if known.
    host : (x, y)
        Place of the lens, arcsec from the stamp's centre.
    fwhm_arcsec : float
        Of the widest band's PSF, taken as a Moffat profile where there is no image of it.
    sigma : (band,) array
        Noise of a pixel, nanomaggy.
    psfs : (band, m, m) array, optional
        Images of the PSFs on the stamp's pixels; 0 where there is none. Measured ones have wings that no Moffat profile has.

    Returns
    -------
    (stamp_size, stamp_size) bool array
    """
    x, y = _pixels(stamp_size, pixel_scale_arcsec)
    light = _source_light(row, *source_position(row, x - host[0], y - host[1])) * pixel_scale_arcsec**2
    response = _response(round(_WIDER * fwhm_arcsec, 2), stamp_size, pixel_scale_arcsec)
    unit = crop(fft.irfft2(fft.rfft2(light) * response, s=light.shape), stamp_size)
    outside = crop(np.hypot(x - host[0], y - host[1]), stamp_size) > _CENTRE_FWHM * fwhm_arcsec
    for i, (band, noise) in enumerate(zip(bands, sigma, strict=True)):
        brightness = flux_of_mag(row[f"src_mag_{band}"]) * transmission(band, ebv) / noise
        psf = None if psfs is None or not psfs[i].any() else psfs[i]
        outside &= (unit if psf is None else _spread(light, psf, stamp_size)) * brightness < NEGLIGIBLE_SIGMA
    return np.asarray(outside)


def _spread(light: Image, psf: NDArray[np.float32], stamp_size: int) -> Image:
    """Convolve light with a PSF's image, and take a pixel's brightest neighbour: bands are off by parts of a pixel."""
    return crop(np.asarray(ndimage.maximum_filter(signal.fftconvolve(light, psf, mode="same"), 3)), stamp_size)


def _source_light(row: Row, bx: Image, by: Image) -> Image:
    """Brightness of a source of flux 1 at places of the source plane, per square arcsec."""
    if row.get("src_n") is None or row.get("src_e") is None:
        row = {**row, **_PICTURE, "src_reff_arcsec": _PICTURE_WIDER * row["src_reff_arcsec"]}
    shape = Sersic.of_source(row).shape()
    dx, dy = bx - shape.x, by - shape.y
    r2 = (shape.xx * dx + shape.xy * dy) ** 2 + (shape.yx * dx + shape.yy * dy) ** 2
    return np.asarray(shape.peak * np.exp(-shape.b * np.maximum(r2, _CORE_REFF**2) ** shape.power))


@lru_cache(maxsize=8)
def _pixels(stamp_size: int, pixel_scale_arcsec: float) -> tuple[Image, Image]:
    """Centres of the pixels of the padded image, x and y, arcsec from its middle."""
    n = pixels_across(stamp_size)
    axis = (np.arange(n) - (n - 1) / 2) * pixel_scale_arcsec
    x, y = np.meshgrid(axis, axis)
    return x, y


@lru_cache(maxsize=256)
def _response(fwhm_arcsec: float, stamp_size: int, pixel_scale_arcsec: float) -> Image:
    """Response of a Moffat PSF and a pixel, in the layout of rfft2."""
    quadrant = moffat_kernel(fwhm_arcsec, stamp_size, pixel_scale_arcsec).response
    return np.concatenate([quadrant[:-1], quadrant[:0:-1]])
