"""The parameters of rings, spirals and mergers.

Belongs here: what is drawn. Their brightness is that of arcs: the source magnitudes of the population, made brighter by a typical
magnification, so that flux tells nothing.
"""

import numpy as np

from lens_pipeline.survey.design import Design
from lens_pipeline.survey.randomness import stream
from lens_pipeline.survey.roles import MERGER, RING, SPIRAL

# A magnification of four, in magnitudes.
_BRIGHTER_MAG = 1.5
# Colours g - r and r - z, with their scatter: star-forming rings and arms, and red companions like their hosts.
_BLUE, _RED = ((0.3, 0.2), (0.35, 0.2)), ((1.6, 0.1), (0.9, 0.1))
# Arms that are smaller than this are a disk to a survey's seeing.
_RADII_ARCSEC = {RING: (0.8, 3.0), SPIRAL: (1.8, 3.5), MERGER: (0.8, 3.0)}
_Q = (0.5, 1.0)
# Width of a ring over its radius, pitch angle of arms in degrees, half-light radius of a companion in arcsec.
_WIDTHS = {RING: (0.12, 0.3), SPIRAL: (12.0, 30.0), MERGER: (0.3, 0.8)}


def draw_feature(design: Design, task_id: str, role: str) -> dict[str, float]:
    """Draw the parameters of a ring, a spiral's arms or a merging companion, from the key alone.

    Returns
    -------
    dict
        radius_arcsec (of the ring, of the arms, or of the companion's distance), width (of the ring over its radius; of arms
        their pitch angle in degrees; of a companion its half-light radius in arcsec), q and phi_rad of the disk, and mag_g,
        mag_r, mag_z.
    """
    rng = stream(design.config.seed, "feature", task_id)
    u, normal = rng.random(5), rng.standard_normal(2)
    (g_r, g_r_scatter), (r_z, r_z_scatter) = _RED if role == MERGER else _BLUE
    mag_r = design.population.mag_r.quantile(u[0]) - _BRIGHTER_MAG
    return {
        "radius_arcsec": _between(_RADII_ARCSEC[role], u[1]),
        "width": _between(_WIDTHS[role], u[2]),
        "q": _between(_Q, u[3]),
        "phi_rad": float(2 * np.pi * u[4]),
        "mag_g": float(mag_r + g_r + g_r_scatter * normal[0]),
        "mag_r": mag_r,
        "mag_z": float(mag_r - r_z - r_z_scatter * normal[1]),
    }


def _between(reach: tuple[float, float], u: float) -> float:
    return float(reach[0] + (reach[1] - reach[0]) * u)
