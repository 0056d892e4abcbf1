"""Galaxies in files of their own, as the Legacy Surveys' cutout service writes them: a cube each, or a file a band."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from lens_pipeline.contracts.errors import ConfigError, ContractError, StorageError
from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline.survey import image_parents
from lens_pipeline.survey.cutouts import open_cutouts

from .conftest import Survey, real_config
from .test_stamps import rows_of

PIXELS, SIZE, SCALE = 48, 32, 0.262


def header(ra: float, dec: float, **cards: Any) -> fits.Header:
    """The header of the cutout service: a tangential projection whose middle is the place asked for; no BUNIT."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [ra, dec]
    wcs.wcs.crpix = [(PIXELS + 1) / 2] * 2
    wcs.wcs.cdelt = [-cards.pop("scale", SCALE) / 3600, SCALE / 3600]
    made = wcs.to_header()
    made.update({"SURVEY": "LegacySurvey", "VERSION": "DR10", **cards})
    return made


def pixels(seed: int = 0, north: float = 0) -> np.ndarray:
    """A galaxy on noise, nanomaggy, brighter from g to z; so many pixels north of the middle."""
    y, x = np.mgrid[:PIXELS, :PIXELS] - (PIXELS - 1) / 2
    y -= north
    galaxy = np.exp(-np.hypot(x, y) / 4)[None] * np.array([0.5, 2.0, 4.0])[:, None, None]
    return (galaxy + np.random.default_rng(seed).normal(0, 0.01, (3, PIXELS, PIXELS))).astype(np.float32)


