"""Real galaxies as sources, from their catalogue to the splits of what they are lensed in."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from lens_pipeline.contracts.catalogue import INJECTION_MANIFEST, REAL_SOURCES
from lens_pipeline.contracts.errors import ConfigError, PipelineError, StorageError
from lens_pipeline.splits.checks import leak_checks
from lens_pipeline.splits.config import SplitConfig
from lens_pipeline.splits.region_splits import build_region_splits
from lens_pipeline.stamps.config import StoreConfig
from lens_pipeline.stamps.ingest import build_store
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey import hst_sources
from lens_pipeline.survey.checks import label_alignment, pairs_are_sound
from lens_pipeline.survey.config import InjectionConfig, ParentSampleConfig
from lens_pipeline.survey.design import Design
from lens_pipeline.survey.fakes import make_light
from lens_pipeline.survey.light import Grid, Sersic, galaxy_light
from lens_pipeline.survey.manifest import rows_of_galaxy
from lens_pipeline.survey.optics import crop
from lens_pipeline.survey.population import Hosts
from lens_pipeline.survey.priors import draw_injection
from lens_pipeline.survey.real_sources import deal, open_pictures, source_of, sources_path
from lens_pipeline.survey.render import make_arc, simulated_scene
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.folds import folds_are_disjoint
from lens_pipeline.training.rows import read_rows

from .conftest import Survey
from .hst_catalogues import SERSIC, galaxy, noise, write

NAMES = tuple(f"cosmos-{number}" for number in range(100, 106))
SHARES = {"train": 0.4, "test": 0.4, "val_calibrate": 0.1, "val_select": 0.1}
HOST: dict[str, Any] = {"region_id": "r", "mag_r": 19.5, "axis_ratio": 0.7, "phi_rad": 0.4, "z_lens": 0.5}

# Regions enough for each split to have one.
SPREAD = ParentSampleConfig(n_galaxies=30, n_bricks=30)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six exponential disks, each at another angle."""
    disks = [
        galaxy(sersic=Sersic(30.0, 0.25 + 0.02 * n, 1.0, 0.25, 0.5 * n, 0.0, 0.0)) + noise((121, 122), n)
        for n in range(len(NAMES))
    ]
    return write(tmp_path_factory.mktemp("hst"), disks)


@pytest.fixture
def settings(catalogue: Path) -> dict[str, Any]:
    return {"real_source_share": 0.5, "real_source_catalogue": str(catalogue), "injections_per_galaxy": 4}


def design(**settings: Any) -> Design:
    config = InjectionConfig(**{"real_source_share": 1.0, "real_source_catalogue": "read already", **settings})
    return Design.of(config, Hosts.of(config, [0.5], NAMES))


def injections(manifest: Publication) -> list[dict[str, Any]]:
    return [row for row in manifest.read_table().to_pylist() if row["role"] == "injection"]


def into_splits(survey: Survey, manifest: Publication, parent: Publication) -> tuple[Publication, Publication]:
    stamps = survey.stamps(parent, manifest)
    with survey.home.stage("test", "stamp_store", inputs=[stamps]) as staging:
        build_store(StoreConfig(workers=1), stamps, staging)
        store = staging.commit()
    with survey.home.stage("test", "region_splits", inputs=[store]) as staging:
        assert build_region_splits(SplitConfig(floor_rows=1), store, staging).by_survey
        return staging.commit(), store


def test_each_real_galaxy_is_lensed_in_one_split_and_every_split_has_one(
    survey: Survey, settings: dict[str, Any]
) -> None:
    manifest = survey.manifest(survey.parents(ParentSampleConfig(n_galaxies=200, n_bricks=60)), **settings)
    INJECTION_MANIFEST.validate(manifest.read_table(), where="the manifest")
    published = manifest.read_table("sources")
    REAL_SOURCES.validate(published, where="the sources")
    rows = injections(manifest)
    assert np.mean([row["source_id"] is not None for row in rows]) == pytest.approx(0.5, abs=0.07)
    drawn = {(row["source_id"], row["region_split"]) for row in rows if row["source_id"]}
    assert drawn == set(zip(*(published[name].to_pylist() for name in ("source_id", "split")), strict=True))
    assert {split for _, split in drawn} == set(SHARES)
    assert {row["weight"] for row in rows} == {1.0}
    assert not any(row["is_held_out"] for row in rows)
    counted = {row["cell"]: row["n"] for row in manifest.read_table("design").to_pylist() if row["axis"] == "source"}
    assert counted == Counter(row["source_id"] or "Sersic" for row in rows)
    assert [
        check.message() for check in (label_alignment(manifest), pairs_are_sound(manifest)) if not check.passed
    ] == []


