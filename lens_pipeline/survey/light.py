"""What shines: the host galaxy, its neighbours and the lensed source, as light on a grid of half-pixel cells.

Belongs here: surface brightness before the PSF. Light is given in nanomaggy per *pixel*, so that the mean of a pixel's
cells is its flux. How it is integrated is in `squares.py`, where it comes from behind a lens in `lensing.py`; positions are
arcsec from the stamp's centre, x along columns.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from scipy.special import gamma as gamma_function
from scipy.special import gammaincinv

from lens_pipeline.survey.lensing import NO_LENS, Lens
from lens_pipeline.survey.optics import OVERSAMPLING, Image, cells_across
from lens_pipeline.survey.squares import BLOCK, CELL_WEIGHTS, Shape, integrate

# Share of a profile's flux that a square may be in doubt of; hosts are brighter than arcs. An arc's light is then right to
# 1e-4, and each of its pixels to 1e-3 of the brightest (`python -m reliability lens_physics`).
_ARC_DOUBT, _GALAXY_DOUBT = 4e-3, 3e-4
# Shares of the light within the core of a cusp that need not be resolved, and beyond the reach that need not be drawn.
_CORE_SHARE, _TAIL_SHARE = 2e-3, 1e-4
# No elliptical power law that a setting allows deflects by more, in Einstein radii, at the Einstein radius.
_DEFLECTION = 1.3
_NO_SAMPLES = np.empty((0, 0))


class Profile(Protocol):
    """Something that shines."""

    @property
    def flux(self) -> float:
        """Total flux, nanomaggy."""

    @property
    def x_arcsec(self) -> float:
        """Place along columns."""

    @property
    def y_arcsec(self) -> float:
        """Place along rows."""

    def shape(self) -> Shape:
        """Return its brightness as compiled code takes it."""

    def reach_arcsec(self) -> float:
        """Radius beyond which next to nothing shines."""


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

    @property
    def half_arcsec(self) -> float:
        """Half the grid's side."""
        return len(self.x) * self.step / 2

    @classmethod
    @lru_cache(maxsize=8)
    def of(cls, stamp_size: int, pixel_scale_arcsec: float) -> "Grid":
        """Return the grid of a stamp; kept, since every stamp of a survey has the same."""
        n = cells_across(stamp_size)
        axis = (np.arange(n) - (n - 1) / 2) * pixel_scale_arcsec / OVERSAMPLING
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
        Half-light radius on the geometric mean of the axes, as lenstronomy has it.
    """

    flux: float
    reff_arcsec: float
    n: float
    ellipticity: float
    phi_rad: float
    x_arcsec: float
    y_arcsec: float

    @classmethod
    def of_source(cls, row: Mapping[str, Any]) -> "Sersic":
        """Make the source of a manifest row, with flux 1, placed relative to the lens."""
        return cls(
            flux=1.0,
            reff_arcsec=row["src_reff_arcsec"],
            n=row["src_n"],
            ellipticity=row["src_e"],
            phi_rad=row["src_phi_rad"],
            x_arcsec=row["src_x_arcsec"],
            y_arcsec=row["src_y_arcsec"],
        )

    def shape(self) -> Shape:
        """Return the profile in half-light radii along its axes."""
        b, core, _ = _sersic_radii(self.n)
        q = (1 - self.ellipticity) / (1 + self.ellipticity)
        cos, sin = np.cos(self.phi_rad), np.sin(self.phi_rad)
        along, across = np.sqrt(q) / self.reff_arcsec, 1 / (np.sqrt(q) * self.reff_arcsec)
        return Shape(
            x=float(self.x_arcsec),
            y=float(self.y_arcsec),
            xx=float(along * cos),
            xy=float(along * sin),
            yx=float(-across * sin),
            yy=float(across * cos),
            peak=float(self.flux * np.exp(b) / (self.reff_arcsec**2 * flux_of_unit_sersic(self.n))),
            b=b,
            power=0.5 / self.n,
            core=core,
            extent=0.0,
            samples=_NO_SAMPLES,
        )

    def reach_arcsec(self) -> float:
        """Major axis of the isophote beyond which 1e-4 of the light lies."""
        q = (1 - self.ellipticity) / (1 + self.ellipticity)
        return float(self.reff_arcsec * _sersic_radii(self.n)[2] / np.sqrt(q))


@lru_cache(maxsize=4096)
def _sersic_radii(n: float) -> tuple[float, float, float]:
    """Constant b of the profile; radii within the core and within the reach, in half-light radii."""
    b = float(gammaincinv(2 * n, 0.5))
    return b, float((gammaincinv(2 * n, _CORE_SHARE) / b) ** n), float((gammaincinv(2 * n, 1 - _TAIL_SHARE) / b) ** n)


def sersic_b(n: float) -> float:
    """Constant b of the Sersic profile, with which half of the light is within the half-light radius."""
    return _sersic_radii(n)[0]


def flux_of_unit_sersic(n: float) -> float:
    """Total flux of a Sersic profile with brightness 1 at a half-light radius of 1 (Graham & Driver 2005, eq. 2)."""
    b = sersic_b(n)
    return float(2 * np.pi * n * np.exp(b) * b ** (-2 * n) * gamma_function(2 * n))


def galaxy_light(grid: Grid, profile: Profile, reach_arcsec: float = np.inf) -> tuple[Image, tuple[slice, slice]]:
    """Light of an unlensed galaxy, cusp and all.

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
    centre = (profile.x_arcsec, profile.y_arcsec)
    return _light(grid, profile, NO_LENS, (0.0, 0.0), centre, reach_arcsec, _GALAXY_DOUBT)


