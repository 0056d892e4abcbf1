from itertools import pairwise

import numpy as np
import pytest
from astropy.cosmology import FlatLambdaCDM
from scipy.special import gamma

from lens_pipeline.survey.deflectors import (
    Deflectors,
    comoving_distance,
    distance_ratio,
    nearest_source,
    source_redshifts,
    velocity_dispersion,
)


def deflectors(function: str = "choi_2007", sigma_low: float = 100.0) -> Deflectors:
    return Deflectors(function, sigma_low, source_redshifts(0.9), 0.3, 2.5, 0.3, 0.8)


def test_distances_are_those_of_a_flat_universe() -> None:
    cosmology = FlatLambdaCDM(H0=70, Om0=0.3)
    z = np.array([0.1, 0.5, 1.3, 4.0])
    hubble = 299792.458 / 70
    assert comoving_distance(z) * hubble == pytest.approx(cosmology.comoving_distance(z).value, rel=1e-5)
    between = 1 - cosmology.comoving_distance(0.5) / cosmology.comoving_distance(1.3)
    assert distance_ratio(0.5, 1.3) == pytest.approx(float(between), rel=1e-5)
    assert distance_ratio(0.5, 0.4) == 0


def test_a_galaxy_of_250_km_s_half_way_has_an_einstein_radius_near_one_arcsec() -> None:
    assert velocity_dispersion(1.0, 0.5, 1.5) == pytest.approx(250, abs=5)


def test_half_of_the_sources_lie_beyond_the_median_redshift() -> None:
    assert source_redshifts(0.9).quantile(0.5) == pytest.approx(1.412 * 0.9, rel=2e-3)


@pytest.mark.parametrize("function", ["choi_2007", "sheth_2003"])
def test_rates_are_the_integral_over_dispersions_of_the_cross_section(function: str) -> None:
    """The other way round: integrate over sigma and z_s directly, with a bin of theta_E, by Monte Carlo of sigma."""
    alpha, beta, star = {"choi_2007": (2.32, 2.67, 161.0), "sheth_2003": (6.5, 1.93, 88.8)}[function]
    some = deflectors(function)
    z_lens, rng = float(some.redshifts[10]), np.random.default_rng(5)
    # sigma from Phi: (sigma / star)^beta follows a gamma distribution of shape alpha / beta.
    sigma = star * rng.gamma(alpha / beta, size=2_000_000) ** (1 / beta)
    z_source = np.interp(rng.random(len(sigma)), some.sources.below(some.sources.knots), some.sources.knots)
    theta_e = np.degrees(4 * np.pi * (sigma / 299792.458) ** 2 * distance_ratio(z_lens, z_source)) * 3600
    kept = (sigma > 100) & (sigma < 500) & (z_source > z_lens + 0.05)
    edges = np.array([0.3, 0.5, 0.8, 1.2, 1.8, 2.5])
    seen, _ = np.histogram(theta_e[kept], edges, weights=theta_e[kept] ** 2)
    squared, _ = np.histogram(theta_e[kept], edges, weights=theta_e[kept] ** 4)
    fine = np.linspace(0.3, 2.5, 22_001)
    rate = np.interp(fine, some.theta_e, some.rates[10])
    said = [np.trapezoid(np.where((fine >= a) & (fine < b), rate, 0), fine) for a, b in pairwise(edges)]
    # Phi integrates to gamma(alpha / beta) / beta in units where rates leave that constant out.
    expected = np.array(said) / (gamma(alpha / beta) / beta)
    assert np.all(np.abs(seen / len(sigma) - expected) < 4 * np.sqrt(squared) / len(sigma) + 2e-3 * expected)


def test_nodes_stand_for_the_mean_over_galaxies() -> None:
    some = deflectors()
    z = np.random.default_rng(2).uniform(0.3, 0.8, 300)
    weights = some.node_weights(z)
    assert weights.sum() == pytest.approx(1)
    mean = np.mean([some.rate(value, 1.1) for value in z])
    assert np.interp(1.1, some.theta_e, weights @ some.rates) == pytest.approx(mean, rel=1e-9)


def test_sources_of_wide_lenses_lie_further_behind() -> None:
    some = deflectors()
    near, far = (
        np.mean([some.draw_source_redshift(0.5, theta_e, u) or 0 for u in np.linspace(0.02, 0.98, 49)])
        for theta_e in (0.4, 2.0)
    )
    assert far > near + 0.2
    assert some.draw_source_redshift(5.99, 1.0, 0.5) is None


def test_the_nearest_source_of_a_lens_needs_the_heaviest_galaxy() -> None:
    for theta_e, z_lens in ((2.5, 0.5), (1.8, 0.9), (3.0, 0.3)):
        nearest = nearest_source(theta_e, z_lens)
        assert nearest is not None
        assert velocity_dispersion(theta_e, z_lens, nearest) == pytest.approx(500, rel=1e-3)
    assert nearest_source(0.01, 0.5) == pytest.approx(0.55)
    assert nearest_source(8.0, 0.1) is None
    assert nearest_source(2.5, 5.9) is None
