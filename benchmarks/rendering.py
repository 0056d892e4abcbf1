"""An arc in three bands against a straightforward lenstronomy call a stamp, at no worse an image; and what a stamp costs.

The accuracy of both is the sum over pixels of |image - truth| over the sum of the truth, noiseless and through the PSF. The
truth is our own light with a thousandth of the tolerance, which `python -m reliability lens_physics` holds against brute force
by lenstronomy. lenstronomy has its supersampling raised until its worst arc is as right as ours, or as far as is worth a wait:
both errors are told beside the ratio.
"""

import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from lenstronomy.Data.imaging_data import ImageData
from lenstronomy.Data.psf import PSF
from lenstronomy.ImSim.image_model import ImageModel
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from numpy.typing import NDArray

from benchmarks.harness import Result, compare, summarise
from lens_pipeline.storage.home import Home
from lens_pipeline.survey import light
from lens_pipeline.survey.config import InjectionConfig, ParentSampleConfig, StampsConfig
from lens_pipeline.survey.fragment_worker import Renderer
from lens_pipeline.survey.light import Grid, Sersic, flux_of_unit_sersic, lensed_light, sersic_b
from lens_pipeline.survey.optics import crop, moffat_kernel, moffat_width_over_alpha, observe, transform
from lens_pipeline.survey.priors import draw_injection
from lens_pipeline.survey.stamps import worker_settings
from lens_pipeline_tests.survey.conftest import Survey

_SIZE, _SCALE, _FWHMS = 64, 0.262, (1.4, 1.33, 1.25)
_SUPERSAMPLINGS = (1, 3, 5)
_KERNEL_PIXELS = 41
Array = NDArray[np.float64]


def run(quick: bool) -> list[Result]:
    n, rounds = (4, 2) if quick else (12, 5)
    host = {"mag_r": 19.5, "axis_ratio": 0.7, "phi_rad": 0.4}
    rows = [draw_injection(InjectionConfig(), host, f"arc-{number}") for number in range(n)]
    with mock.patch.object(light, "_ARC_DOUBT", light._ARC_DOUBT * 1e-3):
        truth = [_ours(row) for row in rows]
    ours = _error([_ours(row) for row in rows], truth)
    for times in _SUPERSAMPLINGS:
        kernels = [_psf(fwhm, times) for fwhm in _FWHMS]
        theirs = _error([_lenstronomys(row, times, kernels) for row in rows], truth)
        if theirs.max() <= ours.max():
            break
    against = (
        f"lenstronomy's ImageModel, {times} x {times} points a pixel, three bands: error {theirs.max():.1e} at worst "
        f"({np.median(theirs):.1e} in the middle), ours {ours.max():.1e} ({np.median(ours):.1e}); PSF pixels are not in its time"
    )
    ratio = compare(
        "rendering",
        lambda: [_ours(row) for row in rows],
        lambda: [_lenstronomys(row, times, kernels) for row in rows],
        against=against,
        goal=3.0,
        n=n,
        rounds=rounds,
    )
    return [
        ratio,
        summarise("rendering_error", [1e-3 / e for e in ours], against="an error of 1e-3", goal=1.0, n=n),
        _stamps(quick),
    ]


def _stamps(quick: bool) -> Result:
    """Take the CPU time of a whole stamp of the default survey: scene, arc, noise, measures and its compressed blob."""
    n, rounds = (10, 2) if quick else (100, 7)
    with tempfile.TemporaryDirectory() as folder:
        survey = Survey(Home(Path(folder) / "home"))
        parent = survey.parents(ParentSampleConfig(n_galaxies=n, n_bricks=10))
        manifest = survey.manifest(parent)
        galaxies = {galaxy["galaxy_id"]: galaxy for galaxy in parent.read_table().to_pylist()}
        rows = manifest.read_table().to_pylist()
        renderer = Renderer.of(worker_settings(StampsConfig(), parent, manifest))
    took = []
    for turn in range(rounds + 1):
        began = time.process_time()
        made = sum(1 for _ in renderer.rows(rows, galaxies))
        if turn:
            took.append(1e3 * (time.process_time() - began) / made)
    return summarise(
        "rendering_stamp", took, against="nothing: CPU time of one core", goal=None, n=len(rows), unit="ms a stamp"
    )


def _ours(row: dict[str, Any]) -> Array:
    grid = Grid.of(_SIZE, _SCALE)
    spectrum = transform(lensed_light(grid, Sersic.of_source(row), row, 0.05, -0.1))
    return np.stack([crop(observe(spectrum, moffat_kernel(fwhm, _SIZE, _SCALE)), _SIZE) for fwhm in _FWHMS])


def _lenstronomys(row: dict[str, Any], times: int, kernels: list[Array]) -> Array:
    e, angle, twice = row["lens_e"], 2 * row["lens_phi_rad"], 2 * row["shear_phi_rad"]
    mass = {
        "theta_E": row["theta_e_arcsec"], "e1": e * np.cos(angle), "e2": e * np.sin(angle), "center_x": 0.05, "center_y": -0.1,
    }  # fmt: skip
    shear = {
        "gamma1": row["shear"] * np.cos(twice),
        "gamma2": row["shear"] * np.sin(twice),
        "ra_0": 0.05,
        "dec_0": -0.1,
    }
    n, e, angle = row["src_n"], row["src_e"], 2 * row["src_phi_rad"]
    light_model = LightModel(["SERSIC_ELLIPSE"])
    # The same profile under lenstronomy's approximate b.
    reff = row["src_reff_arcsec"] * (light_model.func_list[0].b_n(n) / sersic_b(n)) ** n
    amplitude = np.exp(sersic_b(n) - light_model.func_list[0].b_n(n)) / (
        row["src_reff_arcsec"] ** 2 * flux_of_unit_sersic(n)
    )
    source = {
        "amp": amplitude, "R_sersic": reff, "n_sersic": n, "e1": e * np.cos(angle), "e2": e * np.sin(angle),
        "center_x": row["src_x_arcsec"] + 0.05, "center_y": row["src_y_arcsec"] - 0.1,
    }  # fmt: skip
    corner = -(_SIZE - 1) / 2 * _SCALE
    planes = []
    for kernel in kernels:
        data = ImageData(
            np.zeros((_SIZE, _SIZE)), ra_at_xy_0=corner, dec_at_xy_0=corner,
            transform_pix2angle=np.eye(2) * _SCALE, background_rms=1.0, exposure_time=1.0,
        )  # fmt: skip
        psf = PSF(
            "PIXEL",
            kernel_point_source=kernel,
            point_source_supersampling_factor=times,
            kernel_point_source_normalisation=True,
        )
        model = ImageModel(
            data, psf, lens_model_class=LensModel(["SIE", "SHEAR"]), source_model_class=light_model,
            kwargs_numerics={
                "supersampling_factor": times,
                "supersampling_convolution": times > 1,
                "supersampling_kernel_size": _KERNEL_PIXELS,
            },
        )  # fmt: skip
        planes.append(model.image(kwargs_lens=[mass, shear], kwargs_source=[source]))
    return np.stack(planes)


def _psf(fwhm: float, times: int) -> Array:
    across = _KERNEL_PIXELS * times
    axis = (np.arange(across) - across // 2) * _SCALE / times
    kernel = (1 + (axis[:, None] ** 2 + axis**2) / (fwhm / moffat_width_over_alpha()) ** 2) ** -3.0
    return np.asarray(kernel / kernel.sum())


def _error(images: list[Array], truth: list[Array]) -> Array:
    return np.array([np.abs(image - true).sum() / true.sum() for image, true in zip(images, truth, strict=True)])
