import numpy as np
import pytest
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LensModel.Solver.lens_equation_solver import LensEquationSolver

from lens_pipeline.survey.lensing import Lens, radial_caustic, source_position
from lens_pipeline.survey.multiple_images import MOST_AREA, Caustic, CutEllipse, cut_half_axes, round_radius


def power_law(gamma: float, q: float = 0.7, shear: float = 0.06, theta_e: float = 1.2) -> Lens:
    twice = 2 * 0.9
    return Lens(theta_e, gamma - 1, q, np.cos(0.4), np.sin(0.4), shear * np.cos(twice), shear * np.sin(twice))


def n_images(lens: Lens, x: float, y: float) -> int:
    """Images that lenstronomy finds of a point."""
    e, twice = (1 - lens.q) / (1 + lens.q), 2 * np.arctan2(lens.sin, lens.cos)
    mass = {"theta_E": lens.theta_e, "gamma": lens.slope + 1, "e1": e * np.cos(twice), "e2": e * np.sin(twice)}
    shear = {"gamma1": lens.shear_1, "gamma2": lens.shear_2}
    solver = LensEquationSolver(LensModel(["EPL", "SHEAR"]))
    found, _ = solver.image_position_from_source(x, y, [mass, shear], min_distance=0.02, search_window=8)
    return len(found)


@pytest.mark.parametrize("gamma", [1.6, 1.85])
def test_a_source_inside_the_radial_caustic_has_images_that_one_outside_lacks(gamma: float) -> None:
    lens = power_law(gamma)
    x, y = radial_caustic(lens)
    for corner in (0, 40, 110, 180):
        outside, inside = (n_images(lens, scale * x[corner], scale * y[corner]) for scale in (1.06, 0.94))
        assert outside == 1
        assert inside >= 2


@pytest.mark.parametrize("q", [0.4, 0.7, 0.95])
def test_the_cut_is_where_the_deflection_at_the_centre_points(q: float) -> None:
    angle = np.linspace(0, 2 * np.pi, 721)
    lens = {"theta_e_arcsec": 1.0, "lens_e": (1 - q) / (1 + q), "lens_phi_rad": 0.0, "shear": 0.0}
    bx, by = source_position(lens, 1e-6 * np.cos(angle), 1e-6 * np.sin(angle))
    along, across = cut_half_axes(q)
    assert (np.abs(bx).max(), np.abs(by).max()) == (pytest.approx(along, abs=1e-3), pytest.approx(across, abs=1e-3))
    assert np.hypot(bx / along, by / across).min() > 0.999


@pytest.mark.parametrize("gamma", [1.9999, 2.0, 2.4])
def test_a_caustic_becomes_the_cut_as_the_slope_becomes_isothermal_and_stays_it(gamma: float) -> None:
    x, y = radial_caustic(Lens(1.0, gamma - 1, 0.6, 1.0, 0.0, 0.0, 0.0))
    along, across = cut_half_axes(0.6)
    assert (x.max(), y.max()) == (pytest.approx(along, rel=2e-3), pytest.approx(across, rel=2e-3))


@pytest.mark.parametrize("gamma", [1.5, 1.8, 2.0, 2.3])
def test_a_round_lens_has_the_region_of_its_closed_form(gamma: float) -> None:
    caustic = Caustic(Lens(2.0, gamma - 1, 1.0, 1.0, 0.0, 0.0, 0.0))
    assert np.hypot(*caustic.curve) == pytest.approx(2 * round_radius(gamma - 1), rel=1e-6)
    assert caustic.over_round == pytest.approx(1, abs=2e-4)
    # The furthest source that shines from the lens's other side.
    r = np.linspace(1e-6, 3, 300_001)
    assert gamma >= 2 or (r ** (2 - gamma) - r).max() == pytest.approx(round_radius(gamma - 1), abs=1e-6)


@pytest.mark.parametrize("lens", [power_law(1.6, q=0.5, shear=0.2), power_law(2.2, q=0.5)], ids=str)
def test_positions_are_uniform_in_the_area_inside(lens: Lens) -> None:
    caustic, rng = Caustic(lens), np.random.default_rng(3)
    drawn = np.array([caustic.draw(rng, *rng.random(2)) for _ in range(6000)])
    x, y = caustic.curve
    for scale in (0.5, 0.8, 1.0):
        at = scale * np.hypot(x, y)
        angle = np.arctan2(y, x)
        order = np.argsort(angle)
        border = np.interp(np.arctan2(drawn[:, 1], drawn[:, 0]), angle[order], at[order], period=2 * np.pi)
        share = np.mean(np.hypot(*drawn.T) <= border * (1 + 1e-3))
        assert share == pytest.approx(scale**2, abs=4 * np.sqrt(scale**2 * (1 - scale**2) / 6000) + 2e-3)
    # As many on either side of the centre: nothing in the lens tells them apart.
    assert np.mean(drawn[:, 0] > 0) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(6000))


def test_no_region_is_larger_than_the_bound_that_deflectors_are_kept_by() -> None:
    rng = np.random.default_rng(8)
    for _ in range(400):
        gamma, q, shear, twice = rng.uniform(1.5, 2.5), rng.uniform(0.101, 1), rng.uniform(0, 0.4), rng.uniform(0, 6.3)
        lens = Lens(1.0, gamma - 1, q, 1.0, 0.0, shear * np.cos(twice), shear * np.sin(twice))
        assert 0 < Caustic(lens).over_round <= MOST_AREA
        assert CutEllipse(1.0, q, 0.0).over_round <= 1
