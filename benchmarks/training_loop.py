"""The training loop with everything around it, against the same step on one batch that stays in memory.

The difference is what reading, gathering, the order, the augmentation's draw and the ledger cost. In CPU time, the gathering
threads included.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.harness import Result, compare, summarise
from benchmarks.synthetic import publish_splits
from lens_pipeline.batches.loader import Batch
from lens_pipeline.storage.home import Home
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.figures import EpochSums
from lens_pipeline.training.folder import RunFolder
from lens_pipeline.training.loop import Trainer
from lens_pipeline.training.rank import trainer_for
from lens_pipeline.training.run import prepare_run
from lens_pipeline.training.spec import RunSpec
from lens_pipeline.training.world import joined

_BATCH = 64
_STEPS_BETWEEN, _STEPS_TIMED = 500, 20


def run(quick: bool) -> list[Result]:
    n, rounds = (512, 2) if quick else (2560, 9)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store, splits = publish_splits(Home(folder / "home"), n)
        config = TrainingConfig.model_validate({"world_size": 1, "batch_size": _BATCH, "threads_per_rank": 1})
        specification = prepare_run(config, store, splits, folder / "run")
        torch.set_num_threads(1)
        os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
        with joined(config, folder) as world:
            trainer = trainer_for(
                RunSpec.read(specification),
                RunFolder(folder / "run"),
                world,
                lambda epoch, step: None,
                folder,
            )
            trainer.take_step.begin(1)
            return [_compare(trainer, rounds), _checkpointing(trainer, rounds)]


def _compare(trainer: Trainer, rounds: int) -> Result:
    steps = len(trainer.rows.train) // _BATCH
    resident = _resident(next(iter(_batches(trainer))))

    def loop() -> None:
        for batch in _batches(trainer):
            trainer.step(1, batch)

    def same_batch() -> None:
        for _ in range(steps):
            trainer.step(1, resident)

    return compare(
        "training_loop",
        loop,
        same_batch,
        against="the same step on one resident batch",
        goal=0.98,
        n=steps * _BATCH,
        rounds=rounds,
    )


def _checkpointing(trainer: Trainer, rounds: int) -> Result:
    """Compare 500 steps with one checkpoint of everything, the thread that writes it included, in CPU time."""
    resident = _resident(next(iter(_batches(trainer))))
    progress = replace(trainer.progress, epoch=1)

    def checkpoint() -> None:
        trainer._checkpoint(progress, EpochSums())
        trainer.writer.wait()

    def steps() -> None:
        for _ in range(_STEPS_TIMED):
            trainer.step(1, resident)

    found = []
    for _ in range(rounds):
        times = []
        for side in (checkpoint, steps):
            began = time.process_time()
            side()
            times.append(time.process_time() - began)
        found.append(times[1] * _STEPS_BETWEEN / _STEPS_TIMED / times[0])
    return summarise(
        "checkpoint_every_500_steps",
        found,
        against="500 steps over one checkpoint: 100 is 1 %",
        goal=100,
        n=_STEPS_TIMED,
    )


def _batches(trainer: Trainer) -> Iterator[Batch]:
    return trainer.loader.training_batches(trainer.sampler, trainer.augmentation, epoch=1, rank=0, world=1)


def _resident(batch: Batch) -> Batch:
    return replace(
        batch,
        pixels=batch.pixels.clone(),
        median=batch.median.clone(),
        mad=batch.mad.clone(),
        logical=batch.logical.copy(),
    )
