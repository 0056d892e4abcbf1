from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.table import Table

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import ConfigError, ContractError, StorageError
from lens_pipeline.defs.publishing import column_schema
from lens_pipeline.stamps.decode import Stamp, decode_blob
from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline.survey import ccd, ccd_files, coadd, fragment_worker, images_at
from lens_pipeline.survey.band_agreement import sample_must_agree
from lens_pipeline.survey.ccd import cut_from_ccds, read_field
from lens_pipeline.survey.config import ParentSampleConfig, RegionKind, Source
from lens_pipeline.survey.cutouts import open_bad, open_cutouts
from lens_pipeline.survey.fingerprints import gather, no_fingerprints
from lens_pipeline.survey.galaxy_images import GalaxyImage
from lens_pipeline.survey.light import Sersic
from lens_pipeline.survey.psfex import read_psfex
from lens_pipeline.survey.regions import Regions
from lens_pipeline.survey.render import make_arc, observed_scene
from lens_pipeline_tests.s3_servers import Bucket
from lens_pipeline_tests.survey import coadds, test_ccd, test_psfex
from lens_pipeline_tests.survey.closed_forms import elliptical_sersic

from .conftest import Survey, real_config
from .test_measured_psf import moffat_as_pixels_see_it
from .test_stamps import rows_of

SIZE = 32
SCALE = 0.262
# Pixel (x, y) of the exposures.
GALAXY = (45.2, 46.1)


def catalogue(folder: Path, rows: list[dict[str, Any]]) -> str:
    path = folder / "galaxies.csv"
    Table(rows=rows).write(path, overwrite=True)
    return str(path)


