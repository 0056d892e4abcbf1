"""Where a source has several images: the region of the source plane that positions are drawn in, and its area.

Belongs here: one region a family of lenses. Both are uniform in area, whatever magnification does there.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lens_pipeline.survey.lensing import Lens, radial_caustic

# No caustic that a setting allows has this many times the area of a round lens's (`over_round`).
MOST_AREA = 1.1


@dataclass(frozen=True)
class CutEllipse:
    """The ellipse through the vertices of an isothermal lens's cut: a source in it has two or four images.

    External shear leaves the cut as it is: it deflects nothing at the lens's centre, where the cut comes from.
    """

    theta_e_arcsec: float
    q: float
    phi_rad: float

    @property
    def over_round(self) -> float:
        """Its area over that of a round lens's cut, at most 1."""
        return float(np.prod(cut_half_axes(self.q)))

    def draw(self, rng: np.random.Generator, u: float, v: float) -> tuple[float, float]:
        """Draw a place in it, arcsec from the lens; `u` and `v` are uniform and suffice."""
        along, across = cut_half_axes(self.q)
        r, angle = np.sqrt(u), 2 * np.pi * v
        major, minor = (
            self.theta_e_arcsec * along * r * np.cos(angle),
            self.theta_e_arcsec * across * r * np.sin(angle),
        )
        cos, sin = np.cos(self.phi_rad), np.sin(self.phi_rad)
        return float(major * cos - minor * sin), float(major * sin + minor * cos)


@dataclass(frozen=True)
class Caustic:
    """The inside of a power law's radial caustic, shear included: a source in it has one image more than one outside.

    A density steeper than isothermal has no such caustic: it deflects the more the nearer to its centre, so that every source
    has a second image, the fainter the further off. The region is then the isothermal lens's cut, as the Einstein ring is a
    point mass's (Paczynski 1986): at its border a round lens of slope 2.08 shows a second image of magnification 0.1.
    """

    lens: Lens

    @cached_property
    def curve(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Corners x and y of the polygon, arcsec from the lens."""
        return radial_caustic(self.lens)

    @property
    def over_round(self) -> float:
        """Its area over that of a round lens of its slope without shear, at most `MOST_AREA`."""
        x, y = self.curve
        area = abs(float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))) / 2
        return area / (np.pi * round_radius(self.lens.slope) ** 2 * self.lens.theta_e**2)

    def draw(self, rng: np.random.Generator, u: float, v: float) -> tuple[float, float]:
        """Draw a place in it: uniform in the box around it, until one falls inside."""
        x, y = self.curve
        while True:
            at_x, at_y = x.min() + np.ptp(x) * u, y.min() + np.ptp(y) * v
            if _is_inside(x, y, at_x, at_y):
                return float(at_x), float(at_y)
            u, v = rng.random(2)


def cut_half_axes(q: float) -> tuple[float, float]:
    """Half axes of the SIE's cut along the mass's major and minor axis, in Einstein radii (Kormann et al. 1994, eq. 31)."""
    if q > 0.999:
        return 1.0, 1.0
    f = np.sqrt(1 - q * q)
    return float(np.sqrt(q) / f * np.arcsin(f)), float(np.sqrt(q) / f * np.arcsinh(f / q))


def round_radius(slope: float) -> float:
    """Radius of a round lens's region in Einstein radii: its mass bends by theta_E (r / theta_E)^(1 - t), t the slope.

    The radial caustic is where d beta / dr = 0, r = (1 - t)^(1 / t): beta = t (1 - t)^((1 - t) / t). It tends to 1 as t does.
    """
    return 1.0 if slope >= 1 else float(slope * (1 - slope) ** ((1 - slope) / slope))


def _is_inside(x: NDArray[np.float64], y: NDArray[np.float64], at_x: float, at_y: float) -> bool:
    """Whether a line from a place towards +x crosses a polygon's border an odd number of times."""
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    spans = np.flatnonzero((y > at_y) != (next_y > at_y))
    run = (next_x[spans] - x[spans]) / (next_y[spans] - y[spans])
    return bool(np.count_nonzero(x[spans] + run * (at_y - y[spans]) > at_x) % 2)
