"""Where the quick estimate sees next to no arc, the arc that was added is next to nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.arc_reach import outside_arc
from lens_pipeline.survey.arcs import iterate_arcs
from lens_pipeline.survey.conditions import BANDS
from lens_pipeline.survey.config import ParentSampleConfig

from .conftest import Survey
from .hst_catalogues import galaxy as hst_galaxy
from .hst_catalogues import noise, write


def left_outside(parent: Publication, manifest: Publication, stamps: Publication) -> tuple[list[float], list[float]]:
    """Share of each stamp outside its arc, and the most light of the arc that a pixel there holds, in its sky's sigma."""
    galaxies = {row["galaxy_id"]: row for row in parent.read_table().to_pylist()}
    rows = {row["task_id"]: row for row in manifest.read_table().to_pylist()}
    shares, left = [], []
    for task_id, arc in iterate_arcs(stamps):
        row, host = rows[task_id], galaxies[rows[task_id]["galaxy_id"]]
        # Of white noise that a point source is measured in as well as the catalogue says (Gaussian PSF).
        sigma = np.array([host_sigma(host, band) for band in BANDS])
        outside = outside_arc(
            row,
            bands=BANDS,
            stamp_size=64,
            pixel_scale_arcsec=host["pixel_scale_arcsec"],
            host=(host["host_x_arcsec"], host["host_y_arcsec"]),
            fwhm_arcsec=max(host[f"psf_fwhm_{band}"] for band in BANDS),
            sigma=sigma,
            ebv=host["ebv"],
        )
        shares.append(float(outside.mean()))
        left.append(float((arc / sigma[:, None, None])[:, outside].max(initial=0.0)))
    return shares, left


def host_sigma(host: dict[str, Any], band: str) -> float:
    pixels = 4 * np.pi * (host[f"psf_fwhm_{band}"] / 2.355 / host["pixel_scale_arcsec"]) ** 2
    return float(1 / np.sqrt(host[f"psfdepth_{band}"] * pixels))


@pytest.mark.parametrize("pictures", [False, True])
def test_no_pixel_outside_holds_more_than_a_hundredth_of_a_sigma_of_arc(
    survey: Survey, tmp_path: Path, pictures: bool
) -> None:
    drawn: dict[str, Any] = {"injections_per_galaxy": 3}
    if pictures:
        images = [hst_galaxy() + noise((121, 122), seed) for seed in range(6)]
        drawn |= {"real_source_share": 1.0, "real_source_catalogue": str(write(tmp_path, images))}
    # Regions enough for each split to have one.
    parent = survey.parents(ParentSampleConfig(n_galaxies=30, n_bricks=30))
    manifest = survey.manifest(parent, **drawn)
    shares, left = left_outside(parent, manifest, survey.stamps(parent, manifest, noiseless_arcs=True))
    assert len(left) == 90
    assert max(left) < 0.01
    assert np.median(shares) > 0.3