def test_a_real_source_has_the_sizes_and_magnitudes_of_any_other_and_no_sersic_shape() -> None:
    real, profiles = (
        [draw_injection(design(real_source_share=share), HOST, f"g-{n}") for n in range(300)] for share in (1.0, 1e-12)
    )
    same = ("theta_e_arcsec", "src_mag_r", "src_mag_g", "src_reff_arcsec", "src_x_arcsec", "lens_e", "weight")
    assert [[row[name] for name in same] for row in real] == [[row[name] for name in same] for row in profiles]
    assert {(row["src_n"], row["src_e"], row["source_colours"]) for row in real} == {(None, None, "template")}
    assert {(row["source_id"], row["source_colours"]) for row in profiles} == {(None, None)}
    assert max(row["src_phi_rad"] for row in real) > 1.9 * np.pi > 1.9 * max(row["src_phi_rad"] for row in profiles)


def test_colours_of_a_table_are_taken_and_said_to_be() -> None:
    made = design(real_source_colours={name: [0.3, 0.4] for name in NAMES[:3]}, real_source_colours_from="X 2020")
    rows = [draw_injection(made, HOST, f"g-{n}") for n in range(100)]
    for row in rows:
        off = (row["src_mag_g"] - row["src_mag_r"], row["src_mag_r"] - row["src_mag_z"])
        assert (row["source_colours"] == "table") == (row["source_id"] in NAMES[:3])
        assert (off == pytest.approx((0.3, 0.4))) == (row["source_id"] in NAMES[:3])


def test_sources_are_dealt_as_regions_are_shared_out_and_each_split_gets_one() -> None:
    dealt = deal(NAMES, SHARES, seed=3)
    assert sorted(name for names in dealt.values() for name in names) == sorted(NAMES)
    assert {split: len(names) for split, names in dealt.items()} == {
        "train": 2, "test": 2, "val_calibrate": 1, "val_select": 1,
    }  # fmt: skip
    assert deal(NAMES[::-1], SHARES, seed=3) == dealt != deal(NAMES, SHARES, seed=5)
    many = deal([f"s{n}" for n in range(1000)], SHARES, seed=3)
    assert [len(many[split]) for split in SHARES] == pytest.approx([400, 400, 100, 100], abs=2)
    with pytest.raises(
        ConfigError, match=r"3 usable real sources can't give each of 4 splits .* hold_out_real_sources"
    ):
        deal(NAMES[:3], SHARES, seed=3)


def test_real_sources_that_are_held_out_are_lensed_in_test_regions_only(
    survey: Survey, settings: dict[str, Any]
) -> None:
    parent = survey.parents(ParentSampleConfig(n_galaxies=100, n_bricks=30))
    rows = injections(survey.manifest(parent, **settings, hold_out_real_sources=True))
    assert {row["region_split"] for row in rows} == {"train", "val", "test"}
    assert {row["region_split"] for row in rows if row["source_id"]} == {"test"}
    assert {row["source_id"] for row in rows} == {None, *NAMES}
    assert all(row["is_held_out"] == (row["source_id"] is not None) for row in rows)


def test_no_source_stands_in_two_splits_and_folds_that_share_one_are_red(
    survey: Survey, settings: dict[str, Any]
) -> None:
    parent = survey.parents(ParentSampleConfig(n_galaxies=60, n_bricks=40))
    one_stratum = {"share_sis": 1.0, "share_sie": 0.0, "theta_e_low_arcsec": 1.3, "theta_e_high_arcsec": 1.7}
    for held, folds_are_sound in ((False, False), (True, True)):
        manifest = survey.manifest(parent, **settings, **one_stratum, hold_out_real_sources=held)
        splits, store = into_splits(survey, manifest, parent)
        assert [check.message() for check in leak_checks(splits, store) if not check.passed] == []
        assert set(splits.read_table()["split"].to_pylist()) == set(SHARES)
        rows = read_rows(splits, store, TrainingConfig(folds=2, fold=0))
        check = folds_are_disjoint(2, rows.train, rows.validation, splits, store)
        assert check.passed is folds_are_sound
        assert check.passed or "source_id stand in more than one split" in check.message()


