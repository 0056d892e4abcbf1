"""One rank from start to end: read run.json, join the others, train, and leave word of a failure."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from lens_pipeline.batches.preprocessing import fit_preprocessing
from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.training.failures import RankFailure
from lens_pipeline.training.folder import STOPPED_STATUS, RunFolder
from lens_pipeline.training.interruption import Interruption
from lens_pipeline.training.loop import Trainer
from lens_pipeline.training.losses import build_loss
from lens_pipeline.training.models import spec_for
from lens_pipeline.training.order import sampler_for
from lens_pipeline.training.processes import ATTEMPT
from lens_pipeline.training.rows import read_rows
from lens_pipeline.training.spec import RunSpec
from lens_pipeline.training.weights import strata_for
from lens_pipeline.training.world import World, joined


class _Place:
    """Where this rank is, for the words of a failure."""

    def __init__(self) -> None:
        self.epoch: int | None = None
        self.step: int | None = None

    def __call__(self, epoch: int, step: int) -> None:
        self.epoch, self.step = epoch, step


def main(arguments: list[str]) -> int:
    """Train as run.json says. Returns the exit code: 1 after a failure that has been written down."""
    if len(arguments) != 1:
        print("usage: python -m torch.distributed.run ... -m lens_pipeline.training RUN.json", file=sys.stderr)
        return 2
    path = Path(arguments[0])
    attempt = Path(os.environ.get(ATTEMPT, str(path.parent)))
    place = _Place()
    try:
        return _train(RunSpec.read(path), RunFolder(path.parent), attempt, place)
    except Exception as error:
        RankFailure.of(error, rank=int(os.environ.get("RANK", "0")), epoch=place.epoch, step=place.step).write(attempt)
        raise


def _train(spec: RunSpec, folder: RunFolder, attempt: Path, place: _Place) -> int:
    config = spec.config
    torch.set_num_threads(config.threads_per_rank or max(1, len(os.sched_getaffinity(0)) // config.world_size))
    if config.deterministic:
        # cuBLAS reads this when it is first used: without it, it may choose another algorithm each time.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not config.deterministic
    # Filling every fresh tensor with NaN, which that switch brings along, is a debugging aid and costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    folder.refuse_superseded()
    folder.make()
    with joined(config, attempt) as world:
        trainer = trainer_for(spec, folder, world, place, attempt)
        trainer.interruption.listen()
        if not trainer.run():
            return STOPPED_STATUS
        world.barrier()
    return 0


def trainer_for(
    spec: RunSpec, folder: RunFolder, world: World, place: Callable[[int, int], None], attempt: Path
) -> Trainer:
    """Open what a run is about and build its trainer, restored from the newest checkpoint."""
    config, contract = spec.config, spec.contract
    store_publication, splits = spec.open_inputs()
    store = StampStore.open(store_publication)
    if store.contract.sha256() != contract.sha256():
        raise TrainingError("the store's dataset contract isn't the run's. Materialize lens_classifier again.")
    rows = read_rows(splits, store_publication, config)
    strata = strata_for(config, rows, store_publication)
    loss = build_loss(config, spec.class_counts, strata)
    return Trainer(
        spec=spec,
        folder=folder,
        world=world,
        store=store,
        rows=rows,
        sampler=sampler_for(config, contract, rows, store_publication),
        preprocessing=fit_preprocessing(store, rows.train, name=config.preprocessing.value, softening=config.softening),
        model_spec=spec_for(config, contract),
        loss=loss,
        row_weights=None if strata is None else strata.by_row(loss.stratum_weights),
        place=place,
        attempt=attempt,
        interruption=Interruption(attempt, every=config.report_every_steps),
    )
