from typing import Any

import numpy as np
import pytest
from lenstronomy.LightModel.Profiles.sersic import SersicElliptic
from scipy.special import gammaincinv

from lens_pipeline.survey.light import Grid, Sersic, galaxy_light, lensed_light, light_beyond

from .closed_forms import sis_extended_magnification

GRID = Grid.of(64, 0.262)


def lens(**change: Any) -> dict[str, Any]:
    return {"theta_e_arcsec": 1.3, "lens_e": 0.0, "lens_phi_rad": 0.0, "shear": 0.0, "shear_phi_rad": 0.0, **change}


def source(**change: Any) -> Sersic:
    values = {
        "flux": 1.0, "reff_arcsec": 0.2, "n": 1.0, "ellipticity": 0.0, "phi_rad": 0.0, "x_arcsec": 0.0, "y_arcsec": 0.0,
    }  # fmt: skip
    return Sersic(**{**values, **change})


@pytest.mark.parametrize("n", [0.5, 1.3, 4.0])
def test_a_sersic_profile_is_lenstronomys_but_for_its_half_light_radius_which_holds_half_of_the_light(n: float) -> None:
    light, _ = galaxy_light(
        GRID, source(flux=2.0, reff_arcsec=1.7, n=n, ellipticity=0.2, phi_rad=0.9, x_arcsec=0.3, y_arcsec=-0.4)
    )
    theirs = SersicElliptic()
    # lenstronomy takes b = 1.9992 n - 0.3271, with which 50.3 % of an exponential disk is within the radius.
    b = float(gammaincinv(2 * n, 0.5))
    reff, e1, e2 = 1.7 * (theirs.b_n(n) / b) ** n, 0.2 * np.cos(1.8), 0.2 * np.sin(1.8)
    amplitude = 2 / theirs.total_flux(1.0, reff, n, e1, e2)
    values = theirs.function(GRID.x.ravel(), GRID.y.ravel(), amplitude, reff, n, e1, e2, 0.3, -0.4).reshape(light.shape)
    away = np.hypot(GRID.x - 0.3, GRID.y + 0.4) > 3
    assert np.abs(light / 0.262**2 - values)[away].max() < 3e-4 * values.max()
    assert light[away].sum() / 0.262**2 == pytest.approx(values[away].sum(), rel=2e-3)


@pytest.mark.parametrize("n", [0.5, 1.0, 4.0])
def test_half_of_a_galaxys_light_is_within_its_half_light_radius(n: float) -> None:
    light, _ = galaxy_light(GRID, source(reff_arcsec=3.0, n=n))
    # A cell that the circle cuts counts by its share within.
    fine = (np.arange(8) - 3.5) * GRID.step / 8
    x, y = np.meshgrid(fine, fine)
    share = np.mean(
        [np.hypot(GRID.x + dx, GRID.y + dy) < 3.0 for dx, dy in zip(x.ravel(), y.ravel(), strict=True)], axis=0
    )
    assert (share * light).sum() / 4 == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(("reff", "n"), [(0.04, 0.5), (0.2, 1.0), (0.4, 1.0), (0.8, 4.0)])
def test_the_light_of_a_galaxy_and_what_falls_beyond_the_grid_sum_to_its_flux_cusp_and_all(
    reff: float, n: float
) -> None:
    galaxy = source(flux=3.0, reff_arcsec=reff, n=n, x_arcsec=0.05, y_arcsec=0.02, ellipticity=0.2)
    light, _ = galaxy_light(GRID, galaxy)
    beyond = light_beyond(GRID, galaxy, lens(theta_e_arcsec=0.0), 0.0, 0.0)
    assert light.sum() / 4 + beyond == pytest.approx(3.0, rel=5e-4)


def test_a_source_behind_the_centre_is_a_ring_at_the_einstein_radius() -> None:
    light = lensed_light(GRID, source(reff_arcsec=0.1), lens(theta_e_arcsec=1.5), 0.0, 0.0)
    radius = np.hypot(GRID.x, GRID.y)
    assert (light * radius).sum() / light.sum() == pytest.approx(1.5, abs=0.03)


