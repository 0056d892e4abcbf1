"""What a cutout of a real galaxy is, whatever it was read from, and why one can't be used.

Belongs here: the type that every reader of real pixels returns, and the judgement of one cutout. Whole files that aren't what
they must be are for their reader to refuse (`ContractError`); a galaxy whose own pixels won't do raises `CutoutRefusedError`,
whose reason goes into a quarantine and is counted there.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lens_pipeline.contracts.errors import ContractError
from lens_pipeline.survey.psf_image import PsfImage

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]

_MAD_TO_SIGMA = 1.4826
# Noise of a pixel, nanomaggy: the Legacy Surveys' exposures have up to 0.05 (z), their coadds 0.002 to 0.02, the deepest
# coadds of the ground 5e-4. Images in ADU or electrons have more than 2, in maggy, Jansky or erg less than 1e-7.
_NOISE_BOUNDS = (3e-4, 0.1)
# FWHM that the ground sees: a map in pixels, or of another quantity, is told by being outside.
_SEEING_BOUNDS_ARCSEC = (0.3, 4.0)
# Of a PSF image, in its own pixels: a single hot pixel has 1.16.
_LEAST_FWHM_PIXELS = 1.2
# FWHM of a PSF image over what the survey says of the seeing: the shared exposures have 0.92 to 0.99.
_FWHM_OVER_SEEING = (0.7, 1.4)
# Correlated pixels, and the light's own Poisson noise where a galaxy fills the cutout, make the two differ by less.
_NOISE_OVER_IVAR = 5.0
# A host whose middle isn't seen is no host: its arc would be read against a hole.
CENTRE_RADIUS_ARCSEC = 1.5
MOST_BAD_PIXELS = 0.2


class CutoutRefusedError(ContractError):
    """One galaxy's pixels can't be used; the reason is one word to count by."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class GalaxyImage:
    """A galaxy's cutout in each band.

    Attributes
    ----------
    pixels : (band, y, x) float32 array
        nanomaggy, sky-subtracted, finite: 0 where `bad` and nothing was measured.
    ivar : (band, y, x) float32 array or None
        Inverse variance of a pixel, nanomaggy^-2; None where the data don't give it.
    bad : (band, y, x) bool array
        Masked, or without a finite value or any weight.
    pixel_scale_arcsec : float
    offset_arcsec : (band, 2) array
        Where the place that was asked for stands, (x, y) from the middle of the cutout: up to half a pixel a band.
    psf : tuple of PsfImage or None
        By band; None where there is no image of it.
    psf_fwhm_arcsec : tuple of float or None
        By band, what the survey says of the seeing there; a PSF image goes before it.
    electrons_per_nanomaggy : tuple of float or None
        By band, from gain and zero point; None where the data don't give it.
    assumed : tuple of str
        What the data don't say, or how pixels came about, in words; published with the galaxy.
    files : tuple of str
        Paths or addresses of what it was cut out of.
    """

    bands: tuple[str, ...]
    pixels: Pixels
    ivar: Pixels | None
    bad: Mask
    pixel_scale_arcsec: float
    offset_arcsec: NDArray[np.float64]
    psf: tuple[PsfImage | None, ...]
    psf_fwhm_arcsec: tuple[float | None, ...]
    electrons_per_nanomaggy: tuple[float | None, ...]
    assumed: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @classmethod
    def of(cls, bands: tuple[str, ...], pixels: Any, ivar: Any, bad: Any, **known: Any) -> "GalaxyImage":
        """Make one of arrays (band, y, x); what isn't finite or has no weight is marked bad.

        Parameters
        ----------
        ivar, bad : array or None
            None if not known.
        """
        pixels = np.asarray(pixels, dtype=np.float32)
        bad = ~np.isfinite(pixels) if bad is None else np.asarray(bad, dtype=bool) | ~np.isfinite(pixels)
        if ivar is not None:
            ivar = np.asarray(ivar, dtype=np.float32)
            bad |= ivar == 0
        empty = (None,) * len(bands)
        unknown = {"psf": empty, "psf_fwhm_arcsec": empty, "electrons_per_nanomaggy": empty}
        known.setdefault("offset_arcsec", np.zeros((len(bands), 2)))
        return cls(bands, np.where(np.isfinite(pixels), pixels, np.float32(0)), ivar, bad, **(unknown | known))

    @property
    def bad_pixel_frac(self) -> float:
        """Share of pixels that are bad in any band."""
        return float(self.bad.any(axis=0).mean())


@dataclass
class Quarantine:
    """The galaxies that were left out, each with its reason; nothing is skipped without standing here."""

    rows: list[dict[str, str]] = field(default_factory=list)

    def add(self, galaxy_id: str, error: CutoutRefusedError) -> None:
        """Note a galaxy that was left out."""
        self.rows.append({"galaxy_id": galaxy_id, "reason": error.reason, "detail": error.detail})

    @property
    def counts(self) -> dict[str, int]:
        """How many galaxies were left out, by reason."""
        return dict(sorted(Counter(row["reason"] for row in self.rows).items()))


def must_be_usable(image: GalaxyImage) -> GalaxyImage:
    """Return the cutout if arcs can be injected into it.

    Raises
    ------
    CutoutRefusedError
        ``missing_band``, ``bad_ivar``, ``centre_masked``, ``too_many_bad_pixels``, ``wrong_unit``, ``ivar_unlike_noise`` or
        ``wrong_seeing``.
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
        _must_be_nanomaggy(image, i, band)
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
    low, high = max(_SEEING_BOUNDS_ARCSEC[0], least), _SEEING_BOUNDS_ARCSEC[1]
    if not low <= fwhm_arcsec <= high:
        raise CutoutRefusedError("wrong_seeing", f"{said} {fwhm_arcsec:.4g}, wanted {low:.3g} to {high:g} arcsec")


def _must_be_nanomaggy(image: GalaxyImage, i: int, band: str) -> None:
    noise = noise_per_pixel(image.pixels[i], image.bad[i])
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


def noise_per_pixel(pixels: Pixels, bad: Mask) -> float:
    """Sigma of a pixel's noise, from second differences of pixels two apart: smooth light and a sky level drop out.

    1.4826 median(abs(a - 2 b + c)) / sqrt(6), the mean of rows and columns; low by a few percent where pixels two apart
    still correlate. NaN where no three good pixels stand in a line.
    """
    sigmas = []
    for image, mask in ((pixels, bad), (pixels.T, bad.T)):
        difference = (image[4:] - 2 * image[2:-2] + image[:-4])[~(mask[4:] | mask[2:-2] | mask[:-4])]
        sigmas.append(float(np.median(np.abs(difference))) if difference.size else np.nan)
    return float(_MAD_TO_SIGMA * np.mean(sigmas) / np.sqrt(6))


def _distance_arcsec(image: GalaxyImage) -> NDArray[np.float64]:
    """Distance of each pixel from the galaxy, (band, y, x)."""
    y, x = (image.pixel_scale_arcsec * (np.arange(n, dtype=np.float64) - (n - 1) / 2) for n in image.pixels.shape[-2:])
    dx = x - image.offset_arcsec[:, 0, None, None]
    dy = y[:, None] - image.offset_arcsec[:, 1, None, None]
    return np.asarray(np.hypot(dx, dy))