def test_stamps_need_the_manifest_alone_and_are_the_same_from_any_number_of_processes(
    survey: Survey, tmp_path: Path, settings: dict[str, Any]
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    for path in Path(settings["real_source_catalogue"]).parent.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    mine = {**settings, "real_source_catalogue": str(folder / "catalog.fits"), "fake_unlensed_share": 0.5}
    parent = survey.parents(SPREAD)
    manifest = survey.manifest(parent, **mine)
    assert (
        manifest.version
        == survey.manifest(parent, **(mine | {"real_source_catalogue": settings["real_source_catalogue"]})).version
    )
    for path in folder.iterdir():
        path.unlink()
    alone, together = (survey.stamps(parent, manifest, workers=n, rows_per_fragment=40) for n in (1, 2))
    assert [f["sha256"] for f in alone.attributes["fragments"]] == [
        f["sha256"] for f in together.attributes["fragments"]
    ]
    assert label_alignment(alone).passed


@pytest.fixture
def pictured(survey: Survey, settings: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any], Any]:
    """Rows with real sources, a host, and the pictures."""
    parent = survey.parents(SPREAD)
    manifest = survey.manifest(parent, **(settings | {"real_source_share": 1.0, "fake_unlensed_share": 1.0}))
    host = parent.read_table().to_pylist()[0]
    rows = [row for row in manifest.read_table().to_pylist() if row["galaxy_id"] == host["galaxy_id"]]
    return rows, host, open_pictures(sources_path(manifest))


def test_a_picture_has_the_half_light_radius_place_and_turn_that_the_row_drew(pictured: Any) -> None:
    rows, _, pictures = pictured
    grid = Grid.of(64, 0.1)
    for row in (row for row in rows if row["source_id"]):
        light, _ = galaxy_light(grid, source_of({**row, "src_reff_arcsec": 0.5}, pictures))
        light /= light.sum()
        x, y = ((light * axis).sum() for axis in (grid.x, grid.y))
        assert (x, y) == pytest.approx((row["src_x_arcsec"], row["src_y_arcsec"]), abs=0.02)
        dx, dy = grid.x - x, grid.y - y
        assert light[np.hypot(dx, dy) < 0.5].sum() == pytest.approx(0.5, abs=0.03)
        lies = np.arctan2(2 * (light * dx * dy).sum(), (light * (dx**2 - dy**2)).sum()) / 2
        own = 0.5 * NAMES.index(row["source_id"])
        assert np.cos(2 * (lies - own - row["src_phi_rad"])) > 0.98


def test_a_picture_of_a_disk_is_lensed_as_the_disk_itself(pictured: Any) -> None:
    """Where a Sersic profile of the same shape, size and place shines, so does the real source."""
    rows, host, pictures = pictured
    scene = simulated_scene(host, stamp_size=64, seed=1, neighbours_per_stamp=0)
    for row in (row for row in rows if row["source_id"]):
        number = NAMES.index(row["source_id"])
        # Half-light radii are of a circle here and of the geometric mean of the axes there: 1 % apart at this ellipticity.
        disk = {
            **row, "source_id": None, "src_n": 1.0, "src_e": 0.25, "src_phi_rad": row["src_phi_rad"] + 0.5 * number,
        }  # fmt: skip
        real, profile = make_arc(scene, row, pictures), make_arc(scene, disk)
        assert real.measures["magnification"] == pytest.approx(profile.measures["magnification"], rel=0.05)
        assert np.abs(real.pixels - profile.pixels).max() < 0.1 * profile.pixels.max()


def test_a_fake_of_a_real_source_has_its_light(pictured: Any) -> None:
    rows, host, pictures = pictured
    scene = simulated_scene(host, stamp_size=64, seed=1, neighbours_per_stamp=0)
    by_id = {row["task_id"]: row for row in rows}
    fake = next(row for row in rows if row["role"] == "fake_unlensed")
    assert fake["twin"]["source_id"] == by_id[fake["fake_of"]]["source_id"] in NAMES
    assert fake["source_id"] is None
    made, arc = make_light(scene, fake, pictures), make_light(scene, by_id[fake["fake_of"]], pictures)
    wanted = crop(arc.pixels, 64).sum(axis=(1, 2))
    assert crop(made.pixels, 64).sum(axis=(1, 2)) == pytest.approx(wanted, rel=1e-9)


def test_a_row_without_its_picture_is_refused_by_name(pictured: Any) -> None:
    row = next(row for row in pictured[0] if row["source_id"])
    with pytest.raises(PipelineError, match=rf"the real galaxy {row['source_id']} isn't among the 0 that came"):
        source_of(row, {})


def test_a_row_can_be_made_again_from_what_the_manifest_says_of_its_galaxies(
    survey: Survey, settings: dict[str, Any]
) -> None:
    parent = survey.parents(SPREAD)
    manifest = survey.manifest(parent, **settings)
    again = Design.of(InjectionConfig(**settings), Hosts.from_attributes(manifest.attributes["hosts"]))
    host = parent.read_table().to_pylist()[3]
    rows = [row for row in manifest.read_table().to_pylist() if row["galaxy_id"] == host["galaxy_id"]]
    assert [
        {name: row[name] for name in made} for row, made in zip(rows, rows_of_galaxy(again, host), strict=True)
    ] == [*rows_of_galaxy(again, host)]


