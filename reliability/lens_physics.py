"""Lensing and light of random lenses against closed forms and against brute force that shares no code with them.

A case is one random lens of theta_E 0.3 to 3 arcsec, every other one a SIS with a circular source, whose magnification has
a closed form; the rest SIE or EPL with shear, where lenstronomy's lens equation is sampled on a fine regular raster.
"""

from typing import Any

import numpy as np
from lenstronomy.LensModel.lens_model import LensModel
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from lens_pipeline.survey.lensing import Lens, effective_einstein_radius, point_magnification, source_position
from lens_pipeline.survey.light import Grid, Sersic, lensed_light, light_beyond
from lens_pipeline.survey.optics import OVERSAMPLING, crop, moffat_kernel, moffat_width_over_alpha, observe, transform
from lens_pipeline_tests.survey.closed_forms import sersic, sie_images, sis_extended_magnification, sis_images
from reliability.subject import Case, Subject

_SIZE, _SCALE = 64, 0.262
_BRIGHT_ENOUGH = 10
Array = NDArray[np.float64]


def lens(number: int) -> Case:
    """Try one lens."""
    rng = np.random.default_rng(number)
    u = rng.random(12)
    theta_e, sis = 0.3 + 2.7 * u[0], number % 2 == 0
    q, phi = (1.0 if sis else 0.4 + 0.59 * u[1]), np.pi * u[2]
    beta, angle = theta_e * np.sqrt(u[3]), 2 * np.pi * u[4]
    row = {
        "theta_e_arcsec": theta_e,
        "lens_e": (1 - q) / (1 + q),
        "lens_phi_rad": phi,
        "shear": 0.0,
        "shear_phi_rad": 0.0,
    }
    x, y = beta * np.cos(angle), beta * np.sin(angle)
    largest = _against_closed_form(row, q, float(x), float(y))
    if not sis:
        row |= {
            "shear": 0.1 * u[5],
            "shear_phi_rad": np.pi * u[6],
            "lens_gamma": None if u[7] < 0.5 else 1.6 + 0.8 * u[8],
        }
    source = Sersic(
        flux=1.0,
        reff_arcsec=0.1 * 5 ** u[9],
        n=0.7 + (3.3 if sis else 1.3) * u[10],
        ellipticity=0.0 if sis else 0.4 * u[11],
        phi_rad=np.pi * u[8],
        x_arcsec=float(x),
        y_arcsec=float(y),
    )
    x0, y0 = rng.uniform(-0.13, 0.13, 2)
    grid = Grid.of(_SIZE, _SCALE)
    light = lensed_light(grid, source, row, x0, y0)
    flux = light.sum() / OVERSAMPLING**2
    if sis:
        truth = sis_extended_magnification(theta_e, float(beta), source.reff_arcsec, source.n)
        largest["flux"] = abs((flux + light_beyond(grid, source, row, x0, y0)) / truth - 1)
    else:
        fine = _brute_force(grid, source, row, float(x0), float(y0))
        truth = fine.sum() / OVERSAMPLING**2
        seen, expected = _stamp(light), _stamp(fine)
        largest |= {
            "flux": abs(flux / truth - 1),
            "stamp sum": abs(seen.sum() / _flux_within_stamp(fine) - 1),
            "pixel of the brightest": float(np.abs(seen - expected).max() / expected.max()),
        }
    radius = effective_einstein_radius(Lens.of({**row, "shear": 0.1 * u[5], "lens_gamma": None, "lens_e": 0.0}))
    g = 0.1 * u[5]
    largest["Einstein radius"] = abs(radius / (theta_e * np.sqrt(1 + g * g / 2) / (1 - g * g)) - 1)
    return Case(largest=largest)


def _against_closed_form(row: dict[str, Any], q: float, x: float, y: float) -> dict[str, float]:
    """Largest error of image positions, arcsec, and of point magnifications below 10 behind a SIS or SIE."""
    theta_e = row["theta_e_arcsec"]
    images = sis_images(theta_e, x, y) if q == 1 else sie_images(theta_e, q, row["lens_phi_rad"], x, y)
    position = magnification = 0.0
    for a, b, mu in zip(*images, strict=True):
        if abs(mu) < _BRIGHT_ENOUGH:
            ax, ay = _image_near(row, x, y, a, b)
            position = max(position, float(np.hypot(ax - a, ay - b)))
            magnification = max(magnification, abs(point_magnification(ax, ay, Lens.of(row)) / mu - 1))
    return {"image position, arcsec": position, "point magnification": magnification}


