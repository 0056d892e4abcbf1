from typing import Any

import numpy as np
import pytest
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LensModel.Solver.lens_equation_solver import LensEquationSolver

from lens_pipeline.survey.config import InjectionConfig
from lens_pipeline.survey.lensing import source_position
from lens_pipeline.survey.priors import ARC_COLUMNS, control_row, cut_half_axes, draw_injection

CONFIG = InjectionConfig()
HOST: dict[str, Any] = {"mag_r": 19.5, "axis_ratio": 0.7, "phi_rad": 0.4}


@pytest.fixture(scope="module")
def drawn() -> list[dict[str, Any]]:
    return [draw_injection(CONFIG, HOST, f"g-{n}") for n in range(4000)]


def test_an_injection_depends_on_its_seed_and_key_only(drawn: list[dict[str, Any]]) -> None:
    assert draw_injection(CONFIG, HOST, "g-17") == drawn[17]
    assert draw_injection(CONFIG, HOST, "g-18") != drawn[17]
    assert draw_injection(InjectionConfig(seed=8), HOST, "g-17") != drawn[17]


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


@pytest.mark.parametrize("q", [0.4, 0.7, 0.95])
def test_the_cut_is_where_the_deflection_at_the_centre_points(q: float) -> None:
    angle = np.linspace(0, 2 * np.pi, 721)
    lens = {"theta_e_arcsec": 1.0, "lens_e": (1 - q) / (1 + q), "lens_phi_rad": 0.0, "shear": 0.0}
    bx, by = source_position(lens, 1e-6 * np.cos(angle), 1e-6 * np.sin(angle))
    along, across = cut_half_axes(q)
    assert (np.abs(bx).max(), np.abs(by).max()) == (pytest.approx(along, abs=1e-3), pytest.approx(across, abs=1e-3))
    assert np.hypot(bx / along, by / across).min() > 0.999


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
    assert set(row) == set(draw_injection(CONFIG, HOST, "x"))


def test_without_a_known_shape_or_magnitude_of_the_host_the_lens_is_drawn_and_the_contrast_is_unknown() -> None:
    rows = [draw_injection(CONFIG, {"mag_r": None}, f"g-{n}") for n in range(300)]
    assert {row["src_dmag"] for row in rows} == {None}
    assert np.ptp([row["lens_phi_rad"] for row in rows]) > 2.5
