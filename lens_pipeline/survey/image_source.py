"""A picture of a real galaxy as a source of light: a cubic spline through its pixels, turned and placed behind a lens.

Belongs here: pixels to a profile that `light.py` draws like a Sersic. Where pixels come from, and how they were freed of noise
and PSF, is another matter.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import spline_filter

from lens_pipeline.contracts.errors import PipelineError, first_few
from lens_pipeline.survey.optics import Image
from lens_pipeline.survey.squares import Shape

# The filter's memory falls as 0.268^n: 1e-7 of a pixel at the border is left after so many zeros.
_BORDER = 12
# Half a diagonal, in pixels, of squares that may hide detail no more: their nine points stand closer than three pixels.
_CORE_PIXELS = 4.0


@dataclass(frozen=True)
class ImageSource:
    """A galaxy that shines as a picture does.

    Attributes
    ----------
    flux : float
        Total flux, nanomaggy.
    coefficients : (m, n) array
        Of the cubic B-spline through the pixels, which sum to 1; with a border of zeros around the picture.
    pixel_scale_arcsec : float
        Side of a pixel in the source plane.
    phi_rad : float
        Angle from the stamp's x axis to the picture's, counter-clockwise.
    x_arcsec, y_arcsec : float
        Place of the picture's middle.
    """

    flux: float
    coefficients: Image
    pixel_scale_arcsec: float
    phi_rad: float
    x_arcsec: float
    y_arcsec: float

    @classmethod
    def of(
        cls, image: Image, *, flux: float, pixel_scale_arcsec: float, phi_rad: float, x_arcsec: float, y_arcsec: float
    ) -> "ImageSource":
        """Put a spline through a picture; the spline holds as much light as the pixels.

        Parameters
        ----------
        image : (rows, columns) array
            Any unit; its sum becomes `flux`. Light should have faded at its border, where the picture ends.

        Raises
        ------
        PipelineError
            If the picture isn't one of two axes, has pixels that aren't finite, or no light in sum.
        """
        pixels = np.asarray(image, dtype=float)
        if pixels.ndim != 2:
            raise PipelineError(
                f"a source picture has {pixels.ndim} axes, not rows and columns: give one band at a time"
            )
        bad = np.argwhere(~np.isfinite(pixels))
        if len(bad):
            raise PipelineError(
                f"{len(bad):,} of {pixels.size:,} pixels of a source picture aren't finite: "
                f"{first_few([str(tuple(int(i) for i in place)) for place in bad])}. Fill or cut them out first."
            )
        total = pixels.sum()
        if total <= 0:
            raise PipelineError(
                f"the pixels of a source picture sum to {total:.3g}: it can't be scaled to a flux. Subtract less sky from it."
            )
        padded = np.pad(pixels / total, _BORDER)
        coefficients = np.asarray(spline_filter(padded, order=3, mode="mirror"))
        return cls(flux, coefficients / coefficients.sum(), pixel_scale_arcsec, phi_rad, x_arcsec, y_arcsec)

    def shape(self) -> Shape:
        """Return the picture in its own pixels."""
        height, width = self.coefficients.shape
        along = float(np.cos(self.phi_rad) / self.pixel_scale_arcsec)
        across = float(np.sin(self.phi_rad) / self.pixel_scale_arcsec)
        samples = self.coefficients * (self.flux / self.pixel_scale_arcsec**2)
        return Shape(
            x=float(self.x_arcsec),
            y=float(self.y_arcsec),
            xx=along,
            xy=across,
            yx=-across,
            yy=along,
            peak=float(np.abs(samples).max()),
            b=0.0,
            power=1.0,
            core=_CORE_PIXELS,
            extent=float(np.hypot(height, width) / 2 - _BORDER),
            samples=samples,
        )

    def reach_arcsec(self) -> float:
        """Half the picture's diagonal."""
        height, width = self.coefficients.shape
        return float(np.hypot(height, width) / 2 * self.pixel_scale_arcsec)
