import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from lens_pipeline.contracts.errors import ConfigError, ContractError, StorageError
from lens_pipeline.defs.publishing import column_schema
from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline.survey import real_cutouts
from lens_pipeline.survey.cutouts import open_bad, open_cutouts
from lens_pipeline.survey.source_growth import source_only_grew

from .conftest import Survey, real_config
from .test_stamps import rows_of

Cubes = Callable[..., Path]


def test_a_cube_of_cutouts_becomes_galaxies_that_say_what_is_known_and_what_assumed(
    survey: Survey, cubes: Cubes
) -> None:
    folder = cubes()
    parent = survey.parents(real_config(folder, galaxy_prefix="des_lrg"))
    rows = parent.read_table().to_pylist()
    assert [row["galaxy_id"] for row in rows] == ["des_lrg-0000", "des_lrg-0001", "des_lrg-0002"]
    assert [row["region_id"] for row in rows] == [row["galaxy_id"] for row in rows]
    for name in ("ra", "dec", "mag_r", "psf_fwhm_r", "psfdepth_r", "ebv"):
        assert {row[name] for row in rows} == {None}
    assert all(row["psf_is_assumed"] and row["psf_fwhm_assumed_r"] == 1.0 for row in rows)
    assert [row["pixel_sigma_r"] for row in rows] == pytest.approx([0.003] * 3, rel=0.1)
    assert "no PSF" in parent.attributes["assumptions"][0]
    g = folder / "g.fits"
    assert parent.attributes["files"][0] == {"path": str(g), "size": g.stat().st_size, "sha256": sha256_of(g)}


def test_every_column_of_real_galaxies_and_their_stamps_says_what_it_means(survey: Survey, cubes: Cubes) -> None:
    parent = survey.parents(real_config(cubes()))
    manifest = survey.manifest(parent, injections_per_galaxy=1)
    for published in (parent, manifest, survey.stamps(parent, manifest)):
        schema = column_schema(published)
        assert schema is not None
        meanings = {column.name: column.description for column in schema.columns}
        assert [name for name, meaning in meanings.items() if not meaning or "doesn't know" in meaning] == []


def test_a_column_of_the_users_own_is_shown_as_such(survey: Survey) -> None:
    schema = column_schema(survey.table("stamps", [{"task_id": "a", "my_flag": 1}], {}))
    assert schema is not None
    assert {column.name: column.description for column in schema.columns} == {
        "task_id": "unique key of the row; every join is by it",
        "my_flag": "a column of the files that were read; the contract doesn't know it",
    }


def test_stamps_are_cut_around_the_galaxy_and_their_controls_are_the_cutouts(survey: Survey, cubes: Cubes) -> None:
    folder = cubes()
    parent = survey.parents(real_config(folder))
    cutouts = open_cutouts(parent.path("cutouts.npy"))
    with fits.open(folder / "r.fits") as hdus:
        assert np.array_equal(cutouts[2, 1], hdus[0].data[2, 3:67, 3:67])
    # The galaxy's centre is at pixel 32 of 0 to 63: half a pixel from the stamp's centre, and arcs go around it.
    row = parent.read_table().to_pylist()[0]
    assert (row["host_x_arcsec"], row["host_y_arcsec"]) == pytest.approx((0.1315, 0.1315), abs=0.01)
    manifest = survey.manifest(parent, injections_per_galaxy=5)
    made = rows_of(survey.stamps(parent, manifest)).to_pylist()
    assert len(made) == 3 * 6
    assert {row["psf_fwhm_used_r"] for row in made} == {row["psfdepth_r"] for row in made} == {None}
    assert {row["pair_id"] for row in made if row["lens_model"] != "CONTROL"} == {f"cutout-000{i}-c" for i in range(3)}


def test_a_catalogue_names_and_places_the_galaxies(survey: Survey, cubes: Cubes, tmp_path: Path) -> None:
    path = tmp_path / "galaxies.csv"
    Table(
        {"GALAXY_ID": ["a", "b", "c"], "REGION_ID": ["x", "x", "y"], "RA": [1.0, 2.0, 3.0], "DEC": [0.1, 0.2, 0.3]}
    ).write(path)
    rows = survey.parents(real_config(cubes(), catalogue=str(path))).read_table().to_pylist()
    assert [(row["galaxy_id"], row["region_id"], row["ra"]) for row in rows] == [
        ("a", "x", 1),
        ("b", "x", 2),
        ("c", "y", 3),
    ]


