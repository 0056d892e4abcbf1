from collections import Counter
from typing import Any

import pyarrow.compute as pc
import pytest

from lens_pipeline.contracts.catalogue import INJECTION_MANIFEST, NULL_FLUX
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.splits.config import SplitConfig
from lens_pipeline.splits.region_splits import build_region_splits
from lens_pipeline.stamps.config import StoreConfig
from lens_pipeline.stamps.ingest import build_store
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.checks import label_alignment, manifest_conservation, pairs_are_sound
from lens_pipeline.survey.config import InjectionConfig, ParentSampleConfig
from lens_pipeline.survey.manifest import rows_of_galaxy

from .conftest import Survey


def test_each_galaxy_has_one_control_that_all_its_injections_share(small: dict[str, Publication]) -> None:
    manifest = small["injection_manifest"].read_table()
    INJECTION_MANIFEST.validate(manifest, where="the manifest")
    rows = manifest.to_pylist()
    assert Counter(row["lens_model"] == "CONTROL" for row in rows) == {True: 12, False: 24}
    control_of = {row["galaxy_id"]: row["task_id"] for row in rows if row["lens_model"] == "CONTROL"}
    assert all(row["pair_id"] == control_of[row["galaxy_id"]] for row in rows if row["lens_model"] != "CONTROL")
    assert set(manifest["weight"].to_pylist()) == {1.0}


def test_a_row_is_the_same_whatever_stands_around_it(galaxy: dict[str, Any]) -> None:
    few = list(rows_of_galaxy(InjectionConfig(injections_per_galaxy=2), galaxy))
    many = list(rows_of_galaxy(InjectionConfig(injections_per_galaxy=9), galaxy))
    assert many[:3] == few


def test_the_same_settings_publish_the_same_version_and_another_seed_another(survey: Survey) -> None:
    parent = survey.parents()
    assert survey.manifest(parent).version == survey.manifest(parent).version
    assert survey.manifest(parent, seed=99).version != survey.manifest(parent).version


def test_controls_carry_no_arc(small: dict[str, Publication]) -> None:
    manifest = small["injection_manifest"].read_table()
    controls = manifest.filter(pc.equal(manifest["lens_model"], "CONTROL"))
    assert set(controls["theta_e_arcsec"].to_pylist()) == {0.0}
    assert controls["src_mag_r"].null_count == controls["pair_id"].null_count == controls.num_rows


FAKES = {"fake_turned_share": 0.5, "fake_unlensed_share": 0.5, "fake_blob_share": 0.5}


def test_fakes_imitate_injections_and_are_controls_to_whoever_reads_them(survey: Survey) -> None:
    parent = survey.parents()
    manifest = survey.manifest(parent, injections_per_galaxy=20, **FAKES)
    rows = {row["task_id"]: row for row in manifest.read_table().to_pylist()}
    fakes = [row for row in rows.values() if row["role"].startswith("fake_")]
    contract = DatasetContract.model_validate(manifest.attributes["dataset_contract"])
    for fake in fakes:
        twin = rows[fake["fake_of"]]
        assert (fake["galaxy_id"], fake["region_id"]) == (twin["galaxy_id"], twin["region_id"])
        assert contract.label_of[fake["lens_model"]] == contract.label_of["CONTROL"] == 0
        assert (fake["theta_e_arcsec"], fake["src_mag_r"], fake["pair_id"]) == (0.0, None, None)
        assert all(fake["twin"][name] == twin[name] for name in fake["twin"])
    share = Counter(row["role"] for row in fakes)
    assert [share["fake_blob"] / 240, share["fake_unlensed"] / 240] == pytest.approx([0.5, 0.5], abs=0.15)
    assert share["fake_turned"] < share["fake_blob"]
    assert manifest.attributes["roles"]["injection"] == 240
    assert [
        check.message() for check in (label_alignment(manifest), pairs_are_sound(manifest)) if not check.passed
    ] == []


