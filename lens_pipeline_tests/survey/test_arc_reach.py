"""Where the quick estimate sees next to no arc, the rendered arc is next to nothing."""

import numpy as np

from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.arc_reach import outside_arc
from lens_pipeline.survey.conditions import BANDS
from lens_pipeline.survey.optics import crop, smoothing_loss
from lens_pipeline.survey.render import make_arc, simulated_scene


def test_no_pixel_outside_holds_more_than_a_hundredth_of_a_sigma_of_arc(small: dict[str, Publication]) -> None:
    galaxies = {row["galaxy_id"]: row for row in small["parent_sample"].read_table().to_pylist()}
    rows = [row for row in small["injection_manifest"].read_table().to_pylist() if row["src_mag_r"] is not None]
    shares = []
    for row in rows:
        galaxy = galaxies[row["galaxy_id"]]
        scene = simulated_scene(galaxy, stamp_size=64, seed=1, neighbours_per_stamp=0.0)
        sigma = np.sqrt(np.median(scene.white_variance, axis=(1, 2))) * smoothing_loss(scene.correlation)
        outside = outside_arc(
            row,
            bands=BANDS,
            stamp_size=64,
            pixel_scale_arcsec=galaxy["pixel_scale_arcsec"],
            host=(galaxy["host_x_arcsec"], galaxy["host_y_arcsec"]),
            fwhm_arcsec=max(galaxy[f"psf_fwhm_{band}"] for band in BANDS),
            sigma=sigma,
            ebv=galaxy["ebv"],
        )
        left = (crop(make_arc(scene, row).pixels, 64) / sigma[:, None, None])[:, outside]
        assert left.max(initial=0.0) < 0.02
        assert left.mean(axis=1).max(initial=0.0) < 0.003 or not outside.any()
        shares.append(outside.mean())
    assert np.median(shares) > 0.3
