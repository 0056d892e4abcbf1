"""From sweep and Tractor files to a parent sample: which rows become galaxies, and where the others are told."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from lens_pipeline.contracts.errors import ConfigError, ContractError, StorageError
from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.checks import galaxies_are_unique
from lens_pipeline.survey.config import ParentSampleConfig, SelectionName, Source
from lens_pipeline.survey.regions import brick_ids, brick_names
from lens_pipeline.survey.seen_ids import SeenIds
from lens_pipeline.survey.selections import SELECTIONS
from lens_pipeline.survey.tractor import Catalogue

from . import coadds
from .catalogues import NORTH, flux, row, write_fits, write_parquet
from .conftest import Survey
from .test_measured_psf import gaussian_as_pixels_see_it
from .test_stamps import rows_of

NETWORK = "Huang et al. (2021) - arXiv:2005.04730"

# As bright in pixels as `row` says that a galaxy is.
AS_CATALOGUED = {band: flux(mag, band) for band, mag in (("g", 23.0), ("r", 21.0), ("z", 19.5))}


def config(folder: Path, **settings: Any) -> ParentSampleConfig:
    return ParentSampleConfig(**{"source": Source.legacy_catalogue, "folder": str(folder), **settings})


def galaxy(number: int, **columns: Any) -> dict[str, Any]:
    """A galaxy well inside brick 0001p000, 72 arcsec from its neighbours in number."""
    return row(OBJID=number, RA=0.06 + 0.02 * (number % 6), DEC=-0.06 + 0.02 * (number // 6), **columns)


def behind_dust(number: int, ebv: float, **columns: Any) -> dict[str, Any]:
    """The same galaxy seen through other dust: transmissions of Schlafly & Finkbeiner (2011), fluxes dimmed by as much."""
    made = galaxy(number, EBV=ebv)
    for band, per_ebv in (("G", 3.214), ("R", 2.165), ("Z", 1.211), ("W1", 0.184)):
        transmission = 10 ** (-0.4 * per_ebv * ebv)
        dimmer = transmission / made[f"MW_TRANSMISSION_{band}"]
        for name in made:
            if name.endswith(f"FLUX_{band}"):
                made[name] *= dimmer
        made[f"MW_TRANSMISSION_{band}"] = transmission
    return made | columns


def elsewhere(ra: float, dec: float, **columns: Any) -> dict[str, Any]:
    """A galaxy in whichever brick holds the position."""
    ids = brick_ids(np.array([ra]), np.array([dec]))
    return row(RA=ra, DEC=dec, BRICKID=int(ids[0]), BRICKNAME=brick_names(ids)[0], **columns)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "sweep"
    place.mkdir()
    return place


def left_out(parent: Publication) -> dict[str, str]:
    return {one["galaxy_id"]: one["reason"] for one in parent.read_table("left_out").to_pylist()}


def ids(parent: Publication) -> list[str]:
    return [one["galaxy_id"] for one in parent.read_table().to_pylist()]


def test_a_galaxy_says_what_the_catalogue_knows_of_it(survey: Survey, folder: Path) -> None:
    write_fits(folder / "sweep-000m005-010p000.fits", [galaxy(7, SHAPE_E1=0.3, SHAPE_E2=0.0), galaxy(8, FLUX_G=-1.0)])
    parent = survey.parents(config(folder))
    first, second = parent.read_table().to_pylist()
    assert (first["galaxy_id"], first["region_id"], first["brickname"]) == ("ls-9010-330368-7", "0001p000", "0001p000")
    assert (first["mag_dered_g"], first["mag_dered_r"], first["mag_dered_z"]) == pytest.approx(
        (23.0, 21.0, 19.5), abs=1e-5
    )
    assert first["mag_r"] == pytest.approx(21.0 - 2.5 * np.log10(0.91), abs=1e-5)
    assert (first["psf_fwhm_r"], first["psfdepth_r"], first["ebv"]) == pytest.approx((1.3, 400.0, 0.05))
    assert (first["nobs_r"], first["maskbits"], first["morphology"], first["release"]) == (3, 0, "DEV", 9010)
    assert first["targetid"] == 7 + (330368 << 22) + (9010 << 42)
    # E1 = 0.3 is an ellipse of axis ratio 0.7 / 1.3 that points north, which is along y.
    assert (first["axis_ratio"], first["phi_rad"]) == pytest.approx((0.7 / 1.3, np.pi / 2))
    assert (first["reff_arcsec"], first["sersic_n"]) == pytest.approx((1.1, 4.0))
    assert second["mag_g"] is None
    assert second["mag_dered_g"] is None


def test_what_the_catalogue_leaves_at_zero_or_lacks_is_null(survey: Survey, folder: Path) -> None:
    bare = galaxy(1, TYPE="PSF", SHAPE_R=0.0, SHAPE_E1=0.0, SHAPE_E2=0.0, SERSIC=0.0, PSFSIZE_R=0.0, PSFDEPTH_G=0.0)
    write_fits(folder / "sweep.fits", [bare])
    one = survey.parents(config(folder)).read_table().to_pylist()[0]
    unknown = ("reff_arcsec", "axis_ratio", "phi_rad", "sersic_n", "psf_fwhm_r", "psfdepth_g")
    assert {name: one[name] for name in unknown} == dict.fromkeys(unknown)
    assert one["psf_fwhm_g"] == pytest.approx(1.3)


def test_a_reddening_that_the_catalogue_lacks_is_that_of_its_transmission(survey: Survey, folder: Path) -> None:
    rows = [galaxy(0, EBV=0.06), galaxy(1, EBV=float("nan")), behind_dust(2, 0.0)]
    write_fits(folder / "sweep.fits", rows)
    # The rows are dimmed by 0.87 in g, of which Schlafly & Finkbeiner's 3.214 makes E(B-V) = 0.047.
    of_transmission = pytest.approx(-2.5 * np.log10(0.87) / 3.214, rel=1e-6)
    found = survey.parents(config(folder)).read_table()["ebv"].to_pylist()
    assert found == [pytest.approx(0.06), of_transmission, 0.0]
    rows = [galaxy(0), behind_dust(1, 0.0)]
    for one in rows:
        del one["EBV"]
    write_fits(folder / "sweep.fits", rows)
    found = survey.parents(config(folder)).read_table()["ebv"].to_pylist()
    assert found == [of_transmission, 0.0]
    assert math.copysign(1, found[1]) == 1


@pytest.mark.parametrize("transmission", [1.2, 0.0, -0.5, float("inf")])
@pytest.mark.parametrize("band", ["G", "W1"])
def test_a_transmission_that_dust_cannot_have_is_no_extinction_that_is_known(
    survey: Survey, folder: Path, transmission: float, band: str
) -> None:
    write_fits(folder / "sweep.fits", [galaxy(0), galaxy(1, **{f"MW_TRANSMISSION_{band}": transmission})])
    parent = survey.parents(config(folder))
    assert ids(parent) == ["ls-9010-330368-0"]
    fails = {cut["name"]: cut["rows_that_fail"] for cut in parent.attributes["selection"]["cuts"]}
    assert {name: n for name, n in fails.items() if n} == {"extinction_known": 1}


def test_a_galaxy_with_a_seeing_that_the_ground_never_has_is_left_out(survey: Survey, folder: Path) -> None:
    sizes = [(1.3, 1.2, 1.1), (25.0, 1.2, 1.1), (1.3, 0.02, 1.1), (1.3, 1.2, -1.0), (1.3, 1.2, float("inf"))]
    rows = [
        galaxy(i, **{f"PSFSIZE_{band}": size for band, size in zip("GRZ", of_one, strict=True)})
        for i, of_one in enumerate([*sizes, (0.0, 1.2, float("nan"))])
    ]
    write_fits(folder / "sweep.fits", rows)
    parent = survey.parents(config(folder))
    assert ids(parent) == ["ls-9010-330368-0", "ls-9010-330368-5"]
    assert left_out(parent) == {f"ls-9010-330368-{i}": "wrong_seeing" for i in range(1, 5)}
    assert [one["psf_fwhm_g"] for one in parent.read_table().to_pylist()] == [pytest.approx(1.3), None]


def test_a_galaxy_whose_reddening_is_not_that_of_its_transmissions_or_beyond_all_dust_is_left_out(
    survey: Survey, folder: Path
) -> None:
    kept = [galaxy(0), behind_dust(1, 1.5, EBV=1.55), behind_dust(2, 0.07, EBV=float("nan"))]
    wrong = [
        galaxy(3, EBV=0.5),
        galaxy(4, EBV=30.0),
        galaxy(5, EBV=-0.05),
        galaxy(6, EBV=0.0),
        # g and r of each other, which EBV alone doesn't tell.
        galaxy(7, EBV=float("nan"), MW_TRANSMISSION_G=0.91, MW_TRANSMISSION_R=0.87),
        behind_dust(8, 6.0, EBV=float("nan")),
        galaxy(9, EBV=float("inf")),
    ]
    write_fits(folder / "sweep.fits", [*kept, *wrong])
    parent = survey.parents(config(folder, selection="lrg_dr9_main_colours"))
    assert ids(parent) == [f"ls-9010-330368-{i}" for i in range(3)]
    assert parent.read_table()["ebv"].to_pylist() == pytest.approx([0.05, 1.55, 0.07])
    assert left_out(parent) == {f"ls-9010-330368-{i}": "wrong_extinction" for i in range(3, 10)}


def test_rows_that_the_selection_fails_are_counted_by_cut(survey: Survey, folder: Path) -> None:
    blue, masked, both = {"g": 21.0, "w1": 20.0}, {"MASKBITS": 2}, {"g": 21.0, "w1": 20.0, "MASKBITS": 2}
    rows = [galaxy(0), galaxy(1, **blue), galaxy(2, **masked), galaxy(3, **both), galaxy(4)]
    write_fits(folder / "sweep.fits", rows)
    parent = survey.parents(config(folder))
    assert ids(parent) == ["ls-9010-330368-0", "ls-9010-330368-4"]
    said = parent.attributes["selection"]
    assert (said["name"], "Zhou et al. 2023" in said["source"]) == ("lrg_dr9_main", True)
    fails = {cut["name"]: cut["rows_that_fail"] for cut in said["cuts"]}
    assert (fails["unmasked"], fails["non_stellar"], fails["observed"]) == (2, 2, 0)
    assert (parent.attributes["rows_read"], parent.attributes["rows_selected"]) == (5, 2)


def test_columns_of_other_widths_give_the_same_galaxies(survey: Survey, folder: Path, tmp_path: Path) -> None:
    rows = [galaxy(number, BRICK_PRIMARY=number != 2) for number in range(4)] + [galaxy(4, MASKBITS=None)]
    write_parquet(folder / "a.parquet", rows)
    other = tmp_path / "other"
    other.mkdir()
    table = pa.Table.from_pylist(rows)
    # As pandas writes whole numbers with a null among them.
    floats = ("RELEASE", "BRICKID", "OBJID", "MASKBITS", "NOBS_G")
    types = dict.fromkeys(floats, pa.float64()) | {"BRICK_PRIMARY": pa.uint8(), "FLUX_R": pa.float32()}
    for name, dtype in (types | {"TYPE": pa.dictionary(pa.int32(), pa.string())}).items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, table[name].cast(dtype))
    masked = [math.nan if value is None else value for value in table["MASKBITS"].to_pylist()]
    place = table.schema.get_field_index("MASKBITS")
    pq.write_table(table.set_column(place, "MASKBITS", pa.array(masked)), other / "a.parquet")
    for settings in ({}, {"excluded_maskbits": [5], "least_observations": 1}):
        one, two = (survey.parents(config(place, **settings)) for place in (folder, other))
        assert ids(one) == ids(two) == [f"ls-9010-330368-{number}" for number in (0, 1, 3)]
        assert left_out(one) == left_out(two) == {"ls-9010-330368-2": "not_primary"}


def test_a_column_of_another_kind_is_refused_before_any_row_is_read(survey: Survey, folder: Path) -> None:
    write_parquet(folder / "rows.parquet", [galaxy(0) | {"RA": "0.1"}])
    with pytest.raises(ContractError, match=r"rows.parquet has 1 columns .*RA is string, wanted numbers"):
        survey.parents(config(folder))
    assert survey.home.versions("test", "parent_sample") == []


def test_rows_of_unknown_extinction_are_counted_as_that_and_as_nothing_else(survey: Survey, folder: Path) -> None:
    unknown = {f"MW_TRANSMISSION_{band}": float("nan") for band in ("G", "R", "Z", "W1")}
    write_fits(folder / "sweep.fits", [galaxy(0), galaxy(1, **unknown), galaxy(2, **unknown), galaxy(3, MASKBITS=2)])
    parent = survey.parents(config(folder, mag_r_low=18.0, mag_r_high=22.0))
    assert ids(parent) == ["ls-9010-330368-0"]
    fails = {cut["name"]: cut["rows_that_fail"] for cut in parent.attributes["selection"]["cuts"]}
    assert {name: n for name, n in fails.items() if n} == {"extinction_known": 2, "unmasked": 1}


@pytest.mark.parametrize(
    ("settings", "lost"),
    [
        ({"mag_r_low": 20.0}, "bright"),
        ({"mag_r_high": 22.0}, "faint"),
        ({"least_observations": 3}, "once"),
        ({"excluded_maskbits": [11, 5]}, "near_star"),
        ({"morphologies": ["DEV", "SER", "EXP"]}, "point"),
    ],
)
def test_own_cuts_take_away_what_they_name(survey: Survey, folder: Path, settings: dict[str, Any], lost: str) -> None:
    rows = {
        "plain": galaxy(0),
        "bright": galaxy(1, g=21.5, r=19.5, z=18.0, w1=16.5),
        "faint": galaxy(2, g=24.4, r=22.4, z=20.6, w1=18.7),
        "once": galaxy(3, NOBS_R=1),
        "near_star": galaxy(4, MASKBITS=1 << 11),
        "point": galaxy(5, TYPE="PSF"),
    }
    write_fits(folder / "sweep.fits", list(rows.values()))
    assert len(ids(survey.parents(config(folder)))) == 6
    kept = ids(survey.parents(config(folder, **settings)))
    assert {name for name, made in rows.items() if f"ls-9010-330368-{made['OBJID']}" not in kept} == {lost}


def test_a_selection_whose_columns_are_missing_is_refused_by_name_before_any_row_is_read(
    survey: Survey, folder: Path
) -> None:
    whole = galaxy(0)
    lacking = {name: value for name, value in whole.items() if not name.startswith(("MW_TRANSMISSION", "FIBERTOT"))}
    write_fits(folder / "a.fits", [whole])
    write_fits(folder / "b.fits", [lacking])
    with pytest.raises(
        ContractError, match=r"b.fits lacks 5 of the columns that the selection lrg_dr9_main"
    ) as refused:
        survey.parents(config(folder))
    for name in ("MW_TRANSMISSION_G", "MW_TRANSMISSION_R", "MW_TRANSMISSION_Z", "MW_TRANSMISSION_W1", "FIBERTOTFLUX_Z"):
        assert name in str(refused.value)
    assert survey.home.versions("test", "parent_sample") == []


def test_an_object_of_a_neighbouring_brick_that_overlaps_is_left_out_as_not_primary(
    survey: Survey, folder: Path
) -> None:
    write_fits(folder / "tractor-a.fits", [galaxy(0) | {"brick_primary": True}, galaxy(1) | {"brick_primary": False}])
    write_fits(folder / "tractor-b.fits", [galaxy(2, BRICKID=330369, BRICKNAME="0003p000") | {"brick_primary": True}])
    parent = survey.parents(config(folder))
    assert ids(parent) == ["ls-9010-330368-0"]
    assert left_out(parent) == {"ls-9010-330368-1": "not_primary", "ls-9010-330369-2": "not_primary"}


def test_the_same_object_in_two_files_is_one_galaxy_and_one_number_in_two_bricks_is_two(
    survey: Survey, folder: Path
) -> None:
    write_fits(folder / "a.fits", [galaxy(0), galaxy(1)])
    write_parquet(folder / "b.parquet", [galaxy(1), galaxy(2), galaxy(2), elsewhere(0.4, 0.0, OBJID=0)])
    parent = survey.parents(config(folder))
    assert ids(parent) == ["ls-9010-330368-0", "ls-9010-330368-1", "ls-9010-330368-2", "ls-9010-330369-0"]
    assert parent.attributes["left_out"] == {"repeated": 2}
    assert galaxies_are_unique(parent).passed


def test_galaxies_near_their_regions_border_are_left_out_and_none_with_a_margin_of_0(
    survey: Survey, folder: Path
) -> None:
    border, arcsec = 0.125, 1 / 3600
    rows = [
        elsewhere(0.1, border - 11 * arcsec, OBJID=1),
        elsewhere(0.1, border - 13 * arcsec, OBJID=2),
        elsewhere(0.1, border + 11 * arcsec, OBJID=3),
        elsewhere(0.25 - 11 * arcsec, 0.0, OBJID=4),
        elsewhere(0.25 + 13 * arcsec, 0.0, OBJID=5),
    ]
    write_fits(folder / "sweep.fits", rows)
    parent = survey.parents(config(folder))
    assert [one.rpartition("-")[2] for one in ids(parent)] == ["2", "5"]
    assert set(left_out(parent).values()) == {"near_border"}
    assert len(ids(survey.parents(config(folder, region_margin_arcsec=0)))) == 5


def test_every_file_is_published_with_the_hash_of_the_bytes_that_were_read(survey: Survey, folder: Path) -> None:
    write_fits(folder / "b.fits", [galaxy(0), galaxy(1)])
    write_parquet(folder / "a.parquet", [galaxy(2)])
    files = survey.parents(config(folder)).attributes["files"]
    assert files == [
        {"path": str(path), "size": path.stat().st_size, "sha256": sha256_of(path), "rows": rows}
        for path, rows in ((folder / "a.parquet", 1), (folder / "b.fits", 2))
    ]


@pytest.mark.parametrize("when", ["after its head was looked at", "while its rows are read"])
def test_a_file_that_is_rewritten_before_all_is_read_is_refused_and_nothing_is_published(
    survey: Survey, folder: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    write_fits(folder / "a.fits", [galaxy(0)])
    write_fits(folder / "b.fits", [galaxy(1)])

    def rewritten() -> None:
        (folder / "a.fits").write_bytes((folder / "b.fits").read_bytes())

    if when == "after its head was looked at":
        require = Catalogue.require
        monkeypatch.setattr(Catalogue, "require", lambda *given, why: (require(*given, why=why), rewritten()))
    else:
        batches = Catalogue.batches
        monkeypatch.setattr(Catalogue, "batches", lambda *given, rows: (rewritten(), batches(*given, rows=rows))[1])
    with pytest.raises(StorageError, match=r"1 of 2 files changed while they were read: .*a\.fits"):
        survey.parents(config(folder))
    assert survey.home.versions("test", "parent_sample") == []


def test_regions_are_bricks_or_healpix_cells(survey: Survey, folder: Path) -> None:
    rows = [elsewhere(80.0, 20.0, OBJID=1), elsewhere(80.001, 20.0, OBJID=2), elsewhere(120.0, 20.0, OBJID=3)]
    write_fits(folder / "sweep.fits", rows)
    bricks = survey.parents(config(folder, region_margin_arcsec=0)).read_table()["region_id"].to_pylist()
    cells = (
        survey.parents(config(folder, region="healpix", healpix_nside=16, region_margin_arcsec=0))
        .read_table()["region_id"]
        .to_pylist()
    )
    assert bricks[0] == bricks[1] != bricks[2]
    assert all(cell.startswith("hp16-") for cell in cells)
    assert cells[0] == cells[1] != cells[2]


def test_a_known_lens_is_neither_parent_nor_control_and_its_discovery_is_told(
    survey: Survey, folder: Path, tmp_path: Path
) -> None:
    lenses = tmp_path / "lenscat.csv"
    lenses.write_text(
        f"name,RA [deg],DEC [deg],zlens,type,grading,ref\nL1,{0.06 + 2 / 3600},-0.06,0.4,galaxy,confident,{NETWORK}\n"
    )
    write_fits(folder / "sweep.fits", [galaxy(0), galaxy(1)])
    assert len(ids(survey.parents(config(folder)))) == 2
    parent = survey.parents(config(folder, known_lenses=str(lenses)))
    assert ids(parent) == ["ls-9010-330368-1"]
    assert left_out(parent) == {"ls-9010-330368-0": "known_lens"}
    lens = parent.read_table("known_lenses").to_pylist()[0]
    assert (lens["galaxy_id"], lens["lens_name"], lens["grade"]) == ("ls-9010-330368-0", "L1", "confident")
    assert (lens["methods"], lens["independent_of_networks"]) == ("network", False)
    assert lens["separation_arcsec"] == pytest.approx(2.0, abs=1e-3)
    assert parent.attributes["known_lenses"]["lenses"] == 1
    rows = survey.manifest(parent).read_table().to_pylist()
    assert {one["galaxy_id"] for one in rows} == {"ls-9010-330368-1"}
    nearer = survey.parents(config(folder, known_lenses=str(lenses), known_lens_radius_arcsec=1.0))
    assert len(ids(nearer)) == 2


def test_rows_without_a_position_or_a_name_are_left_out_with_their_reason(survey: Survey, folder: Path) -> None:
    rows = [
        galaxy(0), galaxy(1) | {"RA": float("nan")}, galaxy(2) | {"DEC": 95.0}, galaxy(3) | {"OBJID": None},
        galaxy(4) | {"RA": None},
    ]  # fmt: skip
    write_parquet(folder / "rows.parquet", rows)
    parent = survey.parents(config(folder))
    assert ids(parent) == ["ls-9010-330368-0"]
    assert parent.attributes["left_out"] == {"no_identity": 1, "no_position": 3}


def test_files_of_two_releases_or_two_cameras_are_refused(survey: Survey, folder: Path) -> None:
    write_fits(folder / "a.fits", [galaxy(0)])
    write_fits(folder / "b.fits", [galaxy(1, RELEASE=NORTH)])
    with pytest.raises(ContractError, match="rows of DR9 BASS/MzLS, DR9 DECam"):
        survey.parents(config(folder))
    write_fits(folder / "b.fits", [galaxy(1, RELEASE=10000)])
    with pytest.raises(ContractError, match="rows of DR9 DECam, DR10 DECam"):
        survey.parents(config(folder))


def test_no_galaxy_left_is_a_refusal_that_names_the_cuts(survey: Survey, folder: Path) -> None:
    write_fits(folder / "a.fits", [galaxy(0, MASKBITS=2), galaxy(1, MASKBITS=2), galaxy(2, NOBS_G=0)])
    with pytest.raises(
        ContractError, match=r"of 3 rows in 1 files no galaxy is left.* unmasked \(2 fail it\), observed"
    ):
        survey.parents(config(folder))


def test_the_parents_are_the_same_however_the_rows_are_cut_into_files(
    survey: Survey, folder: Path, tmp_path: Path
) -> None:
    rows = [galaxy(number, r=21.0 + 0.01 * number) for number in range(30)]
    write_fits(folder / "a.fits", rows)
    one = survey.parents(config(folder))
    other = tmp_path / "other"
    other.mkdir()
    for part in range(5):
        write_fits(other / f"part-{part}.fits", rows[6 * part : 6 * part + 6])
    many = survey.parents(config(other))
    assert many.read_table().equals(one.read_table())


def test_density_is_over_the_area_of_every_brick_that_was_read(survey: Survey, folder: Path) -> None:
    write_fits(folder / "a.fits", [galaxy(0), elsewhere(0.4, 0.0, MASKBITS=2), elsewhere(0.4, 0.3, MASKBITS=2)])
    parent = survey.parents(config(folder))
    assert parent.attributes["area_deg2"] == pytest.approx(3 * 0.25**2, rel=1e-3)


def test_a_catalogue_makes_a_manifest_and_stamps_say_that_there_are_no_pixels(survey: Survey, folder: Path) -> None:
    write_fits(folder / "a.fits", [galaxy(0), galaxy(1)])
    parent = survey.parents(config(folder))
    manifest = survey.manifest(parent, injections_per_galaxy=2)
    assert manifest.read_table().num_rows == 6
    with pytest.raises(
        ConfigError, match=r"comes from catalogues, which hold no pixels: its 6 stamps can't be rendered"
    ):
        survey.stamps(parent, manifest)
    assert survey.home.versions("test", "stamps") == []


def test_numbers_come_for_the_first_time_once_in_whatever_order() -> None:
    rng = np.random.default_rng(4)
    seen, before = SeenIds(), set[int]()
    for size in rng.integers(0, 60, 200).tolist():
        ids = rng.integers(0, 3000, size)
        first = seen.first_time(ids)
        wanted = []
        for number in ids.tolist():
            wanted.append(number not in before)
            before.add(number)
        assert first.tolist() == wanted
    assert len(seen._runs) < 15


def test_the_settings_name_every_published_selection() -> None:
    assert {name.value for name in SelectionName} == set(SELECTIONS)


@pytest.mark.real_data
def test_real_sweep_and_tractor_files_make_a_parent_sample(survey: Survey, real_data: Path, tmp_path: Path) -> None:
    place = tmp_path / "dr8"
    place.mkdir()
    for path in (real_data / "desi_targets").glob("[st][wr]*.fits"):
        (place / path.name).write_bytes(path.read_bytes())
    settings = {"selection": "lrg_dr8_2020", "known_lenses": str(real_data / "catalogs" / "lenscat.csv")}
    # Two of the four that are kept are 0.4 and 4.1 arcsec from their brick's border.
    with pytest.raises(ContractError, match="left out after the cuts: 2 near_border, 2 not_primary"):
        survey.parents(config(place, **settings))
    parent = survey.parents(config(place, region_margin_arcsec=0, **settings))
    assert parent.attributes["rows_read"] == 36
    assert (parent.attributes["rows_selected"], parent.attributes["left_out"]) == (4, {"not_primary": 2})
    assert ids(parent) == ["ls-8000-321640-69", "ls-8000-321640-99"]
    assert pq.read_metadata(parent.path("parent_sample.parquet")).num_rows == 2


def test_selected_galaxies_are_cut_out_of_the_surveys_images_in_one_step_and_can_be_injected_into(
    survey: Survey, folder: Path, tmp_path: Path
) -> None:
    name, ra, dec = coadds.brick_at(0.06, -0.06)
    coadds.write_brick(tmp_path, ra, dec, coadds.galaxies_at((ra, dec), flux=AS_CATALOGUED), scale=0.262)
    inside = [elsewhere(ra, dec, OBJID=1), elsewhere(ra, dec + 1e-5, OBJID=2)]
    beyond = [
        elsewhere(ra, dec + 0.05, OBJID=3),
        elsewhere(*coadds.brick_at(10.0, 20.0)[1:], OBJID=4),
    ]
    write_fits(folder / "sweep.fits", [*inside, *beyond])
    settings = {"region_margin_arcsec": 12.0, "stamp_size": 32}
    bare = survey.parents(config(folder, **settings))
    parent = survey.parents(config(folder, images=str(tmp_path), **settings))
    (known,) = [one for one in bare.read_table().to_pylist() if one["galaxy_id"].endswith("-1")]
    (found,) = parent.read_table().to_pylist()
    measured = {"psf_fwhm_g", "psf_fwhm_r", "psf_fwhm_z"}
    assert {key: found[key] for key in known if key not in measured} == {
        k: v for k, v in known.items() if k not in measured
    }
    assert found["psf_fwhm_r"] == pytest.approx(1.3)
    assert found["region_id"] == name
    reasons = {key.rsplit("-", 1)[-1]: reason for key, reason in left_out(parent).items()}
    assert reasons == {"2": "same_place", "3": "outside", "4": "outside"}
    assert parent.attributes["left_out"] == {"outside": 2, "same_place": 1}
    assert (parent.attributes["has_pixels"], bare.attributes["has_pixels"]) == (True, False)
    assert parent.read_table("completeness").num_rows == bare.read_table("completeness").num_rows
    made = rows_of(survey.stamps(parent, survey.manifest(parent, injections_per_galaxy=2)))
    assert len(made) == 3
    with pytest.raises(ConfigError, match=r"Set parent_sample\.images to the folder or s3:// address"):
        survey.stamps(bare, survey.manifest(bare))


@pytest.mark.parametrize(("sigma_pixels", "kept"), [(1.2, False), (1.7, True)])
def test_a_psf_image_of_coadds_is_held_against_the_catalogues_seeing(
    survey: Survey, folder: Path, tmp_path: Path, sigma_pixels: float, kept: bool
) -> None:
    name, ra, dec = coadds.brick_at(0.06, -0.06)
    coadds.write_brick(tmp_path, ra, dec, coadds.galaxies_at((ra, dec), flux=AS_CATALOGUED), scale=0.262, seeing=None)
    for band in "grz":
        psf = gaussian_as_pixels_see_it(sigma_pixels, sigma_pixels)
        fits.PrimaryHDU(psf).writeto(tmp_path / f"coadd/{name[:3]}/{name}/legacysurvey-{name}-psf-{band}.fits")
    write_fits(folder / "sweep.fits", [elsewhere(ra, dec, OBJID=1)])
    settings = config(folder, images=str(tmp_path), stamp_size=32)
    if kept:
        assert len(ids(survey.parents(settings))) == 1
        return
    with pytest.raises(
        ContractError, match=r"'wrong_seeing': 1.* arcsec, the catalogue's seeing is 1\.3: 0\.7 to 1\.4 times"
    ):
        survey.parents(settings)


def test_images_of_nothing_that_was_selected_are_refused(survey: Survey, folder: Path, tmp_path: Path) -> None:
    write_fits(folder / "sweep.fits", [galaxy(1)])
    coadds.write_brick(tmp_path, 50.0, 20.0, scale=0.262)
    with pytest.raises(ContractError, match=r"none of 1 galaxies could be cut out of .*'outside': 1"):
        survey.parents(config(folder, images=str(tmp_path)))
    with pytest.raises(ConfigError, match="there is no folder"):
        survey.parents(config(folder, images=str(tmp_path / "nothing")))
