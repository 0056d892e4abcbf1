import io
from pathlib import Path

import numpy as np
from PIL import Image

from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.config import ParentSampleConfig
from lens_pipeline.survey.gallery import colour, sky_map_png, stamps_png
from lens_pipeline.survey.role_gallery import roles_png
from lens_pipeline.survey.source_gallery import sources_png

from .conftest import Survey, real_config
from .hst_catalogues import galaxy, noise, write
from .test_real_cutouts import Cubes


def opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


def test_the_gallery_is_a_small_picture_of_injections_controls_and_differences(small: dict[str, Publication]) -> None:
    png = stamps_png(small["stamps"])
    assert len(png) < 150_000
    image = np.asarray(opened(png).convert("RGB"))
    assert image.shape[0] > 250
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 100


def test_a_red_galaxy_is_red_and_a_blue_arc_blue() -> None:
    red, blue = np.zeros((3, 16, 16)), np.zeros((3, 16, 16))
    red[:, 8, 8], blue[:, 8, 8] = (0.02, 0.1, 0.25), (0.08, 0.1, 0.11)
    r, _, b = (int(value) for value in colour(red)[8, 8])
    assert r > b
    r, _, b = (int(value) for value in colour(blue)[8, 8])
    assert b > r


def test_the_sky_map_is_drawn_with_and_without_positions(
    survey: Survey, small: dict[str, Publication], cubes: Cubes
) -> None:
    assert opened(sky_map_png(small["parent_sample"])).size[0] > 400
    assert opened(sky_map_png(survey.parents(real_config(cubes())))).size[0] > 400


def test_real_sources_are_shown_however_few_or_many(survey: Survey, tmp_path: Path) -> None:
    parent = survey.parents(ParentSampleConfig(n_galaxies=30, n_bricks=30))
    widths = []
    for n in (4, 9):
        path = write(tmp_path, [galaxy() + noise((121, 122), seed) for seed in range(n)])
        png = sources_png(survey.manifest(parent, real_source_share=0.5, real_source_catalogue=str(path)))
        assert len(png) < 150_000
        image = opened(png)
        widths.append(image.size[0])
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 100
    assert widths[1] == 2 * widths[0]


def test_every_role_has_a_column_of_four_stamps_and_injections_with_their_controls_alone_have_no_picture(
    survey: Survey, small: dict[str, Publication]
) -> None:
    assert roles_png(small["stamps"], small["injection_manifest"]) is None
    parent = survey.parents(ParentSampleConfig(n_galaxies=30, n_bricks=4))
    kinds = ("fake_turned", "fake_unlensed", "fake_blob", "hard_ring", "hard_spiral", "hard_merger")
    manifest = survey.manifest(parent, unpaired_control_share=0.3, **{f"{kind}_share": 1.0 for kind in kinds})
    png = roles_png(survey.stamps(parent, manifest, rows_per_fragment=64), manifest)
    assert png is not None
    assert len(png) < 200_000
    image = np.asarray(opened(png).convert("RGB"))
    columns = np.array_split(image, len(kinds) + 3, axis=1)
    # Each pixel of the 48 that are shown is two wide.
    assert min(column.shape[1] for column in columns) > 96
    for column in columns:
        for panel in np.array_split(column[30:], 4, axis=0):
            # White paper alone is one colour, a stamp without noise a few.
            assert len(np.unique(panel.reshape(-1, 3), axis=0)) > 100


def test_a_role_with_few_stamps_shows_those_that_it_has(survey: Survey) -> None:
    parent = survey.parents(ParentSampleConfig(n_galaxies=8, n_bricks=2))
    manifest = survey.manifest(parent, hard_ring_share=0.1)
    assert 0 < manifest.attributes["roles"]["hard_ring"] < 4
    png = roles_png(survey.stamps(parent, manifest), manifest)
    assert png is not None
    ring = np.array_split(np.asarray(opened(png).convert("RGB")), 3, axis=1)[1]
    first, last = (np.array_split(ring[30:], 4, axis=0)[place] for place in (0, 3))
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 100
    # But for the edges, where the next column and the caption above are.
    assert (last[8:-8, 8:-8] == 255).all()