def test_what_was_not_used_of_the_catalogue_is_said(survey: Survey, tmp_path: Path) -> None:
    good = [galaxy(sersic=SERSIC) + noise((121, 122), n) for n in range(4)]
    path = write(tmp_path, [*good, 0.01 * good[0] + noise((121, 122), 9)])
    manifest = survey.manifest(survey.parents(SPREAD), real_source_share=0.2, real_source_catalogue=str(path))
    said = manifest.attributes["real_sources"]
    assert [(row["galaxy_id"], row["reason"]) for row in said["left_out"]] in (
        [("cosmos-104", "too_faint")], [("cosmos-104", "not_centred")],
    )  # fmt: skip
    assert set(said["files"]) == {"catalog.fits", "catalog_fits.fits", "images_n1.fits"}
    assert manifest.read_table("sources").num_rows == 4


def test_an_image_of_sources_that_is_rewritten_while_they_are_drawn_is_refused(
    survey: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, [galaxy(sersic=SERSIC) + noise((121, 122), n) for n in range(4)])
    images = hst_sources._images

    def rewriting(file: Path, hdus: list[int]) -> Any:
        found = images(file, hdus)
        file.write_bytes(file.read_bytes())
        return found

    monkeypatch.setattr(hst_sources, "_images", rewriting)
    parent = survey.parents(SPREAD)
    with pytest.raises(StorageError, match=r"1 of 3 files changed while they were read: .*images_n1\.fits"):
        survey.manifest(parent, real_source_share=0.2, real_source_catalogue=str(path))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"real_source_share": 0.1}, "needs a real_source_catalogue"),
        ({"real_source_catalogue": "x.fits"}, "real_source_catalogue: read with real_source_share above 0"),
        ({"hold_out_real_sources": True}, "hold_out_real_sources: read with real_source_share above 0"),
        ({"real_source_colours": {"a": [1.0]}}, "two numbers a galaxy; not so for a"),
        ({"real_source_colours": {"a": [1.0, 0.2]}}, "belong together"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(wrong: dict[str, Any], said: str) -> None:
    given = {"real_source_share": 0.1, "real_source_catalogue": "x.fits"} if "colours" in next(iter(wrong)) else {}
    with pytest.raises(ValidationError, match=said):
        InjectionConfig(**given, **wrong)


def test_a_catalogue_that_is_not_there_and_colours_of_nobody_are_refused(
    survey: Survey, settings: dict[str, Any]
) -> None:
    parent = survey.parents(SPREAD)
    with pytest.raises(ConfigError, match="there is no catalogue"):
        survey.manifest(parent, real_source_share=0.1, real_source_catalogue="nowhere.fits")
    colours = {"real_source_colours": {"cosmos-9": [0.1, 0.1]}, "real_source_colours_from": "X 2020"}
    with pytest.raises(ConfigError, match=r"names 1 galaxies that aren't usable sources of catalog.fits: cosmos-9"):
        survey.manifest(parent, **settings, **colours)
    config = InjectionConfig(**settings)
    with pytest.raises(ConfigError, match="no real source was given"):
        Design.of(config, Hosts.of(config, [0.5]))


@pytest.mark.real_data
def test_the_shared_hst_galaxies_are_lensed_in_a_survey_whose_splits_share_none(
    survey: Survey, real_data: Path
) -> None:
    path = real_data / "hst_sources" / "real_galaxy_catalog_23.5.fits"
    parent = survey.parents(ParentSampleConfig(n_galaxies=80, n_bricks=60))
    manifest = survey.manifest(
        parent, real_source_share=0.5, real_source_catalogue=str(path), share_sis=0.5, share_sie=0.0, share_epl=0.5,
        theta_e_low_arcsec=1.3, theta_e_high_arcsec=1.7, injections_per_galaxy=4,
    )  # fmt: skip
    assert [row["galaxy_id"] for row in manifest.attributes["real_sources"]["left_out"]] == [
        "cosmos-129658",
        "cosmos-178249",
    ]
    splits, store = into_splits(survey, manifest, parent)
    assert [check.message() for check in leak_checks(splits, store) if not check.passed] == []
    rows = store.read_table().to_pylist()
    arcs = [row for row in rows if row["source_id"] is not None]
    assert len({row["source_id"] for row in arcs}) == 8
    assert min(row["arc_snr_matched"] for row in arcs) > 0
    # Magnifications of either kind of source are those of the same lenses and places.
    real, profiles = (
        np.log([row["magnification"] for row in rows if row["magnification"] and (row["source_id"] is None) is without])
        for without in (False, True)
    )
    error = np.hypot(real.std() / np.sqrt(len(real)), profiles.std() / np.sqrt(len(profiles)))
    assert abs(real.mean() - profiles.mean()) < 4 * error
