from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from lens_pipeline.survey.conditions import flux_of_mag, transmission
from lens_pipeline.survey.config import InjectionConfig
from lens_pipeline.survey.fakes import make_fake, make_light
from lens_pipeline.survey.manifest import rows_of_galaxy
from lens_pipeline.survey.optics import crop
from lens_pipeline.survey.priors import control_row
from lens_pipeline.survey.randomness import stream
from lens_pipeline.survey.render import Scene, make_arc, make_stamp, simulated_scene

ALL = InjectionConfig(fake_turned_share=1, fake_unlensed_share=1, fake_blob_share=1, injections_per_galaxy=6)


@pytest.fixture
def scene(galaxy: dict[str, Any]) -> Scene:
    return simulated_scene(galaxy, stamp_size=64, seed=1, neighbours_per_stamp=0)


@pytest.fixture
def rows(galaxy: dict[str, Any]) -> list[dict[str, Any]]:
    return list(rows_of_galaxy(ALL, galaxy))


def test_a_fake_has_the_flux_of_its_twin_in_every_band(scene: Scene, rows: list[dict[str, Any]]) -> None:
    injections = {row["task_id"]: row for row in rows if row["role"] == "injection"}
    fakes = [row for row in rows if row.get("fake_of")]
    assert {row["role"] for row in fakes} == {"fake_turned", "fake_unlensed", "fake_blob"}
    for fake in fakes:
        made, arc = make_fake(scene, fake), make_arc(scene, injections[fake["fake_of"]])
        flux, wanted = (crop(light.pixels, 64).sum(axis=(1, 2)) for light in (made, arc))
        assert flux == pytest.approx(wanted, rel=1e-9)
        assert made.pixels.min() >= 0
        assert set(made.measures) == set(arc.measures)
        assert set(made.measures.values()) == {None}


def test_a_mask_takes_of_a_fake_what_it_covers_and_blows_nothing_up(scene: Scene, rows: list[dict[str, Any]]) -> None:
    hidden = np.zeros((3, 66, 66), bool)
    hidden[:, :, 40:] = True
    for fake in (row for row in rows if row.get("fake_of")):
        whole, masked = make_fake(scene, fake).pixels, make_fake(replace(scene, hidden=hidden), fake).pixels
        assert np.array_equal(masked, np.where(hidden, 0.0, whole))


def test_a_turned_arc_is_the_arc_turned_about_its_centroid_and_bends_away(scene: Scene) -> None:
    wide = {
        **control_row("FAKE_TURNED"), "role": "fake_turned",
        "twin": {
            "lens_model": "SIS", "theta_e_arcsec": 1.6, "src_mag_g": 21.0, "src_mag_r": 21.0, "src_mag_z": 21.0,
            "src_reff_arcsec": 0.2, "src_n": 1.0, "src_e": 0.0, "src_phi_rad": 0.0, "src_x_arcsec": 1.2,
            "src_y_arcsec": 0.0, "lens_e": 0.0, "lens_phi_rad": 0.0, "shear": 0.0, "shear_phi_rad": 0.0,
        },
    }  # fmt: skip
    arc, fake = make_arc(scene, wide["twin"]).pixels[1], make_fake(scene, wide).pixels[1]
    axis = np.arange(66) - 32.5
    x, y = np.meshgrid(axis, axis)

    def centroid(light: np.ndarray) -> tuple[float, float]:
        return float((light * x).sum() / light.sum()), float((light * y).sum() / light.sum())

    assert centroid(fake) == pytest.approx(centroid(arc), abs=0.3)
    cx, cy = centroid(arc)
    turned = map_coordinates(arc, [2 * cy - y + 32.5, 2 * cx - x + 32.5], order=3)
    assert np.corrcoef(turned.ravel(), fake.ravel())[0, 1] > 0.99 > 0.9 > np.corrcoef(arc.ravel(), fake.ravel())[0, 1]
    # The ends of an arc lie nearer to the host than its middle, those of the fake farther away.
    bends = []
    for light in (np.where(image > 0.2 * image.max(), image, 0) for image in (arc, fake)):
        mx, my = centroid(light)
        bends.append(float((light * (x - mx) * (y - my) ** 2).sum() / light.sum()))
    assert bends[0] < -0.2 < 0.2 < bends[1]


