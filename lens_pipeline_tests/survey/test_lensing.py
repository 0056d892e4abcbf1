from typing import Any

import numpy as np
import pytest
from lenstronomy.LensModel.lens_model import LensModel

from lens_pipeline.survey.lensing import Lens, effective_einstein_radius, point_magnification, source_position

from .closed_forms import sie_images, sis_images

RANDOM = np.random.default_rng(5)
X, Y = RANDOM.normal(0, 2, 500), RANDOM.normal(0, 2, 500)


def lens(**change: Any) -> dict[str, Any]:
    return {"theta_e_arcsec": 1.3, "lens_e": 0.0, "lens_phi_rad": 0.0, "shear": 0.0, "shear_phi_rad": 0.0, **change}


def in_lenstronomy(row: dict[str, Any]) -> tuple[LensModel, list[dict[str, float]]]:
    e, phi, twice = row["lens_e"], 2 * row["lens_phi_rad"], 2 * row["shear_phi_rad"]
    mass = {"theta_E": row["theta_e_arcsec"], "e1": e * np.cos(phi), "e2": e * np.sin(phi)}
    shear = {"gamma1": row["shear"] * np.cos(twice), "gamma2": row["shear"] * np.sin(twice)}
    if row.get("lens_gamma") is None:
        return LensModel(["SIE", "SHEAR"]), [mass, shear]
    return LensModel(["EPL", "SHEAR"]), [{**mass, "gamma": row["lens_gamma"]}, shear]


LENSES = [
    lens(lens_e=e, lens_phi_rad=0.7, lens_gamma=gamma, shear=shear, shear_phi_rad=2.0)
    for e in (0.0, 0.08, 0.4)
    for gamma in (None, 1.6, 2.0, 2.4)
    for shear in (0.0, 0.07)
]


@pytest.mark.parametrize("row", LENSES, ids=str)
def test_sis_sie_and_epl_with_shear_deflect_and_magnify_as_lenstronomys_do(row: dict[str, Any]) -> None:
    model, parameters = in_lenstronomy(row)
    assert np.array(source_position(row, X, Y)) == pytest.approx(
        np.array(model.ray_shooting(X, Y, parameters)), abs=1e-7
    )
    ours = np.array([point_magnification(x, y, Lens.of(row)) for x, y in zip(X, Y, strict=True)])
    # lenstronomy differentiates its SIE numerically.
    assert 1 / ours == pytest.approx(
        1 / model.magnification(X, Y, parameters), abs=1e-4 if row["lens_gamma"] is None else 1e-9
    )


@pytest.mark.parametrize("row", LENSES, ids=str)
def test_the_effective_einstein_radius_is_that_of_the_area_inside_lenstronomys_critical_curve(
    row: dict[str, Any],
) -> None:
    model, parameters = in_lenstronomy({**row, "lens_gamma": row["lens_gamma"] or 2.0})
    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    radius = np.linspace(4.0, 0.4, 3601)
    x, y = radius[:, None] * np.cos(angle), radius[:, None] * np.sin(angle)
    inverse = 1 / model.magnification(x.ravel(), y.ravel(), parameters).reshape(x.shape)
    outermost = radius[np.argmax(inverse < 0, axis=0)]
    assert effective_einstein_radius(Lens.of(row)) == pytest.approx(np.sqrt((outermost**2).mean()), abs=1e-3)


def test_an_isothermal_lens_without_shear_has_its_einstein_radius_as_the_effective_one_whatever_its_shape() -> None:
    for e in (0.0, 0.2, 0.5):
        assert effective_einstein_radius(Lens.of(lens(lens_e=e))) == pytest.approx(1.3, rel=1e-6)


@pytest.mark.parametrize("theta_e", [0.3, 1.0, 3.0])
def test_closed_form_images_of_a_sis_shine_from_the_source_and_are_magnified_as_said(theta_e: float) -> None:
    row = lens(theta_e_arcsec=theta_e)
    x, y, magnification = sis_images(theta_e, 0.2 * theta_e, -0.1 * theta_e)
    bx, by = source_position(row, x, y)
    assert (bx, by) == (pytest.approx(0.2 * theta_e, abs=1e-9), pytest.approx(-0.1 * theta_e, abs=1e-9))
    assert [point_magnification(a, b, Lens.of(row)) for a, b in zip(x, y, strict=True)] == pytest.approx(magnification)


@pytest.mark.parametrize(("at", "n_images"), [((0.05, 0.02), 4), ((0.4, 0.35), 2), ((1.4, 0.3), 1)])
def test_closed_form_images_of_a_sie_shine_from_the_source_and_are_magnified_as_said(
    at: tuple[float, float], n_images: int
) -> None:
    theta_e, q, phi = 1.1, 0.55, 0.8
    row = lens(theta_e_arcsec=theta_e, lens_e=(1 - q) / (1 + q), lens_phi_rad=phi)
    x, y, magnification = sie_images(theta_e, q, phi, *at)
    assert len(x) == n_images
    bx, by = source_position(row, x, y)
    assert (bx, by) == (pytest.approx(at[0], abs=1e-9), pytest.approx(at[1], abs=1e-9))
    assert [point_magnification(a, b, Lens.of(row)) for a, b in zip(x, y, strict=True)] == pytest.approx(magnification)


def test_the_middle_of_a_lens_is_no_error() -> None:
    for row in (lens(), lens(lens_e=0.2), lens(lens_e=0.2, lens_gamma=2.3), lens(lens_gamma=1.7)):
        assert np.isfinite(source_position(row, np.zeros(1), np.zeros(1))).all()
