from typing import Any

import numpy as np
import pytest

from lens_pipeline.survey.conditions import flux_of_mag, sky_per_pixel
from lens_pipeline.survey.config import InjectionConfig
from lens_pipeline.survey.manifest import rows_of_galaxy
from lens_pipeline.survey.optics import PAD, crop, smooth_variance, smoothing_loss, smoothing_weight
from lens_pipeline.survey.priors import control_row
from lens_pipeline.survey.randomness import stream
from lens_pipeline.survey.render import Scene, make_arc, make_stamp, matched_snr, observed_scene, simulated_scene

R = 1


def scene_of(galaxy: dict[str, Any], **change: Any) -> Scene:
    return simulated_scene(
        {**galaxy, **change}, stamp_size=64, seed=1, neighbours_per_stamp=change.pop("neighbours", 0.0)
    )


@pytest.fixture
def scene(galaxy: dict[str, Any]) -> Scene:
    return scene_of(galaxy)


@pytest.fixture
def injection(galaxy: dict[str, Any]) -> dict[str, Any]:
    rows = list(rows_of_galaxy(InjectionConfig(), galaxy))
    return {**rows[1], "src_mag_r": 22.5, "src_mag_g": 22.7, "src_mag_z": 22.1, "theta_e_arcsec": 1.4}


def test_an_injection_without_light_is_its_control_bit_for_bit(scene: Scene, injection: dict[str, Any]) -> None:
    dark = {**injection, **{f"src_mag_{band}": np.inf for band in "grz"}}
    arc = make_arc(scene, dark)
    assert (arc.measures["arc_snr"], arc.measures["arc_snr_matched"], arc.measures["total_injected_flux_r"]) == (
        0,
        0,
        0,
    )
    control = make_arc(scene, control_row())
    assert set(control.measures.values()) == {None}
    same = [make_stamp(scene, made, stream(1, "noise", "x")) for made in (arc, control)]
    assert same[0].tobytes() == same[1].tobytes()


def test_a_stamp_is_float32_nanomaggy_with_the_hosts_flux(galaxy: dict[str, Any]) -> None:
    quiet = {f"psfdepth_{band}": 1e9 for band in "grz"}
    scene = scene_of(galaxy, reff_arcsec=0.5, **quiet)
    stamp = make_stamp(scene, make_arc(scene, control_row()), stream(1, "x"))
    assert (stamp.dtype, stamp.shape) == (np.float32, (3, 64, 64))
    # A de Vaucouleurs profile keeps some 4 % of its light beyond the stamp.
    for band, plane in zip("grz", stamp, strict=True):
        assert 0.93 < plane.sum() / flux_of_mag(galaxy[f"mag_{band}"]) < 1.0


def test_the_sky_noise_is_the_one_that_depth_and_seeing_imply_and_light_adds_its_own(galaxy: dict[str, Any]) -> None:
    scene = scene_of(galaxy, mag_r=18.0, reff_arcsec=1.5)
    control = make_arc(scene, control_row())
    stack = np.array([make_stamp(scene, control, stream(n, "noise")) for n in range(400)], dtype=float)
    seen = stack.var(axis=0)
    said = smooth_variance(scene.white_variance, scene.correlation)
    assert (seen / said).mean() == pytest.approx(1, abs=0.01)
    centre = slice(30, 34)
    assert (seen / said)[R, centre, centre].mean() == pytest.approx(1, abs=0.06)
    sky_only = smoothing_loss(scene.correlation) ** 2 * scene.per_flux[R] * sky_per_pixel("r", 0.262)
    assert np.median(said[R]) == pytest.approx(sky_only, rel=0.1)
    assert said[R, centre, centre].mean() > 1.3 * sky_only
    pair = stack[:, R, 2:20, 2:19] - stack[:, R, 2:20, 2:19].mean(axis=0)
    beside = stack[:, R, 2:20, 3:20] - stack[:, R, 2:20, 3:20].mean(axis=0)
    assert (pair * beside).mean() / pair.var() == pytest.approx(scene.correlation, abs=0.02)


