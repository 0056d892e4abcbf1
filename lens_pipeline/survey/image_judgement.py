"""Whether arcs can be injected into a cutout of a real galaxy: its unit, its sky, its noise, its masks and its PSFs.

Belongs here: the judgement of one cutout, band by band. Whether its bands show one galaxy is for `band_agreement.py`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lens_pipeline.survey.conditions import SEEING_BOUNDS_ARCSEC
from lens_pipeline.survey.cutout_measures import noise_per_pixel, sky_left
from lens_pipeline.survey.galaxy_images import CutoutRefusedError, GalaxyImage

# Noise of a pixel, nanomaggy: the Legacy Surveys' exposures have up to 0.05 (z), their coadds 0.002 to 0.02, the deepest
# coadds of the ground 5e-4. Images in ADU or electrons have more than 2, in maggy, Jansky or erg less than 1e-7.
_NOISE_BOUNDS = (3e-4, 0.1)
# Of a PSF image, in its own pixels: a single hot pixel has 1.16.
_LEAST_FWHM_PIXELS = 1.2
# FWHM of a PSF image over what the survey says of the seeing: the shared exposures have 0.92 to 0.99.
_FWHM_OVER_SEEING = (0.7, 1.4)
# Correlated pixels, and the light's own Poisson noise where a galaxy fills the cutout, make the two differ by less.
_NOISE_OVER_IVAR = 5.0
# Sky that is left in a cutout, in sigmas of a pixel: the 30 shared galaxies and the two spirals have -0.3 to 0.3 in stamps of 64
# pixels, -0.4 to 0.5 in those of 32 to 91. With 3 sigma added to a band of 64 pixels each is told.
_MOST_SKY = 2.0
# A host whose middle isn't seen is no host: its arc would be read against a hole.
CENTRE_RADIUS_ARCSEC = 1.5
MOST_BAD_PIXELS = 0.2


def must_be_usable(image: GalaxyImage) -> GalaxyImage:
    """Return the cutout if arcs can be injected into it.

    Raises
    ------
    CutoutRefusedError
        ``missing_band``, ``bad_ivar``, ``centre_masked``, ``too_many_bad_pixels``, ``wrong_unit``, ``ivar_unlike_noise``,
        ``sky_not_subtracted`` or ``wrong_seeing``.
    """
    bands_must_be_seen(image)
    _ivar_must_be_one(image)
    radius = _distance_arcsec(image)
    for i, band in enumerate(image.bands):
        if hidden := int((image.bad[i] & (radius[i] < CENTRE_RADIUS_ARCSEC)).sum()):
            raise CutoutRefusedError(
                "centre_masked",
                f"{hidden} pixels within {CENTRE_RADIUS_ARCSEC:g} arcsec of the galaxy are masked or not finite in {band}",
            )
    if image.bad_pixel_frac > MOST_BAD_PIXELS:
        raise CutoutRefusedError(
            "too_many_bad_pixels",
            f"{image.bad_pixel_frac:.0%} of the pixels are bad, at most {MOST_BAD_PIXELS:.0%} may be",
        )
    for i, band in enumerate(image.bands):
        noise = noise_per_pixel(image.pixels[i], image.bad[i])
        _must_be_nanomaggy(image, i, band, noise)
        _sky_must_be_subtracted(image, i, band, noise)
    scale = image.pixel_scale_arcsec
    for psf, fwhm, band in zip(image.psf, image.psf_fwhm_arcsec, image.bands, strict=True):
        if psf is not None:
            least = _LEAST_FWHM_PIXELS * psf.sampling * scale
            _seeing_must_be_one(psf.fwhm_pixels * scale, f"its PSF image in {band} has a FWHM of", least)
        elif fwhm is not None:
            _seeing_must_be_one(fwhm, f"the seeing in {band} is said to be")
    psf_must_agree(image, image.psf_fwhm_arcsec, "the survey's seeing there")
    return image


def bands_must_be_seen(image: GalaxyImage) -> GalaxyImage:
    """Return the cutout if each band has pixels that differ.

    Raises
    ------
    CutoutRefusedError
        ``missing_band``.
    """
    for i, band in enumerate(image.bands):
        if image.bad[i].all() or np.ptp(image.pixels[i][~image.bad[i]]) == 0:
            raise CutoutRefusedError("missing_band", f"nothing was observed in {band} here")
    return image


def psf_must_agree(image: GalaxyImage, seeing_arcsec: Sequence[float | None], whose: str) -> None:
    """Refuse a cutout whose PSF image is of another width than the seeing that is said of its place, where both are known.

    Models of the same exposure differ by less than a tenth; the PSF of another one, or of another pixel scale, by more.

    Parameters
    ----------
    seeing_arcsec : sequence of float or None
        FWHM by band.
    whose : str
        What says it, for the reason.

    Raises
    ------
    CutoutRefusedError
        ``wrong_seeing``.
    """
    low, high = _FWHM_OVER_SEEING
    for psf, said, band in zip(image.psf, seeing_arcsec, image.bands, strict=True):
        if psf is None or said is None:
            continue
        found = psf.fwhm_pixels * image.pixel_scale_arcsec
        if not low <= found / said <= high:
            raise CutoutRefusedError(
                "wrong_seeing",
                f"its PSF image in {band} has a FWHM of {found:.3g} arcsec, {whose} is {said:.3g}: {low:g} to {high:g} times "
                "that was wanted",
            )


def _ivar_must_be_one(image: GalaxyImage) -> None:
    if image.ivar is None:
        return
    for band, ivar in zip(image.bands, image.ivar, strict=True):
        if wrong := int((~(ivar >= 0) | np.isinf(ivar)).sum()):
            raise CutoutRefusedError(
                "bad_ivar", f"{wrong} pixels of the inverse variance in {band} are negative or not finite"
            )


def _seeing_must_be_one(fwhm_arcsec: float, said: str, least: float = 0.0) -> None:
    low, high = max(SEEING_BOUNDS_ARCSEC[0], least), SEEING_BOUNDS_ARCSEC[1]
    if not low <= fwhm_arcsec <= high:
        raise CutoutRefusedError("wrong_seeing", f"{said} {fwhm_arcsec:.4g}, wanted {low:.3g} to {high:g} arcsec")


def _must_be_nanomaggy(image: GalaxyImage, i: int, band: str, noise: float) -> None:
    low, high = _NOISE_BOUNDS
    if not low <= noise <= high:
        kind = "maggy, Jansky or a noiseless model" if noise < low else "ADU or electrons"
        raise CutoutRefusedError(
            "wrong_unit",
            f"pixels in {band} have a noise of {noise:.3g}, nanomaggy have {low:g} to {high:g}: these look like {kind}. "
            f"Multiply by 10^((22.5 - zero point) / 2.5)",
        )
    if image.ivar is None:
        return
    said = 1 / np.sqrt(float(np.median(image.ivar[i][~image.bad[i]])))
    if not 1 / _NOISE_OVER_IVAR < noise / said < _NOISE_OVER_IVAR:
        raise CutoutRefusedError(
            "ivar_unlike_noise",
            f"pixels in {band} have a noise of {noise:.3g}, their inverse variance says {said:.3g}: one of them has another unit",
        )


def _sky_must_be_subtracted(image: GalaxyImage, i: int, band: str, noise: float) -> None:
    left = sky_left(image.pixels[i], image.bad[i])
    if not abs(left) <= _MOST_SKY * noise:
        raise CutoutRefusedError(
            "sky_not_subtracted",
            f"the corners in {band} have {left:.3g} nanomaggy a pixel, {left / noise:.1f} times the noise, where there should be "
            f"sky of 0; at most {_MOST_SKY:g} times may be left. Subtract the sky, or leave out a galaxy that fills its cutout",
        )


def _distance_arcsec(image: GalaxyImage) -> NDArray[np.float64]:
    """Distance of each pixel from the galaxy, (band, y, x)."""
    y, x = (image.pixel_scale_arcsec * (np.arange(n, dtype=np.float64) - (n - 1) / 2) for n in image.pixels.shape[-2:])
    dx = x - image.offset_arcsec[:, 0, None, None]
    dy = y[:, None] - image.offset_arcsec[:, 1, None, None]
    return np.asarray(np.hypot(dx, dy))
