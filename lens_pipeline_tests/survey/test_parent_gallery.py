"""The picture of a catalogue's parent sample."""

from pathlib import Path

import pytest

from lens_pipeline.survey.parent_gallery import parents_png

from .catalogues import write_fits
from .conftest import Survey
from .test_legacy_catalogue import config, folder, galaxy

__all__ = ["folder"]


@pytest.mark.parametrize("region", ["brick", "healpix"])
def test_a_parent_sample_is_drawn_whatever_its_regions_are_and_whatever_it_lacks(
    survey: Survey, folder: Path, region: str
) -> None:
    write_fits(folder / "a.fits", [galaxy(0), galaxy(1, FLUX_G=-1.0)])
    picture = parents_png(survey.parents(config(folder, region=region, region_margin_arcsec=0)))
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000