def config(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> ParentSampleConfig:
    return real_config(folder, catalogue=catalogue(folder, rows), stamp_size=SIZE, **settings)


@pytest.fixture
def exposures(tmp_path: Path) -> Path:
    """Three exposures of 90 pixels with a galaxy, a PSF model in r alone, g moved by a third of a pixel against the others."""
    rows = [test_ccd.write_ccd(tmp_path, 100 + i, band, galaxies=[GALAXY]) for i, band in enumerate("grz")]
    # Declination falls along x.
    rows[0]["ccddecoff"] = SCALE / 3
    test_ccd.write_table(tmp_path, rows)
    path = tmp_path / "calib/decam/psfex/00000/00000101/decam-00000101-S10.fits"
    path.parent.mkdir(parents=True)
    test_psfex.write(path, POLZERO1=45.0, POLZERO2=45.0, POLSCAL1=100.0, POLSCAL2=100.0)
    return tmp_path


def at(folder: Path, x: float, y: float) -> dict[str, float]:
    """The place of a pixel of the r exposure."""
    ra, dec = read_field(folder)[1].wcs.pixel_to_world_values(x, y)
    return {"ra": float(ra), "dec": float(dec)}


def test_galaxies_of_a_catalogue_are_cut_out_of_exposures_with_psf_gain_and_noise_as_measured(
    survey: Survey, exposures: Path
) -> None:
    galaxies = [
        {"galaxy_id": "sound", **at(exposures, *GALAXY), "ebv": 0.05},
        {"galaxy_id": "beyond", **at(exposures, 300, 45), "ebv": 0.05},
        {"galaxy_id": "corner", **at(exposures, 3, 5), "ebv": 0.05},
    ]
    parent = survey.parents(config(exposures, galaxies))
    (row,) = parent.read_table().to_pylist()
    brick, _, _ = coadds.brick_at(galaxies[0]["ra"], galaxies[0]["dec"])
    assert (row["galaxy_id"], row["region_id"], row["ebv"], row["cutout_row"]) == ("sound", brick, 0.05, 0)
    assert row["ra"] == pytest.approx(galaxies[0]["ra"])
    left_out = parent.read_table("left_out").to_pylist()
    assert {each["galaxy_id"]: each["reason"] for each in left_out} == {"beyond": "outside", "corner": "centre_masked"}
    assert parent.attributes["left_out"] == {"centre_masked": 1, "outside": 1}
    ccds = read_field(exposures)
    assert np.array_equal(open_cutouts(parent.path("cutouts.npy"))[0, 1], ccds[1].pixels[31:63, 30:62])
    assert (row["host_x_arcsec"], row["host_y_arcsec"]) == pytest.approx((-0.3 * SCALE, -0.4 * SCALE), abs=1e-3)
    assert (row["band_x_g_arcsec"], row["band_y_g_arcsec"]) == pytest.approx((SCALE / 3, 0), abs=2e-3)
    assert row["pixel_sigma_r"] == pytest.approx(0.005, rel=0.1)
    assert row["noise_correlation"] == 0.0
    assert row["electrons_per_nanomaggy_r"] == pytest.approx(test_ccd.GAIN * test_ccd.ADU_PER_NMGY)
    assert (row["psf_is_measured_g"], row["psf_is_measured_r"], row["psf_is_assumed"]) == (False, True, False)
    model = read_psfex(exposures / "calib/decam/psfex/00000/00000101/decam-00000101-S10.fits")
    psf = model.at(*GALAXY)
    assert row["psf_fwhm_r"] == pytest.approx(psf.fwhm_pixels * SCALE, rel=1e-3)
    assert row["psf_fwhm_g"] == pytest.approx(4 * SCALE, rel=1e-4)
    assert row["psfdepth_r"] == pytest.approx((psf.pixels**2).sum() / 0.005**2, rel=1e-3)
    assert row["psfdepth_g"] is None
    schema = column_schema(parent)
    assert schema is not None
    assert [column.name for column in schema.columns if "doesn't know" in (column.description or "doesn't know")] == []
    said = " ".join(parent.attributes["assumptions"])
    assert "1 of 1 galaxies have no PSF image in g: a Moffat" in said
    assert "in their own pixels and orientation, not resampled" in said
    assert "ebv" not in said


def test_stamps_of_exposures_have_the_measured_psf_and_their_controls_are_the_cutouts(
    survey: Survey, exposures: Path
) -> None:
    parent = survey.parents(config(exposures, [{"galaxy_id": "a", **at(exposures, *GALAXY)}]))
    galaxy = parent.read_table().to_pylist()[0]
    assert "1 of 1 galaxies have no ebv" in " ".join(parent.attributes["assumptions"])
    manifest = survey.manifest(parent, injections_per_galaxy=3)
    made = rows_of(survey.stamps(parent, manifest)).to_pylist()
    assert len(made) == 4
    assert [row["psf_fwhm_used_r"] for row in made] == pytest.approx([galaxy["psf_fwhm_r"]] * 4, rel=1e-3)
    assert {row["psfdepth_r"] for row in made} == {galaxy["psfdepth_r"]}
    assert {row["bad_pixel_frac"] for row in made} == {galaxy["bad_pixel_frac"]}
    cutout, psfs = (open_cutouts(parent.path(name))[0] for name in ("cutouts.npy", "psfs.npy"))
    scene = observed_scene(galaxy, cutout, psfs)
    assert np.array_equal(scene.base[:, 1:-1, 1:-1], cutout.astype(float))
    assert not scene.drawn_variance.any()
    # A nanomaggy of light is so many electrons, whose variance is their number, each pixel's by itself: none was resampled.
    assert galaxy["noise_correlation"] == scene.correlation == 0.0
    assert scene.per_flux[1] == pytest.approx(1 / galaxy["electrons_per_nanomaggy_r"])


def test_light_is_laid_where_each_bands_own_pixels_have_the_lens(survey: Survey, exposures: Path) -> None:
    parent = survey.parents(config(exposures, [{"galaxy_id": "a", **at(exposures, *GALAXY)}]))
    galaxy = parent.read_table().to_pylist()[0]
    row = survey.manifest(parent, injections_per_galaxy=1).read_table().to_pylist()
    (injection,) = [each for each in row if each["lens_model"] != "CONTROL"]
    # A small lens at rest on its axis: its ring's centroid is the lens.
    injection |= {"theta_e_arcsec": 0.4, "lens_e": 0.0, "shear": 0.0, "src_x_arcsec": 0.0, "src_y_arcsec": 0.0}
    injection |= {"src_e": 0.0, "src_reff_arcsec": 0.2, "src_n": 1.0, "src_mag_g": 20.0, "src_mag_r": 20.0}
    cutout, psfs = (open_cutouts(parent.path(name))[0] for name in ("cutouts.npy", "psfs.npy"))
    pixels = make_arc(observed_scene(galaxy, cutout, psfs), injection).pixels
    axis = SCALE * (np.arange(SIZE + 2) - (SIZE + 1) / 2)
    for i, band in enumerate("gr"):
        x, y = (pixels[i].sum(axis=a) @ axis / pixels[i].sum() for a in (0, 1))
        wanted = [galaxy[f"host_{a}_arcsec"] + galaxy[f"band_{a}_{band}_arcsec"] for a in "xy"]
        assert (x, y) == pytest.approx(wanted, abs=0.02)


def test_galaxies_are_cut_out_of_a_copy_of_the_surveys_bricks(survey: Survey, tmp_path: Path) -> None:
    light = Sersic(flux=50.0, reff_arcsec=1.0, n=2.0, ellipticity=0.1, phi_rad=0.3, x_arcsec=0.0, y_arcsec=0.0)
    name, ra0, dec0 = coadds.brick_at(150.1, 2.3)

    def sky(band: str, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        x = (ra0 - ra) * np.cos(np.radians(dec0)) * 3600
        return elliptical_sersic(light, x, (dec - dec0) * 3600) * SCALE**2 + coadds.noise_of(name, band)

    coadds.write_brick(tmp_path, 150.1, 2.3, sky, scale=SCALE)
    rows = [
        {"galaxy_id": "here", "region_id": name, "ra": ra0, "dec": dec0, "mag_r": 18.3},
        {"galaxy_id": "twin", "region_id": name, "ra": ra0, "dec": dec0 + 1e-5, "mag_r": 18.3},
        {"galaxy_id": "away", "region_id": "elsewhere", "ra": 10.0, "dec": dec0, "mag_r": 18.3},
    ]
    parent = survey.parents(config(tmp_path, rows))
    (row,) = parent.read_table().to_pylist()
    assert (row["galaxy_id"], row["region_id"], row["mag_r"]) == ("here", name, 18.3)
    assert row["psf_fwhm_r"] == pytest.approx(1.3)
    assert row["psf_is_assumed"] is False
    assert row["electrons_per_nanomaggy_r"] is None
    assert row["mag_aperture_r"] == pytest.approx(22.5 - 2.5 * np.log10(40), abs=0.2)
    assert parent.attributes["left_out"] == {"outside": 1, "same_place": 1}
    said = " ".join(parent.attributes["assumptions"])
    assert "1 of 1 galaxies have no gain in z: the arc's Poisson noise follows" in said
    made = rows_of(survey.stamps(parent, survey.manifest(parent, injections_per_galaxy=2))).to_pylist()
    assert {round(each["psf_fwhm_used_r"], 2) for each in made} == {1.31}


def test_a_band_whose_seeing_nobody_knows_has_no_seeing_in_its_stamps_and_the_others_have_theirs(
    survey: Survey, tmp_path: Path
) -> None:
    name, ra0, dec0 = coadds.brick_at(150.1, 2.3)
    for unknown in ("g", "r"):
        folder = tmp_path / unknown
        coadds.write_brick(folder, ra0, dec0, coadds.galaxies_at((ra0, dec0)), scale=SCALE)
        (folder / "coadd" / name[:3] / name / f"legacysurvey-{name}-psfsize-{unknown}.fits.fz").unlink()
        parent = survey.parents(config(folder, [{"galaxy_id": "a", "ra": ra0, "dec": dec0}]))
        (galaxy,) = parent.read_table().to_pylist()
        assert galaxy["psf_is_assumed"]
        for row in rows_of(survey.stamps(parent, survey.manifest(parent, injections_per_galaxy=1))).to_pylist():
            found = {band: row[f"psf_fwhm_used_{band}"] for band in "grz"}
            assert {band for band, fwhm in found.items() if fwhm is None} == {unknown}
            assert [fwhm for fwhm in found.values() if fwhm is not None] == pytest.approx([1.3, 1.3], rel=0.02)


def test_a_dead_column_is_the_same_in_injections_fakes_and_controls_or_the_check_is_red(
    survey: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(kind: str, band: str, hdu: Any) -> None:
        if kind in ("image", "invvar") and band == "r":
            hdu.data[:, coadds.N // 2 + 9] = 0

    _, ra0, dec0 = coadds.brick_at(150.1, 2.3)
    coadds.write_brick(tmp_path, 150.1, 2.3, coadds.galaxies_at((ra0, dec0)), change=dead, scale=SCALE)
    parent = survey.parents(config(tmp_path, [{"galaxy_id": "a", "ra": ra0, "dec": dec0}]))
    (row,) = parent.read_table().to_pylist()
    assert row["bad_pixel_frac"] == 1 / SIZE
    bad = open_bad(parent.path("bad_pixels.npy"))[0]
    assert bad.sum() == bad[1].sum() == SIZE
    manifest = survey.manifest(parent, injections_per_galaxy=4, fake_blob_share=0.5, fake_turned_share=0.5)
    stamps = survey.stamps(parent, manifest)
    made = [decode_blob(each["stamp_npz"], DatasetContract(stamp_size=SIZE)) for each in rows_of(stamps).to_pylist()]
    assert len(made) > 5
    for stamp in made:
        assert isinstance(stamp, Stamp)
        assert (stamp.pixels[bad] == 0).all()
    assert no_fingerprints(stamps, parent).count == 0
    monkeypatch.setattr(
        fragment_worker, "observed_scene", lambda host, pixels, psfs, _: observed_scene(host, pixels, psfs)
    )
    check = no_fingerprints(survey.stamps(parent, manifest), parent)
    assert not check.passed
    assert "32 bad pixels aren't the cutout's own" in check.first[0]


def test_psf_images_of_coadds_that_were_recentred_are_named_with_how_far(survey: Survey, tmp_path: Path) -> None:
    name, ra, dec = coadds.brick_at(150.1, 2.3)
    coadds.write_brick(tmp_path, ra, dec, coadds.galaxies_at((ra, dec)), scale=SCALE)
    centred = moffat_as_pixels_see_it(1.3, 63)
    # An image of even size with the source at n / 2, as FFTs leave it.
    for band, pixels in {"g": centred, "r": np.pad(centred, ((1, 0), (1, 0)))}.items():
        fits.writeto(tmp_path / f"coadd/{name[:3]}/{name}/legacysurvey-{name}-psf-{band}.fits", pixels)
    parent = survey.parents(config(tmp_path, [{"galaxy_id": "a", "ra": ra, "dec": dec}]))
    said = [line for line in parent.attributes["assumptions"] if "recentred" in line]
    assert said == ["1 of 1 galaxies have a PSF image in r that wasn't centred: recentred by (-0.50, -0.50) pixels."]
    laid = np.load(parent.path("psfs.npy"), mmap_mode="r")[0]
    assert np.array_equal(laid[0], laid[1])


def test_a_catalogue_that_does_not_say_where_its_galaxies_are_is_refused(survey: Survey, exposures: Path) -> None:
    with pytest.raises(ConfigError, match=r"set parent_sample.catalogue to a table .* galaxy_id, ra, dec"):
        survey.parents(real_config(exposures, stamp_size=SIZE))
    with pytest.raises(ContractError, match=r"has no dec in 2 of 2 rows; first \(place in the table\): 0, 1"):
        survey.parents(config(exposures, [{"galaxy_id": "a", "ra": 1.0}, {"galaxy_id": "b", "ra": 1.0}]))
    with pytest.raises(ContractError, match="names galaxies more than once: a"):
        survey.parents(config(exposures, [{"galaxy_id": "a", "ra": 1.0, "dec": 1.0}] * 2))
    with pytest.raises(ContractError, match=r"none of 1 galaxies could be cut out of .*'outside': 1"):
        survey.parents(config(exposures, [{"galaxy_id": "a", "ra": 1.1, "dec": 1.0}]))
    with pytest.raises(ContractError, match=r"'wrong_scale': 1.*0.262 arcsec per pixel, 6.43% from the nominal 0.28"):
        survey.parents(config(exposures, [{"galaxy_id": "a", **at(exposures, *GALAXY)}], pixel_scale_arcsec=0.28))
    assert survey.home.versions("test", "parent_sample") == []


def test_coadds_at_s3_give_the_parents_that_the_same_coadds_in_a_folder_give(
    survey: Survey, tmp_path: Path, moto_s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, ra, dec = coadds.brick_at(150.1, 2.3)
    coadds.write_brick(tmp_path / "dr10", 150.1, 2.3, coadds.galaxies_at((ra, dec)), scale=SCALE)
    for path in (tmp_path / "dr10").rglob("*.fits*"):
        key = path.relative_to(tmp_path).as_posix()
        moto_s3.client().put_object(Bucket=moto_s3.name, Key=key, Body=path.read_bytes())
    for variable, value in moto_s3.environment.items():
        monkeypatch.setenv(variable, value)
    table = catalogue(tmp_path, [{"galaxy_id": "here", "region_id": name, "ra": ra, "dec": dec}])
    found = [
        survey.parents(ParentSampleConfig(source=Source.real_cutouts, folder=where, catalogue=table, stamp_size=SIZE))
        for where in (str(tmp_path / "dr10"), f"{moto_s3.address}/dr10")
    ]
    assert found[0].read_table().equals(found[1].read_table())
    assert found[0].path("cutouts.npy").read_bytes() == found[1].path("cutouts.npy").read_bytes()
    assert found[1].attributes["folder"] == f"{moto_s3.address}/dr10"
    files, objects = (parent.read_table("image_files").to_pylist() for parent in found)
    assert [each["path"].rsplit("/", 1)[-1] for each in files] == [each["path"].rsplit("/", 1)[-1] for each in objects]
    assert [each["sha256"] for each in files] == [each["sha256"] for each in objects]
    assert objects[0]["path"].startswith(f"{moto_s3.address}/dr10/coadd/")


@pytest.mark.parametrize("images", ["coadds", "exposures"])
def test_places_without_a_galaxy_or_beside_it_are_left_out(survey: Survey, exposures: Path, images: str) -> None:
    folder, (ra, dec) = exposures, at(exposures, *GALAXY).values()
    if images == "coadds":
        folder, (_, ra, dec) = exposures / "dr10", coadds.brick_at(ra, dec)
        coadds.write_brick(folder, ra, dec, coadds.galaxies_at((ra, dec)), scale=SCALE)
    north = {"here": 0.0, "nearby": 0.5, "aside": 1.3, "beyond": 2.5, "empty": 7.0}
    rows = [{"galaxy_id": name, "ra": ra, "dec": dec + arcsec / 3600} for name, arcsec in north.items()]
    kept = survey.parents(config(folder, [rows[0], *rows[2:]]))
    assert kept.read_table()["galaxy_id"].to_pylist() == ["here"]
    left_out = {row["galaxy_id"]: row["reason"] for row in kept.read_table("left_out").to_pylist()}
    assert left_out == {"aside": "off_centre", "beyond": "off_centre", "empty": "no_galaxy"}
    assert kept.attributes["left_out"] == {"no_galaxy": 1, "off_centre": 2}
    near = survey.parents(config(folder, rows[1:]))
    (row,) = near.read_table().to_pylist()
    # The place stays the one that was asked for.
    assert (row["galaxy_id"], row["dec"]) == ("nearby", pytest.approx(dec + 0.5 / 3600, abs=1e-9))
    assert abs(row["host_y_arcsec"]) <= SCALE / 2


def test_every_image_file_that_was_opened_and_the_catalogue_are_published_with_their_hashes(
    survey: Survey, exposures: Path
) -> None:
    places = [{"galaxy_id": "a", **at(exposures, *GALAXY)}, {"galaxy_id": "corner", **at(exposures, 3, 5)}]
    parent = survey.parents(config(exposures, places))
    table = exposures / "galaxies.csv"
    known = {"path": str(table), "size": table.stat().st_size, "sha256": sha256_of(table)}
    assert parent.attributes["catalogue"] == known
    files = {Path(row["path"]): row for row in parent.read_table("image_files").to_pylist()}
    # An image, a weight and a quality plane a band, the PSF model of r and the table of exposures.
    assert set(files) == {*exposures.rglob("c4d_*"), *exposures.rglob("decam-*"), *exposures.glob("survey-ccds*")}
    assert len(files) == 11
    for path, row in files.items():
        assert (row["sha256"], row["size_bytes"], row["n_galaxies"]) == (sha256_of(path), path.stat().st_size, 1)


def test_bricks_are_published_with_the_number_of_galaxies_that_were_cut_out_of_them(
    survey: Survey, tmp_path: Path
) -> None:
    places = [coadds.brick_at(ra, 2.3)[1:] for ra in (150.1, 150.4, 150.9)]
    for ra, dec in places:
        light = coadds.galaxies_at((ra, dec), (ra, dec + 5 / 3600))
        coadds.write_brick(tmp_path, ra, dec, light if ra < 150.7 else None, scale=SCALE)
    rows = [{"galaxy_id": f"{i}", "ra": ra, "dec": dec} for i, (ra, dec) in enumerate(places)]
    rows.append({"galaxy_id": "second", "ra": places[0][0], "dec": places[0][1] + 5 / 3600})
    files = survey.parents(config(tmp_path, rows)).read_table("image_files").to_pylist()
    of_brick = {row["path"].split("/")[-2]: row["n_galaxies"] for row in files}
    # The third was opened for a place that has no galaxy.
    assert of_brick == {coadds.brick_at(*place)[0]: n for place, n in zip(places, (2, 1, 0), strict=True)}
    assert len(files) == 3 * 10


def test_an_image_that_is_rewritten_while_galaxies_are_cut_out_of_it_is_refused(
    survey: Survey, exposures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = next(exposures.rglob("*_ooi_r.fits"))

    def rewriting(*arguments: Any) -> GalaxyImage:
        path.write_bytes(path.read_bytes())
        return cut_from_ccds(*arguments)

    monkeypatch.setattr(images_at, "cut_from_ccds", rewriting)
    with pytest.raises(StorageError, match=r"1 of 11 files changed while .*_ooi_r\.fits"):
        survey.parents(config(exposures, [{"galaxy_id": "a", **at(exposures, *GALAXY)}]))


def test_an_exposure_that_is_rewritten_while_it_is_opened_is_refused(
    survey: Survey, exposures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = at(exposures, *GALAXY)

    def rewriting(path: Path, row: Any) -> Any:
        found = ccd_files.read_plane(path, row)
        path.write_bytes(path.read_bytes())
        return found

    monkeypatch.setattr(ccd, "read_plane", rewriting)
    with pytest.raises(StorageError, match=r"9 of 11 files changed while .*_oo"):
        survey.parents(config(exposures, [{"galaxy_id": "a", **place}]))


def test_a_brick_that_is_rewritten_while_it_is_opened_is_refused(
    survey: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, ra, dec = coadds.brick_at(150.1, 2.3)
    coadds.write_brick(tmp_path, 150.1, 2.3, coadds.galaxies_at((ra, dec)), scale=SCALE)
    open_plane = coadd._open_plane

    def rewriting(stack: Any, file: str, kind: str) -> Any:
        found = open_plane(stack, file, kind)
        if kind == "invvar":
            Path(file).write_bytes(Path(file).read_bytes())
        return found

    monkeypatch.setattr(coadd, "_open_plane", rewriting)
    with pytest.raises(StorageError, match=r"3 of 10 files changed while .*-invvar-g\.fits"):
        survey.parents(config(tmp_path, [{"galaxy_id": "a", "region_id": name, "ra": ra, "dec": dec}]))


def test_galaxies_that_show_the_same_sky_are_in_one_region_or_left_out_at_its_border(
    survey: Survey, tmp_path: Path
) -> None:
    name, ra0, dec0 = coadds.brick_at(150.1, 2.3)
    places = [(ra0, dec0 - 2 / 3600), (ra0, dec0 + 2 / 3600)]
    coadds.write_brick(tmp_path, 150.1, 2.3, coadds.galaxies_at(*places), scale=SCALE)
    galaxies = [{"galaxy_id": name, "ra": ra, "dec": dec} for name, (ra, dec) in zip("ab", places, strict=True)]
    parent = survey.parents(config(tmp_path, galaxies))
    assert parent.read_table()["region_id"].to_pylist() == [name, name]
    assert parent.attributes["region"] == {"kind": "brick", "nside": None, "margin_arcsec": 12.0}
    cells = {"region": "healpix", "healpix_nside": 64}
    wide = Regions(RegionKind.healpix, 64)
    parent = survey.parents(config(tmp_path, galaxies, **cells))
    assert parent.read_table()["region_id"].to_pylist() == wide.names(wide.cells([ra0], [dec0])) * 2


def test_regions_of_the_user_that_share_sky_are_refused(survey: Survey, tmp_path: Path) -> None:
    _, ra0, dec0 = coadds.brick_at(150.1, 2.3)
    places = [(ra0, dec0), (ra0, dec0 + 5 / 3600)]
    coadds.write_brick(tmp_path, 150.1, 2.3, coadds.galaxies_at(*places), scale=SCALE)
    galaxies = [
        {"galaxy_id": "a", "region_id": "one", "ra": places[0][0], "dec": places[0][1]},
        {"galaxy_id": "b", "region_id": "two", "ra": places[1][0], "dec": places[1][1]},
    ]
    with pytest.raises(ContractError, match=r"1 pairs of galaxies .* \(11.9 arcsec\) .*: a \(one\) and b \(two\)\."):
        survey.parents(config(tmp_path, galaxies))
    galaxies[1]["region_id"] = "one"
    assert survey.parents(config(tmp_path, galaxies)).read_table().num_rows == 2


def test_galaxies_near_a_regions_border_are_left_out_and_without_a_margin_only_refused_if_they_meet(
    survey: Survey, tmp_path: Path
) -> None:
    _, ra0, dec0 = coadds.brick_at(150.1, 2.3)
    fine = {"region": "healpix", "healpix_nside": 8192}
    cells = Regions(RegionKind.healpix, 8192)
    east = ra0 + np.arange(-8, 8) / 3600
    border = np.flatnonzero(np.diff(cells.cells(east, np.full(16, dec0))))
    assert len(border), "a cell is 26 arcsec wide"
    galaxies = [
        {"galaxy_id": "a", "ra": east[border[0]] - 1 / 3600, "dec": dec0},
        {"galaxy_id": "b", "ra": east[border[0]] + 2 / 3600, "dec": dec0},
    ]
    light = coadds.galaxies_at(*((galaxy["ra"], galaxy["dec"]) for galaxy in galaxies))
    coadds.write_brick(tmp_path, 150.1, 2.3, light, scale=SCALE)
    with pytest.raises(
        ContractError, match=r"none of 2 galaxies .*'near_border': 2.*less than 12 arcsec from the border of hp"
    ):
        survey.parents(config(tmp_path, galaxies, **fine))
    with pytest.raises(ContractError, match=r"1 pairs of galaxies .*a \(hp8192-.* and b \(hp8192-"):
        survey.parents(config(tmp_path, galaxies, **fine, region_margin_arcsec=0))
    assert survey.parents(config(tmp_path, galaxies[:1], **fine, region_margin_arcsec=0)).read_table().num_rows == 1
    with pytest.raises(ConfigError, match=r"region_margin_arcsec = 3 is less than half a stamp's diagonal, 5.928"):
        survey.parents(config(tmp_path, galaxies, region_margin_arcsec=3))


@pytest.mark.parametrize(("factor", "reason"), [(1, None), (4, "mag_unlike_catalogue"), (0.05, "mag_unlike_catalogue")])
def test_pixels_of_another_brightness_than_the_catalogue_says_are_left_out(
    survey: Survey, tmp_path: Path, factor: float, reason: str | None
) -> None:
    _, ra0, dec0 = coadds.brick_at(150.1, 2.3)
    flux = 60.0
    light = coadds.galaxies_at((ra0, dec0), (ra0, dec0 + 5 / 3600), flux=factor * flux)
    coadds.write_brick(tmp_path, 150.1, 2.3, light, scale=SCALE)
    mag_r = 22.5 - 2.5 * np.log10(flux)
    galaxies = [
        {"galaxy_id": "a", "ra": ra0, "dec": dec0, "mag_r": mag_r},
        {"galaxy_id": "b", "ra": ra0, "dec": dec0 + 5 / 3600, "mag_r": np.nan},
    ]
    parent = survey.parents(config(tmp_path, galaxies))
    assert parent.attributes["left_out"] == ({} if reason is None else {reason: 1})
    if factor == 4:
        assert "the catalogue says 18.0" in parent.read_table("left_out")["detail"][0].as_py()


def test_a_sample_whose_pixels_are_as_a_whole_too_bright_or_too_faint_is_refused() -> None:
    rows = [{"mag_r": 19.0, "mag_aperture_r": 19.4}] * 5
    sample_must_agree(rows, "grz")
    for zero_point_off in (-1.0, 1.0):
        moved = [row | {"mag_aperture_r": 19.4 + zero_point_off} for row in rows]
        with pytest.raises(
            ContractError, match=r"mag_aperture_r - mag_r of 5 galaxies is .* in the median, wanted -0.5 to 1.2"
        ):
            sample_must_agree(moved, "grz")


def test_a_seeing_map_that_is_not_in_arcsec_leaves_its_galaxies_out(survey: Survey, tmp_path: Path) -> None:
    _, ra0, dec0 = coadds.brick_at(150.1, 2.3)
    coadds.write_brick(tmp_path, 150.1, 2.3, scale=SCALE, seeing=52.0)
    with pytest.raises(ContractError, match=r"'wrong_seeing': 1.*seeing in g is said to be 52"):
        survey.parents(config(tmp_path, [{"galaxy_id": "a", "ra": ra0, "dec": dec0}]))


def test_an_exposure_whose_place_is_five_arcsec_off_leaves_its_galaxies_out(survey: Survey, tmp_path: Path) -> None:
    rows = [test_ccd.write_ccd(tmp_path, 100 + i, band, galaxies=[GALAXY]) for i, band in enumerate("grz")]
    test_ccd.write_table(tmp_path, rows)
    galaxies = [{"galaxy_id": "a", **at(tmp_path, *GALAXY)}]
    assert survey.parents(config(tmp_path, galaxies)).read_table().num_rows == 1
    rows[2]["ccdraoff"] = 5.0
    test_ccd.write_table(tmp_path, rows)
    with pytest.raises(ContractError, match=r"'(bands_apart|absurd_colour)': 1"):
        survey.parents(config(tmp_path, galaxies))


def test_exposures_without_their_table_are_refused_for_the_zero_point(survey: Survey, exposures: Path) -> None:
    place = at(exposures, *GALAXY)
    for table in exposures.glob("survey-ccds*"):
        table.unlink()
    with pytest.raises(ContractError, match=r"has no survey-ccds\*.fits: without ccdzpt"):
        survey.parents(config(exposures, [{"galaxy_id": "a", **place}]))


def test_two_names_for_one_place_of_an_exposure_are_one_galaxy(survey: Survey, exposures: Path) -> None:
    place = at(exposures, *GALAXY)
    again = {"galaxy_id": "again", "ra": place["ra"], "dec": place["dec"] + 0.6 / 3600}
    parent = survey.parents(config(exposures, [{"galaxy_id": "a", **place}, again]))
    assert parent.read_table()["galaxy_id"].to_pylist() == ["a"]
    (left,) = parent.read_table("left_out").to_pylist()
    assert (left["galaxy_id"], left["reason"], left["detail"]) == ("again", "same_place", "within 1 arcsec of a")


@pytest.mark.real_data
def test_arcs_are_injected_into_a_real_disk_galaxy_of_single_exposures(
    survey: Survey, real_data: Path, tmp_path: Path
) -> None:
    field = real_data / "decam_ccds" / "field_disk_galaxy"
    galaxies = [
        {"galaxy_id": "disk", "ra": 28.41927, "dec": -16.43589},
        {"galaxy_id": "edge_on", "ra": 28.41530, "dec": -16.42922},
    ]
    parent = survey.parents(real_config(field, catalogue=catalogue(tmp_path, galaxies)))
    (row,) = parent.read_table().to_pylist()
    assert parent.attributes["left_out"] == {"centre_masked": 1}
    assert [row[f"psf_fwhm_{band}"] for band in "grz"] == pytest.approx([1.13, 0.74, 0.865], abs=0.02)
    assert [row[f"electrons_per_nanomaggy_{band}"] for band in "grz"] == pytest.approx([4004, 4609, 3238], rel=1e-3)
    made = rows_of(survey.stamps(parent, survey.manifest(parent, injections_per_galaxy=4)))
    assert isinstance(made, pa.Table)
    assert made.num_rows == 5
    assert made["bad_pixel_frac"].to_pylist() == [9 / 64**2] * 5


@pytest.mark.real_data
def test_bright_arcs_spread_by_measured_psfs_are_no_fingerprints(
    survey: Survey, real_data: Path, tmp_path: Path
) -> None:
    field = real_data / "decam_ccds" / "field_disk_galaxy"
    galaxies = [{"galaxy_id": "disk", "ra": 28.41927, "dec": -16.43589}]
    parent = survey.parents(real_config(field, catalogue=catalogue(tmp_path, galaxies)))
    compared = 0
    for seed in range(8):
        bright = {"source_mag_low": 20.0, "source_mag_high": 21.5, "source_faint_share": 0.0, "seed": seed}
        (seen,) = gather(survey.stamps(parent, survey.manifest(parent, **bright)), parent)
        assert not seen.off
        compared += seen.n_shared
    assert compared >= 4
