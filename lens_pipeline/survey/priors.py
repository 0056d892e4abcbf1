"""One injection's parameters, from its key, its host and the design.

Belongs here: what follows once Einstein radius, magnitude and lens model are drawn (`design.py`). Priors were fixed before the
first training and are not tuned to please a figure. All shares and ranges are settings; what stands here as a constant
describes blue sources (their colours) and how mass follows light.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from lens_pipeline.survey.deflectors import velocity_dispersion
from lens_pipeline.survey.design import Design
from lens_pipeline.survey.injection_config import LENS_GAMMA_BOUNDS, InjectionConfig
from lens_pipeline.survey.lensing import Lens
from lens_pipeline.survey.multiple_images import MOST_AREA, Caustic, CutEllipse
from lens_pipeline.survey.randomness import stream
from lens_pipeline.survey.real_sources import TABLE_COLOURS, TEMPLATE_COLOURS
from lens_pipeline.survey.roles import ARC_COLUMNS, CONTROL

ROUND, POWER_LAW = "SIS", "EPL"
SHEARED = ("SIE_SHEAR", POWER_LAW)

# Of the source, where it is a real galaxy.
SOURCE_COLUMNS = ("source_id", "source_colours")

# Star-forming galaxies at redshift 1 to 3: nearly flat in f_nu.
_SOURCE_G_R, _SOURCE_R_Z = (0.2, 0.2), (0.35, 0.25)
# Position angles of mass and light agree within about 10 degrees, their axis ratios within 0.1 (Koopmans et al. 2006).
_ANGLE_SCATTER_RAD, _Q_SCATTER = np.radians(10), 0.1


def draw_injection(design: Design, galaxy: Mapping[str, Any], task_id: str) -> dict[str, Any]:
    """Draw one injection's parameters; they depend on the design, the key and the host only.

    Returns
    -------
    dict
        lens_model, theta_e_arcsec, weight, whether it is held out, and every arc and source column of the manifest.
    """
    config = design.config
    rng = stream(config.seed, "injection", task_id)
    u = rng.random(12)
    normal = rng.standard_normal(5)
    more = rng.random(4)
    drawn = design.proposal(galaxy["region_id"]).draw(u[[0, 4, 1]], more[0])
    theta_e, mag_r = drawn.theta_e_arcsec, drawn.mag_r
    gamma = _slope(config, more[3]) if drawn.lens_model == POWER_LAW else None
    shear = config.shear_high * float(more[2]) if drawn.lens_model in SHEARED else 0.0
    mass = _Mass(drawn.lens_model, theta_e, gamma, shear, float(np.pi * u[3]))
    q, lens_phi, region = _shape(design, galaxy, mass, u[2], u[5], normal[:2], rng)
    source_id = design.draw_real_source(galaxy["region_id"], task_id)
    x, y = region.draw(rng, u[10], u[11])
    host_r, z_lens = galaxy["mag_r"], design.population.redshift_of(galaxy)
    z_source = design.population.draw_source_redshift(galaxy, theta_e, more[1])
    sigma = None if z_lens is None or z_source is None else float(velocity_dispersion(theta_e, z_lens, z_source))
    return {
        "lens_model": drawn.lens_model,
        "theta_e_arcsec": theta_e,
        "weight": drawn.weight * design.population.relative_rate(galaxy, theta_e),
        "is_held_out": design.is_held_out(theta_e, drawn.lens_model, source_id),
        "src_mag_r": mag_r,
        "src_dmag": None if host_r is None else mag_r - host_r,
        "src_reff_arcsec": _log_between(config.source_reff_low_arcsec, config.source_reff_high_arcsec, u[6]),
        **_look(config, source_id, mag_r, u[7:10], normal[2:4]),
        "src_x_arcsec": x,
        "src_y_arcsec": y,
        "lens_e": (1 - q) / (1 + q),
        "lens_phi_rad": lens_phi,
        "lens_gamma": gamma,
        "shear": shear,
        "shear_phi_rad": mass.shear_phi_rad,
        "z_source": z_source,
        "sigma_v_km_s": sigma,
    }


def _look(
    config: InjectionConfig, source_id: str | None, mag_r: float, u: np.ndarray, normal: np.ndarray
) -> dict[str, Any]:
    """Return a source's shape and colours: a Sersic profile's, or a picture's turn and what the settings say of its galaxy."""
    mag_g = float(mag_r + _SOURCE_G_R[0] + _SOURCE_G_R[1] * normal[0])
    mag_z = float(mag_r - _SOURCE_R_Z[0] - _SOURCE_R_Z[1] * normal[1])
    if source_id is None:
        q = _between(config.source_q_low, 1.0, u[1])
        return {
            "src_mag_g": mag_g,
            "src_mag_z": mag_z,
            "src_n": _between(config.source_n_low, config.source_n_high, u[0]),
            "src_e": (1 - q) / (1 + q),
            "src_phi_rad": float(np.pi * u[2]),
            **dict.fromkeys(SOURCE_COLUMNS),
        }
    colours, origin = config.real_source_colours.get(source_id), TEMPLATE_COLOURS
    if colours is not None:
        mag_g, mag_z, origin = mag_r + colours[0], mag_r - colours[1], TABLE_COLOURS
    return {
        "src_mag_g": mag_g,
        "src_mag_z": mag_z,
        "src_n": None,
        "src_e": None,
        # A profile looks the same turned by half a circle, a picture doesn't.
        "src_phi_rad": float(2 * np.pi * u[2]),
        "source_id": source_id,
        "source_colours": origin,
    }


