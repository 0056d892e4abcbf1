"""The priors of injected lenses: one row's parameters from its key and the settings.

Belongs here: what is drawn and from which distribution. They were fixed before the first training and are not tuned to
please a figure. All shares and ranges are settings; what stands here as a constant describes blue sources (their colours) and
how mass follows light.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lens_pipeline.survey.config import InjectionConfig
from lens_pipeline.survey.randomness import stream

CONTROL = "CONTROL"
ARC_COLUMNS = (
    "src_mag_g", "src_mag_r", "src_mag_z", "src_dmag", "src_reff_arcsec", "src_n", "src_e", "src_phi_rad",
    "src_x_arcsec", "src_y_arcsec", "lens_e", "lens_phi_rad", "shear", "shear_phi_rad",
)  # fmt: skip

# Star-forming galaxies at redshift 1 to 3: nearly flat in f_nu.
_SOURCE_G_R, _SOURCE_R_Z = (0.2, 0.2), (0.35, 0.25)
# Position angles of mass and light agree within about 10 degrees, their axis ratios within 0.1 (Koopmans et al. 2006).
_ANGLE_SCATTER_RAD, _Q_SCATTER = np.radians(10), 0.1


def draw_injection(config: InjectionConfig, galaxy: Mapping[str, Any], task_id: str) -> dict[str, Any]:
    """Draw one injection's parameters; they depend on the seed, the key and the host only.

    Returns
    -------
    dict
        lens_model, theta_e_arcsec and every arc column of the manifest.
    """
    rng = stream(config.seed, "injection", task_id)
    u = rng.random(12)
    normal = rng.standard_normal(5)
    theta_e = _between(config.theta_e_low_arcsec, config.theta_e_high_arcsec, u[0])
    lens_model, q, lens_phi, shear = _lens(config, galaxy, u[1:4], normal[:2])
    mag_r = _source_mag(config, u[4], u[5])
    mag_g = float(mag_r + _SOURCE_G_R[0] + _SOURCE_G_R[1] * normal[2])
    mag_z = float(mag_r - _SOURCE_R_Z[0] - _SOURCE_R_Z[1] * normal[3])
    source_q = _between(config.source_q_low, 1.0, u[8])
    x, y = _position_with_images(theta_e, q, lens_phi, u[10], u[11])
    host_r = galaxy["mag_r"]
    return {
        "lens_model": lens_model,
        "theta_e_arcsec": theta_e,
        "src_mag_g": mag_g,
        "src_mag_r": mag_r,
        "src_mag_z": mag_z,
        "src_dmag": None if host_r is None else mag_r - host_r,
        "src_reff_arcsec": _log_between(config.source_reff_low_arcsec, config.source_reff_high_arcsec, u[6]),
        "src_n": _between(config.source_n_low, config.source_n_high, u[7]),
        "src_e": (1 - source_q) / (1 + source_q),
        "src_phi_rad": float(np.pi * u[9]),
        "src_x_arcsec": x,
        "src_y_arcsec": y,
        "lens_e": (1 - q) / (1 + q),
        "lens_phi_rad": lens_phi,
        "shear": shear,
        "shear_phi_rad": float(np.pi * u[3]),
    }


def control_row() -> dict[str, Any]:
    """Parameters of a control: an Einstein radius of 0 and nulls for the arc."""
    return {"lens_model": CONTROL, "theta_e_arcsec": 0.0, **dict.fromkeys(ARC_COLUMNS)}


def _lens(
    config: InjectionConfig, galaxy: Mapping[str, Any], u: np.ndarray, normal: np.ndarray
) -> tuple[str, float, float, float]:
    """Return lens model, axis ratio, position angle and shear; the mass follows the light where its shape is known."""
    if u[0] < config.share_sis:
        return "SIS", 1.0, 0.0, 0.0
    if galaxy.get("axis_ratio") is None:
        q, phi = _between(config.lens_q_low, 1.0, float(u[1])), float(np.pi * u[2])
    else:
        q = float(np.clip(galaxy["axis_ratio"] + _Q_SCATTER * normal[0], config.lens_q_low, 0.99))
        phi = float((galaxy["phi_rad"] + _ANGLE_SCATTER_RAD * normal[1]) % np.pi)
    if u[0] < config.share_sis + config.share_sie:
        return "SIE", q, phi, 0.0
    return "SIE_SHEAR", q, phi, config.shear_high * float(u[2])


def _source_mag(config: InjectionConfig, which: float, place: float) -> float:
    if which < config.source_faint_share:
        return _between(config.source_mag_high, config.source_faint_limit, place)
    return _between(config.source_mag_low, config.source_mag_high, place)


def cut_half_axes(q: float) -> tuple[float, float]:
    """Half axes of the SIE's cut along the mass's major and minor axis, in Einstein radii (Kormann et al. 1994, eq. 31).

    A source inside the cut has two or four images. External shear leaves the cut as it is: it deflects nothing at the
    lens's centre, where the cut comes from.
    """
    if q > 0.999:
        return 1.0, 1.0
    f = np.sqrt(1 - q * q)
    return float(np.sqrt(q) / f * np.arcsin(f)), float(np.sqrt(q) / f * np.arcsinh(f / q))


def _position_with_images(theta_e: float, q: float, phi: float, u: float, v: float) -> tuple[float, float]:
    """Draw a source position uniformly in the ellipse through the vertices of the cut: it has more than one image."""
    along, across = cut_half_axes(q)
    r, angle = np.sqrt(u), 2 * np.pi * v
    major, minor = theta_e * along * r * np.cos(angle), theta_e * across * r * np.sin(angle)
    cos, sin = np.cos(phi), np.sin(phi)
    return float(major * cos - minor * sin), float(major * sin + minor * cos)


def _between(low: float, high: float, u: float) -> float:
    return float(low + (high - low) * u)


def _log_between(low: float, high: float, u: float) -> float:
    return float(low * (high / low) ** u)
