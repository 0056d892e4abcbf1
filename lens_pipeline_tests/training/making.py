"""A small survey that a small model can learn, published as a real store with real splits; and ranks without torchrun.

The ranks are forked from a server that has everything imported (`warm`), so that a run of two ranks starts in a blink.
"""

import errno
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
import torch.distributed as dist

from lens_pipeline.contracts.catalogue import REGION_SPLITS, SPLIT_ROWS
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.stamps.encode import encode_stamp
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.folder import RunFolder
from lens_pipeline.training.processes import ATTEMPT
from lens_pipeline.training.run import prepare_run
from lens_pipeline.training.world import World
from lens_pipeline_tests.stamps.making import make_rows, make_store, publish_stamps

CONTRACT = DatasetContract(stamp_size=16)
SHARES = {"train": 0.5, "val_select": 0.25, "val_calibrate": 0.125, "test": 0.125}
QUICK: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 32,
    "threads_per_rank": 1,
    "warmup_epochs": 0.5,
    "checkpoint_every_steps": 3,
    "report_every_steps": 1,
}

# How long a run may take, and how long a rank may outlive another that died, until it counts as hung.
_LONGEST_S, _OUTLIVING_S = 900.0, 120.0

Pixels = npt.NDArray[np.float32]


def small_survey(
    home: Home,
    *,
    n_galaxies: int = 120,
    contract: DatasetContract = CONTRACT,
    splits_of: Callable[[int], str] | None = None,
    theta_e_of: Callable[[int], float] = lambda galaxy: 1.1,
) -> tuple[Publication, Publication]:
    """Publish a lens and a control of each galaxy as a store, and splits of whole galaxies.

    Parameters
    ----------
    splits_of : callable, optional
        Galaxy number to split; by default in the order of SHARES.
    theta_e_of : callable
        Galaxy number to the Einstein radius of its lens, which is written down and not drawn.
    """
    rows = make_rows(2 * n_galaxies, contract)
    names = [stamp_class.label_values[0] for stamp_class in contract.classes]
    for number, row in enumerate(rows):
        label = 0 if row.pop("lens_model") == "CONTROL" else 1 + number // 2 % (len(names) - 1)
        row[contract.label_column] = names[label]
        row["theta_e_arcsec"] = theta_e_of(number // 2) if label else 0.0
        row["stamp_npz"] = encode_stamp(_pixels(number, label, contract), contract)
        row[contract.key] = row.pop("task_id")
    store, _ = make_store(home, publish_stamps(home, [rows], contract=contract))
    of_galaxy = splits_of or _in_order(n_galaxies)
    return store, publish_splits(home, store, lambda row: of_galaxy(row // 2))


def publish_splits(home: Home, store: Publication, split_of_row: Callable[[int], str]) -> Publication:
    """Publish a split of each row, by its number; even rows are lenses, each followed by its galaxy's control."""
    index = store.read_table(None, ["task_id", "logical", "label"])
    split = [split_of_row(int(key.removeprefix("t"))) for key in index["task_id"].to_pylist()]
    rows = index.append_column("split", pa.array(split)).select([column.name for column in SPLIT_ROWS.columns])
    regions = pa.table(
        {"region_id": ["all"], "split": ["train"], "n_rows": [1], "n_galaxies": [1], "ra": [0.0], "dec": [0.0]}
    )
    with home.stage("tried", "region_splits", inputs=[store]) as staging:
        staging.write_table(None, regions, REGION_SPLITS)
        staging.write_table("rows", rows, SPLIT_ROWS)
        staging.attributes.update(seed=4)
        return staging.commit()


def prepared(folder: Path, survey: tuple[Publication, Publication], **settings: Any) -> RunFolder:
    """Prepare a run; the rank processes come from `run_ranks` or from torchrun."""
    prepare_run(TrainingConfig.model_validate({**QUICK, **settings}), *survey, folder)
    return RunFolder(folder)


@dataclass(frozen=True)
class Sabotage:
    """What goes wrong in one rank, right before a step: a kill (SIGKILL), a term (SIGTERM), a full
    disk from there on, or a loss that is nan."""

    what: str
    rank: int
    epoch: int
    step: int

    def arm(self) -> None:
        """Lay it, in the rank's own process."""
        from lens_pipeline.training import loop

        _arm(loop.Trainer, self)


@contextmanager
def only_rank(folder: Path) -> Iterator[World]:
    """Make this process a world of one rank on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=0, world_size=1)
    try:
        yield World(0, 1, torch.device("cpu"))
    finally:
        dist.destroy_process_group()
        torch.set_num_threads(threads)


class Trap(Protocol):
    """Something that will happen to one rank."""

    @property
    def rank(self) -> int:
        """The rank in which it is laid."""

    def arm(self) -> None:
        """Lay it, in the rank's own process, before it trains."""


def run_ranks(
    folder: RunFolder, world: int = 2, sabotage: Trap | None = None, everywhere: Callable[[], None] | None = None
) -> list[int | None]:
    """Run every rank of a prepared run to its end.

    Parameters
    ----------
    everywhere : callable, optional
        Called in each rank before it trains.

    Returns
    -------
    list of int or None
        Exit codes; None for a rank that had to be killed, because it did not end although another had died, or at all.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lens_pipeline_tests.training.warm"])
    attempt = folder.next_attempt()
    ranks = [
        context.Process(target=_rank, args=(rank, world, folder.specification, attempt, sabotage, everywhere))
        for rank in range(world)
    ]
    until = time.monotonic() + _LONGEST_S
    try:
        for process in ranks:
            process.start()
        while (alive := _alive(ranks)) and time.monotonic() < until:
            wait([process.sentinel for process in alive], until - time.monotonic())
            if any(process.exitcode for process in ranks):
                until = min(until, time.monotonic() + _OUTLIVING_S)
    finally:
        for process in (hung := _alive(ranks)):
            process.kill()
            process.join()
    return [None if process in hung else process.exitcode for process in ranks]


def _alive(ranks: Sequence[BaseProcess]) -> list[BaseProcess]:
    return [process for process in ranks if process.is_alive()]


def pid_of(rank: int) -> int:
    """Process of another rank of the attempt that this process belongs to."""
    return int((Path(os.environ[ATTEMPT]) / f"pid-{rank}").read_text())


def _rank(
    rank: int,
    world: int,
    specification: Path,
    attempt: Path,
    sabotage: Trap | None,
    everywhere: Callable[[], None] | None,
) -> None:
    from lens_pipeline.training.rank import main

    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world), OMP_NUM_THREADS="1"
    )
    os.environ[ATTEMPT] = str(attempt)
    (attempt / f"pid-{rank}").write_text(str(os.getpid()))
    if everywhere is not None:
        everywhere()
    if sabotage is not None and sabotage.rank == rank:
        sabotage.arm()
    with open(attempt / f"rank-{rank}.log", "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        raise SystemExit(main([str(specification)]))


def _arm(trainer: Any, sabotage: Sabotage) -> None:
    step = trainer.step

    def sabotaged(self: Any, epoch: int, batch: Any) -> None:
        if (epoch, batch.step) == (sabotage.epoch, sabotage.step):
            if sabotage.what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if sabotage.what == "full":
                from lens_pipeline.training import checkpoint

                checkpoint.write_atomically = _refuse
                return step(self, epoch, batch)
            if sabotage.what == "term":
                os.kill(os.getpid(), signal.SIGTERM)
                return step(self, epoch, batch)
            self.take_step.loss = _NotANumber(self.take_step.loss)
        return step(self, epoch, batch)

    trainer.step = sabotaged


class _NotANumber:
    """A loss in all but its values."""

    def __init__(self, loss: Any) -> None:
        self._loss = loss

    def __call__(self, logits_BO: Any, *targets: Any) -> Any:
        return self._loss(logits_BO, *targets) * float("nan")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loss, name)


def _refuse(path: Path, content: bytes) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _pixels(number: int, label: int, contract: DatasetContract) -> Pixels:
    """Noise, a galaxy, and for a lens a ring whose radius says which class it is."""
    random = np.random.default_rng(number)
    half = contract.stamp_size // 2
    y, x = np.mgrid[-half:half, -half:half] + 0.5
    radius = np.hypot(y, x) / half
    stamp = random.normal(0, 1, contract.stamp_shape) + random.uniform(5, 20) * np.exp(-radius / 0.15)
    if label:
        stamp += random.uniform(2, 5) * np.exp(-0.5 * ((radius - 0.3 - 0.3 * (label - 1)) / 0.1) ** 2)
    return (0.01 * stamp).astype(np.float32)


def _in_order(n_galaxies: int) -> Callable[[int], str]:
    ends = np.cumsum([round(share * n_galaxies) for share in SHARES.values()])

    def split_of(galaxy: int) -> str:
        return list(SHARES)[min(int(np.searchsorted(ends, galaxy, side="right")), len(SHARES) - 1)]

    return split_of
