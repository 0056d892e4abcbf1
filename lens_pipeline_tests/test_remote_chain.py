"""A chain that publishes at an s3:// address, and another machine that reads all of it."""

from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from lens_pipeline.definitions import build_definitions
from lens_pipeline.stamps.store import StampStore, verify
from lens_pipeline.storage import read_table
from lens_pipeline.storage.home import Home
from lens_pipeline_tests.s3_servers import Bucket

ASSETS = ["parent_sample", "injection_manifest", "stamps", "stamp_store", "region_splits"]
SMALL: dict[str, Any] = {
    "resources": {"workspace": {"config": {"dataset": "small"}}},
    "ops": {
        "parent_sample": {"config": {"n_galaxies": 160, "n_bricks": 64}},
        "stamps": {"config": {"workers": 1}},
        "region_splits": {"config": {"floor_rows": 1, "share_tolerance": 0.5, "validation": 0.4}},
    },
}


def materialize(*assets: str) -> dg.ExecuteInProcessResult:
    job = build_definitions().resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        return job.execute_in_process(
            run_config=SMALL, asset_selection=[dg.AssetKey(name) for name in assets], instance=instance
        )


def test_a_chain_publishes_at_an_address_the_same_as_in_a_folder_and_an_empty_machine_reads_the_same_bytes(
    swift_s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENS_PIPELINE_HOME", f"{swift_s3.address}/surveys")
    monkeypatch.setenv("LENS_PIPELINE_LOCAL", str(tmp_path / "here"))
    result = materialize(*ASSETS)
    assert result.success
    here = Home.from_environment()
    monkeypatch.setenv("LENS_PIPELINE_LOCAL", str(tmp_path / "there"))
    there = Home.from_environment()
    assert there.datasets_with("stamp_store") == ["small"]
    for asset in ASSETS:
        made, read = here.open("small", asset), there.open("small", asset)
        assert read.version == made.version
        assert read.verify() == []
        for name in made.manifest.files:
            assert read.path(name).read_bytes() == made.path(name).read_bytes()
        [event] = result.asset_materializations_for_node(asset)
        assert event.metadata["published_at"].value == f"{swift_s3.address}/surveys/small/{asset}/shared/{made.version}"
    store, same = (
        StampStore.open(here.open("small", "stamp_store")),
        StampStore.open(there.open("small", "stamp_store")),
    )
    assert verify(same.publication) == []
    rows = np.arange(store.n_rows)
    assert store.n_rows > 300
    assert np.array_equal(store.take(rows).pixels, same.take(rows).pixels)
    assert read_table("region_splits").height > 0
    monkeypatch.setenv("LENS_PIPELINE_HOME", str(tmp_path / "folder"))
    assert materialize(*ASSETS[:2]).success
    in_folder = Home.from_environment()
    for asset in ASSETS[:2]:
        assert in_folder.open("small", asset).version == there.open("small", asset).version