def test_a_sis_makes_two_images_at_source_plus_and_minus_the_einstein_radius() -> None:
    beta, theta_e = 0.4, 1.6
    light = lensed_light(GRID, source(reff_arcsec=0.05, n=0.7, x_arcsec=beta), lens(theta_e_arcsec=theta_e), 0.0, 0.0)
    right, left = light * (GRID.x > 0), light * (GRID.x < 0)
    assert (right * GRID.x).sum() / right.sum() == pytest.approx(beta + theta_e, abs=0.02)
    assert (left * GRID.x).sum() / left.sum() == pytest.approx(beta - theta_e, abs=0.02)


@pytest.mark.parametrize("theta_e", [0.3, 1.0, 3.0])
@pytest.mark.parametrize(("beta", "reff", "n"), [(0.2, 0.1, 1.0), (0.5, 0.2, 2.0), (0.9, 0.5, 1.0), (0.3, 0.15, 4.0)])
def test_an_extended_source_behind_a_sis_is_magnified_as_theory_says(
    theta_e: float, beta: float, reff: float, n: float
) -> None:
    arguments = (source(reff_arcsec=reff, n=n, x_arcsec=beta * theta_e), lens(theta_e_arcsec=theta_e), 0.0, 0.0)
    made = lensed_light(GRID, *arguments).sum() / 4 + light_beyond(GRID, *arguments)
    assert made == pytest.approx(sis_extended_magnification(theta_e, beta * theta_e, reff, n), rel=5e-4)


@pytest.mark.parametrize("at", [(0.05, -0.1), (0.3, 0.22)])
def test_the_faint_image_next_to_the_lens_is_not_overlooked(at: tuple[float, float]) -> None:
    beta, theta_e, reff = 2.25, 2.3, 0.1
    light = lensed_light(GRID, source(reff_arcsec=reff, x_arcsec=beta), lens(theta_e_arcsec=theta_e), *at)
    near = light[np.hypot(GRID.x - at[0], GRID.y - at[1]) < 0.5].sum() / 4
    whole = sis_extended_magnification(theta_e, beta, reff, 1.0)
    assert near / whole > 0.01
    assert light.sum() / 4 == pytest.approx(whole, rel=2e-4)


def test_light_beyond_the_grid_is_none_where_the_arc_is_within_it() -> None:
    assert light_beyond(GRID, source(), lens(), 0.0, 0.0) == 0.0


def test_a_grid_that_is_no_whole_number_of_large_squares_is_filled_as_any_other() -> None:
    arguments = (source(), lens(), 0.0, 0.0)
    odd, even = lensed_light(Grid.of(50, 0.262), *arguments), lensed_light(Grid.of(48, 0.262), *arguments)
    assert odd[2:-2, 2:-2] == pytest.approx(even, abs=1e-3 * even.max())
    assert odd.sum() == pytest.approx(even.sum(), rel=1e-4)


@pytest.mark.parametrize(("reff", "n"), [(0.03, 4.0), (0.1, 1.0), (0.2, 2.0), (0.5, 2.0)])
def test_a_lens_far_too_light_to_matter_leaves_the_flux_as_it_is(reff: float, n: float) -> None:
    light = lensed_light(GRID, source(reff_arcsec=reff, n=n, x_arcsec=0.6), lens(theta_e_arcsec=1e-4), 0.0, 0.0)
    assert light.sum() / 4 == pytest.approx(1.0, rel=1e-3)


def test_the_arc_moves_with_the_lens() -> None:
    arguments = (source(x_arcsec=0.3), lens(lens_e=0.2, lens_phi_rad=0.7))
    centred = lensed_light(GRID, *arguments, 0.0, 0.0)
    moved = lensed_light(GRID, *arguments, 2 * GRID.step, -4 * GRID.step)
    assert np.roll(centred, (-4, 2), axis=(0, 1)) == pytest.approx(moved, abs=1e-3 * centred.max())
