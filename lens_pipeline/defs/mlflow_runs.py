"""One training's run in MLflow, made to agree with what its folder says: a record, and the history of events.

Whatever a server did not hear it is told later: the record says what it is to know, the run itself says up to which byte of the
history it was told, and telling a thing twice changes nothing.
"""

import contextlib
import hashlib
import json
import time
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lens_pipeline.storage.atomic import sha256_of, write_atomically
from lens_pipeline.training.folder import TRIALS, RunFolder
from lens_pipeline.training.history import Event, History, is_held, read_from

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

RECORD = "mlflow.json"
_TOLD = "mlflow.told"
TRAINING_TAG, _BYTES_TAG, _FILES_TAG = "lens_pipeline.training", "lens_pipeline.history_bytes", "lens_pipeline.files"
# Without it MLflow takes an experiment for one with language models, and shows other pages.
_KIND = ("mlflow.experimentKind", "custom_model_development")
# MLflow takes 1000 of them at once, and 100 tags or parameters.
_METRICS_AT_ONCE, _NAMES_AT_ONCE = 900, 100
_PLACES = ("epoch", "step", "epochs", "steps_per_epoch", "time")
# MLflow draws what shares a word before a slash in one group; an epoch's figures go without.
_PREFIX = {"epoch": "", "step": "step/", "run_started": "training/", "finished": "training/"}


