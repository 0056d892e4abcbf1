"""Observing conditions: measured seeing and depth of the survey, sky brightness, extinction, and what follows from them.

Belongs here: constants with their sources and conversions between them. What a kernel or noise looks like is in `optics.py`.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lens_pipeline.contracts.dataset import NANOMAGGY_ZERO_POINT_AB

BANDS = ("g", "r", "z")

# Percentiles measured on 2,693 Legacy Surveys DR10 regions (README of the shared data); linear in between, none beyond.
PERCENTILES = np.array([1.0, 16.0, 50.0, 84.0, 99.0]) / 100
SEEING_R_ARCSEC = np.array([1.04, 1.20, 1.35, 1.57, 1.96])
DEPTH_R_MAG = np.array([23.6, 24.1, 24.5, 25.2, 26.0])

# FWHM that the ground sees: a map in pixels, or of another quantity, is told by being outside.
SEEING_BOUNDS_ARCSEC = (0.3, 4.0)

# The same README: seeing in g and z against r, and sky noise per pixel in six DR10 cutouts, nanomaggy.
SEEING_OVER_R = {"g": 1.05, "r": 1.0, "z": 0.94}
TYPICAL_SIGMA_PIXEL = {"g": 0.0019, "r": 0.0027, "z": 0.008}

# Nominal dark sky of DECam, AB mag/arcsec^2, that the survey's exposure times were set with (legacysurvey/obsbot,
# decam.py). With the gain and zero point of real DECaLS exposures it gives their r noise to 5 %.
SKY_MAG_PER_ARCSEC2 = {"g": 22.04, "r": 20.91, "z": 18.46}

# A_band / E(B-V) on the SFD scale for DECam (Schlafly & Finkbeiner 2011; legacysurvey.org, DR10 description).
EXTINCTION_PER_EBV = {"g": 3.214, "r": 2.165, "z": 1.211}


def draw_percentile(uniform: ArrayLike, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map uniform numbers in [0, 1] to a quantity known by its 1/16/50/84/99 percentiles (inverse CDF, linear)."""
    low, high = PERCENTILES[0], PERCENTILES[-1]
    return np.asarray(np.interp(low + (high - low) * np.asarray(uniform, dtype=float), PERCENTILES, values))


def depth_offset_mag(band: str) -> float:
    """5-sigma point-source depth of a band minus that of r, for the typical seeing and sky noise above, mag.

    The flux uncertainty of a point source goes as the noise of a pixel times the seeing.
    """
    ratio = TYPICAL_SIGMA_PIXEL[band] / TYPICAL_SIGMA_PIXEL["r"] * SEEING_OVER_R[band]
    return float(-2.5 * np.log10(ratio))


def psfdepth_of_mag(depth_mag: ArrayLike) -> NDArray[np.float64]:
    """Inverse variance of a point source, nanomaggy^-2, from its 5-sigma AB depth."""
    flux = 10 ** ((NANOMAGGY_ZERO_POINT_AB - np.asarray(depth_mag, dtype=float)) / 2.5)
    return np.asarray((5 / flux) ** 2)


def flux_of_mag(mag: float) -> float:
    """Flux in nanomaggy of an AB magnitude."""
    return float(10 ** ((NANOMAGGY_ZERO_POINT_AB - mag) / 2.5))


def sky_per_pixel(band: str, pixel_scale_arcsec: float) -> float:
    """Sky flux in a pixel, nanomaggy."""
    return flux_of_mag(SKY_MAG_PER_ARCSEC2[band]) * pixel_scale_arcsec**2


def transmission(band: str, ebv: float | None) -> float:
    """Share of light that Galactic dust lets through; 1 where the reddening is unknown."""
    return 1.0 if ebv is None else float(10 ** (-0.4 * EXTINCTION_PER_EBV[band] * ebv))
