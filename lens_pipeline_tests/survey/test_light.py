from typing import Any

import numpy as np
import pytest
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.Profiles.sersic import SersicElliptic

from lens_pipeline.survey.light import Grid, Sersic, flux_of_unit_sersic, galaxy_light, lensed_light, source_position

GRID = Grid.of(64, 0.262)


def lens(**change: Any) -> dict[str, Any]:
    return {"theta_e_arcsec": 1.3, "lens_e": 0.0, "lens_phi_rad": 0.0, "shear": 0.0, "shear_phi_rad": 0.0, **change}


def source(**change: Any) -> Sersic:
    values = {
        "flux": 1.0, "reff_arcsec": 0.2, "n": 1.0, "ellipticity": 0.0, "phi_rad": 0.0, "x_arcsec": 0.0, "y_arcsec": 0.0,
    }  # fmt: skip
    return Sersic(**{**values, **change})


@pytest.mark.parametrize("n", [0.5, 1.3, 4.0])
def test_a_sersic_profile_is_lenstronomys(n: float) -> None:
    ours = source(flux=2.0, reff_arcsec=0.7, n=n, ellipticity=0.2, phi_rad=0.9, x_arcsec=0.3, y_arcsec=-0.4)
    e1, e2 = 0.2 * np.cos(1.8), 0.2 * np.sin(1.8)
    amplitude = 2 / (0.7**2 * flux_of_unit_sersic(n))
    theirs = SersicElliptic()
    values = theirs.function(GRID.x.ravel(), GRID.y.ravel(), amplitude, 0.7, n, e1, e2, 0.3, -0.4)
    assert ours.brightness(GRID.x, GRID.y).ravel() == pytest.approx(values, rel=1e-9)
    assert theirs.total_flux(amplitude, 0.7, n, e1, e2) == pytest.approx(2.0)


def test_the_light_of_a_galaxy_sums_to_its_flux_cusp_and_all() -> None:
    light, _ = galaxy_light(GRID, source(flux=3.0, reff_arcsec=0.4, n=1.0, x_arcsec=0.05))
    assert light.sum() / 4 == pytest.approx(3.0, rel=0.003)
    # A de Vaucouleurs profile has 5 % of its light beyond 12 half-light radii.
    light, _ = galaxy_light(GRID, source(flux=3.0, reff_arcsec=1.0, n=4.0, x_arcsec=0.05))
    assert 0.95 < light.sum() / 4 / 3.0 < 1.0


def test_a_source_behind_the_centre_is_a_ring_at_the_einstein_radius() -> None:
    light = lensed_light(GRID, source(reff_arcsec=0.1), lens(theta_e_arcsec=1.5), 0.0, 0.0)
    radius = np.hypot(GRID.x, GRID.y)
    assert (light * radius).sum() / light.sum() == pytest.approx(1.5, abs=0.03)


def test_a_sis_makes_two_images_at_source_plus_and_minus_the_einstein_radius_and_magnifies_as_theory_says() -> None:
    beta, theta_e = 0.4, 1.6
    light = lensed_light(GRID, source(reff_arcsec=0.05, n=0.7, x_arcsec=beta), lens(theta_e_arcsec=theta_e), 0.0, 0.0)
    right, left = light * (GRID.x > 0), light * (GRID.x < 0)
    assert (right * GRID.x).sum() / right.sum() == pytest.approx(beta + theta_e, abs=0.02)
    assert (left * GRID.x).sum() / left.sum() == pytest.approx(beta - theta_e, abs=0.02)
    # Total magnification of a point behind a singular isothermal sphere: 2 theta_e / beta.
    assert light.sum() / 4 == pytest.approx(2 * theta_e / beta, rel=0.03)


def test_the_einstein_radius_is_lenstronomys_intermediate_axis_one() -> None:
    q, theta_e = 0.6, 1.4
    e = (1 - q) / (1 + q)
    model = LensModel(["SIE"])
    angle = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    radius = np.linspace(0.5, 3, 4001)
    x, y = radius[:, None] * np.cos(angle), radius[:, None] * np.sin(angle)
    parameters = [{"theta_E": theta_e, "e1": e, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}]
    inverse = 1 / model.magnification(x.ravel(), y.ravel(), parameters).reshape(x.shape)
    critical = radius[np.argmax(inverse > 0, axis=0)]
    # The isodensity of mean convergence 1 has semi-axes theta_e sqrt(q) and theta_e / sqrt(q): area pi theta_e^2.
    assert np.sqrt((critical**2).mean()) == pytest.approx(theta_e, rel=0.005)
    bx, by = source_position(lens(theta_e_arcsec=theta_e, lens_e=e), np.array([1.0, 0.2]), np.array([0.3, -1.1]))
    assert (bx, by) == (
        pytest.approx(model.ray_shooting(np.array([1.0, 0.2]), np.array([0.3, -1.1]), parameters)[0]),
        pytest.approx(model.ray_shooting(np.array([1.0, 0.2]), np.array([0.3, -1.1]), parameters)[1]),
    )


def test_position_angles_and_shear_are_lenstronomys() -> None:
    model = LensModel(["SIE", "SHEAR"])
    parameters = [
        {"theta_E": 1.3, "e1": 0.1 * np.cos(1.6), "e2": 0.1 * np.sin(1.6), "center_x": 0.0, "center_y": 0.0},
        {"gamma1": 0.05 * np.cos(1.0), "gamma2": 0.05 * np.sin(1.0), "ra_0": 0.0, "dec_0": 0.0},
    ]
    x, y = np.array([1.2, -0.4]), np.array([0.1, 1.6])
    ours = source_position(lens(lens_e=0.1, lens_phi_rad=0.8, shear=0.05, shear_phi_rad=0.5), x, y)
    assert np.array(ours) == pytest.approx(np.array(model.ray_shooting(x, y, parameters)), abs=1e-9)


@pytest.mark.parametrize(("reff", "n"), [(0.1, 1.0), (0.2, 2.0), (0.5, 2.0)])
def test_a_lens_far_too_light_to_matter_leaves_the_flux_as_it_is(reff: float, n: float) -> None:
    light = lensed_light(GRID, source(reff_arcsec=reff, n=n, x_arcsec=0.6), lens(theta_e_arcsec=1e-4), 0.0, 0.0)
    assert light.sum() / 4 == pytest.approx(1.0, rel=0.02)


def test_the_arc_moves_with_the_lens() -> None:
    arguments = (source(x_arcsec=0.3), lens(lens_e=0.2, lens_phi_rad=0.7))
    centred = lensed_light(GRID, *arguments, 0.0, 0.0)
    moved = lensed_light(GRID, *arguments, 2 * GRID.step, -4 * GRID.step)
    assert np.roll(centred, (-4, 2), axis=(0, 1)) == pytest.approx(moved, abs=1e-3 * centred.max())
