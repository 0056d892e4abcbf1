from typing import Any

import numpy as np
import pytest
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LensModel.Solver.lens_equation_solver import LensEquationSolver

from lens_pipeline.survey.config import InjectionConfig
from lens_pipeline.survey.deflectors import distance_ratio
from lens_pipeline.survey.design import Design
from lens_pipeline.survey.lensing import Lens
from lens_pipeline.survey.multiple_images import Caustic, cut_half_axes
from lens_pipeline.survey.population import Hosts
from lens_pipeline.survey.priors import control_row, draw_injection
from lens_pipeline.survey.roles import ARC_COLUMNS

HOST: dict[str, Any] = {"region_id": "r", "mag_r": 19.5, "axis_ratio": 0.7, "phi_rad": 0.4, "z_lens": 0.5}


def design(**settings: Any) -> Design:
    config = InjectionConfig(**settings)
    return Design.of(config, Hosts.of(config, [0.5]))


DEFAULT = design()
POWER_LAWS = design(share_sis=0.0, share_sie=0.3, share_epl=0.7)


@pytest.fixture(scope="module")
def drawn() -> list[dict[str, Any]]:
    return [draw_injection(DEFAULT, HOST, f"g-{n}") for n in range(4000)]


def test_an_injection_depends_on_its_seed_and_key_only(drawn: list[dict[str, Any]]) -> None:
    assert draw_injection(DEFAULT, HOST, "g-17") == drawn[17]
    assert draw_injection(DEFAULT, HOST, "g-18") != drawn[17]
    assert draw_injection(design(seed=8), HOST, "g-17") != drawn[17]


def test_the_priors_are_as_stated(drawn: list[dict[str, Any]]) -> None:
    theta_e = np.array([row["theta_e_arcsec"] for row in drawn])
    assert (theta_e.min() > 0.3, theta_e.max() < 2.5, theta_e.mean()) == (True, True, pytest.approx(1.4, abs=0.04))
    models = [row["lens_model"] for row in drawn]
    assert [models.count(m) / 4000 for m in ("SIE", "SIS", "SIE_SHEAR")] == pytest.approx([0.4, 0.2, 0.4], abs=0.03)
    mag = np.array([row["src_mag_r"] for row in drawn])
    assert (mag > 25).mean() == pytest.approx(0.06, abs=0.012)
    assert (mag.min() > 20.5, mag.max() < 29) == (True, True)
    blue = np.array([row["src_mag_g"] - row["src_mag_r"] for row in drawn])
    assert np.median(blue) < 0.5


def test_only_the_models_that_have_shape_or_shear_have_them(drawn: list[dict[str, Any]]) -> None:
    assert all((row["shear"] > 0) == (row["lens_model"] == "SIE_SHEAR") for row in drawn)
    assert all((row["lens_e"] > 0) == (row["lens_model"] != "SIS") for row in drawn)


def test_every_source_has_more_than_one_image(drawn: list[dict[str, Any]]) -> None:
    solver = LensEquationSolver(LensModel(["SIE", "SHEAR"]))
    for row in drawn[:25]:
        e, phi, shear, angle = row["lens_e"], 2 * row["lens_phi_rad"], row["shear"], 2 * row["shear_phi_rad"]
        # Half way to the centre, since the second image of a source near the cut is too close to the lens to be found.
        x, _ = solver.image_position_from_source(
            0.5 * row["src_x_arcsec"],
            0.5 * row["src_y_arcsec"],
            [
                {"theta_E": row["theta_e_arcsec"], "e1": e * np.cos(phi), "e2": e * np.sin(phi)},
                {"gamma1": shear * np.cos(angle), "gamma2": shear * np.sin(angle)},
            ],
            min_distance=0.05,
            search_window=10,
        )
        assert len(x) >= 2
        along, across = cut_half_axes((1 - e) / (1 + e))
        cos, sin = np.cos(row["lens_phi_rad"]), np.sin(row["lens_phi_rad"])
        major = (row["src_x_arcsec"] * cos + row["src_y_arcsec"] * sin) / along
        minor = (row["src_y_arcsec"] * cos - row["src_x_arcsec"] * sin) / across
        assert np.hypot(major, minor) < row["theta_e_arcsec"]


def test_a_control_has_no_arc() -> None:
    row = control_row()
    assert (row["lens_model"], row["theta_e_arcsec"]) == ("CONTROL", 0.0)
    assert all(row[name] is None for name in ARC_COLUMNS)
    assert set(row) == set(draw_injection(DEFAULT, HOST, "x"))


def test_without_a_known_shape_or_magnitude_of_the_host_the_lens_is_drawn_and_the_contrast_is_unknown() -> None:
    rows = [draw_injection(DEFAULT, {"region_id": "r", "mag_r": None}, f"g-{n}") for n in range(300)]
    assert {row["src_dmag"] for row in rows} == {None}
    assert np.ptp([row["lens_phi_rad"] for row in rows]) > 2.5
    assert {row["z_source"] for row in rows} == {row["sigma_v_km_s"] for row in rows} == {None}


