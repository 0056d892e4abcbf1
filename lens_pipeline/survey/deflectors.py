"""How often galaxies of a redshift lens, against Einstein radius: velocity dispersions, distances and the cross-section.

Belongs here: physics of the population of deflectors. What is drawn from it is said in `population.py`.

An isothermal deflector of velocity dispersion sigma has theta_E = 4 pi (sigma / c)^2 D_ls / D_s (Narayan & Bartelmann 1996,
eq. 46). The number of lenses per theta_E of a deflector at redshift z_l is then

    rate(z_l, theta_E) = theta_E^2 int dz_s n(z_s) Phi(sigma) dsigma/dtheta_E,      sigma = c sqrt(theta_E D_s / (4 pi D_ls)),

with Phi the velocity dispersion function, n(z_s) the redshifts of sources, and theta_E^2 the cross-section: the area of the
source plane in which a source has several images goes as it (Turner, Ostriker & Gott 1984). Magnification enters nowhere:
sources are uniform in that area and carry unlensed magnitudes, so that what magnification does to detection is seen in the
stamps and not counted twice.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lens_pipeline.survey.densities import Density

_LIGHT_KM_S, _RAD_ARCSEC = 299792.458, np.degrees(1) * 3600
# Flat, as in Collett (2015), whose population Choi's function with these distances is; H0 cancels.
_OMEGA_MATTER = 0.3
_Z_HIGH, _Z_STEP = 6.0, 0.01
_BEHIND = 0.05
_REDSHIFT_NODES, _THETA_E_KNOTS = 24, 160
_SIGMA_HIGH_KM_S = 500.0

# alpha, beta and sigma_star of Phi(sigma) ~ (sigma / sigma_star)^alpha exp(-(sigma / sigma_star)^beta) / sigma, early types.
VELOCITY_DISPERSION_FUNCTIONS = {
    "choi_2007": (2.32, 2.67, 161.0),  # Choi, Park & Vogeley (2007)
    "sheth_2003": (6.5, 1.93, 88.8),  # Sheth et al. (2003)
}


def comoving_distance(z: ArrayLike) -> NDArray[np.float64]:
    """Line-of-sight comoving distance in units of c / H0, flat universe with Omega_m = 0.3, up to redshift 6."""
    return np.asarray(np.interp(np.asarray(z, dtype=float), *_DISTANCES))


def _distances() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    z = np.linspace(0, _Z_HIGH, 3001)
    inverse = 1 / np.sqrt(_OMEGA_MATTER * (1 + z) ** 3 + 1 - _OMEGA_MATTER)
    return z, np.concatenate([[0.0], np.cumsum((inverse[1:] + inverse[:-1]) / 2 * np.diff(z))])


_DISTANCES = _distances()


def distance_ratio(z_lens: ArrayLike, z_source: ArrayLike) -> NDArray[np.float64]:
    """D_ls / D_s, which is 1 - chi_l / chi_s in a flat universe; 0 for a source before the lens."""
    behind = np.maximum(comoving_distance(z_source), 1e-12)
    return np.maximum(1 - comoving_distance(z_lens) / behind, 0)


def velocity_dispersion(theta_e_arcsec: ArrayLike, z_lens: ArrayLike, z_source: ArrayLike) -> NDArray[np.float64]:
    """Velocity dispersion in km/s of an isothermal lens; infinite where the source isn't behind it."""
    with np.errstate(divide="ignore"):
        per_ratio = np.asarray(theta_e_arcsec) / _RAD_ARCSEC / (4 * np.pi) / distance_ratio(z_lens, z_source)
    return np.asarray(_LIGHT_KM_S * np.sqrt(per_ratio))


def nearest_source(theta_e_arcsec: float, z_lens: float) -> float | None:
    """Least redshift of a source that a galaxy lenses with this radius; None if none is far enough.

    It is 0.05 behind the lens, and so far that the galaxy needn't be heavier than 500 km/s.
    """
    ratio = theta_e_arcsec / _RAD_ARCSEC / (4 * np.pi) * (_LIGHT_KM_S / _SIGMA_HIGH_KM_S) ** 2
    if ratio >= 1:
        return None
    # D_ls / D_s = 1 - chi_l / chi_s grows with the source's distance.
    z, chi = _DISTANCES
    least = max(float(np.interp(comoving_distance(z_lens) / (1 - ratio), chi, z)), z_lens + _BEHIND)
    return least if least < _Z_HIGH else None


