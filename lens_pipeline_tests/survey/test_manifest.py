from collections import Counter
from typing import Any

import pyarrow.compute as pc

from lens_pipeline.contracts.catalogue import INJECTION_MANIFEST
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.config import InjectionConfig
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
