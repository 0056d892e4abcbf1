"""The simulated parent sample: bricks on the DECaLS footprint with seeing and depth, and red galaxies in them.

Belongs here: what is drawn for bricks and galaxies. Everything of a brick or galaxy follows from the seed and its number.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from astropy import units
from astropy.coordinates import SkyCoord

from lens_pipeline.survey.conditions import (
    BANDS,
    DEPTH_R_MAG,
    SEEING_OVER_R,
    SEEING_R_ARCSEC,
    depth_offset_mag,
    draw_percentile,
    psfdepth_of_mag,
)
from lens_pipeline.survey.config import ParentSampleConfig
from lens_pipeline.survey.randomness import stream

# DECaLS: -20 < dec < 32, out of the galactic plane (Dey et al. 2019, sect. 4).
_DEC_RANGE, _LEAST_GALACTIC_LATITUDE = (-20.0, 32.0), 18.0
_BRICK_DEG = 0.25

# Passively evolving luminous red galaxies at lens redshifts (Zhou et al. 2023, fig. 5, for colours and magnitudes).
_Z_MEAN, _Z_SIGMA, _Z_RANGE = 0.55, 0.13, (0.3, 0.8)
# Median half-light radius at r = 19.5, arcsec, with slope per magnitude and scatter in dex.
_REFF_ARCSEC, _REFF_SLOPE, _REFF_SCATTER = 1.0, -0.13, 0.13
_REDDENING_MEDIAN, _REDDENING_SCATTER_DEX = 0.04, 0.25


def simulated_parents(config: ParentSampleConfig) -> pa.Table:
    """Draw the galaxies of a simulated survey.

    Returns
    -------
    pyarrow.Table
        Under the contract PARENT_SAMPLE, with what rendering needs beside: z_lens, half-light radius, axis ratio, position
        angle, place of the host in the stamp, reddening and pixel correlation.
    """
    bricks = _bricks(config)
    rows = []
    taken: dict[str, int] = {}
    for number in range(config.n_galaxies):
        rng = stream(config.seed, "galaxy", str(number))
        brick = bricks[int(rng.integers(len(bricks)))]
        place = taken[brick["region_id"]] = taken.get(brick["region_id"], -1) + 1
        rows.append(_galaxy(config, brick, f"{brick['region_id']}-{place:04d}", rng))
    return pa.Table.from_pylist(rows)


def _bricks(config: ParentSampleConfig) -> list[dict[str, Any]]:
    bricks: dict[str, dict[str, Any]] = {}
    number = 0
    while len(bricks) < config.n_bricks:
        # Candidates are drawn and judged in lots because the galactic latitude of one costs as much as that of many.
        candidates = [_brick(config, n) for n in range(number, number + 2 * config.n_bricks + 16)]
        number += len(candidates)
        where = SkyCoord([b["ra"] for b in candidates] * units.deg, [b["dec"] for b in candidates] * units.deg)
        visible = np.abs(where.galactic.b.deg) > _LEAST_GALACTIC_LATITUDE
        for brick, ok in zip(candidates, visible, strict=True):
            if ok and len(bricks) < config.n_bricks:
                bricks.setdefault(brick["region_id"], brick)
    return list(bricks.values())


def _brick(config: ParentSampleConfig, number: int) -> dict[str, Any]:
    """Draw one brick of the Legacy Surveys' kind: 0.25 degrees wide in dec, about that in ra, named by its centre."""
    rng = stream(config.seed, "brick", str(number))
    u = rng.random(6)
    low, high = np.sin(np.radians(_DEC_RANGE))
    dec = np.degrees(np.arcsin(low + u[0] * (high - low)))
    dec = (np.floor(dec / _BRICK_DEG) + 0.5) * _BRICK_DEG
    columns = int(np.ceil(360 * np.cos(np.radians(dec)) / _BRICK_DEG))
    width = 360 / columns
    ra = (np.floor(u[1] * columns) + 0.5) * width
    rho_low, rho_high = config.noise_correlation_low, config.noise_correlation_high
    return {
        "region_id": f"{int(ra * 10):04d}{'p' if dec >= 0 else 'm'}{int(abs(dec) * 10):03d}",
        "ra": float(ra),
        "dec": float(dec),
        "ra_width": float(width),
        "seeing_r": float(draw_percentile(u[2], SEEING_R_ARCSEC)),
        "depth_r": float(draw_percentile(u[3], DEPTH_R_MAG)),
        "ebv": float(_REDDENING_MEDIAN * 10 ** (_REDDENING_SCATTER_DEX * rng.standard_normal())),
        "noise_correlation": float(rho_low + (rho_high - rho_low) * u[4]),
    }


def _galaxy(
    config: ParentSampleConfig, brick: dict[str, Any], galaxy_id: str, rng: np.random.Generator
) -> dict[str, Any]:
    z_lens = _truncated_normal(rng, _Z_MEAN, _Z_SIGMA, *_Z_RANGE)
    normal, u = rng.standard_normal(5), rng.random(6)
    mag_r = 18.4 + 3.8 * (z_lens - 0.3) + 0.45 * normal[0]
    g_r = 1.55 + 0.5 * (z_lens - 0.3) + 0.06 * normal[1]
    r_z = 0.65 + 1.75 * (z_lens - 0.3) + 0.06 * normal[2]
    mags = {"g": mag_r + g_r, "r": mag_r, "z": mag_r - r_z}
    scatter = config.brick_scatter * rng.standard_normal((3, 2))
    half_pixel = config.pixel_scale_arcsec / 2
    galaxy: dict[str, Any] = {
        "galaxy_id": galaxy_id,
        "region_id": brick["region_id"],
        "ra": (brick["ra"] + (u[0] - 0.5) * brick["ra_width"]) % 360,
        "dec": brick["dec"] + (u[1] - 0.5) * _BRICK_DEG,
        **{f"mag_{b}": float(mags[b]) for b in BANDS},
    }
    for i, band in enumerate(BANDS):
        galaxy[f"psf_fwhm_{band}"] = float(brick["seeing_r"] * SEEING_OVER_R[band] * np.exp(scatter[i, 0]))
        depth = psfdepth_of_mag(brick["depth_r"] + depth_offset_mag(band))
        galaxy[f"psfdepth_{band}"] = float(depth * np.exp(scatter[i, 1]))
    return galaxy | {
        "brickname": brick["region_id"],
        "z_lens": z_lens,
        "reff_arcsec": float(_REFF_ARCSEC * 10 ** (_REFF_SLOPE * (mag_r - 19.5) + _REFF_SCATTER * normal[3])),
        "axis_ratio": float(np.clip(0.78 + 0.12 * normal[4], 0.45, 0.98)),
        "phi_rad": float(np.pi * u[2]),
        "sersic_n": 4.0,
        "host_x_arcsec": float((2 * u[3] - 1) * half_pixel),
        "host_y_arcsec": float((2 * u[4] - 1) * half_pixel),
        "ebv": brick["ebv"],
        "noise_correlation": brick["noise_correlation"],
        "pixel_scale_arcsec": config.pixel_scale_arcsec,
    }


def _truncated_normal(rng: np.random.Generator, mean: float, sigma: float, low: float, high: float) -> float:
    while True:
        value = float(rng.normal(mean, sigma))
        if low <= value <= high:
            return value
