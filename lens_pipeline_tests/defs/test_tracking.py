"""Training runs are tracked, linked with Dagster's both ways; a server that is down or a killed run loses and spoils nothing."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from pydantic import Field

from lens_pipeline.contracts.catalogue import METRICS
from lens_pipeline.contracts.checks import green, red
from lens_pipeline.contracts.config import Section
from lens_pipeline.defs import mirror
from lens_pipeline.defs.mirror import Mirror
from lens_pipeline.defs.mlflow_runs import MlflowRun, Record
from lens_pipeline.defs.tracking import EXPERIMENT, Tracking
from lens_pipeline.defs.workspace import Workspace
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.failures import TrainingCancelledError
from lens_pipeline.training.folder import RunFolder
from lens_pipeline_tests.training.events import epoch, finished, run_started, step

DEAD = "http://127.0.0.1:9"
EVENTS = [run_started(), step(0, 5), step(0, 10, loss=0.4), epoch(0), step(1, 5), epoch(1, val_auroc=None), finished()]


class Settings(Section):
    epochs: int = 3
    order_weights: dict[str, float] = Field({"CONTROL": 2.0})


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of MLflow's, which takes seconds to make."""
    from mlflow.tracking import MlflowClient

    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(autouse=True)
def _database_in_the_home(database: Path) -> None:
    shutil.copyfile(database, Home.from_environment().path / "mlflow.db")


@pytest.fixture
def instance() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


@pytest.fixture
def folder() -> Path:
    return work_folder("a-training")


def work_folder(name: str) -> Path:
    return Home.from_environment().work_folder("simulated", "lens_classifier", name)