def test_cubes_whose_galaxies_have_places_get_regions_and_each_galaxy_once(
    survey: Survey, cubes: Cubes, tmp_path: Path
) -> None:
    path = tmp_path / "galaxies.csv"
    rows = {"ra": [150.1, 150.1, 150.1], "dec": [2.3, 2.3 + 5 / 3600, 2.3 + 5.5 / 3600]}
    Table(rows).write(path)
    parent = survey.parents(real_config(cubes(), catalogue=str(path)))
    assert [(row["galaxy_id"], row["region_id"], row["cutout_row"]) for row in parent.read_table().to_pylist()] == [
        ("cutout-0000", "1501p022", 0),
        ("cutout-0001", "1501p022", 1),
    ]
    assert parent.attributes["left_out"] == {"same_place": 1}
    Table(rows | {"region_id": ["x", "y", "y"]}).write(path, overwrite=True)
    with pytest.raises(ContractError, match=r"1 pairs .*: cutout-0000 \(x\) and cutout-0001 \(y\)"):
        survey.parents(real_config(cubes(), catalogue=str(path)))


def test_a_known_lens_is_neither_host_nor_control(survey: Survey, cubes: Cubes, tmp_path: Path) -> None:
    path, lenses = tmp_path / "galaxies.csv", tmp_path / "lenses.csv"
    Table({"ra": [150.1, 150.12, 150.14], "dec": [2.3] * 3}).write(path)
    ours = "Huang et al. (2021) - arXiv:2005.04730"
    lenses.write_text(f"name,RA [deg],DEC [deg],zlens,type,grading,ref\nring,150.12,2.3003,-,galaxy,confident,{ours}\n")
    parent = survey.parents(real_config(cubes(), catalogue=str(path), known_lenses=str(lenses)))
    assert parent.read_table()["galaxy_id"].to_pylist() == ["cutout-0000", "cutout-0002"]
    (left,) = parent.read_table("left_out").to_pylist()
    assert (left["reason"], left["detail"]) == ("known_lens", "1.1 arcsec from ring (confident)")
    (lens,) = parent.read_table("known_lenses").to_pylist()
    assert (lens["galaxy_id"], lens["lens_name"]) == ("cutout-0001", "ring")
    assert parent.attributes["known_lenses"]["lenses"] == 1
    with pytest.raises(ConfigError, match="there is no file"):
        survey.parents(real_config(cubes(), catalogue=str(path), known_lenses="/nonexistent.csv"))
    with pytest.raises(ConfigError, match="known_lenses: no galaxy has a place"):
        survey.parents(real_config(cubes(), known_lenses=str(lenses)))


def test_redshift_and_shape_of_the_catalogue_are_read_and_other_columns_named(
    survey: Survey, cubes: Cubes, tmp_path: Path
) -> None:
    path = tmp_path / "galaxies.csv"
    shape = {"axis_ratio": [0.3, 0.3, 0.3], "phi_rad": [0.5, 0.5, 0.5], "reff_arcsec": [1.0, 1.1, 1.2]}
    Table({"GALAXY_ID": [7, 8, 9], "Z_LENS": [0.5, 0.6, np.nan], **shape, "TYPE": ["DEV"] * 3}).write(path)
    parent = survey.parents(real_config(cubes(), catalogue=str(path)))
    rows = parent.read_table().to_pylist()
    assert [(row["galaxy_id"], row["z_lens"], row["reff_arcsec"]) for row in rows] == [
        ("7", 0.5, 1.0),
        ("8", 0.6, 1.1),
        ("9", None, 1.2),
    ]
    assert parent.attributes["columns_not_read"] == ["TYPE"]
    made = survey.manifest(parent, injections_per_galaxy=20, share_sie=1.0, share_sis=0.0).read_table().to_pylist()
    angles = [row["lens_phi_rad"] for row in made if row["lens_model"] != "CONTROL"]
    assert np.median(np.abs(np.array(angles) - 0.5)) < 0.3
    assert {row["z_lens"] for row in made if row["galaxy_id"] == "7"} == {0.5}
    Table({"axis_ratio": [0.3, 0.3, 0.3]}).write(path, overwrite=True)
    with pytest.raises(ContractError, match="gives axis_ratio without phi_rad"):
        survey.parents(real_config(cubes(), catalogue=str(path)))