def control_row(lens_model: str = CONTROL) -> dict[str, Any]:
    """Parameters of a control, or of another row that holds no lens: an Einstein radius of 0 and nulls for the arc."""
    bare = {"lens_model": lens_model, "theta_e_arcsec": 0.0, "weight": 1.0, "is_held_out": None}
    return {**bare, **dict.fromkeys((*ARC_COLUMNS, *SOURCE_COLUMNS))}


@dataclass(frozen=True)
class _Mass:
    """What is drawn of a lens before its shape."""

    lens_model: str
    theta_e_arcsec: float
    gamma: float | None
    shear: float
    shear_phi_rad: float

    def region(self, q: float, phi: float) -> CutEllipse | Caustic:
        """Return where sources are drawn, for a shape."""
        if self.gamma is None:
            return CutEllipse(self.theta_e_arcsec, q, phi)
        twice = 2 * self.shear_phi_rad
        shear = self.shear * np.cos(twice), self.shear * np.sin(twice)
        return Caustic(Lens(self.theta_e_arcsec, self.gamma - 1, q, np.cos(phi), np.sin(phi), *shear))


def _slope(config: InjectionConfig, u: float) -> float:
    """Draw the slope of a power law's density: a normal distribution within `LENS_GAMMA_BOUNDS`."""
    low, high = ((bound - config.epl_gamma_mean) / config.epl_gamma_scatter for bound in LENS_GAMMA_BOUNDS)
    drawn = config.epl_gamma_mean + config.epl_gamma_scatter * ndtri(_between(ndtr(low), ndtr(high), u))
    return float(np.clip(drawn, *LENS_GAMMA_BOUNDS))


def _shape(
    design: Design,
    galaxy: Mapping[str, Any],
    mass: _Mass,
    u_q: float,
    u_phi: float,
    normal: np.ndarray,
    rng: np.random.Generator,
) -> tuple[float, float, CutEllipse | Caustic]:
    """Return axis ratio and position angle of the mass, and where its sources are; it follows the light where that is known.

    Where the population is one of deflectors, an axis ratio is kept as often as its cross-section is large: the region's area
    over that of a round lens of the same slope. (Where the population is one of lenses, the prior holds for those as it is.)
    """
    if mass.lens_model == ROUND:
        return 1.0, 0.0, mass.region(1.0, 0.0)
    known = galaxy.get("axis_ratio") is not None
    phi = float((galaxy["phi_rad"] + _ANGLE_SCATTER_RAD * normal[1]) % np.pi) if known else float(np.pi * u_phi)
    low, most = design.config.lens_q_low, 1.0 if mass.gamma is None else MOST_AREA
    while True:
        like_light = np.clip(galaxy["axis_ratio"] + _Q_SCATTER * normal[0], low, 0.99) if known else None
        q = _between(low, 1.0, float(u_q)) if like_light is None else float(like_light)
        region = mass.region(q, phi)
        if design.population.deflectors is None or rng.random() < region.over_round / most:
            return q, phi, region
        u_q, normal = rng.random(), rng.standard_normal(2)


def _between(low: float, high: float, u: float) -> float:
    return float(low + (high - low) * u)


def _log_between(low: float, high: float, u: float) -> float:
    return float(low * (high / low) ** u)
