"""Unrelated galaxies and stars that happen to stand in a stamp; every stamp of one host has the same ones."""

import numpy as np

from lens_pipeline.survey.conditions import flux_of_mag
from lens_pipeline.survey.light import Grid, Sersic, galaxy_light
from lens_pipeline.survey.optics import Image

# Counts rise as 10^(0.3 m) in r over the range that matters in a stamp (Metcalfe et al. 2001, fig. 6).
_COUNT_SLOPE, _MAG_LOW, _MAG_HIGH = 0.3, 18.5, 25.5
_STAR_SHARE = 0.15
# Nothing is put this close to the host, where it would count as part of it.
_CLEAR_ARCSEC = 1.2
_STAR_REFF_ARCSEC = 0.04


def neighbours_light(grid: Grid, rng: np.random.Generator, mean_number: float) -> Image:
    """Draw the neighbours of one host and return their light.

    Parameters
    ----------
    mean_number : float
        Mean number of neighbours brighter than r = 25.5 in the stamp.

    Returns
    -------
    (3, n, n) array
        nanomaggy per pixel in g, r, z on the grid of cells.
    """
    light = np.zeros((3, *grid.x.shape))
    half = grid.stamp_size * grid.pixel_scale_arcsec / 2
    for _ in range(int(rng.poisson(mean_number))):
        # Every neighbour takes the same numbers from the stream, whatever becomes of it.
        u, (x, y), normal = rng.random(6), rng.uniform(-half, half, 2), rng.standard_normal(3)
        if np.hypot(x, y) < _CLEAR_ARCSEC:
            continue
        star = bool(u[0] < _STAR_SHARE)
        mag_r = _draw_mag(float(u[1]))
        g_r = np.clip(0.75 + 0.4 * normal[0], -0.1, 1.9)
        r_z = np.clip(0.6 + 0.35 * normal[1], -0.1, 1.7)
        reff = _STAR_REFF_ARCSEC if star else 0.4 * 10 ** (-0.1 * (mag_r - 22) + 0.15 * normal[2])
        profile = Sersic(
            flux=1.0,
            reff_arcsec=float(np.clip(reff, _STAR_REFF_ARCSEC, 2.0)),
            n=0.5 if star else (1.0 if u[2] < 0.8 else 4.0),
            ellipticity=0.0 if star else 0.4 * float(u[3]),
            phi_rad=float(np.pi * u[4]),
            x_arcsec=float(x),
            y_arcsec=float(y),
        )
        unit, patch = galaxy_light(grid, profile, reach_arcsec=float(6 * profile.reff_arcsec + 0.4))
        for band, colour in enumerate((mag_r + g_r, mag_r, mag_r - r_z)):
            light[band][patch] += flux_of_mag(float(colour)) * unit
    return light


def _draw_mag(uniform: float) -> float:
    low, high = 10 ** (_COUNT_SLOPE * _MAG_LOW), 10 ** (_COUNT_SLOPE * _MAG_HIGH)
    return float(np.log10(low + uniform * (high - low)) / _COUNT_SLOPE)