def test_angles_in_degrees_are_refused_and_any_turn_in_radians_is_taken(
    survey: Survey, cubes: Cubes, tmp_path: Path
) -> None:
    path = tmp_path / "galaxies.csv"
    shape = {"galaxy_id": ["a", "b", "c"], "axis_ratio": [0.3] * 3}
    Table(shape | {"Phi_rad": [0.5, 88.0, -151.0]}).write(path)
    with pytest.raises(
        ContractError,
        match=r"column Phi_rad: 2 of 3 values are outside -6\.2832 to 6\.2832 rad; first \(place in the table\): 88 \(1\), "
        r"-151 \(2\)\. .* from west to north .* phi_rad radians \(degrees times pi / 180\)",
    ):
        survey.parents(real_config(cubes(), catalogue=str(path)))
    angles = [-2 * np.pi, -0.5, 2 * np.pi]
    Table(shape | {"Phi_rad": angles}).write(path, overwrite=True)
    rows = survey.parents(real_config(cubes(), catalogue=str(path))).read_table().to_pylist()
    assert [row["phi_rad"] for row in rows] == pytest.approx(angles)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("dec", 95.0, r"column dec: 1 of 3 values are outside -90 to 90 deg; first \(place in the table\): 95 \(1\)"),
        ("ra", -10.0, r"column ra: 1 of 3 values are outside 0 to 360 deg"),
        ("ebv", 30.0, r"column ebv: 1 of 3 values are outside 0 to 5 mag; .* E\(B-V\)"),
        ("z_lens", -1.0, r"column z_lens: 1 of 3 values are outside 0 to inf; .* leave a value that isn't known empty"),
    ],
)
def test_a_number_that_its_column_cannot_hold_is_refused_before_any_cutout_is_looked_at(
    survey: Survey, cubes: Cubes, tmp_path: Path, column: str, value: float, said: str
) -> None:
    path = tmp_path / "galaxies.csv"
    sound = {"ra": [150.10, 150.11, 150.12], "dec": [2.3] * 3, "ebv": [0.05] * 3, "z_lens": [0.5] * 3}
    Table(sound).write(path)
    assert survey.parents(real_config(cubes(), catalogue=str(path))).read_table().num_rows == 3
    first, _, last = sound[column]
    Table(sound | {column: [first, value, last]}).write(path, overwrite=True)
    with pytest.raises(ContractError, match=said):
        survey.parents(real_config(cubes(lambda _, hdu: hdu.data.__imul__(300)), catalogue=str(path)))


def test_a_catalogue_with_text_for_numbers_or_in_another_encoding_is_refused(
    survey: Survey, cubes: Cubes, tmp_path: Path
) -> None:
    path = tmp_path / "galaxies.csv"
    path.write_text("ra,dec\n10:00:00,2.0\n10:00:01,2.0\n150.1,2.0\n")
    with pytest.raises(
        ContractError, match=r"column ra: 2 of 3 values aren't numbers: '10:00:00', '10:00:01'\. .* decimal"
    ):
        survey.parents(real_config(cubes(), catalogue=str(path)))
    path.write_bytes("galaxy_id,ra,dec\ncaf\u00e9,1,2\n".encode("latin-1"))
    with pytest.raises(ContractError, match="can't be read as a FITS, CSV or ECSV table"):
        survey.parents(real_config(cubes(), catalogue=str(path)))


def test_settings_of_places_are_refused_where_no_galaxy_has_one(survey: Survey, cubes: Cubes) -> None:
    with pytest.raises(ConfigError, match=r"parent_sample.region, region_margin_arcsec: no galaxy has a place"):
        survey.parents(real_config(cubes(), region="healpix", region_margin_arcsec=20))


