"""MLflow: one run a training, linked both ways with the Dagster run. A tracking server that is down costs training nothing."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field, PrivateAttr

from lens_pipeline.contracts.config import Section
from lens_pipeline.defs.workspace import Workspace
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

EXPERIMENT = "lens_pipeline"
_READER_TAG = "lens_pipeline.reader"
_RUN_TAG, _ASSET_TAG, _VERSION_TAG = "dagster.run_id", "dagster.asset_key", "lens_pipeline.lens_classifier"
# A dead server must be given up on in seconds: training does not wait for it, but the step's messages do.
_IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}

Event = dict[str, Any]


class TrackedRun:
    """Passes a training run's events on to MLflow and to Dagster; stops telling MLflow once it fails."""

    def __init__(self, context: dg.AssetExecutionContext, client: "MlflowClient | None", run_id: str | None) -> None:
        self._context, self._client, self.run_id = context, client, run_id

    def on_event(self, event: Event) -> None:
        """Log one line of the training history."""
        numbers = {
            name: float(value)
            for name, value in event.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool) and name not in ("epoch", "step")
        }
        if "reader_why" in event:
            self.attempt(lambda client, run: client.set_tag(run, _READER_TAG, event["reader_why"]))
        if event.get("event") == "epoch":
            self._context.log_event(
                dg.AssetObservation(
                    asset_key=self._context.asset_key,
                    metadata={"epoch": dg.MetadataValue.int(int(event["epoch"])), **numbers},
                )
            )
        step = int(event["step"] if "step" in event else event.get("epoch", 0))
        prefix = "step_" if event.get("event") == "step" else ""
        self.attempt(lambda client, run: [client.log_metric(run, prefix + n, v, step=step) for n, v in numbers.items()])

    def attempt(self, call: "Callable[[MlflowClient, str], object]") -> None:
        """Tell MLflow something; a failure is reported once, and nothing more is told."""
        from mlflow.exceptions import MlflowException

        if self._client is None or self.run_id is None:
            return
        try:
            call(self._client, self.run_id)
        except (MlflowException, OSError) as error:
            self._client = None
            self._context.log.warning(f"MLflow can't be reached, the run goes on without it: {error}")


