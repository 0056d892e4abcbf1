"""MLflow: one run a training, linked both ways with the Dagster run. A tracking server that is down costs training nothing."""

import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa
from pydantic import Field

from lens_pipeline.contracts.checks import Check
from lens_pipeline.contracts.config import Section
from lens_pipeline.defs.mirror import Mirror
from lens_pipeline.defs.mlflow_runs import MlflowRun, Record, as_text, is_at_work, unsettled
from lens_pipeline.defs.workspace import Workspace
from lens_pipeline.evaluation.metrics import ALL_ROWS, completed
from lens_pipeline.storage.atomic import write_atomically
from lens_pipeline.storage.home import DEFAULT_MODEL, Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.failures import TrainingCancelledError, TrainingInterruptedError
from lens_pipeline.training.folder import TRIALS
from lens_pipeline.training.history import Event, History

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

EXPERIMENT = "lens_pipeline"
RUN_TAG, ASSET_TAG, VERSION_TAG = "dagster.run_id", "dagster.asset_key", "lens_pipeline.lens_classifier"
REPORT_TAG, _READER_TAG = "lens_pipeline.evaluation_report", "lens_pipeline.reader"
# What MLflow takes no name with.
_FORBIDDEN = re.compile(r"[^\w.\-/]")
# A dead server must be given up on in seconds: the end of a step waits for it once.
_IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}


class TrackedRun:
    """Shows a training's epochs on Dagster's page as they come, and says what the thread that tells MLflow has to say."""

    def __init__(self, context: dg.AssetExecutionContext, mirror: Mirror) -> None:
        self._context, self._mirror, self._history = context, mirror, History()

    def on_event(self, event: Event) -> None:
        """Take one event of the training's history; MLflow is told from the file itself."""
        self._history.add(event)
        if event.get("event") == "epoch":
            numbers = {
                name: float(value)
                for name, value in event.items()
                if isinstance(value, (int, float)) and not isinstance(value, bool) and name not in ("epoch", "time")
            }
            standing = self._history.standing
            if standing is not None:
                numbers["progress"] = standing.share
                if standing.seconds_left is not None:
                    numbers["at_most_seconds_left"] = standing.seconds_left
            self._context.log_event(
                dg.AssetObservation(
                    asset_key=self._context.asset_key,
                    metadata={"epoch": dg.MetadataValue.int(int(event["epoch"])), **numbers},
                )
            )
        self.say()

    def say(self) -> None:
        """Log what there is to say of MLflow."""
        for words in self._mirror.words():
            self._context.log.warning(words)