def test_fakes_are_stamped_and_known_to_the_store_as_controls_of_their_own_kind(survey: Survey) -> None:
    parent = survey.parents()
    manifest = survey.manifest(parent, **FAKES)
    stamps = survey.stamps(parent, manifest)
    assert [
        check.message()
        for check in (label_alignment(stamps), manifest_conservation(stamps, manifest))
        if not check.passed
    ] == []
    contract = DatasetContract.model_validate(stamps.attributes["dataset_contract"])
    assert contract.stratum(0, "CONTROL", 0.0) == "control"
    assert contract.stratum(0, "FAKE_BLOB", 0.0) == "control/FAKE_BLOB"


def test_some_galaxies_have_a_control_that_nothing_is_the_pair_of(survey: Survey) -> None:
    parent = survey.parents(ParentSampleConfig(n_galaxies=100, n_bricks=8))
    rows = survey.manifest(parent, unpaired_control_share=0.4, injections_per_galaxy=2).read_table().to_pylist()
    alone = {row["galaxy_id"] for row in rows if row["role"] == "unpaired_control"}
    assert 25 < len(alone) < 55
    assert {row["galaxy_id"] for row in rows if row["role"] == "injection"} == {
        row["galaxy_id"] for row in rows
    } - alone
    assert {row["pair_id"] for row in rows if row["pair_id"]} == {
        row["task_id"] for row in rows if row["role"] == "control"
    }


def test_injections_without_flux_stand_in_a_table_of_their_own(survey: Survey, small: dict[str, Publication]) -> None:
    manifest = survey.manifest(survey.parents(), null_flux_share=1.0)
    probes = manifest.read_table("null_flux")
    NULL_FLUX.validate(probes, where="the probes")
    assert probes.num_rows == 12
    assert set(probes["role"].to_pylist()) == {"null_flux"}
    assert probes["theta_e_arcsec"].to_pylist() != manifest.read_table()["theta_e_arcsec"].to_pylist()[1::2]
    assert manifest.read_table().equals(survey.manifest(survey.parents()).read_table())
    assert small["injection_manifest"].read_table("null_flux").num_rows == 0


def test_the_splits_keep_what_is_held_out_in_test(survey: Survey) -> None:
    parent = survey.parents(ParentSampleConfig(n_galaxies=60, n_bricks=24))
    manifest = survey.manifest(parent, injections_per_galaxy=10, hold_out_lens_models=["SIS"])
    stamps = survey.stamps(parent, manifest)
    with survey.home.stage("test", "stamp_store", inputs=[stamps]) as staging:
        build_store(StoreConfig(workers=1), stamps, staging)
        store = staging.commit()
    with survey.home.stage("test", "region_splits", inputs=[store]) as staging:
        assert build_region_splits(SplitConfig(floor_rows=1), store, staging).by_survey
        splits = staging.commit()
    split_of = {row["region_id"]: row["split"] for row in splits.read_table().to_pylist()}
    rows = store.read_table().to_pylist()
    assert {split_of[row["region_id"]] for row in rows if row["lens_model"] == "SIS"} == {"test"}
    assert {split_of[row["region_id"]] for row in rows if row["is_held_out"]} == {"test"}
    assert len(set(split_of.values())) > 2


def test_power_laws_are_lenses_from_the_manifest_to_the_store(survey: Survey) -> None:
    parent = survey.parents()
    manifest = survey.manifest(parent, share_sie=0.0, share_sis=0.0, share_epl=1.0, fake_blob_share=1.0)
    stamps = survey.stamps(parent, manifest)
    assert [check.message() for check in (label_alignment(manifest), label_alignment(stamps)) if not check.passed] == []
    with survey.home.stage("test", "stamp_store", inputs=[stamps]) as staging:
        build_store(StoreConfig(workers=1), stamps, staging)
        store = staging.commit()
    rows = store.read_table().to_pylist()
    assert {(row["lens_model"], row["label"], row["lens_gamma"] is None) for row in rows} == {
        ("EPL", 1, False),
        ("CONTROL", 0, True),
        ("FAKE_BLOB", 0, True),
    }
    drawn = {row["task_id"]: row["lens_gamma"] for row in manifest.read_table().to_pylist()}
    assert {row["task_id"]: row["lens_gamma"] for row in rows} == drawn