def write(folder: Path, name: str, place: tuple[float, float], data: np.ndarray | None = None, **cards: Any) -> None:
    fits.writeto(folder / name, pixels() if data is None else data, header(*place, **{"BANDS": "grz"} | cards))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two cubes, of which one names its bands one by one and in another order, and one galaxy with a file a band."""
    made = tmp_path / "objects"
    made.mkdir()
    write(made, "a.fits", (150.06, 2.0))
    write(made, "b-1.fits", (150.16, 2.0), pixels(1)[::-1], BANDS="", BAND0="z", BAND1="r", BAND2="g")
    for plane, band in zip(pixels(2), "grz", strict=True):
        write(made, f"c-{band}.fits", (150.26, 2.0), plane, BANDS="")
    return made


def test_every_galaxy_is_cut_out_of_the_middle_of_its_files_and_stands_where_these_say(
    survey: Survey, folder: Path
) -> None:
    parent = survey.parents(real_config(folder, stamp_size=SIZE))
    rows = parent.read_table().to_pylist()
    assert [row["galaxy_id"] for row in rows] == ["a", "b-1", "c"]
    assert [row["region_id"] for row in rows] == ["1501p020", "1501p020", "1503p020"]
    assert [row["ra"] for row in rows] == pytest.approx([150.06, 150.16, 150.26])
    assert [row["dec"] for row in rows] == pytest.approx([2.0] * 3)
    found = open_cutouts(parent.path("cutouts.npy"))
    edge = (PIXELS - SIZE) // 2
    for number in range(3):
        assert np.array_equal(found[number], pixels(number)[:, edge:-edge, edge:-edge]), rows[number]["galaxy_id"]
    assert parent.attributes["left_out"] == {}
    files = parent.read_table("image_files").to_pylist()
    assert [Path(file["path"]).name for file in files] == ["a.fits", "b-1.fits", "c-g.fits", "c-r.fits", "c-z.fits"]
    path = folder / "a.fits"
    known = {"path": str(path), "size_bytes": path.stat().st_size, "sha256": sha256_of(path), "n_galaxies": 1}
    assert files[0] == known
    assert any("carry no inverse variance" in said for said in parent.attributes["assumptions"])
    assert all(row["psf_is_assumed"] and row["psf_fwhm_r"] is None for row in rows)
    made = rows_of(survey.stamps(parent, survey.manifest(parent, injections_per_galaxy=2)))
    assert len(made) == 9


def test_files_that_do_not_say_their_unit_are_taken_for_nanomaggy_and_the_sample_says_in_which_bands(
    survey: Survey, tmp_path: Path
) -> None:
    unsaid = tmp_path / "unsaid"
    unsaid.mkdir()
    for plane, band in zip(pixels(), "grz", strict=True):
        write(
            unsaid, f"a-{band}.fits", (150.06, 2.0), plane, BANDS="", **({"BUNIT": "nanomaggy"} if band == "r" else {})
        )
    said = survey.parents(real_config(unsaid, stamp_size=SIZE)).attributes["assumptions"]
    assert (
        "Images of single galaxies in g, z don't say their unit (BUNIT) nor their zero point (MAGZERO): nanomaggy, AB zero point "
        "22.5, is assumed."
    ) in said
    named = tmp_path / "named"
    named.mkdir()
    write(named, "a.fits", (150.06, 2.0), BUNIT="nanomaggy")
    said = survey.parents(real_config(named, stamp_size=SIZE)).attributes["assumptions"]
    assert not any("BUNIT" in line for line in said)
    write(named, "b.fits", (150.16, 2.0), pixels(1), MAGZERO=25.0)
    left_out = survey.parents(real_config(named, stamp_size=SIZE)).read_table("left_out").to_pylist()
    (row,) = left_out
    assert (row["galaxy_id"], row["reason"]) == ("b", "wrong_unit")
    assert "zero point 25.0 (MAGZERO), wanted 22.5" in row["detail"]


def test_a_catalogue_moves_the_stamp_to_its_own_place_and_must_name_the_same_galaxies(
    survey: Survey, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "galaxies.csv"
    (folder / "a.fits").unlink()
    write(folder, "a.fits", (150.06, 2.0), pixels(north=3.2))
    rows = [
        {"galaxy_id": "a", "ra": 150.06, "dec": 2.0 + 3.2 * SCALE / 3600, "mag_r": 17.0},
        {"galaxy_id": "b-1", "ra": 150.16, "dec": 2.0, "mag_r": 17.1},
        {"galaxy_id": "c", "ra": 150.26, "dec": 2.0, "mag_r": 17.2},
    ]
    Table(rows=rows).write(path)
    parent = survey.parents(real_config(folder, catalogue=str(path), stamp_size=SIZE))
    first = parent.read_table().to_pylist()[0]
    assert (first["mag_r"], first["host_y_arcsec"]) == (17.0, pytest.approx(0.2 * SCALE, abs=1e-3))
    edge = (PIXELS - SIZE) // 2
    assert np.array_equal(
        open_cutouts(parent.path("cutouts.npy"))[0], pixels(north=3.2)[:, edge + 3 : edge + 3 + SIZE, edge:-edge]
    )
    Table(rows=[*rows[:2], rows[2] | {"galaxy_id": "d"}]).write(path, overwrite=True)
    with pytest.raises(ContractError, match=r"1 galaxies have no file: d\."):
        survey.parents(real_config(folder, catalogue=str(path), stamp_size=SIZE))
    Table(rows=rows[:2]).write(path, overwrite=True)
    with pytest.raises(ContractError, match=r"1 galaxies have no row: c\."):
        survey.parents(real_config(folder, catalogue=str(path), stamp_size=SIZE))


def test_a_galaxy_whose_files_will_not_do_is_left_out_by_reason_and_the_others_are_kept(
    survey: Survey, folder: Path
) -> None:
    hole = pixels()
    hole[1, PIXELS // 2, PIXELS // 2] = np.nan
    write(folder, "hole.fits", (150.36, 2.0), hole)
    write(folder, "adu.fits", (150.46, 2.0), pixels() * 1e4)
    write(folder, "counts.fits", (150.56, 2.0), BUNIT="adu")
    write(folder, "no_z.fits", (150.66, 2.0), pixels()[:2], BANDS="gr")
    write(folder, "unnamed.fits", (150.76, 2.0), BANDS="")
    write(folder, "coarse.fits", (150.86, 2.0), scale=2 * SCALE)
    write(folder, "again.fits", (150.06, 2.0 + 0.5 / 3600))
    write(folder, "beside.fits", (151.16, 2.0), pixels(north=5))
    write(folder, "small.fits", (150.96, 2.0), pixels()[:, 10:-10, 10:-10])
    (folder / "broken.fits").write_bytes(b"SIMPLE  = broken")
    fits.writeto(folder / "nowhere.fits", pixels(), fits.Header({"BANDS": "grz"}))
    for band in "gr":
        write(folder, f"half-{band}.fits", (151.06, 2.0), pixels()[0], BANDS="")
    parent = survey.parents(real_config(folder, stamp_size=SIZE))
    left_out = {row["galaxy_id"]: row for row in parent.read_table("left_out").to_pylist()}
    assert {name: row["reason"] for name, row in left_out.items()} == {
        "hole": "centre_masked",
        "adu": "wrong_unit",
        "counts": "wrong_unit",
        "no_z": "missing_band",
        "unnamed": "wrong_shape",
        "coarse": "wrong_scale",
        "again": "same_place",
        "beside": "off_centre",
        "small": "outside",
        "broken": "unreadable",
        "nowhere": "no_wcs",
        "half": "missing_band",
    }
    assert left_out["nowhere"]["ra"] is None
    assert parent.attributes["left_out"]["wrong_unit"] == 2
    assert {row["galaxy_id"] for row in parent.read_table().to_pylist()} == {"a", "b-1", "c"}


def test_a_galaxy_that_stands_in_two_files_under_two_places_is_left_out_the_second_time(
    survey: Survey, folder: Path
) -> None:
    write(folder, "d.fits", (150.36, 2.0), 1.000001 * pixels(1)[..., ::-1])
    parent = survey.parents(real_config(folder, stamp_size=SIZE))
    assert parent.read_table()["galaxy_id"].to_pylist() == ["a", "b-1", "c"]
    (left,) = parent.read_table("left_out").to_pylist()
    assert (left["galaxy_id"], left["reason"]) == ("d", "same_pixels")
    assert "are those of b-1, turned or mirrored" in left["detail"]
    opened = {Path(row["path"]).name: row["n_galaxies"] for row in parent.read_table("image_files").to_pylist()}
    assert (opened["b-1.fits"], opened["d.fits"]) == (1, 0)


def test_a_file_that_is_rewritten_after_its_galaxys_place_was_read_is_refused(
    survey: Survey, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_places = image_parents.with_places

    def rewriting(*given: Any) -> Any:
        found = with_places(*given)
        (folder / "a.fits").unlink()
        write(folder, "a.fits", (150.061, 2.0))
        return found

    monkeypatch.setattr(image_parents, "with_places", rewriting)
    with pytest.raises(StorageError, match=r"1 of 5 files changed while .*a\.fits"):
        survey.parents(real_config(folder, stamp_size=SIZE))


def test_files_that_leave_open_what_a_galaxy_is_are_refused(survey: Survey, folder: Path, tmp_path: Path) -> None:
    write(folder, "c.fits", (150.26, 2.0))
    with pytest.raises(ContractError, match=r"1 galaxies .* have both a cube and files a band: c\."):
        survey.parents(real_config(folder, stamp_size=SIZE))
    (folder / "c.fits").unlink()
    (folder / "d.fits").symlink_to(folder / "a.fits")
    with pytest.raises(ContractError, match=r"d\.fits is a symbolic link"):
        survey.parents(real_config(folder, stamp_size=SIZE))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="nor a FITS file a galaxy"):
        survey.parents(real_config(tmp_path / "empty", stamp_size=SIZE))


def test_two_files_of_one_galaxy_are_refused_and_no_spelling_of_fits_is_passed_over(
    survey: Survey, folder: Path
) -> None:
    (folder / "a.fits").rename(folder / "a.FITS")
    assert "a" in survey.parents(real_config(folder, stamp_size=SIZE)).read_table()["galaxy_id"].to_pylist()
    write(folder, "a.fits.gz", (150.27, 2.0))
    with pytest.raises(ContractError, match=r"a.FITS and a.fits.gz in .* are both of galaxy a\. Leave one"):
        survey.parents(real_config(folder, stamp_size=SIZE))
