"""What gravitational lensing says in closed form, written from the papers and apart from the code that it judges."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import gamma, gammaincinv

from lens_pipeline.survey.light import Sersic

Array = NDArray[np.float64]


def sis_images(theta_e: float, x: float, y: float) -> tuple[Array, Array, Array]:
    """Images of a point behind a singular isothermal sphere: positions and signed magnifications."""
    beta = float(np.hypot(x, y))
    r = np.array([beta + theta_e] + ([beta - theta_e] if beta < theta_e else []))
    return r * x / beta, r * y / beta, 1 / (1 - theta_e / np.abs(r))


def sie_images(theta_e: float, q: float, phi: float, x: float, y: float) -> tuple[Array, Array, Array]:
    """Images of a point behind a singular isothermal ellipsoid (Kormann, Schneider & Bartelmann 1994, sec. 3).

    With f the axis ratio, f'^2 = 1 - f^2 and x2 along the major axis, the deflection (their eq. 27) depends on the polar angle
    only: sqrt(f) / f' (arsinh(f' / f cos), arcsin(f' sin)). So an image at angle p fulfils (y + a(p)) x e(p) = 0 with a
    positive radius r = (y + a(p)) . e(p), and its magnification is 1 / (1 - 2 kappa) with
    kappa = sqrt(f) / (2 r sqrt(cos^2 + f^2 sin^2)).
    """
    f = q
    f1 = np.sqrt(1 - f * f)
    y2 = (np.cos(phi) * x + np.sin(phi) * y) / theta_e
    y1 = (np.cos(phi) * y - np.sin(phi) * x) / theta_e

    def target(p: Array | float) -> tuple[Array, Array]:
        a1 = np.sqrt(f) / f1 * np.arcsinh(f1 / f * np.cos(p))
        a2 = np.sqrt(f) / f1 * np.arcsin(f1 * np.sin(p))
        return np.asarray(y1 + a1), np.asarray(y2 + a2)

    def off(p: float) -> float:
        t1, t2 = target(p)
        return float(t1 * np.sin(p) - t2 * np.cos(p))

    angles = np.linspace(0, 2 * np.pi, 20_001)
    t1, t2 = target(angles)
    crossing = np.flatnonzero(np.diff(np.sign(t1 * np.sin(angles) - t2 * np.cos(angles))))
    found = []
    for i in crossing:
        p = float(brentq(off, angles[i], angles[i + 1], xtol=1e-14))
        t1, t2 = target(p)
        r = float(t1 * np.cos(p) + t2 * np.sin(p))
        if r > 0:
            found.append((p, r))
    p, r = np.array(found).T
    x1, x2 = theta_e * r * np.cos(p), theta_e * r * np.sin(p)
    kappa = np.sqrt(f) / (2 * r * np.sqrt(np.cos(p) ** 2 + f * f * np.sin(p) ** 2))
    return np.cos(phi) * x2 - np.sin(phi) * x1, np.sin(phi) * x2 + np.cos(phi) * x1, 1 / (1 - 2 * kappa)


def sersic(r: Array | float, reff: float, n: float) -> Array:
    """Brightness of a circular Sersic profile of flux 1."""
    b = gammaincinv(2 * n, 0.5)
    return np.asarray(
        b ** (2 * n) / (2 * np.pi * n * reff**2 * gamma(2 * n)) * np.exp(-b * (np.asarray(r) / reff) ** (1 / n))
    )


def elliptical_sersic(profile: Sersic, x: Array, y: Array) -> Array:
    """Brightness of an elliptical Sersic profile at positions: the circular one at r on the geometric mean of the axes."""
    q = (1 - profile.ellipticity) / (1 + profile.ellipticity)
    dx, dy = x - profile.x_arcsec, y - profile.y_arcsec
    cos, sin = np.cos(profile.phi_rad), np.sin(profile.phi_rad)
    r = np.hypot(np.sqrt(q) * (dx * cos + dy * sin), (dy * cos - dx * sin) / np.sqrt(q))
    return np.asarray(profile.flux * sersic(r, profile.reff_arcsec, profile.n))


def sis_extended_magnification(theta_e: float, beta: float, reff: float, n: float) -> float:
    """Magnification of a circular Sersic source behind a singular isothermal sphere.

    The point magnification is 2 theta_e / b within theta_e and 1 + theta_e / b beyond, so that in polar coordinates around the
    lens the flux is the integral of S times 2 theta_e or b + theta_e: nothing is singular in it.
    """

    def ring(b: float) -> float:
        def shines(angle: float) -> float:
            return float(sersic(np.hypot(b * np.cos(angle) - beta, b * np.sin(angle)), reff, n))

        width = min(np.pi, reff / max(b, 1e-9))
        parts = [0, *(w * width for w in (0.01, 0.1, 1.0, 4.0) if w * width < np.pi), np.pi]
        total = sum(quad(shines, low, high, epsrel=1e-7, epsabs=1e-12)[0] for low, high in pairwise(parts))
        return 2 * total * (2 * theta_e if b < theta_e else b + theta_e)

    steps = np.array([0.001, 0.01, 0.1, 0.5, 1, 2, 4, 8, 16, 40]) * reff
    edges = np.unique([0, theta_e, *(beta - steps), beta, *(beta + steps)])
    edges = edges[edges >= 0]
    return float(sum(quad(ring, low, high, epsrel=1e-6, epsabs=1e-9)[0] for low, high in pairwise(edges)))
