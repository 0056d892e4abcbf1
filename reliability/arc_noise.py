"""Arcs on observed cutouts: a control is its cutout, and an injection adds the arc and the arc's own Poisson noise, no more.

A case is 1,000 stamps, every other one with a known gain. In a pixel where the arc has at least ten electrons its noise has the
variance of its electrons, averaged as the image's smoothing averages them; chi^2 over those pixels, less their number, is held
against its own scatter from stamp to stamp. And all noise of a band together has the variance of all the arc's electrons, as a
resampling moves light and loses none. Where no gain is known, electrons are those that give the sky its noise on DECam's nominal
dark sky, before it was smoothed.
"""

import numpy as np

from lens_pipeline.survey.conditions import sky_per_pixel
from lens_pipeline.survey.config import InjectionConfig
from lens_pipeline.survey.manifest import rows_of_galaxy
from lens_pipeline.survey.optics import crop, smooth_variance
from lens_pipeline.survey.priors import control_row
from lens_pipeline.survey.randomness import stream
from lens_pipeline.survey.render import make_arc, make_stamp, observed_scene
from reliability.subject import Case, Subject

_STAMPS, _ELECTRONS = 1_000, 10
_SCALE, _SIGMA = 0.262, 0.004
_SKY = np.array([sky_per_pixel(band, _SCALE) for band in "grz"])


def stamps(number: int) -> Case:
    """Try a thousand stamps."""
    rng = np.random.default_rng(number)
    excess, of_sums, n_pixels, problem = [], [], 0, None
    for one in range(_STAMPS):
        electrons = rng.uniform(100, 1_000, 3) if one % 2 else (_SIGMA**-2) * _SKY
        galaxy = {
            "galaxy_id": f"{number}-{one}", "region_id": "r", "ra": None, "dec": None, "mag_r": None, "ebv": None,
            "pixel_scale_arcsec": _SCALE, "noise_correlation": rng.uniform(0, 0.4), "host_x_arcsec": 0.05, "host_y_arcsec": -0.1,
            **{f"psf_fwhm_assumed_{b}": rng.uniform(0.9, 1.6) for b in "grz"}, **{f"pixel_sigma_{b}": _SIGMA for b in "grz"},
            **{f"electrons_per_nanomaggy_{b}": e if one % 2 else None for b, e in zip("grz", electrons, strict=True)},
        }  # fmt: skip
        cutout = rng.normal(0.01, _SIGMA, (3, 64, 64)).astype(np.float32)
        scene = observed_scene(galaxy, cutout)
        control, injection = rows_of_galaxy(InjectionConfig(source_mag_high=22.5, source_faint_share=0.0), galaxy)
        arc = make_arc(scene, injection)
        made = [
            make_stamp(scene, a, stream(1, "noise", row["task_id"]))
            for a, row in ((make_arc(scene, {**control, **control_row()}), control), (arc, injection))
        ]
        if made[0].tobytes() != cutout.tobytes():
            problem = f"the control of stamp {one} isn't its cutout"
        noise = made[1].astype(float) - cutout - crop(arc.pixels, 64)
        averaged, alike = (
            smooth_variance(light, scene.correlation) for light in (arc.pixels, np.ones_like(arc.pixels))
        )
        counts = electrons if one % 2 else alike[:, 0, 0] * electrons
        variance = averaged / counts[:, None, None]
        counted = crop(arc.pixels, 64) * counts[:, None, None] >= _ELECTRONS
        of_sums += list(noise.sum(axis=(1, 2)) ** 2 / (arc.pixels.sum(axis=(1, 2)) / counts) - 1)
        excess.append(float((noise[counted] ** 2 / variance[counted] - 1).sum()))
        n_pixels += int(counted.sum())
    largest = {
        name: float(abs(sum(off)) / np.sqrt(np.square(off).sum()))
        for name, off in (("sigmas", excess), ("sigmas of whole arcs", of_sums))
    }
    return Case(problem=problem, n=_STAMPS, largest=largest, counts={"pixels": n_pixels})


SUBJECT = Subject(
    name="arc_noise",
    question="a control is its cutout, and chi^2 / nu of an injection less control and noiseless arc is 1 within 5 sigma, pixel "
    "by pixel and of whole arcs",
    unit="stamps",
    goal=10_000,
    case=stamps,
    bounds={"sigmas": 5.0, "sigmas of whole arcs": 5.0},
)