def write(folder: Path, *events: dict[str, Any]) -> None:
    with open(RunFolder(folder).history, "a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


def in_an_asset(
    tracking: Tracking, body: Callable[[dg.AssetExecutionContext], object], instance: dg.DagsterInstance
) -> dg.ExecuteInProcessResult:
    @dg.asset
    def lens_classifier(context: dg.AssetExecutionContext) -> None:
        body(context)

    tracking.setup_for_execution(dg.build_init_resource_context())
    return dg.materialize([lens_classifier], instance=instance, raise_on_error=False)


def train(
    tracking: Tracking, context: dg.AssetExecutionContext, folder: Path, events: list[dict[str, Any]] = EVENTS
) -> None:
    with tracking.training_run(context, Settings(), Workspace(), inputs=[], folder=folder) as run:
        for event in events:
            write(folder, event)
            run.on_event(event)


def trained(
    tracking: Tracking, instance: dg.DagsterInstance, folder: Path, events: list[dict[str, Any]] = EVENTS
) -> dg.ExecuteInProcessResult:
    return in_an_asset(tracking, lambda context: train(tracking, context, folder, events), instance)


def runs(tracking: Tracking) -> list[Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking.tracking_uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return [] if experiment is None else list(client.search_runs([experiment.experiment_id]))


def points(tracking: Tracking, run: Any, name: str) -> list[tuple[int, float]]:
    from mlflow.tracking import MlflowClient

    return [(m.step, m.value) for m in MlflowClient(tracking.tracking_uri).get_metric_history(run.info.run_id, name)]


def classifier() -> Publication:
    with Home.from_environment().stage("simulated", "lens_classifier") as staging:
        staging.write_json("model.json", {})
        staging.write_bytes("model.safetensors", b"weights")
        return staging.commit()


def report() -> Publication:
    row = {c.name: None for c in METRICS.columns} | {
        "metric": "auroc", "split": "test", "value": 0.9, "low": 0.8, "high": 0.95, "n_positives": 10, "n_negatives": 10,
        "n_clusters": 10, "unit": "", "status": "ok", "stratum": "all", "cluster": "galaxy",
    }  # fmt: skip
    unresolved = row | {"metric": "tpr_at_fpr_1e-03", "value": None, "low": None, "high": None, "status": "unresolved"}
    with Home.from_environment().stage("simulated", "evaluation_report") as staging:
        staging.write_table(None, pa.Table.from_pylist([row, unresolved], schema=METRICS.schema))
        staging.write_bytes("report.html", b"<html></html>")
        return staging.commit()


def test_a_training_is_tracked_with_settings_curves_checks_model_and_report(
    instance: dg.DagsterInstance, folder: Path
) -> None:
    from mlflow.tracking import MlflowClient

    tracking, seen = Tracking(), {}

    def body(context: dg.AssetExecutionContext) -> None:
        train(tracking, context, folder)
        made = classifier()
        found = [green("one", "fine"), red("two", "off", wrong=["a"], why="w", next_step="n", blocking=False)]
        tracking.tell_outcome(context, folder, made, found, note="### Checks", files={"training_curves.png": b"png"})
        seen.update(tracking.describe_classifier(folder))
        tracking.log_report(context, made, report(), {"roc": b"png"})

    result = in_an_asset(tracking, body, instance)
    assert result.success
    client = MlflowClient(tracking.tracking_uri)
    run = client.get_run(str(seen["mlflow_run_id"].value))
    assert run.info.status == "FINISHED"
    assert run.data.params == {"epochs": "3", "order_weights": '{"CONTROL": 2.0}'}
    assert run.data.tags["dagster.run_id"] == result.run_id
    assert run.data.tags["lens_pipeline.reader"] == "mapped: it fits"
    assert run.data.tags["lens_pipeline.checks"] == "red: two"
    assert run.data.tags["mlflow.note.content"] == "### Checks"
    assert run.data.metrics["test_auroc_low"] == 0.8
    assert "test_tpr_at_fpr_1e-03" not in run.data.metrics
    assert points(tracking, run, "val_auroc") == [(0, 0.9)]
    assert points(tracking, run, "step/loss") == [(5, 0.5), (10, 0.4), (15, 0.5)]
    assert run.data.metrics["training/train_rows"] == 640
    assert points(tracking, run, "progress") == [(5, 0.125), (10, 0.25), (15, 0.375), (20, 0.5)]
    assert {f.path for f in client.list_artifacts(run.info.run_id)} == {
        "model.json", "model.safetensors", "report.html", "roc.png", "training_curves.png",
    }  # fmt: skip


def test_a_run_is_called_after_its_dataset_and_after_its_model_where_there_is_more_than_one(
    instance: dg.DagsterInstance, folder: Path
) -> None:
    tracking = Tracking()
    trained(tracking, instance, folder, [run_started(), finished()])
    member = Workspace(model="default.seed-1")

    def body(context: dg.AssetExecutionContext) -> None:
        with tracking.training_run(context, Settings(), member, inputs=[], folder=work_folder("another")):
            pass

    assert in_an_asset(tracking, body, instance).success
    assert sorted(run.info.run_name for run in runs(tracking)) == ["simulated", "simulated default.seed-1"]


def test_dagster_shows_each_epoch_as_it_ends_with_what_is_left(instance: dg.DagsterInstance, folder: Path) -> None:
    result = trained(Tracking(), instance, folder)
    observed = [e for e in result.all_events if e.event_type_value == "ASSET_OBSERVATION"]
    shown = [e.asset_observation_data.asset_observation.metadata for e in observed]
    assert [one["epoch"].value for one in shown] == [0, 1]
    assert shown[0]["val_auroc"].value == 0.9
    assert "val_auroc" not in shown[1]
    assert shown[0]["progress"].value == 0.25
    assert shown[0]["at_most_seconds_left"].value == 30.0


def test_a_server_that_is_down_costs_seconds_and_no_training(instance: dg.DagsterInstance, folder: Path) -> None:
    started = time.monotonic()
    result = trained(Tracking(uri=DEAD), instance, folder)
    assert result.success
    assert time.monotonic() - started < 30
    assert not MlflowRun(folder).is_told


def test_what_a_server_missed_is_told_by_the_next_training_with_not_a_point_lost(
    instance: dg.DagsterInstance, folder: Path
) -> None:
    down, up = Tracking(uri=DEAD), Tracking()
    assert trained(down, instance, folder).success
    record = Record.read(folder)
    assert record is not None
    # The same server, which answers again.
    record.uri = up.tracking_uri
    record.write(folder)
    assert trained(up, instance, work_folder("another"), [run_started(), epoch(0), finished()]).success
    both = {run.data.tags["dagster.run_id"]: run for run in runs(up)}
    assert len(both) == 2
    missed = next(run for run in both.values() if len(points(up, run, "step/loss")))
    assert points(up, missed, "step/loss") == [(5, 0.5), (10, 0.4), (15, 0.5)]
    assert points(up, missed, "val_loss") == [(0, 0.5), (1, 0.45)]
    assert missed.info.status == "FINISHED"


def test_a_server_that_comes_back_during_a_training_is_told_what_it_missed(
    instance: dg.DagsterInstance, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach, refusals = MlflowRun._reach, iter([True, True])

    def refuse_twice(self: MlflowRun, record: Record) -> Any:
        if next(refusals, False):
            raise OSError("connection refused")
        return reach(self, record)

    monkeypatch.setattr(MlflowRun, "_reach", refuse_twice)
    monkeypatch.setattr(mirror, "_PAUSE_SECONDS", 0.01)
    Tracking().setup_for_execution(dg.build_init_resource_context())
    write(folder, *EVENTS)
    Record(Tracking().tracking_uri, EXPERIMENT, None, "simulated", status="FINISHED").write(folder)
    telling = Mirror(folder, pause=0.01)
    while not telling.run.is_told:
        time.sleep(0.05)
    assert telling.close()
    said = telling.words()
    assert len(said) == 2
    assert "is told later" in said[0]
    assert "answers again" in said[1]
    (run,) = runs(Tracking())
    assert points(Tracking(), run, "step/loss") == [(5, 0.5), (10, 0.4), (15, 0.5)]


def test_a_server_that_hangs_holds_nobody_longer_than_its_patience(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MlflowRun, "sync", lambda self: time.sleep(60))
    Record("x", EXPERIMENT, None, "simulated").write(folder)
    telling = Mirror(folder)
    started = time.monotonic()
    assert not telling.close(0.2)
    assert time.monotonic() - started < 10
    assert "nothing is lost" in telling.words()[-1]


def test_a_training_that_goes_on_after_a_crash_is_one_run_and_its_last_word_on_an_epoch_counts(
    instance: dg.DagsterInstance, folder: Path
) -> None:
    tracking = Tracking()
    trained(tracking, instance, folder, [run_started(), step(0, 5), epoch(0, val_loss=0.7)])
    again = trained(
        tracking, instance, folder, [run_started(0, 4), step(0, 5, time=2000.0), epoch(0, time=2001.0), finished()]
    )
    (run,) = runs(tracking)
    assert run.data.tags["dagster.run_id"] == again.run_id
    assert run.info.status == "FINISHED"
    assert run.data.metrics["val_loss"] == 0.5
    assert run.data.metrics["progress"] == 0.25


def test_telling_twice_changes_nothing(instance: dg.DagsterInstance, folder: Path) -> None:
    tracking = Tracking()
    trained(tracking, instance, folder)
    (run,) = runs(tracking)
    (folder / "mlflow.told").unlink()
    from mlflow.tracking import MlflowClient

    MlflowClient(tracking.tracking_uri).set_tag(run.info.run_id, "lens_pipeline.history_bytes", "0")
    MlflowRun(folder).sync()
    (run,) = runs(tracking)
    assert points(tracking, run, "step/loss") == [(5, 0.5), (10, 0.4), (15, 0.5)]


def test_more_events_than_mlflow_takes_at_once_all_arrive(instance: dg.DagsterInstance, folder: Path) -> None:
    tracking = Tracking()
    many = [step(0, 1 + number, steps_per_epoch=500, time=1000.0 + number) for number in range(400)]
    trained(tracking, instance, folder, [run_started(steps_per_epoch=500), *many, epoch(0), finished()])
    (run,) = runs(tracking)
    assert [place for place, _ in points(tracking, run, "step/loss")] == list(range(1, 401))


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError("rank 1 died"), "FAILED"), (TrainingCancelledError("cancelled"), "KILLED")]
)
def test_a_failed_training_is_a_failed_run_and_a_cancelled_one_a_killed_run(
    instance: dg.DagsterInstance, folder: Path, error: Exception, status: str
) -> None:
    tracking = Tracking()

    def fail(context: dg.AssetExecutionContext) -> None:
        with tracking.training_run(context, Settings(), Workspace(), inputs=[], folder=folder):
            raise error

    assert not in_an_asset(tracking, fail, instance).success
    assert [run.info.status for run in runs(tracking)] == [status]


