"""The population of lenses that injections stand for: the density of each parameter, before any design.

Belongs here: densities of Einstein radius, source magnitude and lens model, and how they differ between galaxies. How rows
are drawn is in `design.py`, what follows for a row in `priors.py`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.survey.deflectors import Deflectors, nearest_source, source_redshifts
from lens_pipeline.survey.densities import Density
from lens_pipeline.survey.injection_config import LENS_MODELS, InjectionConfig, PopulationName

_MAG_KNOTS = 128


@dataclass(frozen=True)
class Hosts:
    """What the design must know of all galaxies together; small, and published with the manifest.

    Attributes
    ----------
    n_galaxies, n_without_redshift : int
        The latter are given the assumed one where the population needs it.
    z_low, z_high : float or None
        Least and largest redshift of a galaxy, the assumed one included.
    weights : tuple of float
        Share of galaxies that each tabulated redshift stands for; empty where the population doesn't ask.
    real_sources : tuple of str
        Real galaxies that may be lensed by them.
    in_splits : dict
        Galaxies in each split, where the design says which regions that is; empty where it doesn't.
    """

    n_galaxies: int
    n_without_redshift: int
    z_low: float | None = None
    z_high: float | None = None
    weights: tuple[float, ...] = ()
    real_sources: tuple[str, ...] = ()
    in_splits: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, config: InjectionConfig, z_lens: Iterable[float | None], real_sources: tuple[str, ...] = ()) -> "Hosts":
        """Sum up the redshifts of a parent sample's galaxies, None where unknown."""
        given = list(z_lens)
        unknown = sum(z is None for z in given)
        if config.population is not PopulationName.velocity_dispersion:
            return cls(len(given), unknown, real_sources=real_sources)
        known = np.array([config.lens_redshift_assumed if z is None else z for z in given], dtype=float)
        bad = known[~np.isfinite(known) | (known <= 0)]
        if len(known) == 0 or len(bad):
            raise ConfigError(
                f"{len(bad)} of {len(known)} galaxies have a redshift that is not above 0, first {bad[:5].tolist()}: such a "
                "galaxy lenses nothing. Mend z_lens of parent_sample, or take another population of theta_e."
            )
        bare = cls(len(given), unknown, float(known.min()), float(known.max()))
        weights = tuple(_deflectors(config, bare).node_weights(known).tolist())
        return replace(bare, weights=weights, real_sources=real_sources)

    def as_attributes(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> "Hosts":
        """Read what `as_attributes` wrote."""
        known: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in attributes.items()}
        return cls(**known)


