"""Two ranks against one: the same global batches, one thread a rank, in wall time, on cores that nobody else uses.

Speed is a run's own, over the steps of its epochs after the first. A round before or after which others kept a core busy is left
out, and without a round there is no figure.
"""

import os
import statistics
import tempfile
from pathlib import Path

import psutil

from benchmarks.harness import Result, summarise
from benchmarks.synthetic import publish_splits
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.folder import RunFolder, read_events
from lens_pipeline.training.run import prepare_run
from lens_pipeline_tests.training.making import run_ranks

_RANKS = 2
_BATCH, _EPOCHS = 64, 4
# Share of a core that may be busy for it to count as free.
_IDLE_PERCENT, _WATCHED_SECONDS = 10.0, 0.5


def run(quick: bool) -> list[Result]:
    n, rounds = (256, 2) if quick else (1024, 9)
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        survey = publish_splits(Home(Path(name) / "home"), n)
        for turn in range(rounds + 1):
            free = _cores_are_free()
            sides = (1, _RANKS) if turn % 2 else (_RANKS, 1)
            speed = {ranks: _speed(Path(name) / f"{turn}-{ranks}", survey, ranks) for ranks in sides}
            # The first round warms up.
            if turn and (quick or (free and _cores_are_free())):
                ratios.append(speed[_RANKS] / (_RANKS * speed[1]))
    if not ratios:
        print(f"scaling: not measured, {_RANKS} cores were never free; run it on a machine that nobody else uses")
        return []
    return [summarise("scaling_two_ranks", ratios, against="twice the speed of one rank", goal=0.9, n=n)]


def _speed(path: Path, survey: tuple[Publication, Publication], ranks: int) -> float:
    """Stamps a second of a run, the median over epochs."""
    settings = {
        "world_size": ranks,
        "threads_per_rank": 1,
        "batch_size": _BATCH,
        "epochs": _EPOCHS,
        "patience": _EPOCHS,
    }
    prepare_run(TrainingConfig.model_validate(settings), *survey, path)
    folder = RunFolder(path)
    if (codes := run_ranks(folder, ranks)) != [0] * ranks:
        raise RuntimeError(f"the ranks ended with {codes}")
    epochs = [event for event in read_events(folder.history) if event["event"] == "epoch"]
    return statistics.median(epoch["stamps_per_second"] for epoch in epochs[1:])


def _cores_are_free() -> bool:
    """Whether as many of this process's cores as there are ranks are idle just now."""
    busy = psutil.cpu_percent(_WATCHED_SECONDS, percpu=True)
    return sum(busy[core] < _IDLE_PERCENT for core in os.sched_getaffinity(0)) >= _RANKS
