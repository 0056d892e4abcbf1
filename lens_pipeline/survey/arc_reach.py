"""Where an arc shines next to nothing: the pixels in which an injection must be like its control.

Belongs here: a quick estimate of the noiseless arc on whole pixels, apart from the integration that stamps are made with, so that
light which that one lost or misplaced isn't hidden by its own account of where it is. Light that is no arc is in `fake_reach.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class View:
    """How light is seen in a stamp.

    Attributes
    ----------
    host : (x, y)
        Place of the host, arcsec from the stamp's centre.
    fwhm_arcsec : float
        Of the widest band's PSF, taken as a Moffat profile where there is no image of it.
    sigma : (band,) array
        Noise of a pixel, nanomaggy.
    psfs : (band, m, m) array or None
        Images of the PSFs on the stamp's pixels; 0 where there is none. Measured ones have wings that no Moffat profile has.
    """

    bands: Sequence[str]
    stamp_size: int
    pixel_scale_arcsec: float
    host: tuple[float, float]
    fwhm_arcsec: float
    sigma: Image
    ebv: float | None
    psfs: NDArray[np.float32] | None = None

    @property
    def pixels(self) -> tuple[Image, Image]:
        """Centres of the padded image's pixels, x and y, arcsec from the host."""
        x, y = _pixels(self.stamp_size, self.pixel_scale_arcsec)
        return x - self.host[0], y - self.host[1]

    def seen(self, light: Image) -> Image:
        """Convolve light of the padded image, nanomaggy a pixel, with each band's PSF; (band, stamp_size, stamp_size)."""
        response = _response(round(_WIDER * self.fwhm_arcsec, 2), self.stamp_size, self.pixel_scale_arcsec)
        moffat = crop(fft.irfft2(fft.rfft2(light) * response, s=light.shape), self.stamp_size)
        psfs = [None] * len(self.bands) if self.psfs is None else self.psfs
        return np.stack(
            [moffat if psf is None or not psf.any() else _spread(light, psf, self.stamp_size) for psf in psfs]
        )

    def brightness(self, row: Row, prefix: str) -> Image:
        """Flux of a row's magnitudes after extinction, in sigmas of a pixel, by band."""
        mags = [row[f"{prefix}{band}"] for band in self.bands]
        fluxes = [flux_of_mag(mag) * transmission(band, self.ebv) for band, mag in zip(self.bands, mags, strict=True)]
        return np.array(fluxes) / self.sigma

    def dark(self, light: Image, bright: Sequence[tuple[float, float]]) -> NDArray[np.bool_]:
        """Mark the pixels in which light, (band, y, x) in sigmas, is below `NEGLIGIBLE_SIGMA` in every band.

        Those within 1.5 FWHM of places that are bright on a scale smaller than pixels, arcsec from the host, are never marked.
        """
        outside = (light < NEGLIGIBLE_SIGMA).all(axis=0)
        for place in bright:
            x, y = (crop(axis, self.stamp_size) - at for axis, at in zip(self.pixels, place, strict=True))
            outside &= np.hypot(x, y) > _CENTRE_FWHM * self.fwhm_arcsec
        return np.asarray(outside)


def outside_arc(row: Row, view: View) -> NDArray[np.bool_]:
    """Mark the pixels in which an arc is below `NEGLIGIBLE_SIGMA` in every band.

    Those within 1.5 FWHM of the lens's centre are never marked: images there are demagnified, and so smaller than the pixels at
    whose centres the source is looked up.

    Parameters
    ----------
    row : mapping
        The columns of `needed_columns`; lens_gamma, shear_phi_rad, src_n, src_e and src_phi_rad if known.

    Returns
    -------
    (stamp_size, stamp_size) bool array
    """
    brightness = view.brightness(row, "src_mag_")[:, None, None]
    return view.dark(view.seen(arc_light(row, view)) * brightness, [(0.0, 0.0)])


def arc_light(row: Row, view: View) -> Image:
    """Estimate the arc of a source of flux 1 on the pixels of the padded image, before the PSF."""
    return source_light(row, view, *source_position({"shear": 0.0, **row}, *view.pixels))


def source_light(row: Row, view: View, x: Image, y: Image) -> Image:
    """Light that pixels have of a source of flux 1, seen at places of the source plane; parameters as in `outside_arc`."""
    return _source_light(row, x, y) * view.pixel_scale_arcsec**2


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
