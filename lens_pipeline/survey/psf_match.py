"""How well a kernel that arcs were made with matches the profile that the catalogue's seeing stands for.

Belongs here: a kernel against a profile averaged over pixels apart from it. How kernels are made is in `optics.py`.
"""

import numpy as np
from scipy import fft

from lens_pipeline.survey.optics import MOFFAT_BETA, moffat_kernel, moffat_width_over_alpha

# Odd, so that a pixel is in the middle.
_PIXELS, _FINE = 63, 15


def moffat_residuals(fwhm_arcsec: float, stamp_size: int, pixel_scale_arcsec: float) -> tuple[float, float]:
    """Hold the image of a star, as the kernel has it, against the Moffat profile averaged over pixels by brute force.

    Returns
    -------
    peak : float
        Greatest difference of a pixel, over the brightest pixel.
    energy : float
        Difference of the flux within one FWHM, as a share of the star's.
    """
    quadrant = moffat_kernel(fwhm_arcsec, stamp_size, pixel_scale_arcsec).response
    n = 2 * (len(quadrant) - 1)
    star = fft.fftshift(fft.irfft2(np.concatenate([quadrant, quadrant[-2:0:-1]]), s=(n, n)))
    reach = min(_PIXELS, n - 1) // 2
    made = star[n // 2 - reach : n // 2 + reach + 1, n // 2 - reach : n // 2 + reach + 1]
    fine = (np.arange(len(made) * _FINE) - (len(made) * _FINE - 1) / 2) * pixel_scale_arcsec / _FINE
    alpha2 = (fwhm_arcsec / moffat_width_over_alpha()) ** 2
    profile = (1 + (fine[:, None] ** 2 + fine**2) / alpha2) ** -MOFFAT_BETA * (MOFFAT_BETA - 1) / (np.pi * alpha2)
    wanted = profile.reshape(len(made), _FINE, len(made), _FINE).mean(axis=(1, 3)) * pixel_scale_arcsec**2
    axis = np.arange(-reach, reach + 1) * pixel_scale_arcsec
    inside = np.hypot(axis[:, None], axis) < fwhm_arcsec
    return float(np.abs(made - wanted).max() / wanted.max()), float((made - wanted)[inside].sum())