def test_the_arcs_own_poisson_noise_is_added_to_simulated_and_to_real_hosts(
    scene: Scene, injection: dict[str, Any]
) -> None:
    bright = {**injection, "src_mag_r": 17.0}
    arc, control = make_arc(scene, bright), make_arc(scene, control_row())
    brightest = np.unravel_index(arc.pixels[R, 1:-1, 1:-1].argmax(), (64, 64))
    spread = [np.std([make_stamp(scene, a, stream(n, "x"))[R][brightest] for n in range(150)]) for a in (arc, control)]
    assert spread[0] > 1.5 * spread[1]


def test_the_peak_snr_is_the_brightest_pixel_over_its_total_sigma(scene: Scene, injection: dict[str, Any]) -> None:
    arc = make_arc(scene, injection)
    noise = [make_stamp(scene, arc, stream(n, "x"))[R] - crop(scene.base + arc.pixels, 64)[R] for n in range(300)]
    sigma = np.std(noise, axis=0)
    ratio = arc.pixels[R, 1:-1, 1:-1] / sigma
    assert arc.measures["arc_snr"] == pytest.approx(np.sort(ratio.ravel())[-5:].mean(), rel=0.1)
    assert arc.measures["arc_snr_matched"] > arc.measures["arc_snr"]


def test_the_matched_snr_is_the_one_of_the_full_covariance(galaxy: dict[str, Any]) -> None:
    n = 32
    scene = simulated_scene(galaxy, stamp_size=n, seed=1, neighbours_per_stamp=0)
    across = n + 2 * PAD
    axis = np.arange(across) - across / 2
    arc = 0.05 * np.exp(-0.5 * (np.hypot(axis[:, None], axis) - 4) ** 2 / 2.0**2)
    a = smoothing_weight(scene.correlation)
    line = np.zeros((n, n + 2))
    for i in range(n):
        line[i, i : i + 3] = [a, 1 - 2 * a, a]
    h = np.kron(line, line)
    covariance = (h * scene.white_variance[R].ravel()) @ h.T
    model = crop(arc, n).ravel()
    assert matched_snr(scene, arc) == pytest.approx(np.sqrt(model @ np.linalg.solve(covariance, model)), rel=0.01)


def test_the_measures_say_what_was_injected(scene: Scene, injection: dict[str, Any]) -> None:
    arc = make_arc(scene, injection)
    assert arc.measures["total_injected_flux_r"] == pytest.approx(arc.pixels[R, 1:-1, 1:-1].sum())
    magnification = arc.measures["magnification"]
    assert magnification is not None
    assert magnification > 1.5
    # Dust dims what arrives; magnification is about the lens alone.
    dusty = make_arc(scene_of_dust(scene), injection)
    assert dusty.measures["magnification"] == magnification
    assert dusty.measures["total_injected_flux_r"] < 0.9 * float(arc.measures["total_injected_flux_r"] or 0)
    fainter = make_arc(scene, {**injection, "src_mag_r": injection["src_mag_r"] + 2.5})
    assert fainter.measures["arc_snr_matched"] == pytest.approx(0.1 * float(arc.measures["arc_snr_matched"] or 0))


def test_the_slope_of_a_lens_shapes_its_arc_and_is_isothermal_where_none_is_given(
    scene: Scene, injection: dict[str, Any]
) -> None:
    plain, isothermal, steep = (make_arc(scene, {**injection, "lens_gamma": gamma}) for gamma in (None, 2.0, 2.4))
    assert isothermal.pixels.tobytes() == plain.pixels.tobytes()
    assert np.abs(steep.pixels - plain.pixels).max() > 0.05 * plain.pixels.max()
    assert steep.measures["magnification"] != pytest.approx(plain.measures["magnification"], rel=0.02)


def test_magnification_counts_light_beyond_the_grid_and_the_injected_flux_only_what_is_in_the_stamp(
    scene: Scene, injection: dict[str, Any]
) -> None:
    wide = {
        **injection, "theta_e_arcsec": 1e-4, "shear": 0.0, "src_reff_arcsec": 3.0, "src_n": 4.0, "src_e": 0.0,
    }  # fmt: skip
    measures = make_arc(scene, wide).measures
    assert measures["magnification"] == pytest.approx(1, abs=1e-3)
    assert 0.3 < float(measures["total_injected_flux_r"] or 0) / flux_of_mag(22.5) < 0.95


def scene_of_dust(scene: Scene) -> Scene:
    return Scene(**{**vars(scene), "ebv": (scene.ebv or 0) + 0.2})