def lensed_light(grid: Grid, source: Profile, lens: Mapping[str, Any], x0: float, y0: float) -> Image:
    """Light of a source behind a lens; nanomaggy per pixel on the whole grid.

    Parameters
    ----------
    source : Profile
        Its position is relative to the lens.
    lens : mapping
        theta_e_arcsec, lens_e, lens_phi_rad, shear, shear_phi_rad, and lens_gamma where the lens isn't isothermal.
    x0, y0 : float
        Place of the lens on the grid, arcsec.
    """
    bent = Lens.of(lens)
    drawn, patch = _light(grid, source, bent, (x0, y0), (x0, y0), _image_reach(source, bent), _ARC_DOUBT)
    light = np.zeros_like(grid.x)
    light[patch] = drawn
    return light


def light_beyond(grid: Grid, source: Profile, lens: Mapping[str, Any], x0: float, y0: float) -> float:
    """Light of a source behind a lens that falls beyond the grid, nanomaggy; parameters as in `lensed_light`."""
    bent, half = Lens.of(lens), grid.half_arcsec
    reach = _image_reach(source, bent) + max(abs(x0), abs(y0))
    squares = []
    while half < reach:
        around = [(i, j) for i in (-2, 0, 2) for j in (-2, 0, 2) if i or j]
        squares += [(j * half - x0, i * half - y0, 2 * half, 0, 0) for i, j in around]
        half *= 3
    if not squares:
        return 0.0
    allowed = _ARC_DOUBT * source.flux
    return float(
        integrate(np.array(squares, float), 0, 1.0, bent, source.shape(), allowed, np.empty((0, 0)), CELL_WEIGHTS)
    )


def _light(
    grid: Grid,
    profile: Profile,
    lens: Lens,
    origin: tuple[float, float],
    centre: tuple[float, float],
    reach: float,
    doubt: float,
) -> tuple[Image, tuple[slice, slice]]:
    """Draw a profile on the squares within reach of a place; the lens is at `origin`."""
    n = len(grid.x)
    block = BLOCK if n % BLOCK == 0 else BLOCK // 2
    side = block * grid.step

    def along(place: float) -> tuple[int, int]:
        if np.isinf(reach):
            return 0, n // block
        low, high = (place - reach + grid.half_arcsec) / side, (place + reach + grid.half_arcsec) / side
        return max(0, min(n // block, int(np.floor(low)))), max(0, min(n // block, int(np.ceil(high))))

    (left, right), (bottom, top) = along(centre[0]), along(centre[1])
    columns, rows = np.arange(left, right), np.arange(bottom, top)[:, None]
    squares = np.empty((top - bottom, right - left, 5))
    squares[..., 0] = (columns + 0.5) * side - grid.half_arcsec - origin[0]
    squares[..., 1] = (rows + 0.5) * side - grid.half_arcsec - origin[1]
    squares[..., 2] = side
    squares[..., 3], squares[..., 4] = (rows - bottom) * block, (columns - left) * block
    cells = np.zeros(((top - bottom) * block, (right - left) * block))
    allowed = doubt * profile.flux
    integrate(squares.reshape(-1, 5), block, grid.step, lens, profile.shape(), allowed, cells, CELL_WEIGHTS)
    cells *= grid.pixel_scale_arcsec**2
    return cells, (slice(bottom * block, top * block), slice(left * block, right * block))


def _image_reach(source: Profile, lens: Lens) -> float:
    """Radius around the lens beyond which next to nothing of a source is seen, arcsec."""
    behind = float(np.hypot(source.x_arcsec, source.y_arcsec)) + source.reach_arcsec()
    if lens.theta_e == 0:
        return behind
    weakest = 1 - float(np.hypot(lens.shear_1, lens.shear_2))
    reach = behind + lens.theta_e
    for _ in range(8):
        reach = (behind + _DEFLECTION * lens.theta_e * (reach / lens.theta_e) ** (1 - lens.slope)) / weakest
    return reach