@dataclass
class Record:
    """What MLflow is to know of a training, beside its history.

    Attributes
    ----------
    uri, experiment : str
        Of which server, in which experiment.
    artifact_location : str or None
        Where a new experiment keeps its files; None for the server's own choice.
    name : str
        What people read.
    training : str
        What the run is found by: one of its own for each run folder.
    metrics : dict
        Figures without a step.
    artifacts : list of str
        Files to copy there.
    status : str
        RUNNING, FINISHED, FAILED or KILLED.
    """

    uri: str
    experiment: str
    artifact_location: str | None
    name: str
    training: str = field(default_factory=lambda: uuid.uuid4().hex)
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    artifacts: list[str] = field(default_factory=list)
    status: str = "RUNNING"

    @classmethod
    def read(cls, folder: Path) -> "Record | None":
        """Read the record in a run's folder; None if nothing is to be told of that run."""
        try:
            return cls(**json.loads((folder / RECORD).read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write(self, folder: Path) -> None:
        """Write it into a run's folder."""
        write_atomically(folder / RECORD, json.dumps(asdict(self), indent=1).encode())


class MlflowRun:
    """Tells MLflow what a run's folder says.

    Parameters
    ----------
    folder : Path
        Of the run; the record stands there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, RunFolder(folder).history
        self._client: MlflowClient | None = None
        self.run_id = self.experiment_id = ""
        self._history, self._offset = History(), 0

    @property
    def client(self) -> "MlflowClient | None":
        """The client that reached the server; None while it can't be reached."""
        return self._client

    @property
    def is_told(self) -> bool:
        """Whether the server knows all that the folder says now."""
        return self.last_told().get("state") == self._state()

    def last_told(self) -> dict[str, str]:
        """Return where MLflow keeps the run, ``run_id`` and ``experiment_id``; nothing if it was never told all of it."""
        try:
            told: dict[str, str] = json.loads((self._folder / _TOLD).read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return told

    def sync(self) -> None:
        """Tell what isn't told yet.

        Raises
        ------
        mlflow.exceptions.MlflowException, OSError
            If the server can't be reached or refuses; the next call tells the rest.
        """
        # Taken first: what is written into the folder from here on makes another state, and is told by the next call.
        state = self._state()
        record = Record.read(self._folder)
        if record is None or self.is_told:
            return
        try:
            client = self._reach(record)
            self._tell_names(client, record)
            self._tell_history(client)
            self._tell_artifacts(client, record)
            run = client.get_run(self.run_id)
            if run.info.status != record.status:
                if record.status == "RUNNING":
                    client.update_run(self.run_id, status="RUNNING")
                else:
                    client.set_terminated(self.run_id, record.status)
        except BaseException:
            # What was known of the server may be wrong: it could have been exchanged for an empty one.
            self._client = None
            raise
        told = {"state": state, "run_id": self.run_id, "experiment_id": self.experiment_id}
        write_atomically(self._folder / _TOLD, json.dumps(told).encode())

    def _state(self) -> str:
        size = self._path.stat().st_size if self._path.exists() else 0
        content = (self._folder / RECORD).read_bytes() if (self._folder / RECORD).exists() else b""
        return f"{hashlib.sha256(content).hexdigest()} {size}"

    def _reach(self, record: Record) -> "MlflowClient":
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        if self._client is not None:
            return self._client
        client = MlflowClient(record.uri)
        experiment = client.get_experiment_by_name(record.experiment)
        if experiment is None:
            # Another process may have made it meanwhile.
            with contextlib.suppress(MlflowException):
                tags = dict([_KIND])
                client.create_experiment(record.experiment, artifact_location=record.artifact_location, tags=tags)
            experiment = client.get_experiment_by_name(record.experiment)
        if experiment is None:
            raise MlflowException(f"the experiment {record.experiment!r} can't be made in {record.uri}")
        wanted = f"tags.`{TRAINING_TAG}` = '{record.training}'"
        found = client.search_runs([experiment.experiment_id], wanted, max_results=1)
        run = (
            found[0]
            if found
            else client.create_run(
                experiment.experiment_id,
                tags={**record.tags, TRAINING_TAG: record.training},
                run_name=record.name,
                start_time=self._started_ms(),
            )
        )
        self.run_id, self.experiment_id = run.info.run_id, experiment.experiment_id
        self._history, self._offset = History(), 0
        told = int(run.data.tags.get(_BYTES_TAG, "0"))
        for event, end in read_from(self._path, 0) if self._path.exists() else []:
            if end <= told:
                self._history.add(event)
                self._offset = end
        self._client = client
        return client

    def _started_ms(self) -> int:
        events = read_from(self._path, 0) if self._path.exists() else []
        return int(1000 * next((event["time"] for event, _ in events if "time" in event), time.time()))

    def _tell_names(self, client: "MlflowClient", record: Record) -> None:
        from mlflow.entities import Metric, Param, RunTag

        run = client.get_run(self.run_id)
        tags = [RunTag(name, value) for name, value in record.tags.items() if run.data.tags.get(name) != value]
        # A setting can't be changed in MLflow, and what a training is doesn't change; only world_size may, between starts.
        params = [Param(name, value) for name, value in record.params.items() if name not in run.data.params]
        now = int(time.time() * 1000)
        metrics = [
            Metric(name, value, now, 0) for name, value in record.metrics.items() if run.data.metrics.get(name) != value
        ]
        for place in range(0, max(len(tags), len(params), len(metrics)), _NAMES_AT_ONCE):
            part = slice(place, place + _NAMES_AT_ONCE)
            client.log_batch(self.run_id, metrics=metrics[part], params=params[part], tags=tags[part])

    def _tell_history(self, client: "MlflowClient") -> None:
        from mlflow.entities import RunTag

        events = read_from(self._path, self._offset) if self._path.exists() else []
        waiting: list[Metric] = []
        for place, (event, end) in enumerate(events):
            self._history.add(event)
            waiting += self._figures(event)
            if waiting and (len(waiting) >= _METRICS_AT_ONCE or place == len(events) - 1):
                client.log_batch(self.run_id, metrics=waiting[:_METRICS_AT_ONCE])
                client.log_batch(self.run_id, metrics=waiting[_METRICS_AT_ONCE:], tags=[RunTag(_BYTES_TAG, str(end))])
                waiting, self._offset = [], end
        if events and not waiting:
            self._offset = events[-1][1]

    def _figures(self, event: Event) -> "list[Metric]":
        from mlflow.entities import Metric

        standing, kind = self._history.standing, event["event"]
        numbers = {
            _PREFIX.get(kind, f"training/{kind}_") + name: float(value)
            for name, value in event.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool) and name not in _PLACES
        }
        if standing is not None and kind in ("epoch", "step"):
            numbers["progress"] = standing.share
            if standing.seconds_left is not None:
                numbers["at_most_seconds_left"] = standing.seconds_left
        when = int(1000 * event.get("time", time.time()))
        return [Metric(name, value, when, self._place(event, name)) for name, value in numbers.items()]

    def _place(self, event: Event, name: str) -> int:
        """Where a figure stands on MLflow's axis: epochs by their number, all else by optimizer steps from the first on."""
        per_epoch = self._history.steps_per_epoch or 0
        if event["event"] == "epoch":
            both = name in ("progress", "at_most_seconds_left")
            return (int(event["epoch"]) + 1) * per_epoch if both else int(event["epoch"])
        return int(event.get("epoch") or 0) * per_epoch + int(event.get("step") or 0)

    def _tell_artifacts(self, client: "MlflowClient", record: Record) -> None:
        there = json.loads(client.get_run(self.run_id).data.tags.get(_FILES_TAG, "{}"))
        for path in map(Path, record.artifacts):
            if path.exists() and there.get(path.name) != (digest := sha256_of(path)[:16]):
                client.log_artifact(self.run_id, str(path))
                there[path.name] = digest
                client.set_tag(self.run_id, _FILES_TAG, json.dumps(there))


def unsettled(folders: Iterable[Path]) -> list[Path]:
    """Run folders that MLflow lacks something of, or that it was told are being worked in."""
    return [
        folder
        for folder in sorted(folders)
        if (record := Record.read(folder)) is not None and (record.status == "RUNNING" or not MlflowRun(folder).is_told)
    ]


def is_at_work(folder: Path) -> bool:
    """Whether a launcher or sweep is at work in a run's folder, or the sweep that a trial's folder belongs to."""
    of_sweep = [folder.parent.parent] if folder.parent.name == TRIALS else []
    return any(is_held(RunFolder(place).lock) for place in (folder, *of_sweep))


def as_text(value: Any) -> str:
    """Write a setting as MLflow keeps it."""
    return json.dumps(value) if isinstance(value, (dict, list)) else str(value)
