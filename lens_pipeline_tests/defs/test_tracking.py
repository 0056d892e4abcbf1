"""Training runs are tracked, linked with Dagster's both ways; a server that is down or a killed run spoils nothing."""

import time
from collections.abc import Callable

import dagster as dg
import pyarrow as pa
import pytest

from lens_pipeline.contracts.catalogue import METRICS
from lens_pipeline.contracts.config import Section
from lens_pipeline.defs.tracking import EXPERIMENT, Tracking
from lens_pipeline.defs.workspace import Workspace
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication


class Settings(Section):
    epochs: int = 3


STARTED = {"event": "run_started", "epoch": 0, "step": 0, "reader": "mapped", "reader_why": "mapped: it fits."}
EPOCH = {"event": "epoch", "epoch": 0, "val_loss": 0.5, "val_auroc": 0.8, "best": True}
STEP = {"event": "step", "epoch": 0, "step": 7, "loss": 0.6}


def in_an_asset(
    tracking: Tracking, body: Callable[[dg.AssetExecutionContext], object], *, instance: dg.DagsterInstance
) -> dg.ExecuteInProcessResult:
    @dg.asset
    def lens_classifier(context: dg.AssetExecutionContext) -> None:
        body(context)

    tracking.setup_for_execution(dg.build_init_resource_context())
    return dg.materialize([lens_classifier], instance=instance, raise_on_error=False)


def train(tracking: Tracking, context: dg.AssetExecutionContext) -> None:
    with tracking.training_run(context, Settings(), Workspace(), inputs=[]) as run:
        for event in (STARTED, STEP, EPOCH):
            run.on_event(event)


@pytest.fixture
def instance() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


def classifier() -> Publication:
    with Home.from_environment().stage("simulated", "lens_classifier") as staging:
        staging.write_json("model.json", {})
        staging.write_bytes("model.safetensors", b"weights")
        return staging.commit()


def report() -> Publication:
    row = {c.name: None for c in METRICS.columns} | {
        "metric": "auroc",
        "split": "test",
        "value": 0.9,
        "low": 0.8,
        "high": 0.95,
        "n_positives": 10,
        "n_negatives": 10,
        "n_clusters": 10,
        "unit": "",
        "status": "ok",
    }
    unresolved = row | {"metric": "tpr_at_fpr_1e-03", "value": None, "low": None, "high": None, "status": "unresolved"}
    with Home.from_environment().stage("simulated", "evaluation_report") as staging:
        staging.write_table(None, pa.Table.from_pylist([row, unresolved], schema=METRICS.schema))
        staging.write_bytes("report.html", b"<html></html>")
        return staging.commit()


def test_a_training_is_tracked_with_settings_metrics_model_and_report(instance: dg.DagsterInstance) -> None:
    from mlflow.tracking import MlflowClient

    tracking, seen = Tracking(), {}

    def body(context: dg.AssetExecutionContext) -> None:
        train(tracking, context)
        made = classifier()
        seen.update(tracking.describe_classifier(context, made))
        tracking.log_report(context, made, report())

    result = in_an_asset(tracking, body, instance=instance)
    assert result.success
    client = MlflowClient(tracking.tracking_uri)
    run = client.get_run(str(seen["mlflow_run_id"].value))
    assert run.info.status == "FINISHED"
    assert run.data.params == {"epochs": "3"}
    assert run.data.tags["dagster.run_id"] == result.run_id
    assert run.data.tags["lens_pipeline.reader"] == "mapped: it fits."
    assert run.data.metrics["val_auroc"] == 0.8
    assert run.data.metrics["step_loss"] == 0.6
    assert run.data.metrics["test_auroc_low"] == 0.8
    assert "test_tpr_at_fpr_1e-03" not in run.data.metrics
    assert {f.path for f in client.list_artifacts(run.info.run_id)} == {
        "model.json",
        "model.safetensors",
        "report.html",
    }


def test_dagster_shows_each_epoch_as_it_ends(instance: dg.DagsterInstance) -> None:
    tracking = Tracking()
    result = in_an_asset(tracking, lambda context: train(tracking, context), instance=instance)
    observed = [e for e in result.all_events if e.event_type_value == "ASSET_OBSERVATION"]
    assert len(observed) == 1
    assert observed[0].asset_observation_data.asset_observation.metadata["val_auroc"].value == 0.8


def test_a_server_that_is_down_costs_seconds_and_no_training(instance: dg.DagsterInstance) -> None:
    tracking = Tracking(uri="http://127.0.0.1:9")
    started = time.monotonic()
    result = in_an_asset(tracking, lambda context: train(tracking, context), instance=instance)
    assert result.success
    assert time.monotonic() - started < 30


def test_a_failed_training_is_a_failed_run(instance: dg.DagsterInstance) -> None:
    from mlflow.tracking import MlflowClient

    tracking = Tracking()

    def fail(context: dg.AssetExecutionContext) -> None:
        with tracking.training_run(context, Settings(), Workspace(), inputs=[]):
            raise RuntimeError("rank 1 died")

    assert not in_an_asset(tracking, fail, instance=instance).success
    client = MlflowClient(tracking.tracking_uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["FAILED"]


def test_a_run_whose_process_was_killed_is_ended_by_the_next_one(instance: dg.DagsterInstance) -> None:
    from mlflow.tracking import MlflowClient

    tracking = Tracking()
    client = MlflowClient(tracking.tracking_uri)
    experiment = client.create_experiment(EXPERIMENT)
    left = client.create_run(experiment, tags={"dagster.run_id": "00000000-0000-0000-0000-000000000000"}).info.run_id
    in_an_asset(tracking, lambda context: train(tracking, context), instance=instance)
    assert client.get_run(left).info.status == "KILLED"