def of_galaxy_1(change: Callable[[np.ndarray], object], of: str = "grz") -> Callable[[str, fits.PrimaryHDU], None]:
    def write(band: str, hdu: fits.PrimaryHDU) -> None:
        if band in of:
            change(hdu.data[1])

    return write


def shifted(plane: np.ndarray) -> None:
    plane[:] = np.roll(plane, 9, axis=1)


def in_a_hollow(plane: np.ndarray) -> None:
    """A peak in the middle of what a sky that was fitted too closely leaves."""
    axis = np.arange(len(plane)) - len(plane) // 2
    r = np.hypot(axis[:, None], axis)
    plane[(r > 4) & (r < 10)] -= 0.5


def rounded(plane: np.ndarray) -> None:
    plane[:] = np.round(100 * plane)


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        (of_galaxy_1(lambda p: p.__imul__(300)), "wrong_unit", "in g .* look like ADU or electrons"),
        (of_galaxy_1(lambda p: p.__imul__(300), "r"), "wrong_unit", "in r .* look like ADU or electrons"),
        (of_galaxy_1(lambda p: p.__imul__(1e-9)), "wrong_unit", "look like maggy"),
        (of_galaxy_1(rounded), "centre_masked|too_many_bad_pixels|wrong_unit", ""),
        (of_galaxy_1(lambda p: p.__imul__(-1)), "no_galaxy", "no light stands out in r"),
        (of_galaxy_1(lambda p: p.fill(0)), "missing_band", "nothing was observed in g"),
        (of_galaxy_1(lambda p: p.fill(0), "r"), "missing_band", "nothing was observed in r"),
        (of_galaxy_1(lambda p: p.fill(np.nan), "r"), "missing_band", "nothing was observed in r"),
        (of_galaxy_1(lambda p: p.fill(0.5)), "missing_band", ""),
        (of_galaxy_1(in_a_hollow, "r"), "no_galaxy", "in r within 2.5 arcsec sum to no light above the sky"),
        (of_galaxy_1(lambda p: p.fill(0), "g"), "missing_band", "nothing was observed in g"),
        (of_galaxy_1(lambda p: p[33:38, 33:38].fill(0), "z"), "centre_masked", "25 pixels .* in z"),
        (of_galaxy_1(lambda p: p[33:38, 33:38].fill(0)), "centre_masked|off_centre", ""),
        (of_galaxy_1(lambda p: p[30:40, 35].fill(np.nan), "r"), "centre_masked", "pixels .* in r"),
        (of_galaxy_1(shifted), "off_centre", "the galaxy stands elsewhere"),
        (of_galaxy_1(shifted, "z"), "bands_apart", r"the light in z is brightest 0\.92 arcsec from that in r"),
        (of_galaxy_1(lambda p: p.__imul__(25), "g"), "absurd_colour", r"galaxies have g - r of -1 to 4"),
        (
            of_galaxy_1(lambda p: p.__iadd__(0.02), "r"),
            "sky_not_subtracted",
            r"corners in r have 0\.0\d+ nanomaggy a pixel, \d",
        ),
    ],
)
def test_a_galaxy_of_a_cube_that_no_arc_can_be_put_into_is_left_out_and_the_others_are_whole(
    survey: Survey, cubes: Cubes, change: Callable[[str, fits.PrimaryHDU], None], reason: str, detail: str
) -> None:
    parent = survey.parents(real_config(cubes(change)))
    rows = parent.read_table().to_pylist()
    assert [(row["galaxy_id"], row["cutout_row"]) for row in rows] == [("cutout-0000", 0), ("cutout-0002", 2)]
    assert all(0 <= row["noise_correlation"] < 0.1 for row in rows)
    (left,) = parent.read_table("left_out").to_pylist()
    assert left["galaxy_id"] == "cutout-0001"
    assert re.fullmatch(reason, left["reason"])
    assert re.search(detail, left["detail"])
    assert parent.attributes["left_out"] == {left["reason"]: 1}
    made = rows_of(survey.stamps(parent, survey.manifest(parent, injections_per_galaxy=1)))
    assert made.num_rows == 4