@dataclass(frozen=True)
class Population:
    """Densities of independent parameters, averaged over galaxies.

    Attributes
    ----------
    theta_e : Density
        Einstein radius, arcsec, of lenses whose source lies in the region that has several images: the cross-section is in.
    mag_r : Density
        Unlensed r magnitude of the source.
    lens_models : dict
        Lens model to its share.
    sources : Density
        Redshifts of sources, whatever the lens.
    deflectors : Deflectors or None
        Where theta_E differs between galaxies, how.
    mean_rates : (k,) array or None
        Mean of their rates over galaxies, on the scale of `deflectors.rates`; nothing is held out of it.
    """

    theta_e: Density
    mag_r: Density
    lens_models: dict[str, float]
    sources: Density
    deflectors: Deflectors | None
    lens_redshift_assumed: float
    mean_rates: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, config: InjectionConfig, hosts: Hosts) -> "Population":
        """Make the population that the settings name, for these galaxies.

        Raises
        ------
        ConfigError
            If a density can't be normalised.
        """
        sis, sie, epl = config.share_sis, config.share_sie, config.share_epl
        shares = dict(zip(LENS_MODELS, (sis, sie, max(0.0, 1 - sis - sie - epl), epl), strict=True))
        deflectors = mean_rates = None
        if config.population is PopulationName.table:
            theta_e = Density.of(config.theta_e_knots_arcsec, config.theta_e_density, "theta_e (population: table)")
        elif config.population is PopulationName.uniform:
            theta_e = Density.uniform(config.theta_e_low_arcsec, config.theta_e_high_arcsec, "theta_e")
        else:
            deflectors = _deflectors(config, hosts)
            mean_rates = np.asarray(hosts.weights) @ deflectors.rates
            theta_e = Density.of(deflectors.theta_e, mean_rates, f"theta_e ({config.velocity_dispersion_function})")
        return cls(
            theta_e,
            _magnitudes(config),
            shares,
            source_redshifts(config.source_z0),
            deflectors,
            config.lens_redshift_assumed,
            mean_rates,
        )

    def describe(self) -> str:
        """Say in a sentence what weights refer to."""
        low, high = self.theta_e.edges
        reach = f"theta_e {low:g} to {high:g} arcsec"
        if self.deflectors is None:
            return f"lenses by the stated priors, {reach}; every galaxy counts alike"
        return (
            f"lenses of the parent sample's galaxies, velocity dispersion function {self.deflectors.function} above "
            f"{self.deflectors.sigma_low_km_s:g} km/s with the lensing cross-section, {reach}; a galaxy counts as often as it "
            "would lens"
        )

    def redshift_of(self, galaxy: Mapping[str, Any]) -> float | None:
        """Redshift of a galaxy; where it is unknown the assumed one if the population needs one, else None."""
        known: float | None = galaxy.get("z_lens")
        return self.lens_redshift_assumed if known is None and self.deflectors is not None else known

    def relative_rate(self, galaxy: Mapping[str, Any], theta_e_arcsec: float) -> float:
        """How often this galaxy lenses with this radius, over the mean of all galaxies; 1 where they are all alike."""
        if self.deflectors is None or self.mean_rates is None:
            return 1.0
        z_lens = self.redshift_of(galaxy)
        assert z_lens is not None
        mean = float(np.interp(theta_e_arcsec, self.deflectors.theta_e, self.mean_rates))
        return self.deflectors.rate(z_lens, theta_e_arcsec) / mean

    def draw_source_redshift(self, galaxy: Mapping[str, Any], theta_e_arcsec: float, u: float) -> float | None:
        """Draw the redshift of a source that a galaxy can lens so; None where the galaxy's own is unknown or there is none."""
        z_lens = self.redshift_of(galaxy)
        if z_lens is None:
            return None
        if self.deflectors is not None:
            return self.deflectors.draw_source_redshift(z_lens, theta_e_arcsec, u)
        nearest = nearest_source(theta_e_arcsec, z_lens)
        return None if nearest is None else self.sources.between(nearest, self.sources.edges[1], u)

    def without(self, lens_models: Iterable[str], theta_e_band: tuple[float, float] | None) -> "Population":
        """Return what is left when lens models and a band of Einstein radii are held out.

        Raises
        ------
        ConfigError
            If nothing is left.
        """
        left = {name: share for name, share in self.lens_models.items() if name not in set(lens_models)}
        total = sum(left.values())
        if total <= 0:
            raise ConfigError(
                f"hold_out_lens_models takes every lens model there is ({', '.join(self.lens_models)}), so nothing is left to "
                "train on. Hold out fewer."
            )
        theta_e = self.theta_e
        if theta_e_band is not None:
            theta_e = theta_e.without(*theta_e_band, "theta_e outside hold_out_theta_e_arcsec")
        return replace(self, theta_e=theta_e, lens_models={name: share / total for name, share in left.items()})


def _deflectors(config: InjectionConfig, hosts: Hosts) -> Deflectors:
    assert hosts.z_low is not None
    assert hosts.z_high is not None
    return Deflectors(
        str(config.velocity_dispersion_function),
        config.sigma_v_low_km_s,
        source_redshifts(config.source_z0),
        config.theta_e_low_arcsec,
        config.theta_e_high_arcsec,
        hosts.z_low,
        hosts.z_high,
    )


def _magnitudes(config: InjectionConfig) -> Density:
    """Make counts that rise as 10^(slope m) over the main prior, and a uniform share beyond its faint end."""
    low, high, limit = config.source_mag_low, config.source_mag_high, config.source_faint_limit
    faint = config.source_faint_share if limit > high else 0.0
    if high == low and faint < 1:
        if faint > 0:
            raise ConfigError(
                "source_mag_low = source_mag_high leaves no width for the main prior beside a faint share."
            )
        return Density.uniform(low, high, "source magnitude")
    main = np.linspace(low, high, 2 if config.source_mag_slope == 0 else _MAG_KNOTS)
    rise = Density.of(main, 10 ** (config.source_mag_slope * (main - high)), "source magnitude").heights
    if faint == 0:
        return Density(main, rise)
    tail = faint / (limit - high)
    return Density.of([*main, high, limit], [*(rise * (1 - faint)), tail, tail], "source magnitude")
