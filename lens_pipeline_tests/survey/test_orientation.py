"""Images in which north isn't up: the mass must follow the light in the pixels that the arc is laid on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from lens_pipeline.contracts.errors import ContractError
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.cutouts import open_cutouts

from . import coadds, test_ccd
from .conftest import Survey, real_config
from .test_real_cutouts import Cubes

SIZE, SCALE, PHI = 32, 0.262, 0.5
NAME, RA, DEC = coadds.brick_at(150.1, 2.3)


def turned(degrees: float) -> np.ndarray:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cos, -sin], [sin, cos]])


TURNS = {
    "upright": np.eye(2),
    "nearly": turned(0.5),
    "quarter": turned(90),
    "37": turned(37),
    "mirrored": np.diag([-1.0, 1.0]),
    "mirrored_and_turned": np.diag([-1.0, 1.0]) @ turned(20),
}


def write_coadds(folder: Path, turn: np.ndarray) -> None:
    coadds.write_brick(folder, RA, DEC, coadds.long_galaxy_at(RA, DEC, PHI), scale=SCALE, turn=turn)


def write_files(folder: Path, turn: np.ndarray) -> None:
    wcs = coadds.grid_of(RA, DEC, SCALE, turn)
    y, x = np.mgrid[: coadds.N, : coadds.N]
    light = coadds.long_galaxy_at(RA, DEC, PHI)
    for band in "grz":
        seen = light(band, *wcs.pixel_to_world_values(x, y)).astype(np.float32)
        fits.writeto(folder / f"a-{band}.fits", seen, wcs.to_header())


def write_exposures(folder: Path, turn: np.ndarray, r_turn: np.ndarray | None = None) -> None:
    light = coadds.long_galaxy_at(RA, DEC, PHI)
    rows = []
    for number, band in enumerate("grz"):
        grid = coadds.grid_of(RA, DEC, SCALE, r_turn if band == "r" and r_turn is not None else turn)
        rows.append(test_ccd.write_ccd(folder, 100 + number, band, light=light, grid=grid))
    test_ccd.write_table(folder, rows)


def parents(survey: Survey, folder: Path, **known: Any) -> Publication:
    row = {"galaxy_id": "a", "ra": RA, "dec": DEC, "axis_ratio": 0.49, "phi_rad": PHI, **known}
    Table(rows=[row]).write(folder.parent / "galaxies.csv")
    return survey.parents(real_config(folder, catalogue=str(folder.parent / "galaxies.csv"), stamp_size=SIZE))


def angle_of_light(pixels: np.ndarray) -> float:
    """Position angle of the pixels' second moments within 3 arcsec, from x to y."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    light = np.where(np.hypot(x, y) < 3 / SCALE, pixels, 0)
    return float(np.arctan2(2 * (light * x * y).sum(), (light * (x * x - y * y)).sum()) / 2 % np.pi)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "images"
    made.mkdir()
    return made


@pytest.mark.parametrize("write", [write_coadds, write_files, write_exposures])
@pytest.mark.parametrize("turn", list(TURNS))
def test_the_angle_of_the_light_is_published_in_the_axes_of_the_pixels_whatever_way_north_is(
    survey: Survey, folder: Path, write: Callable[..., None], turn: str
) -> None:
    write(folder, TURNS[turn])
    parent = parents(survey, folder)
    (row,) = parent.read_table().to_pylist()
    seen = angle_of_light(open_cutouts(parent.path("cutouts.npy"))[0, 1])
    assert abs((row["phi_rad"] - seen + np.pi / 2) % np.pi - np.pi / 2) < np.radians(3)
    assert row["axis_ratio"] == 0.49
    said = " ".join(parent.attributes["assumptions"])
    if turn in ("upright", "nearly"):
        assert row["phi_rad"] == PHI
        assert "north isn't up" not in said
    else:
        assert "1 of 1 galaxies with a phi_rad lie in images where north isn't up" in said


def test_exposures_of_bands_that_are_turned_against_each_other_are_left_out(survey: Survey, folder: Path) -> None:
    write_exposures(folder, np.eye(2), turned(10))
    with pytest.raises(ContractError, match=r"'wrong_shape': 1.* turned or mirrored against each other"):
        parents(survey, folder)


def test_cubes_say_that_north_is_taken_to_be_up_where_a_catalogue_gives_angles(
    survey: Survey, cubes: Cubes, tmp_path: Path
) -> None:
    path = tmp_path / "galaxies.csv"
    Table({"axis_ratio": [0.3] * 3, "phi_rad": [PHI] * 3}).write(path)
    said = survey.parents(real_config(cubes(), catalogue=str(path))).attributes["assumptions"]
    assert any("no WCS: phi_rad is used as if north were up and east left" in line for line in said)
    alone = survey.parents(real_config(cubes())).attributes["assumptions"]
    assert not any("phi_rad" in line for line in alone)