def test_a_galaxy_that_a_cube_shows_twice_is_left_out_the_second_time_also_where_it_was_cut_elsewhere(
    survey: Survey, cubes: Cubes
) -> None:
    def twice(band: str, hdu: fits.PrimaryHDU) -> None:
        hdu.data[2] = np.roll(hdu.data[0], (1, -2), axis=(0, 1))

    parent = survey.parents(real_config(cubes(twice)))
    assert parent.read_table()["galaxy_id"].to_pylist() == ["cutout-0000", "cutout-0001"]
    (left,) = parent.read_table("left_out").to_pylist()
    assert (left["galaxy_id"], left["reason"]) == ("cutout-0002", "same_pixels")
    assert left["detail"] == "its pixels around its light in g are those of cutout-0000 (correlation 1.000000)"


def test_a_copy_in_a_cube_that_is_turned_brighter_and_a_little_noisier_is_left_out_also_where_one_band_shows_it(
    survey: Survey, cubes: Cubes
) -> None:
    def copied(band: str, hdu: fits.PrimaryHDU) -> None:
        if band == "z":
            noise = np.random.default_rng(9).normal(0, 1e-6, (71, 71))
            hdu.data[2] = 1.3 * np.rot90(hdu.data[0].T) + noise

    parent = survey.parents(real_config(cubes(copied)))
    (left,) = parent.read_table("left_out").to_pylist()
    assert (left["galaxy_id"], left["reason"]) == ("cutout-0002", "same_pixels")
    assert re.fullmatch(
        r"its pixels .* in z are those of cutout-0000, turned or mirrored \(.* 1\.0000.*\)", left["detail"]
    )


def test_cubes_without_a_galaxy_that_can_be_used_are_refused(survey: Survey, cubes: Cubes) -> None:
    with pytest.raises(ContractError, match=r"none of 3 galaxies in .*'wrong_unit': 3.*pixels in g have a noise of"):
        survey.parents(real_config(cubes(lambda _, hdu: hdu.data.__imul__(300))))


def test_a_hole_far_from_the_galaxy_is_marked_and_nothing_is_injected_there(survey: Survey, cubes: Cubes) -> None:
    parent = survey.parents(real_config(cubes(of_galaxy_1(lambda p: p[5:8, 5:8].fill(np.nan), "z"))))
    assert [row["bad_pixel_frac"] for row in parent.read_table().to_pylist()] == [0, 9 / 64**2, 0]
    bad = open_bad(parent.path("bad_pixels.npy"))
    assert np.argwhere(bad).min(axis=0).tolist() == [1, 2, 2, 2]
    assert bad.sum() == 9
    assert np.isfinite(open_cutouts(parent.path("cutouts.npy"))).all()


def short(band: str, hdu: fits.PrimaryHDU) -> None:
    if band == "r":
        hdu.data = hdu.data[:2].copy()


def counts(band: str, hdu: fits.PrimaryHDU) -> None:
    hdu.header["BUNIT"] = "adu"


def coarse(band: str, hdu: fits.PrimaryHDU) -> None:
    hdu.header["PIXSCALE"] = 0.2637


def no_scale(band: str, hdu: fits.PrimaryHDU) -> None:
    del hdu.header["PIXSCALE"]


def flat(band: str, hdu: fits.PrimaryHDU) -> None:
    hdu.data = hdu.data[0].copy()


def small(band: str, hdu: fits.PrimaryHDU) -> None:
    hdu.data = hdu.data[:, :50, :50].copy()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (short, r"differ in shape .*r.fits \(2, 71, 71\)"),
        (counts, r"g.fits is in 'adu' \(BUNIT\), wanted nanomaggy"),
        (coarse, r"0.2637 arcsec per pixel, 0.65% from the nominal 0.262; at most 0.50% is accepted"),
        (no_scale, r"doesn't say its pixel scale"),
        (flat, r"2 dimensions, wanted a cube"),
        (small, r"50 x 50 pixels, a stamp has 64"),
    ],
)
def test_a_cube_that_is_not_as_it_must_be_is_refused(
    survey: Survey, cubes: Cubes, change: Callable[[str, fits.PrimaryHDU], None], said: str
) -> None:
    with pytest.raises(ContractError, match=said):
        survey.parents(real_config(cubes(change)))
    assert survey.home.versions("test", "parent_sample") == []