def test_shear_is_as_strong_in_every_direction_and_as_any_lens_lies(drawn: list[dict[str, Any]]) -> None:
    sheared = [row for row in drawn if row["shear"] > 0]
    strength, angle, lies = (np.array([row[n] for row in sheared]) for n in ("shear", "shear_phi_rad", "lens_phi_rad"))
    for other in (np.cos(2 * angle), np.sin(2 * angle), np.cos(2 * lies), np.sin(2 * lies)):
        assert abs(np.corrcoef(strength, other)[0, 1]) < 4 / np.sqrt(len(sheared))
    assert np.corrcoef(strength, angle)[0, 1] ** 2 < 16 / len(sheared)


def test_every_source_lies_behind_its_lens_and_the_mass_gives_the_radius(drawn: list[dict[str, Any]]) -> None:
    for row in drawn[:200]:
        assert row["z_source"] > HOST["z_lens"]
        radius = 4 * np.pi * (row["sigma_v_km_s"] / 299792.458) ** 2 * distance_ratio(0.5, row["z_source"])
        assert np.degrees(radius) * 3600 == pytest.approx(row["theta_e_arcsec"])


def test_axis_ratios_of_deflectors_are_weighed_by_their_cross_section() -> None:
    deflecting = design(population="velocity_dispersion", share_sis=0.0, share_sie=1.0, lens_q_low=0.11)
    host = {**HOST, "axis_ratio": None}
    e = np.array([draw_injection(deflecting, host, f"g-{n}")["lens_e"] for n in range(3000)])
    q = (1 - e) / (1 + e)
    grid = np.linspace(0.11, 1, 400)
    area = np.array([np.prod(cut_half_axes(value)) for value in grid])
    assert q.mean() == pytest.approx(np.average(grid, weights=area), abs=4 * q.std() / np.sqrt(len(q)))
    assert abs(q.mean() - grid.mean()) > 6 * q.std() / np.sqrt(len(q))


def test_slopes_of_power_laws_are_as_slacs_found_them_and_other_lenses_have_none(drawn: list[dict[str, Any]]) -> None:
    rows = [draw_injection(POWER_LAWS, HOST, f"g-{n}") for n in range(3000)]
    models = [row["lens_model"] for row in rows]
    assert [models.count(name) / 3000 for name in ("SIE", "EPL")] == pytest.approx([0.3, 0.7], abs=0.04)
    assert all((row["lens_gamma"] is None) == (row["lens_model"] != "EPL") for row in [*rows, *drawn])
    assert all((row["shear"] > 0) == (row["lens_model"] == "EPL") for row in rows)
    gamma = np.array([row["lens_gamma"] for row in rows if row["lens_gamma"] is not None])
    assert (gamma.min() >= 1.5, gamma.max() <= 2.5) == (True, True)
    assert (gamma.mean(), gamma.std()) == (pytest.approx(2.078, abs=0.015), pytest.approx(0.16, abs=0.01))
    plain = design(share_sis=0.0, share_sie=0.3, share_epl=0.7, epl_gamma_mean=1.8, epl_gamma_scatter=0.01)
    assert draw_injection(plain, HOST, "g-1")["lens_gamma"] == pytest.approx(1.8, abs=0.05)


def test_sources_of_power_laws_lie_in_their_own_region() -> None:
    rows = [draw_injection(POWER_LAWS, HOST, f"g-{n}") for n in range(400)]
    inside = []
    for row in (row for row in rows if row["lens_model"] == "EPL"):
        x, y = Caustic(Lens.of(row)).curve
        at = np.arctan2(row["src_y_arcsec"], row["src_x_arcsec"])
        border = np.interp(at, *_by_angle(x, y), period=2 * np.pi)
        inside.append(np.hypot(row["src_x_arcsec"], row["src_y_arcsec"]) / border)
    assert max(inside) < 1.001
    # Uniform in area: the square of the share of the way to the border is uniform.
    assert np.mean(np.square(inside)) == pytest.approx(0.5, abs=4 * 0.29 / np.sqrt(len(inside)))


def _by_angle(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(np.arctan2(y, x))
    return np.arctan2(y, x)[order], np.hypot(x, y)[order]


def test_shapes_of_power_law_deflectors_are_weighed_by_their_own_cross_section() -> None:
    settings = {"share_sis": 0.0, "share_sie": 0.0, "share_epl": 1.0, "shear_high": 0.0, "lens_q_low": 0.11}
    deflecting = design(population="velocity_dispersion", epl_gamma_mean=1.6, epl_gamma_scatter=0.001, **settings)
    host = {**HOST, "axis_ratio": None}
    e = np.array([draw_injection(deflecting, host, f"g-{n}")["lens_e"] for n in range(3000)])
    q = (1 - e) / (1 + e)
    grid = np.linspace(0.11, 1, 200)
    area = np.array([Caustic(Lens(1.0, 0.6, value, 1.0, 0.0, 0.0, 0.0)).over_round for value in grid])
    assert q.mean() == pytest.approx(np.average(grid, weights=area), abs=4 * q.std() / np.sqrt(len(q)))
    isothermal = np.array([np.prod(cut_half_axes(value)) for value in grid])
    assert abs(q.mean() - np.average(grid, weights=isothermal)) > 6 * q.std() / np.sqrt(len(q))