class Tracking(dg.ConfigurableResource):
    """Where training runs are tracked."""

    uri: str = Field("", description="MLflow tracking URI; empty: an SQLite file in the home folder")
    experiment: str = Field(EXPERIMENT, description="MLflow experiment")

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
        folder: Path,
    ) -> Iterator[TrackedRun]:
        """Keep MLflow told of a training while it goes on; one that goes on after a crash goes on in its MLflow run.

        Parameters
        ----------
        folder : Path
            Of the run; its history is what MLflow is told.
        """
        record = self.record(folder, title_of(workspace.dataset, workspace.model))
        record.tags |= {
            RUN_TAG: context.run.run_id,
            "dagster.root_run_id": context.run.root_run_id or context.run.run_id,
            "dagster.retry_number": str(context.retry_number),
            ASSET_TAG: context.asset_key.to_user_string(),
            "lens_pipeline.dataset": workspace.dataset,
            "lens_pipeline.model": workspace.model,
            **{f"lens_pipeline.{source.asset}": source.version for source in inputs},
        }
        record.params = {name: as_text(value) for name, value in config.model_dump(mode="json").items()}
        record.status = "RUNNING"
        record.write(folder)
        earlier = [other for other in unsettled(work_folders()) if other != folder and not is_at_work(other)]
        mirror = Mirror(folder, earlier=earlier, afterwards=lambda run: _reap(context.instance, run))
        run = TrackedRun(context, mirror)
        record.status = "FAILED"
        try:
            yield run
            record.status = "FINISHED"
        except (TrainingCancelledError, TrainingInterruptedError):
            # Asked for, and it can go on.
            record.status = "KILLED"
            raise
        finally:
            started = History.of(folder / "history.jsonl").started or {}
            if "reader_why" in started:
                record.tags[_READER_TAG] = started["reader_why"]
            record.write(folder)
            mirror.close()
            run.say()
            context.log.debug(f"telling MLflow took {mirror.cpu_seconds:.2f} s of one core")

    def tell_outcome(
        self,
        context: dg.AssetExecutionContext,
        folder: Path,
        classifier: Publication,
        checks: Sequence[Check],
        *,
        note: str,
        files: Mapping[str, bytes],
    ) -> None:
        """Tell MLflow which version a training became and what its checks found, green or red, and give it what to show.

        Parameters
        ----------
        folder : Path
            Of the run.
        note : str
            Markdown for the run's own page.
        files : mapping
            Names of files to their bytes.
        """
        record = self.record(folder, title_of(classifier.dataset, classifier.model))
        red = [check.name for check in checks if not check.passed]
        record.tags |= {
            VERSION_TAG: classifier.version,
            "lens_pipeline.checks": f"red: {', '.join(red)}" if red else "all green",
            "mlflow.note.content": note,
        }
        kept = folder / "mlflow"
        kept.mkdir(exist_ok=True)
        for name, content in files.items():
            write_atomically(kept / name, content)
        model = [str(classifier.path(name)) for name in ("model.json", "model.safetensors")]
        record.artifacts = [*(str(kept / name) for name in files), *model]
        self.tell(context, folder, record)

    def describe_classifier(self, folder: Path) -> dict[str, dg.MetadataValue[Any]]:
        """Say where MLflow shows the training of a run's folder."""
        record, told = Record.read(folder), MlflowRun(folder).last_told()
        if record is None or not told:
            return {
                "mlflow": dg.MetadataValue.text("not told yet: MLflow could not be reached; a later training tells it")
            }
        link = f"{record.uri}/#/experiments/{told['experiment_id']}/runs/{told['run_id']}"
        return {
            "mlflow_run_id": dg.MetadataValue.text(told["run_id"]),
            "mlflow_tracking_uri": dg.MetadataValue.text(record.uri),
            **({"mlflow": dg.MetadataValue.url(link)} if record.uri.startswith("http") else {}),
        }

    def log_report(
        self,
        context: dg.AssetExecutionContext,
        classifier: Publication,
        report: Publication,
        pictures: Mapping[str, bytes],
    ) -> None:
        """Add the report, its numbers and its figures to the MLflow run of the classifier that it is about.

        Parameters
        ----------
        pictures : mapping
            Names to PNG.
        """
        numbers = figures_of(report.read_table())
        page = str(report.path("report.html"))
        for folder in work_folders():
            record = Record.read(folder)
            if record is not None and record.tags.get(VERSION_TAG) == classifier.version:
                record.metrics |= numbers
                shown = [*kept_pictures(folder, pictures), page]
                names = {Path(path).name for path in shown}
                record.artifacts = [path for path in record.artifacts if Path(path).name not in names] + shown
                record.tags[REPORT_TAG] = report.version
                self.tell(context, folder, record)
                return
        self._tell_of_elsewhere(context, classifier, report, numbers, pictures)

    def client(self) -> "MlflowClient":
        """Return a client of the server."""
        from mlflow.tracking import MlflowClient

        return MlflowClient(self.tracking_uri)

    def record(self, folder: Path, name: str) -> Record:
        """Return what a run folder's record says, for the server in use; another server is told from the beginning."""
        uri = self.tracking_uri
        record = Record.read(folder)
        if record is not None and (record.uri, record.experiment) == (uri, self.experiment):
            return record
        # A server keeps files where it likes; beside a database of ours they lie in the home.
        location = (Home.from_environment().path / "mlflow_artifacts").as_uri() if uri.startswith("sqlite") else None
        return Record(uri, self.experiment, location, name)

    def tell(
        self,
        context: dg.AssetExecutionContext | dg.OpExecutionContext,
        folder: Path,
        record: Record,
        *,
        earlier: Sequence[Path] = (),
    ) -> None:
        """Write a record into its run's folder and tell MLflow now; what it can't be told is told later.

        Parameters
        ----------
        earlier : sequence of Path
            Folders of other runs to settle after that; those that nobody works in and that never ended are ended.
        """
        record.write(folder)
        mirror = Mirror(folder, earlier=earlier)
        mirror.close()
        for words in mirror.words():
            context.log.warning(words)

    def _tell_of_elsewhere(
        self,
        context: dg.AssetExecutionContext,
        classifier: Publication,
        report: Publication,
        numbers: dict[str, float],
        pictures: Mapping[str, bytes],
    ) -> None:
        """Tell of the report of a classifier whose training's folder isn't on this machine."""
        from mlflow.entities import Metric, RunTag
        from mlflow.exceptions import MlflowException

        try:
            client = self.client()
            experiment = client.get_experiment_by_name(self.experiment)
            wanted = f"tags.`{VERSION_TAG}` = '{classifier.version}'"
            found = [] if experiment is None else client.search_runs([experiment.experiment_id], wanted, max_results=1)
            if not found:
                context.log.warning(
                    f"MLflow has no run of lens_classifier {classifier.version}; the report isn't there"
                )
                return
            now, run_id = int(time.time() * 1000), found[0].info.run_id
            metrics = [Metric(name, value, now, 0) for name, value in numbers.items()]
            client.log_batch(run_id, metrics=metrics, tags=[RunTag(REPORT_TAG, report.version)])
            with tempfile.TemporaryDirectory() as folder:
                for path in [*kept_pictures(Path(folder), pictures), str(report.path("report.html"))]:
                    client.log_artifact(run_id, path)
        except (MlflowException, OSError) as error:
            context.log.warning(f"MLflow can't be reached, the report isn't there: {error}")