def source_redshifts(z0: float) -> Density:
    """n(z) ~ z^2 exp(-(z / z0)^1.5) (Smail, Ellis & Fitchett 1994), whose median is 1.412 z0; cut at redshift 6."""
    z = np.arange(0, _Z_HIGH + _Z_STEP / 2, _Z_STEP)
    return Density.of(z, z**2 * np.exp(-((z / z0) ** 1.5)), "the source redshift")


@dataclass(frozen=True)
class Deflectors:
    """Deflectors of one velocity dispersion function.

    Attributes
    ----------
    function : str
        A name of `VELOCITY_DISPERSION_FUNCTIONS`.
    sigma_low_km_s : float
        Deflectors below it are left out, as are those above 500 km/s, which no galaxy reaches.
    """

    function: str
    sigma_low_km_s: float
    sources: Density
    theta_e_low: float
    theta_e_high: float
    z_low: float
    z_high: float

    @cached_property
    def theta_e(self) -> NDArray[np.float64]:
        """Einstein radii that rates are tabulated at, arcsec, shape (k,)."""
        return np.geomspace(self.theta_e_low, self.theta_e_high, _THETA_E_KNOTS)

    @cached_property
    def redshifts(self) -> NDArray[np.float64]:
        """Lens redshifts that rates are tabulated at, shape (m,)."""
        return np.linspace(self.z_low, max(self.z_high, self.z_low + 1e-6), _REDSHIFT_NODES)

    @cached_property
    def rates(self) -> NDArray[np.float64]:
        """Lenses per Einstein radius of a deflector, on an arbitrary scale, shape (m, k)."""
        z = self.sources.knots
        chance = self.sources.heights * _Z_STEP
        rates = np.empty((len(self.redshifts), len(self.theta_e)))
        for i, z_lens in enumerate(self.redshifts):
            rates[i] = self._per_source(float(z_lens), self.theta_e[:, None], z) @ chance
        return np.asarray(rates * self.theta_e**2)

    def node_weights(self, z_lens: ArrayLike) -> NDArray[np.float64]:
        """Share of some galaxies that each tabulated redshift stands for, by linear interpolation, shape (m,)."""
        place = (np.asarray(z_lens, dtype=float) - self.redshifts[0]) / (self.redshifts[1] - self.redshifts[0])
        left = np.clip(np.floor(place).astype(int), 0, len(self.redshifts) - 2)
        right = np.clip(place - left, 0, 1)
        size = len(self.redshifts)
        total = np.bincount(left, 1 - right, size) + np.bincount(left + 1, right, size)
        return np.asarray(total / max(len(np.atleast_1d(place)), 1))

    def rate(self, z_lens: float, theta_e_arcsec: float) -> float:
        """Lenses per Einstein radius of a deflector, on the scale of `rates`."""
        along = self.node_weights([z_lens]) @ self.rates
        return float(np.interp(theta_e_arcsec, self.theta_e, along))

    def draw_source_redshift(self, z_lens: float, theta_e_arcsec: float, u: float) -> float | None:
        """Draw the redshift of a source given lens and Einstein radius; None where no deflector is heavy enough for any."""
        z = self.sources.knots
        chance = self.sources.heights * self._per_source(z_lens, np.array([theta_e_arcsec]), z)
        return Density.of(z, chance, "the source redshift").quantile(u) if chance.any() else None

    def _per_source(
        self, z_lens: float, theta_e: NDArray[np.float64], z_source: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Phi(sigma) dsigma/dtheta_E, which is Phi sigma / (2 theta_E)."""
        alpha, beta, star = VELOCITY_DISPERSION_FUNCTIONS[self.function]
        sigma = velocity_dispersion(theta_e, z_lens, z_source)
        kept = (sigma > self.sigma_low_km_s) & (sigma < _SIGMA_HIGH_KM_S) & (z_source > z_lens + _BEHIND)
        x = np.where(kept, sigma / star, 0.0)
        return np.asarray(np.where(kept, x**alpha * np.exp(-(x**beta)), 0.0) / (2 * theta_e))