def _image_near(row: dict[str, Any], x: float, y: float, a: float, b: float) -> tuple[float, float]:
    """Find the image of a point by Newton's method, from a little beside where it is said to be."""
    step = 1e-6
    place = np.array([a, b]) * (1 + 0.01 * min(1.0, np.hypot(a, b)))
    for _ in range(20):
        px, py = place[0] + step * np.array([0, 1, 0]), place[1] + step * np.array([0, 0, 1])
        bx, by = source_position(row, px, py)
        jacobian = np.array([[bx[1] - bx[0], bx[2] - bx[0]], [by[1] - by[0], by[2] - by[0]]]) / step
        place = place - np.linalg.solve(jacobian, np.array([bx[0] - x, by[0] - y]))
    return float(place[0]), float(place[1])


def _brute_force(grid: Grid, source: Sersic, row: dict[str, Any], x0: float, y0: float) -> Array:
    """Light on cells from 3x3 points in each and 24x24 where it is bright, rays by lenstronomy."""
    e, angle, twice = row["lens_e"], 2 * row["lens_phi_rad"], 2 * row["shear_phi_rad"]
    model = LensModel(["EPL_NUMBA", "SHEAR"])
    parameters = [
        {
            "theta_E": row["theta_e_arcsec"],
            "gamma": row["lens_gamma"] or 2.0,
            "e1": e * np.cos(angle),
            "e2": e * np.sin(angle),
        },
        {"gamma1": row["shear"] * np.cos(twice), "gamma2": row["shear"] * np.sin(twice)},
    ]
    q = (1 - source.ellipticity) / (1 + source.ellipticity)
    cos, sin = np.cos(source.phi_rad), np.sin(source.phi_rad)

    def mean(x: Array, y: Array, times: int) -> tuple[Array, Array]:
        offset = ((np.arange(times) + 0.5) / times - 0.5) * grid.step
        dx, dy = (axis.ravel() for axis in np.meshgrid(offset, offset))
        px, py = (x[:, None] + dx - x0).ravel(), (y[:, None] + dy - y0).ravel()
        bx, by = model.ray_shooting(px, py, parameters)
        bx, by = bx - source.x_arcsec, by - source.y_arcsec
        r = np.hypot((cos * bx + sin * by) * np.sqrt(q), (cos * by - sin * bx) / np.sqrt(q))
        values = sersic(r, source.reff_arcsec, source.n).reshape(len(x), -1)
        return values.mean(axis=1), values.max(axis=1)

    x, y = grid.x.ravel(), grid.y.ravel()
    light, most = mean(x, y, 3)
    bright = np.flatnonzero(most > 1e-4 * most.max())
    for some in np.array_split(bright, max(1, len(bright) // 500)):
        light[some] = mean(x[some], y[some], 24)[0]
    return np.asarray(light.reshape(grid.x.shape) * grid.pixel_scale_arcsec**2)


def _stamp(light: Array) -> Array:
    return crop(observe(transform(light), moffat_kernel(1.2, _SIZE, _SCALE)), _SIZE)


def _flux_within_stamp(light: Array) -> float:
    """Flux less the loss beyond the stamp, by adding up each cell's point-spread function over the stamp's cells."""
    step = _SCALE / OVERSAMPLING
    axis = np.arange(-len(light), len(light) + 1) * step
    alpha = 1.2 / moffat_width_over_alpha()
    psf = (1 + (axis[:, None] ** 2 + axis**2) / alpha**2) ** -3.0
    psf *= 2 * step**2 / (np.pi * alpha**2)
    spread = fftconvolve(light, psf, mode="same") / OVERSAMPLING**2
    return float(crop(spread, _SIZE * OVERSAMPLING).sum())


SUBJECT = Subject(
    name="lens_physics",
    question="image positions, magnifications, fluxes and Einstein radii, theta_E 0.3-3 arcsec, are right to 1e-3",
    unit="random lenses",
    goal=2_000,
    case=lens,
    bounds={
        "image position, arcsec": 1e-3,
        "point magnification": 1e-3,
        "flux": 1e-3,
        "stamp sum": 1e-3,
        "pixel of the brightest": 3e-3,
        "Einstein radius": 1e-3,
    },
)
