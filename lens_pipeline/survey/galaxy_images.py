"""What a cutout of a real galaxy is, whatever it was read from, and where those that can't be used are counted.

Belongs here: the type that every reader of real pixels returns, and the quarantine. Whole files that aren't what they must be
are for their reader to refuse (`ContractError`); a galaxy whose own pixels won't do raises `CutoutRefusedError`, whose reason
goes into a quarantine and is counted there. What a cutout is judged by stands in `image_judgement.py` and `band_agreement.py`.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lens_pipeline.contracts.errors import ContractError
from lens_pipeline.survey.psf_image import PsfImage

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]


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
    sky_to_pixels : (2, 2) array
        From (west, north) to the pixels' (x, y), as directions; see `sky_grid.sky_to_pixels_of`.
    psf : tuple of PsfImage or None
        By band; None where there is no image of it.
    psf_fwhm_arcsec : tuple of float or None
        By band, what the survey says of the seeing there; a PSF image goes before it.
    electrons_per_nanomaggy : tuple of float or None
        By band, from gain and zero point; None where the data don't give it.
    is_resampled : bool
        Whether pixels may have been resampled or averaged, so that their noise correlates; the detector's own doesn't.
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
    sky_to_pixels: NDArray[np.float64]
    psf: tuple[PsfImage | None, ...]
    psf_fwhm_arcsec: tuple[float | None, ...]
    electrons_per_nanomaggy: tuple[float | None, ...]
    is_resampled: bool = True
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
        known.setdefault("sky_to_pixels", np.eye(2))
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