def test_a_missing_band_a_damaged_file_and_a_link_are_refused(survey: Survey, cubes: Cubes) -> None:
    folder = cubes()
    (folder / "g.fits").write_bytes(b"SIMPLE  = broken")
    with pytest.raises(ContractError, match=r"g.fits can't be read as FITS"):
        survey.parents(real_config(folder))
    (folder / "g.fits").unlink()
    with pytest.raises(ConfigError, match=r"lacks g.fits"):
        survey.parents(real_config(folder))
    (folder / "g.fits").symlink_to(folder / "r.fits")
    with pytest.raises(ContractError, match="symbolic link"):
        survey.parents(real_config(folder))


def test_a_catalogue_of_other_length_or_with_a_galaxy_twice_is_refused(
    survey: Survey, cubes: Cubes, tmp_path: Path
) -> None:
    path = tmp_path / "galaxies.csv"
    Table({"galaxy_id": ["a", "b"]}).write(path)
    with pytest.raises(ContractError, match="has 2 rows and the cubes hold 3 galaxies"):
        survey.parents(real_config(cubes(), catalogue=str(path)))
    Table({"galaxy_id": ["a", "b", "a"]}).write(path, overwrite=True)
    with pytest.raises(ContractError, match="names galaxies more than once: a"):
        survey.parents(real_config(cubes(), catalogue=str(path)))
    with pytest.raises(ConfigError, match="there is no file"):
        survey.parents(real_config(cubes(), catalogue=str(tmp_path / "nothing.csv")))


def test_cubes_are_held_against_those_of_the_version_before(survey: Survey, cubes: Cubes) -> None:
    before = survey.parents(real_config(cubes()))
    again = source_only_grew(survey.parents(real_config(cubes(), galaxy_prefix="other")), before, "")
    assert again.passed
    cubes(lambda _, hdu: hdu.data.__imul__(2))
    changed = source_only_grew(survey.parents(real_config(Path(before.attributes["folder"]))), before, "")
    assert not changed.passed
    assert "g.fits has other bytes under the same name" in changed.first[0]


@pytest.mark.real_data
def test_the_des_cutouts_make_stamps_with_their_measured_noise(survey: Survey, real_data: Path) -> None:
    parent = survey.parents(real_config(real_data / "des_lrg_cutouts", galaxy_prefix="des_lrg"))
    rows = parent.read_table().to_pylist()
    assert len(rows) == 30
    assert rows[7]["galaxy_id"] == "des_lrg-0007"
    # The figures that stand in the data's own README.
    for band, sigma in (("g", 0.0029), ("r", 0.0044), ("z", 0.0125)):
        assert np.median([row[f"pixel_sigma_{band}"] for row in rows]) == pytest.approx(sigma, rel=0.15)
    # 0.28 is said of all pixels, faint galaxies included; clipped to sky alone it is less.
    assert 0.1 < rows[0]["noise_correlation"] < 0.28
    # Every cutout has its galaxy on pixel 32 of 0 to 63.
    assert np.median([row["host_x_arcsec"] for row in rows]) == pytest.approx(0.13, abs=0.05)
    assert 18.3 < np.median([row["mag_aperture_r"] for row in rows]) < 21
    made = rows_of(survey.stamps(parent, survey.manifest(parent, injections_per_galaxy=2)))
    assert made.num_rows == 90


def test_a_cube_that_is_rewritten_while_it_is_read_is_refused_and_nothing_is_published(
    survey: Survey, cubes: Cubes, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cubes()
    centre = real_cutouts._centre

    def rewritten(*given: Any) -> Any:
        found = centre(*given)
        (folder / "r.fits").write_bytes((folder / "g.fits").read_bytes())
        return found

    monkeypatch.setattr(real_cutouts, "_centre", rewritten)
    with pytest.raises(StorageError, match=r"1 of 3 files changed while they were read: .*r\.fits"):
        survey.parents(real_config(folder))