def test_no_nearly_closed_ring_is_turned(galaxy: dict[str, Any]) -> None:
    rows = list(rows_of_galaxy(ALL.model_copy(update={"injections_per_galaxy": 300}), galaxy))
    turned = {row["fake_of"] for row in rows if row["role"] == "fake_turned"}
    for row in rows:
        if row["role"] == "injection":
            offset = np.hypot(row["src_x_arcsec"], row["src_y_arcsec"])
            is_ring = offset < 0.3 * row["theta_e_arcsec"] or offset < row["src_reff_arcsec"]
            assert (row["task_id"] in turned) != is_ring
    assert 150 < len(turned) < 299


def test_the_unlensed_source_stands_at_the_einstein_radius(scene: Scene, rows: list[dict[str, Any]]) -> None:
    fake = next(row for row in rows if row["role"] == "fake_unlensed")
    light = make_fake(scene, fake).pixels[1]
    y, x = np.unravel_index(light.argmax(), light.shape)
    away = 0.262 * np.hypot(x - 32.5 - scene.x_arcsec / 0.262, y - 32.5 - scene.y_arcsec / 0.262)
    assert away == pytest.approx(fake["twin"]["theta_e_arcsec"], abs=0.25)


def test_a_blob_has_the_centroid_and_the_size_of_its_arc(scene: Scene, rows: list[dict[str, Any]]) -> None:
    for fake in [row for row in rows if row["role"] == "fake_blob"][:3]:
        blob, arc = make_fake(scene, fake).pixels[1], make_arc(scene, fake["twin"]).pixels[1]
        axis = np.arange(66) - 32.5
        for across in (0, 1):
            places = [float((light.sum(axis=across) * axis).sum() / light.sum()) for light in (blob, arc)]
            assert places[0] == pytest.approx(places[1], abs=0.3)
        peaks = blob.max() / arc.max()
        assert peaks < 1.5


def test_an_injection_without_flux_goes_the_way_of_an_injection_and_leaves_its_control(
    scene: Scene, galaxy: dict[str, Any]
) -> None:
    probe = {**list(rows_of_galaxy(InjectionConfig(), galaxy))[1], "role": "null_flux"}
    dark, control = make_light(scene, probe), make_light(scene, {**control_row(), "role": "control"})
    assert dark.measures["total_injected_flux_r"] == 0
    stamps = [make_stamp(scene, made, stream(1, "noise", "x")) for made in (dark, control)]
    assert stamps[0].tobytes() == stamps[1].tobytes()


HARD = InjectionConfig(hard_ring_share=1, hard_spiral_share=1, hard_merger_share=1, source_faint_share=0)


def test_hard_negatives_have_their_own_names_and_their_stated_flux(scene: Scene, galaxy: dict[str, Any]) -> None:
    rows = [row for row in rows_of_galaxy(HARD, galaxy) if row.get("feature")]
    assert [row["lens_model"] for row in rows] == ["RING", "SPIRAL", "MERGER"]
    for row in rows:
        assert (row["theta_e_arcsec"], row["src_mag_r"], row["pair_id"]) == (0.0, None, None)
        made = make_light(scene, row)
        assert set(made.measures.values()) == {None}
        for band, light in zip("grz", crop(made.pixels, 64), strict=True):
            wanted = flux_of_mag(row["feature"][f"mag_{band}"]) * transmission(band, scene.ebv)
            # What falls beyond the stamp is missing.
            assert 0.85 * wanted < light.sum() < 1.02 * wanted


def test_a_ring_is_round_about_its_host_and_a_companion_stands_beside_it(scene: Scene, galaxy: dict[str, Any]) -> None:
    ring, spiral, merger = (row for row in rows_of_galaxy(HARD, galaxy) if row.get("feature"))
    for row in (ring, spiral, merger):
        row["feature"] |= {
            "radius_arcsec": 2.5,
            "q": 1.0,
            "width": {"hard_ring": 0.1, "hard_spiral": 20.0}.get(row["role"], 0.3),
        }
    light = {row["role"]: make_light(scene, row).pixels[1] for row in (ring, spiral, merger)}
    axis = (np.arange(66) - 32.5) * 0.262
    x, y = np.meshgrid(axis - scene.x_arcsec, axis - scene.y_arcsec)
    r = np.hypot(x, y)
    profile = [light["hard_ring"][(r > a) & (r < a + 0.4)].mean() for a in np.arange(0, 4, 0.4)]
    assert int(np.argmax(profile)) == 5 or int(np.argmax(profile)) == 6
    for role in ("hard_ring", "hard_spiral"):
        assert abs(float((light[role] * x).sum() / light[role].sum())) < 0.1
    peak = np.unravel_index(light["hard_merger"].argmax(), x.shape)
    assert r[peak] == pytest.approx(2.5, abs=0.3)
