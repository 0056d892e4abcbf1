"""MLflow refuses, drops its answers, and the process that tells it is killed, while a training writes its history.

A case is one training of some epochs, killed now and then and gone on with from an earlier step, and between its events tries
to tell MLflow of it. Each call to the server (an SQLite store of MLflow's own) fails with some chance before it does anything, or
after it did all of it. At the end the server answers, and must have every point once.
"""

import contextlib
import json
import os
import random
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import mlflow.tracking

from lens_pipeline.defs.mlflow_runs import MlflowRun, Record
from lens_pipeline.training.folder import RunFolder
from reliability.subject import Case, Subject

_EPOCHS, _STEPS = 4, 12
_EXPERIMENT = "outages"
_CALLS = (
    "get_experiment_by_name", "create_experiment", "search_runs", "create_run", "get_run", "log_batch", "log_artifact",
    "set_tag", "set_terminated", "update_run",
)  # fmt: skip
_Client = mlflow.tracking.MlflowClient


def case(number: int) -> Case:
    """Run one training beside an unsteady server."""
    chance = random.Random(number)
    with tempfile.TemporaryDirectory() as name, _unsteady(chance) as calls:
        folder = Path(name)
        shutil.copyfile(_empty_database(), folder / "mlflow.db")
        shown = folder / "curves.png"
        shown.write_bytes(b"png")
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        record = Record(uri, _EXPERIMENT, (folder / "files").as_uri(), "a training")
        record.write(folder)
        run, events = MlflowRun(folder), _training(chance)
        with open(RunFolder(folder).history, "w") as history:
            for event in events:
                history.write(json.dumps(event) + "\n")
                history.flush()
                if chance.random() < 0.15:
                    calls["told"] += _sync(run)
                if chance.random() < 0.03:
                    # The step was killed: all that the next one knows stands in the folder and on the server.
                    run = MlflowRun(folder)
                    calls["killed"] += 1
        record.status, record.artifacts = "FINISHED", [str(shown)]
        record.write(folder)
        calls["told"] += _sync(run)
        calls["steady"] = 1
        MlflowRun(folder).sync()
        problem = _problem(uri, events)
    figures = {what: calls[what] for what in ("refused", "answers lost", "killed", "told")}
    return Case(problem=problem, counts={**figures, "points": len(_expected(events))})


def _training(chance: random.Random) -> list[dict[str, Any]]:
    """Events as rank 0 writes them: every now and then killed, and gone on with a few steps earlier."""
    events: list[dict[str, Any]] = []
    epoch, step = 0, 0

    def tell(event: str, **fields: Any) -> None:
        events.append({"event": event, "time": 1000.0 + len(events), "attempt": "0001", "epoch": epoch, **fields})

    def start() -> None:
        tell("run_started", step=step, steps_per_epoch=_STEPS, epochs=_EPOCHS, resumed_from=None, ranks=2)

    start()
    while epoch < _EPOCHS:
        step += 1
        tell("step", step=step, steps_per_epoch=_STEPS, epochs=_EPOCHS, loss=chance.random())
        if chance.random() < 0.06:
            step = max(step - chance.randrange(4), 0)
            start()
        elif step == _STEPS:
            tell("epoch", val_loss=chance.random(), train_loss=chance.random(), best=True)
            epoch, step = epoch + 1, 0
    tell("finished", why="all epochs were trained", best_epoch=0)
    return events


def _expected(events: list[dict[str, Any]]) -> list[tuple[str, int, float, int]]:
    """Every point of three figures: name, place, value, time in ms."""
    points = []
    for event in events:
        when = int(1000 * event["time"])
        if event["event"] == "step":
            points.append(("step/loss", event["epoch"] * _STEPS + event["step"], event["loss"], when))
        if event["event"] == "epoch":
            points += [(name, event["epoch"], event[name], when) for name in ("val_loss", "train_loss")]
    return sorted(points)


def _problem(uri: str, events: list[dict[str, Any]]) -> str | None:
    client = _Client(uri)
    experiment = client.get_experiment_by_name(_EXPERIMENT)
    runs = client.search_runs([experiment.experiment_id])
    if len(runs) != 1:
        return f"one training is {len(runs)} runs"
    (run,) = runs
    points = sorted(
        (name, point.step, point.value, point.timestamp)
        for name in ("step/loss", "val_loss", "train_loss")
        for point in client.get_metric_history(run.info.run_id, name)
    )
    wanted = _expected(events)
    if points != wanted:
        lost, extra = set(wanted) - set(points), set(points) - set(wanted)
        return f"{len(points)} points, not {len(wanted)}: {len(lost)} lost, {len(extra)} of nowhere"
    last = {event["epoch"]: event["val_loss"] for event in events if event["event"] == "epoch"}
    if run.data.metrics["val_loss"] != last[_EPOCHS - 1]:
        return "the last word on the last epoch isn't what is shown"
    if run.info.status != "FINISHED":
        return f"the run is {run.info.status}"
    files = [file.path for file in client.list_artifacts(run.info.run_id)]
    return None if files == ["curves.png"] else f"files are {files}"


def _sync(run: MlflowRun) -> int:
    with contextlib.suppress(ConnectionError):
        run.sync()
        return 1
    return 0


@contextlib.contextmanager
def _unsteady(chance: random.Random) -> Any:
    """Let each call of MLflow's client fail before or after it was done, more or less often, until told to be steady."""
    calls = dict.fromkeys(("refused", "answers lost", "killed", "told", "steady"), 0)
    before, after = chance.choice(((0.02, 0.02), (0.1, 0.1), (0.5, 0.0), (0.0, 0.3)))

    def shaky(name: str) -> Any:
        sound = getattr(_Client, name)

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            luck = 1.0 if calls["steady"] else chance.random()
            if luck < before:
                calls["refused"] += 1
                raise ConnectionError("refused")
            result = sound(self, *args, **kwargs)
            if luck < before + after:
                calls["answers lost"] += 1
                raise ConnectionError("the answer was lost")
            return result

        return call

    shaken = type("Unsteady", (_Client,), {name: shaky(name) for name in _CALLS})
    mlflow.tracking.MlflowClient = shaken
    try:
        yield calls
    finally:
        mlflow.tracking.MlflowClient = _Client


@cache
def _empty_database() -> Path:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    path = Path(tempfile.mkdtemp()) / "mlflow.db"
    _Client(f"sqlite:///{path}").search_experiments()
    return path


SUBJECT = Subject(
    name="tracking_outages",
    question="whatever a tracking server refuses or fails to answer, and wherever the process that tells it is killed, it has "
    "each point of a training's history exactly once when it answers again, in one run",
    unit="trainings",
    goal=1_000,
    case=case,
)