def test_the_arc_is_blue_where_the_host_is_red(scene: Scene, injection: dict[str, Any]) -> None:
    arc = make_arc(scene, injection)
    g, r, z = arc.pixels.sum(axis=(1, 2))
    host_g, host_r, host_z = scene.base.sum(axis=(1, 2))
    assert g / r > 2 * host_g / host_r
    assert z / r < host_z / host_r


def real_host() -> tuple[dict[str, Any], np.ndarray]:
    pixels = np.random.default_rng(0).normal(0.01, 0.004, (3, 64, 64)).astype(np.float32)
    galaxy = {
        "pixel_scale_arcsec": 0.263, "noise_correlation": 0.28, "host_x_arcsec": 0.1, "host_y_arcsec": 0.0, "ebv": None,
        **{f"psf_fwhm_assumed_{b}": 1.0 for b in "grz"}, **{f"pixel_sigma_{b}": 0.004 for b in "grz"},
    }  # fmt: skip
    return galaxy, pixels


def test_nothing_is_added_to_pixels_that_saw_no_light_and_nothing_of_the_arc_is_measured_there(
    injection: dict[str, Any],
) -> None:
    galaxy, pixels = real_host()
    bad = np.zeros(pixels.shape, dtype=bool)
    bad[:, :, 41] = True
    pixels[bad] = 0
    whole, holed = observed_scene(galaxy, pixels), observed_scene(galaxy, pixels, None, bad)
    every, seen = make_arc(whole, injection), make_arc(holed, injection)
    inside = every.pixels[:, 1:-1, 1:-1]
    assert (inside[1][bad[1]] > 0).all()
    assert np.array_equal(seen.pixels[:, 1:-1, 1:-1], np.where(bad, 0, inside))
    made = make_stamp(holed, seen, stream(1, "x"))
    assert (made[bad] == 0).all()
    assert (made[~bad] != pixels[~bad]).mean() > 0.9
    assert seen.measures["total_injected_flux_r"] == pytest.approx(inside[1][~bad[1]].sum())
    # All but the column where the arc shines through: there it is seen at half the weight or less.
    assert float(seen.measures["arc_snr_matched"] or 0) < float(every.measures["arc_snr_matched"] or 0)
    bad[1] = inside[1] > 0.5 * inside[1].max()
    peakless = make_arc(observed_scene(galaxy, pixels, None, bad), injection)
    assert float(peakless.measures["arc_snr"] or 0) < 0.8 * float(every.measures["arc_snr"] or 0)


def test_a_real_cutouts_control_is_the_cutout_itself_and_an_injection_adds_only_the_arc() -> None:
    galaxy, pixels = real_host()
    scene = observed_scene(galaxy, pixels)
    control = make_stamp(scene, make_arc(scene, control_row()), stream(1, "x"))
    assert control.tobytes() == pixels.tobytes()
    faint = {**next(iter(rows_of_galaxy_without_mag()))}
    arc = make_arc(scene, faint)
    difference = make_stamp(scene, arc, stream(1, "x")).astype(float) - pixels
    assert difference.sum() == pytest.approx(arc.pixels[:, 1:-1, 1:-1].sum(), rel=0.05)
    # Where the arc is not, nothing was added, noise neither.
    assert np.abs(difference[:, :6, :6]).max() < 0.05 * difference.max()


def rows_of_galaxy_without_mag() -> list[dict[str, Any]]:
    host = {"galaxy_id": "g", "region_id": "g", "ra": None, "dec": None, "mag_r": None}
    rows = list(rows_of_galaxy(InjectionConfig(), host))
    return [{**rows[1], "src_mag_r": 21.5, "src_mag_g": 21.6, "src_mag_z": 21.3}]


def test_neighbours_belong_to_the_host_and_not_to_the_row(galaxy: dict[str, Any]) -> None:
    def make(seed: int, galaxy_id: str) -> np.ndarray:
        host = {**galaxy, "galaxy_id": galaxy_id}
        return simulated_scene(host, stamp_size=64, seed=seed, neighbours_per_stamp=3.0).base

    assert make(1, "a").tobytes() == make(1, "a").tobytes()
    assert not np.array_equal(make(1, "a"), make(1, "b"))
    assert not np.array_equal(make(1, "a"), make(2, "a"))
