"""Where the quick estimate sees next to no arc, the arc that was added is next to nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.arc_reach import View, outside_arc
from lens_pipeline.survey.arcs import iterate_arcs
from lens_pipeline.survey.conditions import BANDS
from lens_pipeline.survey.config import ParentSampleConfig
from lens_pipeline.survey.fake_reach import outside_fake, outside_feature
from lens_pipeline.survey.roles import FAKES, HARD_NEGATIVES, INJECTION

from .conftest import Survey
from .hst_catalogues import galaxy as hst_galaxy
from .hst_catalogues import noise, write


def left_outside(
    parent: Publication, manifest: Publication, stamps: Publication
) -> dict[str, list[tuple[float, float]]]:
    """By role, of each stamp: its share outside added light, and the most of that a pixel there holds, in its sky's sigma."""
    galaxies = {row["galaxy_id"]: row for row in parent.read_table().to_pylist()}
    rows = {row["task_id"]: row for row in manifest.read_table().to_pylist()}
    found: dict[str, list[tuple[float, float]]] = {}
    for task_id, arc in iterate_arcs(stamps):
        row, host = rows[task_id], galaxies[rows[task_id]["galaxy_id"]]
        # Of white noise that a point source is measured in as well as the catalogue says (Gaussian PSF).
        sigma = np.array([host_sigma(host, band) for band in BANDS])
        view = View(
            bands=BANDS,
            stamp_size=64,
            pixel_scale_arcsec=host["pixel_scale_arcsec"],
            host=(host["host_x_arcsec"], host["host_y_arcsec"]),
            fwhm_arcsec=max(host[f"psf_fwhm_{band}"] for band in BANDS),
            sigma=sigma,
            ebv=host["ebv"],
        )
        outside = OUTSIDE[row["role"]](row, view)
        left = float((arc / sigma[:, None, None])[:, outside].max(initial=0.0))
        found.setdefault(row["role"], []).append((float(outside.mean()), left))
    return found


OUTSIDE = {
    INJECTION: outside_arc,
    **dict.fromkeys(FAKES, outside_fake),
    **dict.fromkeys(HARD_NEGATIVES, outside_feature),
}


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
    found = left_outside(parent, manifest, survey.stamps(parent, manifest, noiseless_arcs=True))
    shares, left = zip(*found[INJECTION], strict=True)
    assert len(left) == 90
    assert max(left) < 0.01
    assert np.median(shares) > 0.3


def test_fakes_and_hard_negatives_are_as_dark_where_their_estimates_say_so(survey: Survey) -> None:
    parent = survey.parents(ParentSampleConfig(n_galaxies=40, n_bricks=30))
    shares = {f"{role}_share": 1.0 for role in (*FAKES, *HARD_NEGATIVES)}
    manifest = survey.manifest(parent, **shares)
    found = left_outside(parent, manifest, survey.stamps(parent, manifest, noiseless_arcs=True))
    for role in (*FAKES, *HARD_NEGATIVES):
        outside, left = zip(*found[role], strict=True)
        assert len(left) > 20
        assert max(left) < 0.01
        assert np.median(outside) > 0.1