class Tracking(dg.ConfigurableResource):
    """Where training runs are tracked."""

    uri: str = Field("", description="MLflow tracking URI; empty: an SQLite file in the home folder")
    experiment: str = Field(EXPERIMENT, description="MLflow experiment")
    _run_ids: dict[str, str] = PrivateAttr(default_factory=dict)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Tell MLflow, before it is imported, to be quiet and to give up early."""
        del context
        for name, value in {**_QUIET, **_IMPATIENT}.items():
            os.environ.setdefault(name, value)

    @property
    def tracking_uri(self) -> str:
        """The URI in use; the environment's MLFLOW_TRACKING_URI stands between the setting and the default."""
        return self.uri or os.environ.get("MLFLOW_TRACKING_URI") or default_tracking_uri(Home.from_environment())

    @contextmanager
    def training_run(
        self,
        context: dg.AssetExecutionContext,
        config: Section,
        workspace: Workspace,
        *,
        inputs: Sequence[Publication],
    ) -> Iterator[TrackedRun]:
        """Open an MLflow run for a training, and end it as FINISHED or FAILED."""
        from mlflow.entities import Param

        tags = {
            _RUN_TAG: context.run.run_id,
            "dagster.root_run_id": context.run.root_run_id or context.run.run_id,
            "dagster.retry_number": str(context.retry_number),
            _ASSET_TAG: context.asset_key.to_user_string(),
            "lens_pipeline.dataset": workspace.dataset,
            "lens_pipeline.model": workspace.model,
            **{f"lens_pipeline.{source.asset}": source.version for source in inputs},
        }
        run = self._start(context, tags)
        settings = [Param(name, str(value)) for name, value in config.model_dump(mode="json").items()]
        run.attempt(lambda client, run_id: client.log_batch(run_id, params=settings))
        try:
            yield run
        except BaseException:
            run.attempt(lambda client, run_id: client.set_terminated(run_id, "FAILED"))
            raise
        run.attempt(lambda client, run_id: client.set_terminated(run_id, "FINISHED"))

    def describe_classifier(
        self, context: dg.AssetExecutionContext, classifier: Publication
    ) -> dict[str, dg.MetadataValue[Any]]:
        """Tag the training's MLflow run with the version that it became, and return its link for Dagster."""
        run_id = self._run_ids.get(context.run.run_id)
        if run_id is None:
            return {"mlflow": dg.MetadataValue.text("not tracked: MLflow could not be reached")}
        run = TrackedRun(context, self._client(), run_id)
        run.attempt(lambda client, run_id: client.set_tag(run_id, _VERSION_TAG, classifier.version))
        run.attempt(lambda client, run_id: client.log_artifact(run_id, str(classifier.path("model.json"))))
        run.attempt(lambda client, run_id: client.log_artifact(run_id, str(classifier.path("model.safetensors"))))
        return {
            "mlflow_run_id": dg.MetadataValue.text(run_id),
            "mlflow_tracking_uri": dg.MetadataValue.text(self.tracking_uri),
        }

    def log_report(self, context: dg.AssetExecutionContext, classifier: Publication, report: Publication) -> None:
        """Add the report and its headline numbers to the MLflow run of the classifier that it is about."""
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        try:
            client = self._client()
            experiment = client.get_experiment_by_name(self.experiment)
            found = (
                []
                if experiment is None
                else client.search_runs(
                    [experiment.experiment_id], f"tags.`{_VERSION_TAG}` = '{classifier.version}'", max_results=1
                )
            )
        except (MlflowException, OSError) as error:
            context.log.warning(f"MLflow can't be reached, the report isn't there: {error}")
            return
        if not found:
            context.log.warning(f"MLflow has no run of lens_classifier {classifier.version}; the report isn't there")
            return
        run = TrackedRun(context, client, found[0].info.run_id)
        now = int(time.time() * 1000)
        numbers = [
            Metric(f"{row['split']}_{row['metric']}{suffix}", row[column], now, 0)
            for row in report.read_table().to_pylist()
            for suffix, column in (("", "value"), ("_low", "low"), ("_high", "high"))
            if row[column] is not None
        ]
        run.attempt(lambda client, run_id: client.log_batch(run_id, metrics=numbers))
        run.attempt(lambda client, run_id: client.log_artifact(run_id, str(report.path("report.html"))))
        run.attempt(lambda client, run_id: client.set_tag(run_id, "lens_pipeline.evaluation_report", report.version))

    def _client(self) -> "MlflowClient":
        from mlflow.tracking import MlflowClient

        return MlflowClient(self.tracking_uri)

    def _start(self, context: dg.AssetExecutionContext, tags: dict[str, str]) -> TrackedRun:
        from mlflow.exceptions import MlflowException

        try:
            client = self._client()
            experiment = client.get_experiment_by_name(self.experiment)
            if experiment is None:
                location = None if "://" in self.uri and not self.uri.startswith("sqlite") else _artifact_location()
                experiment_id = client.create_experiment(self.experiment, artifact_location=location)
            else:
                experiment_id = experiment.experiment_id
                _reap(context, client, experiment_id)
            run_id = client.create_run(experiment_id, tags=tags, run_name=tags["lens_pipeline.dataset"]).info.run_id
        except (MlflowException, OSError) as error:
            context.log.warning(f"MLflow can't be reached, the run goes on without it: {error}")
            return TrackedRun(context, None, None)
        self._run_ids[context.run.run_id] = run_id
        return TrackedRun(context, client, run_id)


def default_tracking_uri(home: Home) -> str:
    """Return the URI of the SQLite file that runs are tracked in when no server is named."""
    home.path.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{home.path / 'mlflow.db'}"


def _artifact_location() -> str:
    return (Home.from_environment().path / "mlflow_artifacts").as_uri()


def _reap(context: dg.AssetExecutionContext, client: "MlflowClient", experiment_id: str) -> None:
    """End MLflow runs whose Dagster run is over: a killed process could not do it."""
    for run in client.search_runs([experiment_id], "attributes.status = 'RUNNING'"):
        dagster_run = context.instance.get_run_by_id(run.data.tags.get(_RUN_TAG, ""))
        if dagster_run is None or dagster_run.is_finished:
            client.set_terminated(run.info.run_id, "KILLED")
