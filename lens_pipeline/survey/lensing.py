"""The lens: an elliptical power law with external shear. Where light comes from, how it is magnified, how large the lens is.

Belongs here: the lens equation, compiled, in lenstronomy's parameters (SIS and SIE are the isothermal case of its EPL).
What shines behind the lens is in `light.py`. Positions are arcsec from the lens's centre, x along columns.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from lens_pipeline.stamps.kernels import compiled
from lens_pipeline.survey.optics import Image

_ROUND = 1 - 1e-9
_CENTRE_ARCSEC = 1e-12
# Terms of the series are each smaller than the last by at least (1 - q) / (1 + q).
_LAST_TERM = 1e-13
_ANGLES = 128
_CAUSTIC_POINTS = 256
# In Einstein radii.
_AT_CENTRE = 1e-9


class Lens(NamedTuple):
    """An elliptical power law with external shear, as numbers that compiled code takes.

    The convergence is (2 - t) / 2 (theta_E / R)^t with R^2 = q u^2 + v^2 / q, u along the major axis.

    Attributes
    ----------
    theta_e : float
        theta_E, arcsec: the radius on the intermediate axis (lenstronomy's; Tessore & Metcalf 2015). 0 deflects nothing.
    slope : float
        t, the fall of the projected mass: lenstronomy's gamma - 1, 1 where isothermal.
    q : float
        Axis ratio of the mass, minor over major.
    cos, sin : float
        Of the major axis's position angle.
    shear_1, shear_2 : float
        Shear times cos and sin of twice its angle.
    """

    theta_e: float
    slope: float
    q: float
    cos: float
    sin: float
    shear_1: float
    shear_2: float

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Lens":
        """Take the lens of a manifest row.

        Parameters
        ----------
        row : mapping
            theta_e_arcsec, lens_e, lens_phi_rad, shear, shear_phi_rad, and lens_gamma where the lens isn't isothermal.
        """
        gamma = row.get("lens_gamma")
        angle, twice = row["lens_phi_rad"], 2 * (row.get("shear_phi_rad") or 0.0)
        return cls(
            theta_e=float(row["theta_e_arcsec"]),
            slope=1.0 if gamma is None else float(gamma) - 1,
            q=(1 - row["lens_e"]) / (1 + row["lens_e"]),
            cos=math.cos(angle),
            sin=math.sin(angle),
            shear_1=row["shear"] * math.cos(twice),
            shear_2=row["shear"] * math.sin(twice),
        )


NO_LENS = Lens(0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0)


@compiled
def mass_deflection(x: float, y: float, lens: Lens) -> tuple[float, float]:
    """Deflection by the mass, without the shear, arcsec.

    Isothermal: Kormann et al. (1994, eq. 27), as arc tangents. Other slopes: the series of Tessore & Metcalf (2015).
    """
    if lens.q > _ROUND:
        r = max(math.hypot(x, y), _CENTRE_ARCSEC)
        strength = lens.theta_e / r if lens.slope == 1.0 else (lens.theta_e / r) ** lens.slope
        return strength * x, strength * y
    q = lens.q
    u, v = lens.cos * x + lens.sin * y, lens.cos * y - lens.sin * x
    radius = max(math.sqrt(q * q * u * u + v * v), _CENTRE_ARCSEC)
    if lens.slope == 1.0:
        f = math.sqrt(1 - q * q)
        scale = lens.theta_e * math.sqrt(q) / f
        along, across = scale * math.atan(f * u / radius), scale * math.atanh(f * v / radius)
    else:
        t = lens.slope
        re, im = q * u / radius, v / radius
        flattening = (1 - q) / (1 + q)
        turn_re, turn_im = -flattening * (re * re - im * im), -2 * flattening * re * im
        along, across = re, im
        bound, n = 1.0, 1
        while bound > _LAST_TERM:
            factor = (2 * n - (2 - t)) / (2 * n + (2 - t))
            re, im = factor * (re * turn_re - im * turn_im), factor * (re * turn_im + im * turn_re)
            along, across = along + re, across + im
            bound *= flattening
            n += 1
        b = lens.theta_e * math.sqrt(q)
        scale = 2 * b / (1 + q) * (b / radius) ** (t - 1)
        along, across = scale * along, scale * across
    return lens.cos * along - lens.sin * across, lens.sin * along + lens.cos * across


@compiled
def trace(x: float, y: float, lens: Lens) -> tuple[float, float]:
    """Where in the source plane an image position shines from: the lens equation, arcsec."""
    if lens.theta_e == 0.0:
        return x, y
    ax, ay = mass_deflection(x, y, lens)
    return x - ax - lens.shear_1 * x - lens.shear_2 * y, y - ay - lens.shear_2 * x + lens.shear_1 * y


@compiled
def mass_hessian(x: float, y: float, lens: Lens) -> tuple[float, float, float]:
    """Second derivatives xx, xy, yy of the mass's potential: convergence and shear (Tessore & Metcalf 2015)."""
    u, v = lens.cos * x + lens.sin * y, lens.cos * y - lens.sin * x
    t, r2 = lens.slope, x * x + y * y
    kappa = (2 - t) / 2 * (lens.theta_e / math.sqrt(lens.q * u * u + v * v / lens.q)) ** t
    ax, ay = mass_deflection(x, y, lens)
    gamma_1 = -kappa * (x * x - y * y) / r2 + (1 - t) * (x * ax - y * ay) / r2
    gamma_2 = -kappa * 2 * x * y / r2 + (1 - t) * (x * ay + y * ax) / r2
    return kappa + gamma_1, gamma_2, kappa - gamma_1


@compiled
def point_magnification(x: float, y: float, lens: Lens) -> float:
    """Signed magnification of a point seen at an image position: 1 / det of the lens equation's derivative."""
    xx, xy, yy = mass_hessian(x, y, lens)
    xx, xy, yy = xx + lens.shear_1, xy + lens.shear_2, yy - lens.shear_1
    return 1 / ((1 - xx) * (1 - yy) - xy * xy)


@compiled
def effective_einstein_radius(lens: Lens) -> float:
    """Radius of the circle with the area inside the outer critical curve, arcsec.

    The second derivatives of the mass's potential fall as r^-t along a ray. So where det(1 - shear - M r^-t) = 0, a quadratic
    equation in r^-t gives the curve's radius at each angle, and the area is the mean of pi r^2. Without shear an isothermal
    lens has theta_E itself.
    """
    total = 0.0
    for i in range(_ANGLES):
        constant, larger, _ = _critical_powers(2 * math.pi * i / _ANGLES, lens)
        total += (constant / larger) ** (-2 / lens.slope)
    return math.sqrt(total / _ANGLES)


@compiled
def _critical_powers(angle: float, lens: Lens) -> tuple[float, float, float]:
    """Return c, h, s such that det(1 - shear - M p) = 0 along a ray for p = c / h and for p = h / s."""
    xx, xy, yy = mass_hessian(math.cos(angle), math.sin(angle), lens)
    free_x, free_y = 1 - lens.shear_1, 1 + lens.shear_1
    constant = free_x * free_y - lens.shear_2**2
    linear = free_y * xx + free_x * yy + 2 * lens.shear_2 * xy
    square = xx * yy - xy * xy
    return constant, (linear + math.sqrt(max(linear * linear - 4 * square * constant, 0.0))) / 2, square


@compiled
def _radial_caustic(lens: Lens, x: Image, y: Image) -> None:
    for i in range(len(x)):
        angle = 2 * math.pi * i / len(x)
        radius = _AT_CENTRE * lens.theta_e
        if lens.slope < 1:
            _, half, square = _critical_powers(angle, lens)
            radius = max(radius, (max(square, 0.0) / half) ** (1 / lens.slope))
        x[i], y[i] = trace(radius * math.cos(angle), radius * math.sin(angle), lens)


def radial_caustic(lens: Lens) -> tuple[Image, Image]:
    """Where the inner critical curve shines from: a source inside has one image more. Points x and y in order, arcsec.

    The inner curve is the other root of `effective_einstein_radius`'s equation. It shrinks to the lens's centre as the slope
    becomes isothermal; then, and for steeper lenses, this is the cut of the isothermal lens (Kormann et al. 1994).
    """
    x, y = np.empty((2, _CAUSTIC_POINTS))
    _radial_caustic(lens._replace(slope=min(lens.slope, 1.0)), x, y)
    return x, y


@compiled
def _trace_all(x: Image, y: Image, lens: Lens, bx: Image, by: Image) -> None:
    for i in range(len(x)):
        bx[i], by[i] = trace(x[i], y[i], lens)


def source_position(row: Mapping[str, Any], x: Image, y: Image) -> tuple[Image, Image]:
    """Where in the source plane image positions shine from, arcsec; `row` as in `Lens.of`."""
    bx, by = np.empty((2, x.size))
    _trace_all(
        np.ascontiguousarray(x, dtype=float).ravel(), np.ascontiguousarray(y, dtype=float).ravel(), Lens.of(row), bx, by
    )
    return bx.reshape(x.shape), by.reshape(y.shape)
