"""New files of a survey are taken in once they stand still, retraining follows green runs alone, and what is lost is named."""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.definitions import build_definitions
from lens_pipeline.defs.sections import RunConfig
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline_tests import survey_like
from lens_pipeline_tests.s3_servers import Bucket

NAME = "theirs"
N_FIRST = 240


@cache
def all_rows() -> list[dict[str, Any]]:
    """Rows of 140 galaxies in 70 regions, without a split of their own; the first 240 are there at the beginning."""
    return [{name: value for name, value in row.items() if name != "region_split"} for row in survey_like.rows(140, 70)]


def preset(folder: str, **settings: Any) -> RunConfig:
    return {
        "resources": {"workspace": {"config": {"dataset": NAME}}},
        "ops": {
            "parent_sample": {"config": {"source": "external_stamps", "folder": folder, **settings}},
            "region_splits": {"config": {"floor_rows": 1, "share_tolerance": 0.2}},
        },
    }


class Survey:
    """A folder of a survey's files, the definitions that watch it, and the cursors of both sensors between ticks."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.folder, self.instance = folder, instance
        self.definitions = build_definitions(preset(str(folder)))
        self._cursors: dict[str, str | None] = {}

    def tick(self, sensor: str = "new_fragments") -> list[dg.RunRequest]:
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self._cursors.get(sensor),
            repository_def=self.definitions.get_repository_def(),
            sensor_name=sensor,
        )
        tick = self.definitions.resolve_sensor_def(sensor).evaluate_tick(context)
        self._cursors[sensor] = tick.cursor or self._cursors.get(sensor)
        return list(tick.run_requests or [])

    def run(self, request: dg.RunRequest, **settings: Any) -> dg.ExecuteInProcessResult:
        """Run what a sensor asked for, as the daemon would."""
        definitions = build_definitions(preset(str(self.folder), **settings))
        job = definitions.resolve_job_def(request.job_name or "ingest")
        return job.execute_in_process(
            run_config=request.run_config or None, instance=self.instance, tags=request.tags, raise_on_error=False
        )

    def take_in(self) -> dg.ExecuteInProcessResult:
        assert self.tick() == []
        (request,) = self.tick()
        return self.run(request)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def survey(tmp_path: Path, instance: dg.DagsterInstance) -> Survey:
    return Survey(survey_like.write(tmp_path / "survey", all_rows()[:N_FIRST], n_files=3), instance)


def current(asset: str) -> Publication:
    return Home.from_environment().open(NAME, asset)


def grow(survey: Survey) -> list[str]:
    """Add a file with rows of new galaxies, in regions that are there and in new ones; return their keys."""
    new = all_rows()[N_FIRST:]
    new = [{**row, "region_id": f"new-{row['region_id']}"} if i // 2 % 2 else row for i, row in enumerate(new)]
    survey_like.write(survey.folder / "incoming", new, n_files=1)
    (survey.folder / "incoming" / "part-000.parquet").rename(survey.folder / "part-100.parquet")
    (survey.folder / "incoming").rmdir()
    return [row["task_id"] for row in new]


def finding(result: dg.ExecuteInProcessResult, check: str) -> tuple[bool, str]:
    (event,) = [event for event in result.get_asset_check_evaluations() if event.check_name == check]
    return event.passed, str(event.metadata["finding"].value)


def test_new_files_are_taken_in_once_and_old_regions_keep_their_split(survey: Survey) -> None:
    assert survey.take_in().success
    assert [survey.tick() for _ in range(3)] == [[], [], []]
    before = {row["region_id"]: row["split"] for row in current("region_splits").read_table().to_pylist()}
    store = current("stamp_store")
    keys = grow(survey)
    result = survey.take_in()
    assert result.success
    passed, said = finding(result, "source_only_grew")
    assert passed
    assert f"1 files came: {len(keys)} rows more" in said
    after = {row["region_id"]: row["split"] for row in current("region_splits").read_table().to_pylist()}
    assert {region: after[region] for region in before} == before
    assert set(after) - set(before)
    stored = current("stamp_store").read_table(columns=["task_id"])["task_id"].to_pylist()
    assert set(keys) <= set(stored)
    assert len(stored) == N_FIRST + len(keys)
    assert current("stamp_store").version != store.version
    assert [survey.tick() for _ in range(3)] == [[], [], []]


def test_files_that_still_change_are_waited_for(survey: Survey) -> None:
    path = survey.folder / "part-000.parquet"
    for size in (100, 200, 300):
        os.truncate(path, size)
        assert survey.tick() == []
    (request,) = survey.tick()
    assert request.run_key


def test_what_was_taken_in_by_hand_is_not_asked_for(survey: Survey) -> None:
    assert survey.run(dg.RunRequest(job_name="ingest")).success
    assert [survey.tick() for _ in range(3)] == [[], [], []]
    content = (survey.folder / "part-000.parquet").read_bytes()
    (survey.folder / "part-000.parquet").write_bytes(content[:-1] + b"2")
    assert survey.tick() == []
    assert len(survey.tick()) == 1


def test_a_file_that_is_gone_or_changed_is_a_red_check_that_names_it_and_never_a_retraining(survey: Survey) -> None:
    survey.tick("retrain_on_new_data")
    assert survey.take_in().success
    assert len(survey.tick("retrain_on_new_data")) == 1
    good = current("parent_sample").version
    (survey.folder / "part-001.parquet").unlink()
    survey_like.write(survey.folder / "new", all_rows()[:20], n_files=1)
    (survey.folder / "new" / "part-000.parquet").rename(survey.folder / "part-002.parquet")
    (survey.folder / "new").rmdir()
    assert survey.tick() == []
    (request,) = survey.tick()
    result = survey.run(request)
    assert not result.success
    passed, found = finding(result, "source_only_grew")
    assert not passed
    assert "1 of 3 files are gone and 1 have other bytes" in found
    assert f"{survey.folder}/part-001.parquet is gone" in found
    assert f"{survey.folder}/part-002.parquet shrank from 80 to 20 rows" in found
    assert f"accept_changes_from: {good}" in found
    assert current("parent_sample").version == good
    assert survey.tick("retrain_on_new_data") == []
    assert [survey.tick() for _ in range(2)] == [[], []]
    accepted = survey.run(request, accept_changes_from=good)
    passed, found = finding(accepted, "source_only_grew")
    assert passed
    assert "accepted by parent_sample.accept_changes_from" in found
    assert current("parent_sample").version != good


def test_a_retraining_follows_a_green_ingest_that_brought_something_and_only_once(survey: Survey) -> None:
    survey.tick("retrain_on_new_data")
    assert survey.take_in().success
    (request,) = survey.tick("retrain_on_new_data")
    store, splits = current("stamp_store"), current("region_splits")
    assert request.run_key == f"{store.version}-{splits.version}"
    assert survey.tick("retrain_on_new_data") == []
    home = Home.from_environment()
    with home.stage(NAME, "lens_classifier", inputs=[store, splits]) as staging:
        home.conclude(staging.commit(), [])
    assert survey.run(dg.RunRequest(job_name="ingest")).success
    assert survey.tick("retrain_on_new_data") == []


def test_objects_at_s3_are_watched_as_files_are(moto_s3: Bucket, instance: dg.DagsterInstance) -> None:
    survey = Survey(Path("unused"), instance)
    survey.definitions = build_definitions(preset(f"{moto_s3.address}/drop"))
    client = moto_s3.client()
    client.put_object(Bucket=moto_s3.name, Key="drop/part-000.parquet", Body=b"one")
    assert survey.tick() == []
    (first,) = survey.tick()
    client.put_object(Bucket=moto_s3.name, Key="drop/part-000.parquet", Body=b"two")
    assert survey.tick() == []
    (second,) = survey.tick()
    assert first.run_key != second.run_key


def test_the_sensors_stand_still_until_started_and_watch_no_other_source(tmp_path: Path) -> None:
    sensors = [s for s in build_definitions(preset(str(tmp_path))).sensors or [] if s.name != "notify_of_lost_runs"]
    assert {sensor.name for sensor in sensors} == {"new_fragments", "retrain_on_new_data"}
    assert {sensor.default_status for sensor in sensors} == {dg.DefaultSensorStatus.STOPPED}
    assert {sensor.name: sensor.job.name for sensor in sensors if isinstance(sensor, dg.SensorDefinition)} == {
        "new_fragments": "ingest",
        "retrain_on_new_data": "retrain",
    }
    assert [sensor.name for sensor in build_definitions().sensors or []] == ["notify_of_lost_runs"]


def test_a_folder_that_cant_be_listed_is_a_failed_tick_with_the_reason(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    survey = Survey(tmp_path / "nowhere", instance)
    with pytest.raises(ConfigError, match=r"there is no folder .*nowhere\. Set parent_sample\.folder"):
        survey.tick()