def kept_pictures(folder: Path, pictures: Mapping[str, bytes]) -> list[str]:
    """Write PNGs where the record of a run's folder may name them, and return their paths."""
    kept = folder / "mlflow"
    kept.mkdir(exist_ok=True)
    for name, png in pictures.items():
        write_atomically(kept / f"{name}.png", png)
    return [str(kept / f"{name}.png") for name in pictures]


def default_tracking_uri(home: Home) -> str:
    """Return the URI of the SQLite file that runs are tracked in when no server is named."""
    home.path.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{home.path / 'mlflow.db'}"


def title_of(dataset: str, model: str) -> str:
    """Name a run for people: by its dataset, and by its model where that isn't the only one that most datasets have."""
    return dataset if model == DEFAULT_MODEL else f"{dataset} {model}"


def figures_of(metrics: pa.Table) -> dict[str, float]:
    """Name each value of METRICS and the ends of its interval as MLflow shows them; what is null has no figure."""
    return {
        _FORBIDDEN.sub("_", f"{row['split']}_{_named(row)}{suffix}"): float(row[column])
        for row in completed(metrics).to_pylist()
        for suffix, column in (("", "value"), ("_low", "low"), ("_high", "high"))
        if row[column] is not None
    }


def _named(row: Mapping[str, Any]) -> str:
    return str(row["metric"]) if row["stratum"] == ALL_ROWS else f"{row['metric']}_{row['stratum']}"


def work_folders() -> Iterator[Path]:
    """Folders of the trainings, sweeps and ensembles that were begun on this machine, of every dataset and model."""
    home = Home.from_environment().path
    models = ("lens_classifier", "sweep", "scores")
    for pattern in (*(f"*/{asset}/*/.work/*" for asset in models), f"*/sweep/*/.work/*/{TRIALS}/*"):
        yield from home.glob(pattern)


def _reap(instance: dg.DagsterInstance, run: MlflowRun) -> None:
    """End MLflow runs whose Dagster run is over: a killed process could not do it.

    A run that this instance of Dagster doesn't know may be another machine's, at work there.
    """
    client = run.client
    assert client is not None
    for other in client.search_runs([run.experiment_id], "attributes.status = 'RUNNING'"):
        if other.info.run_id == run.run_id:
            continue
        dagster_run = instance.get_run_by_id(other.data.tags.get(RUN_TAG, ""))
        if dagster_run is not None and dagster_run.is_finished:
            client.set_terminated(other.info.run_id, "KILLED")