def test_a_training_that_ends_while_mlflow_is_told_of_it_is_told_to_have_ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking = Tracking()
    tracking.setup_for_execution(dg.build_init_resource_context())
    record = Record(tracking.tracking_uri, EXPERIMENT, None, "simulated")
    record.write(folder)
    read = Record.read

    def read_and_end(where: Path) -> Record | None:
        found = read(where)
        record.status = "FAILED"
        record.write(where)
        return found

    run = MlflowRun(folder)
    with monkeypatch.context() as patched:
        patched.setattr(Record, "read", read_and_end)
        run.sync()
    run.sync()
    assert run.is_told
    assert [one.info.status for one in runs(tracking)] == ["FAILED"]


def test_runs_whose_process_was_killed_are_ended_by_the_next_training(
    instance: dg.DagsterInstance, folder: Path
) -> None:
    from mlflow.tracking import MlflowClient

    tracking = Tracking()
    client = MlflowClient(tracking.tracking_uri)
    experiment = client.create_experiment(EXPERIMENT)
    over = dg.DagsterRun(job_name="trained", status=dg.DagsterRunStatus.FAILURE)
    instance.add_run(over)
    left = client.create_run(experiment, tags={"dagster.run_id": over.run_id}).info.run_id
    # Another machine's, perhaps, with a Dagster of its own: nobody here can say that it is over.
    elsewhere = client.create_run(
        experiment, tags={"dagster.run_id": "00000000-0000-0000-0000-000000000000"}
    ).info.run_id
    killed = work_folder("killed")
    write(killed, run_started(), step(0, 5))
    Record(tracking.tracking_uri, EXPERIMENT, None, "simulated").write(killed)
    told = work_folder("killed-when-all-was-told")

    def body(context: dg.AssetExecutionContext) -> None:
        # Dagster doesn't learn of a SIGKILL: to it that run goes on, as this one does.
        tags = {"dagster.run_id": context.run.run_id}
        Record(tracking.tracking_uri, EXPERIMENT, None, "simulated", tags=tags).write(told)
        MlflowRun(told).sync()
        assert MlflowRun(told).is_told
        with tracking.training_run(context, Settings(), Workspace(), inputs=[], folder=folder):
            write(folder, *EVENTS)
            while sum(run.info.status == "RUNNING" for run in runs(tracking)) > 2:
                time.sleep(0.1)

    assert in_an_asset(tracking, body, instance).success
    assert client.get_run(left).info.status == "KILLED"
    assert client.get_run(elsewhere).info.status == "RUNNING"
    assert sorted(run.info.status for run in runs(tracking)) == ["FINISHED", "KILLED", "KILLED", "KILLED", "RUNNING"]
