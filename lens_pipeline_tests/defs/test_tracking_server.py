"""A real MLflow server is killed while a training runs, and started again: the training goes on, each point is there once."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from lens_pipeline.defs import mirror
from lens_pipeline.defs.mlflow_runs import MlflowRun
from lens_pipeline.defs.tracking import EXPERIMENT, Tracking
from lens_pipeline.defs.workspace import Workspace
from lens_pipeline_tests.defs.test_tracking import Settings, in_an_asset, points, work_folder, write
from lens_pipeline_tests.training.events import epoch, finished, run_started, step

_SECONDS = 120


def wait_until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while not true():
        assert time.monotonic() < deadline, f"waited {_SECONDS} s for {what}"
        time.sleep(0.1)


class Server:
    """An MLflow server in a process group of its own, on loopback, whose database outlives it."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.uri, self._folder = f"http://127.0.0.1:{self.port}", folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        stores = ["--backend-store-uri", f"sqlite:///{self._folder}/mlflow.db"]
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), *stores]
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [*command, "--workers", "1", "--default-artifact-root", f"file://{self._folder}/files"],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={
                    **os.environ,
                    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                    "MLFLOW_DISABLE_TELEMETRY": "true",
                },
            )
        wait_until(self._answers, f"MLflow to answer on port {self.port}")

    def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
            return bool(answer.status == 200)
        return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.kill()


def test_a_server_that_is_killed_and_started_again_in_mid_run_has_each_point_once_and_the_training_went_on(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "_LONGEST_PAUSE_SECONDS", 1.0)
    refused: list[Exception] = []
    sync = MlflowRun.sync

    def watched(run: MlflowRun) -> None:
        try:
            sync(run)
        except Exception as error:
            refused.append(error)
            raise

    monkeypatch.setattr(MlflowRun, "sync", watched)
    tracking, folder = Tracking(uri=server.uri), work_folder("a-training")
    losses = {1 + number: 1 / (1 + number) for number in range(30)}
    steps = [step(0, n, loss=loss, steps_per_epoch=30, time=1000.0 + n) for n, loss in losses.items()]
    events = [run_started(steps_per_epoch=30), *steps, epoch(0, time=1031.0), finished()]
    told_while_down: list[bool] = []

    def body(context: dg.AssetExecutionContext) -> None:
        server.start()
        with tracking.training_run(context, Settings(), Workspace(), inputs=[], folder=folder) as run:
            for number, event in enumerate(events):
                if number == 10:
                    wait_until(lambda: MlflowRun(folder).is_told, "the first points to be told")
                    server.kill()
                if number == 20:
                    wait_until(lambda: bool(refused), "the thread to find the server gone")
                    told_while_down.append(MlflowRun(folder).is_told)
                    server.start()
                write(folder, event)
                run.on_event(event)

    assert in_an_asset(tracking, body, dg.DagsterInstance.ephemeral()).success
    assert told_while_down == [False]
    assert MlflowRun(folder).is_told
    client = tracking.client()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert points(tracking, run, "step/loss") == list(losses.items())
    assert points(tracking, run, "val_loss") == [(0, 0.5)]
