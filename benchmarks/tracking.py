"""What being watched costs a training: a report into the history, and telling MLflow of it, against the steps in between.

The steps are those of a GPU that takes 15,000 stamps a second in batches of 512 and reports every tenth step: 34 ms each, the
shortest that the design asks for. Writing is done by rank 0 within its step. Telling is done by a thread of another process,
which no rank waits for; its time is CPU time of that process, with an SQLite store, whose work a server would do elsewhere.
"""

import os
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

from benchmarks.harness import Result, summarise
from lens_pipeline.defs.mlflow_runs import MlflowRun, Record
from lens_pipeline.training.folder import TOKEN, HistoryWriter, RunFolder

_STEPS_APART, _STEP_SECONDS = 10, 512 / 15_000
_AGAINST = "ten steps of 34 ms"


def run(quick: bool) -> list[Result]:
    n, rounds = (50, 2) if quick else (500, 9)
    writing, telling = [], []
    for _ in range(rounds + 1):
        with tempfile.TemporaryDirectory() as name:
            folder = RunFolder(Path(name))
            writing.append(n * _STEPS_APART * _STEP_SECONDS / _write(folder, n))
            telling.append(n * _STEPS_APART * _STEP_SECONDS / _tell(folder))
    return [
        summarise(f"tracking_{what}", values[1:], against=_AGAINST, goal=100, n=n)
        for what, values in (("writing", writing), ("telling", telling))
    ]


def _write(folder: RunFolder, n: int) -> float:
    """Write so many reports as rank 0 does, its claim on the folder asked for each time; seconds of wall time."""
    token = folder.claim(folder.next_attempt())
    with patch.dict(os.environ, {TOKEN: token}):
        writer = HistoryWriter(folder.history, "0001")
        writer.write("run_started", epoch=0, step=0, steps_per_epoch=10 * n, epochs=1, ranks=8)
        began = time.perf_counter()
        for number in range(1, n + 1):
            writer.write(
                "step", epoch=0, step=10 * number, steps_per_epoch=10 * n, epochs=1, loss=1 / number, gradient_norm=0.1,
                learning_rate=1e-3, stamps_per_second=15e3, data_wait_share=0.01, memory_mb=4e4, scale=None,
            )  # fmt: skip
        seconds = time.perf_counter() - began
        writer.close()
    return seconds


def _tell(folder: RunFolder) -> float:
    """Tell MLflow of all of it; seconds of CPU time, the first call's preparations aside."""
    uri = f"sqlite:///{folder.path / 'mlflow.db'}"
    record = Record(uri, "benchmark", (folder.path / "files").as_uri(), "benchmark")
    history = folder.history.read_bytes()
    folder.history.write_bytes(b"")
    record.write(folder.path)
    run = MlflowRun(folder.path)
    run.sync()
    folder.history.write_bytes(history)
    began = time.process_time()
    run.sync()
    return time.process_time() - began
