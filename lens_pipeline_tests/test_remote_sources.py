"""A survey's files at s3:// give the same rows and the same store as in a local folder, and are fetched as rarely as can be."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from lens_pipeline.defs.assets import dataset, survey
from lens_pipeline.defs.workspace import Workspace
from lens_pipeline.storage import sources
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline_tests import survey_like
from lens_pipeline_tests.s3_servers import Bucket

N_FILES = 3
CHAIN = ("parent_sample", "injection_manifest", "stamps", "stamp_store", "region_splits")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return survey_like.write(tmp_path_factory.mktemp("survey"), survey_like.rows(80, 40), n_files=N_FILES)


@dataclass(frozen=True)
class Taken:
    """What a chain made of the files."""

    files: list[dict[str, Any]]
    manifest: pa.Table
    store: dict[str, str]
    split: pa.Table


def taken(name: str) -> Taken:
    store = current(name, "stamp_store").manifest.files
    return Taken(
        files=current(name, "parent_sample").attributes["files"],
        manifest=current(name, "injection_manifest").read_table(),
        # Which files it was made from is the one thing in which a store from elsewhere differs.
        store={file: entry.sha256 for file, entry in store.items() if file != "fragments.parquet"},
        split=current(name, "region_splits").read_table("rows"),
    )


@pytest.fixture(scope="module")
def local(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Taken:
    """The chain from the local folder."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LENS_PIPELINE_HOME", str(tmp_path_factory.mktemp("local_home")))
        assert materialize("local", str(folder)).success
        return taken("local")


@pytest.fixture
def cache_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Set the quota of a cache of the test's own."""
    monkeypatch.setenv("LENS_PIPELINE_CACHE", str(tmp_path / "cache"))
    yield lambda quota: monkeypatch.setenv("LENS_PIPELINE_CACHE_BYTES", str(quota))
    sources._let_go()


def upload(folder: Path, bucket: Bucket, prefix: str = "drop") -> str:
    for path in folder.iterdir():
        bucket.client().put_object(Bucket=bucket.name, Key=f"{prefix}/{path.name}", Body=path.read_bytes())
    # Neighbours that a careless listing would take for ours.
    bucket.client().put_object(Bucket=bucket.name, Key=f"{prefix}-2/part-009.parquet", Body=b"another folder's")
    bucket.client().put_object(Bucket=bucket.name, Key=f"{prefix}/older/part-009.parquet", Body=b"a folder below")
    bucket.client().put_object(Bucket=bucket.name, Key=f"{prefix}/README.txt", Body=b"no parquet")
    return f"{bucket.address}/{prefix}"


def materialize(name: str, folder: str, *only: str) -> dg.ExecuteInProcessResult:
    assets = dg.load_assets_from_modules([survey, dataset])
    ops = {
        "parent_sample": {"config": {"source": "external_stamps", "folder": folder}},
        "region_splits": {"config": {"floor_rows": 1}},
    }
    return dg.materialize(
        assets,
        selection=list(only) or None,
        resources={"workspace": Workspace(dataset=name)},
        raise_on_error=False,
        run_config={"ops": {asset: config for asset, config in ops.items() if not only or asset in only}},
    )


def failure(result: dg.ExecuteInProcessResult) -> str:
    (event,) = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    assert event.step_failure_data.user_failure_data is not None
    return str(event.step_failure_data.user_failure_data.description)


def current(name: str, asset: str) -> Publication:
    return Home.from_environment().open(name, asset)


def counts() -> Counter[str]:
    return sources._connection()[1].counts


@pytest.mark.parametrize("server", ["moto_s3", "swift_s3"])
def test_the_chain_from_s3_gives_the_rows_and_the_store_that_it_gives_from_a_folder_byte_for_byte(
    server: str, request: pytest.FixtureRequest, folder: Path, local: Taken, cache_bytes: Any
) -> None:
    bucket: Bucket = request.getfixturevalue(server)
    cache_bytes(10**9)
    address = upload(folder, bucket)
    assert materialize("remote", address).success
    remote = taken("remote")
    assert remote.store == local.store
    assert any(name.startswith("segment") for name in remote.store)
    assert remote.manifest.equals(local.manifest)
    assert remote.split.equals(local.split)
    assert [file["path"] for file in remote.files] == [f"{address}/part-{i:03d}.parquet" for i in range(N_FILES)]
    told = ("sha256", "size", "rows", "row_groups")
    assert [[file[name] for name in told] for file in remote.files] == [
        [file[name] for name in told] for file in local.files
    ]
    assert all(file["etag"] for file in remote.files)
    # One whole GET an object, for five assets and their checks.
    assert (counts()["fetched"], counts()["passed"], counts()["damaged"]) == (N_FILES, 0, 0)


def test_without_room_in_the_cache_the_same_store_comes_from_a_bounded_number_of_fetches(
    moto_s3: Bucket, folder: Path, local: Taken, cache_bytes: Any
) -> None:
    cache_bytes(0)
    assert materialize("remote", upload(folder, moto_s3)).success
    assert taken("remote").store == local.store
    assert counts()["fetched"] == 0
    # One each for parent_sample, injection_manifest and each of two checks of stamps; up to four for the gallery and stamp_store.
    assert N_FILES < counts()["passed"] <= 8 * N_FILES


def test_an_object_that_was_replaced_or_removed_is_refused_by_name_at_every_asset(
    moto_s3: Bucket, folder: Path, cache_bytes: Any
) -> None:
    cache_bytes(10**9)
    address = upload(folder, moto_s3)
    assert materialize("remote", address).success
    key = "drop/part-001.parquet"
    sound = (folder / "part-001.parquet").read_bytes()
    flipped = bytearray(sound)
    flipped[len(sound) // 2] ^= 1
    for body in (bytes(flipped), None):
        if body is None:
            moto_s3.client().delete_object(Bucket=moto_s3.name, Key=key)
        else:
            moto_s3.client().put_object(Bucket=moto_s3.name, Key=key, Body=body)
        for asset in ("injection_manifest", "stamp_store"):
            said = failure(materialize("remote", address, asset))
            assert f"{address}/part-001.parquet" in said
            assert ("is gone" if body is None else "has changed") in said
            assert "Next: put it back" in said


def test_a_bucket_without_files_and_an_address_that_cant_be_one_are_refused_before_any_work(
    moto_s3: Bucket, cache_bytes: Any
) -> None:
    cache_bytes(0)
    assert "there is no *.parquet object directly below" in failure(
        materialize("remote", f"{moto_s3.address}/nothing", "parent_sample")
    )
    assert "can't be an address" in failure(materialize("remote", "s3://bucket/../else", "parent_sample"))


def test_no_credential_is_published_or_told(
    moto_s3: Bucket, folder: Path, cache_bytes: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache_bytes(10**9)
    address = upload(folder, moto_s3)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-that-is-nowhere")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key-that-is-nowhere")
    assert materialize("remote", address, "parent_sample").success
    moto_s3.client().delete_object(Bucket=moto_s3.name, Key="drop/part-001.parquet")
    said = failure(materialize("remote", address, "injection_manifest"))
    assert f"{address}/part-001.parquet" in said
    home = Home.from_environment().path
    written = [path.read_bytes() for root in (home, tmp_path) for path in root.rglob("*") if path.is_file()]
    assert not any(b"that-is-nowhere" in content for content in [*written, said.encode()])
