"""What shines: the host galaxy, its neighbours and the lensed source, as light on a grid of half-pixel cells.

Belongs here: surface brightness before the PSF. Light is given in nanomaggy per *pixel*, so that the mean of a pixel's
cells is its flux. Lens and Sersic profiles are lenstronomy's; positions are arcsec from the stamp's centre, x along columns.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from lenstronomy.LensModel.Profiles.shear import Shear
from lenstronomy.LensModel.Profiles.sie import SIE
from lenstronomy.LightModel.Profiles.sersic import SersicElliptic
from scipy.special import gamma as gamma_function

from lens_pipeline.survey.optics import OVERSAMPLING, Image, cells_across

_SERSIC, _SIE, _SHEAR = SersicElliptic(), SIE(), Shear()
_CORE_CELLS, _CORE_OVERSAMPLING = 8, 7
# Points across a half-light radius in bright cells: magnification is then right to 0.7 % for 19 of 20 sources.
_POINTS_PER_REFF = 4
# Even at n = 2 only 0.1 % of a source's light lies beyond 12 half-light radii, and tails are smooth.
_TAIL, _WORTH_REFINING = 12, 1e-3


@dataclass(frozen=True)
class Grid:
    """The cells that light is made on.

    Attributes
    ----------
    x, y : (n, n) arrays
        Centres of the cells, arcsec from the stamp's centre.
    """

    stamp_size: int
    pixel_scale_arcsec: float
    x: Image
    y: Image

    @property
    def step(self) -> float:
        """Side of a cell, arcsec."""
        return self.pixel_scale_arcsec / OVERSAMPLING

    @classmethod
    @lru_cache(maxsize=8)
    def of(cls, stamp_size: int, pixel_scale_arcsec: float) -> "Grid":
        """Return the grid of a stamp; kept, since every stamp of a survey has the same."""
        axis = _centres(cells_across(stamp_size)) * pixel_scale_arcsec / OVERSAMPLING
        x, y = np.meshgrid(axis, axis)
        return cls(stamp_size, pixel_scale_arcsec, x, y)


@dataclass(frozen=True)
class Sersic:
    """An elliptical Sersic profile of a given total flux.

    Attributes
    ----------
    ellipticity : float
        (1 - q) / (1 + q).
    reff_arcsec : float
        Half-light radius on the geometric mean of the axes (lenstronomy's convention).
    """

    flux: float
    reff_arcsec: float
    n: float
    ellipticity: float
    phi_rad: float
    x_arcsec: float
    y_arcsec: float

    def brightness(self, x: Image, y: Image) -> Image:
        """Surface brightness at positions, nanomaggy per arcsec^2."""
        b = sersic_b(self.n)
        at_reff = self.flux / (self.reff_arcsec**2 * flux_of_unit_sersic(self.n))
        # Squared radius on the product average of the axes, as a quadratic form: (major^2 q + minor^2 / q) / reff^2.
        q = (1 - self.ellipticity) / (1 + self.ellipticity)
        cos, sin, scale = np.cos(self.phi_rad), np.sin(self.phi_rad), self.reff_arcsec**-2
        xx, yy = scale * (q * cos**2 + sin**2 / q), scale * (q * sin**2 + cos**2 / q)
        xy = 2 * scale * cos * sin * (q - 1 / q)
        dx, dy = x - self.x_arcsec, y - self.y_arcsec
        r2 = xx * dx * dx + (xy * dx + yy * dy) * dy
        return np.asarray(at_reff * np.exp(b - b * _power(np.maximum(r2, 0), 0.5 / self.n)))


def _power(values: Image, exponent: float) -> Image:
    """``values ** exponent``; three square roots are several times faster for a de Vaucouleurs profile."""
    return np.asarray(np.sqrt(np.sqrt(np.sqrt(values))) if exponent == 0.125 else values**exponent)


def sersic_b(n: float) -> float:
    """Constant b of the Sersic profile, as lenstronomy approximates it."""
    return float(_SERSIC.b_n(n))


@lru_cache(maxsize=1024)
def flux_of_unit_sersic(n: float) -> float:
    """Total flux of a Sersic profile with brightness 1 at a half-light radius of 1 (Graham & Driver 2005, eq. 2)."""
    b = sersic_b(n)
    return float(2 * np.pi * n * np.exp(b) * b ** (-2 * n) * gamma_function(2 * n))


def galaxy_light(grid: Grid, profile: Sersic, reach_arcsec: float = np.inf) -> tuple[Image, tuple[slice, slice]]:
    """Light of an unlensed galaxy, its cusp integrated finely.

    Parameters
    ----------
    reach_arcsec : float
        Half side of the patch that is computed; what lies beyond is left out.

    Returns
    -------
    light : (rows, columns) array
        nanomaggy per pixel, on the patch only.
    patch : (slice, slice)
        Where the patch stands on the grid.
    """
    patch = _window(grid, profile.x_arcsec, profile.y_arcsec, reach_arcsec)
    light = profile.brightness(grid.x[patch], grid.y[patch])
    core = _window(grid, profile.x_arcsec, profile.y_arcsec, _CORE_CELLS / 2 * grid.step)
    inner = tuple(slice(c.start - p.start, c.stop - p.start) for c, p in zip(core, patch, strict=True))
    light[inner] = _finely(grid, core, _CORE_OVERSAMPLING, profile.brightness)
    return light * grid.pixel_scale_arcsec**2, patch


def lensed_light(grid: Grid, source: Sersic, lens: Mapping[str, Any], x0: float, y0: float) -> Image:
    """Light of a source behind a lens, each bright cell refined; nanomaggy per pixel.

    Parameters
    ----------
    source : Sersic
        Its position is relative to the lens.
    lens : mapping
        theta_e_arcsec, lens_e, lens_phi_rad, shear and shear_phi_rad.
    x0, y0 : float
        Place of the lens on the grid, arcsec.
    """

    def brightness(x: Image, y: Image) -> Image:
        bx, by = source_position(lens, x - x0, y - y0)
        return source.brightness(bx, by)

    reach = 1.5 * lens["theta_e_arcsec"] + np.hypot(source.x_arcsec, source.y_arcsec) + _TAIL * source.reff_arcsec
    wide = _window(grid, x0, y0, float(reach))
    x, y = grid.x[wide], grid.y[wide]
    seen = brightness(x, y)
    bright = seen > _WORTH_REFINING * seen.max()
    times = int(np.clip(np.ceil(_POINTS_PER_REFF * grid.step / source.reff_arcsec), 2, 6))
    offsets = _centres(times) * grid.step / times
    dx, dy = (axis.ravel() for axis in np.meshgrid(offsets, offsets))
    seen[bright] = brightness(x[bright][:, None] + dx, y[bright][:, None] + dy).mean(axis=1)
    light = np.zeros_like(grid.x)
    light[wide] = seen * grid.pixel_scale_arcsec**2
    return light


def source_position(lens: Mapping[str, Any], x: Image, y: Image) -> tuple[Image, Image]:
    """Lens equation of an SIE with external shear: where in the source plane an image position shines from, arcsec.

    theta_E is lenstronomy's for an SIE (intermediate axis, Tessore & Metcalf 2015).
    """
    e, phi = lens["lens_e"], lens["lens_phi_rad"]
    flat_x, flat_y = x.ravel(), y.ravel()
    ax, ay = _SIE.derivatives(flat_x, flat_y, lens["theta_e_arcsec"], e * np.cos(2 * phi), e * np.sin(2 * phi))
    if lens["shear"]:
        strength, angle = lens["shear"], 2 * lens["shear_phi_rad"]
        sx, sy = _SHEAR.derivatives(flat_x, flat_y, strength * np.cos(angle), strength * np.sin(angle))
        ax, ay = ax + sx, ay + sy
    return (flat_x - ax).reshape(x.shape), (flat_y - ay).reshape(y.shape)


def _finely(grid: Grid, window: tuple[slice, slice], times: int, brightness: Any) -> Image:
    """Mean brightness in each cell of a window, from `times` x `times` points a cell."""
    offsets = _centres(times) * grid.step / times
    x = (grid.x[0, window[1]][:, None] + offsets).ravel()
    y = (grid.y[window[0], 0][:, None] + offsets).ravel()
    fine = brightness(*np.meshgrid(x, y))
    # Adding slices is several times faster than a mean over two short axes.
    rows = sum(fine[i::times] for i in range(times))
    return np.asarray(sum(rows[:, i::times] for i in range(times)) / times**2)


def _window(grid: Grid, x: float, y: float, reach_arcsec: float) -> tuple[slice, slice]:
    n = grid.x.shape[0]

    def along(centre: float) -> slice:
        if np.isinf(reach_arcsec):
            return slice(0, n)
        place, half = centre / grid.step + n / 2, reach_arcsec / grid.step
        return slice(max(0, min(n, int(place - half))), max(0, min(n, int(place + half) + 1)))

    return along(y), along(x)


def _centres(n: int) -> Image:
    return np.arange(n, dtype=np.float64) - (n - 1) / 2
