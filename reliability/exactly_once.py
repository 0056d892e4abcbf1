"""One epoch through the real loader, stopped and taken up again at every step by another number of ranks and threads.

A case is a combination of ranks, threads, batch, rows that the batch doesn't divide, and order. It holds the rows that came
out of the loader, and their pixels, against the order as one rank without a loader draws it; and proves the ledgers. One
rank's part goes through torch's own DataLoader as well, with as many worker processes as threads.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader

from lens_pipeline.batches.augment import DihedralAugmentation
from lens_pipeline.batches.dataset import StampDataset, as_tensors
from lens_pipeline.batches.loader import Loader
from lens_pipeline.stamps.ledger import Ledger
from lens_pipeline.stamps.ledger_check import verify_ledger
from lens_pipeline.stamps.orders import Ordering, Shuffled
from lens_pipeline.stamps.pairs import Paired
from lens_pipeline.stamps.sampler import GlobalSampler
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.stamps.weighted import Repeated, WithReplacement
from lens_pipeline.storage.home import Home
from lens_pipeline_tests.stamps.making import make_rows, store_of
from reliability.subject import Case, Subject

WORLDS = (1, 2, 3, 4, 6)
THREADS = (0, 1, 2, 3, 8)
ORDERS = ("shuffled", "repeated", "with_replacement", "paired")
SIZES = ((97, 12), (61, 24), (83, 7), (71, 30), (53, 10))
_EPOCH = 1

Rows = npt.NDArray[np.int64]
Fed = tuple[int, Rows, npt.NDArray]


def case(number: int) -> Case:
    """Run one combination."""
    setting = _Setting.of(number)
    with tempfile.TemporaryDirectory() as folder:
        return _Try(setting, Path(folder)).run()


@dataclass(frozen=True)
class _Setting:
    number: int
    world: int
    threads: int
    order: str
    n_rows: int
    batch: int

    @classmethod
    def of(cls, number: int) -> "_Setting":
        rest, world = divmod(number, len(WORLDS))
        rest, threads = divmod(rest, len(THREADS))
        rest, order = divmod(rest, len(ORDERS))
        n_rows, batch = SIZES[rest]
        return cls(number, WORLDS[world], THREADS[threads], ORDERS[order], n_rows, batch)

    def sampler(self) -> GlobalSampler:
        rows = np.sort(np.random.default_rng(self.number).permutation(_store().n_rows)[: self.n_rows])
        place = np.arange(self.n_rows)
        weighted = {"group": place % 3, "weights": [1.0, 1.6, 0.7]}
        control = np.where((place % 3 == 2) | (place // 3 * 3 + 2 >= self.n_rows), -1, place // 3 * 3 + 2)
        ordering: Ordering = {
            "shuffled": Shuffled,
            "repeated": partial(Repeated, **weighted),
            "with_replacement": partial(WithReplacement, **weighted),
            "paired": partial(Paired, control=np.where(control < 0, -1, rows[control])),
        }[self.order]
        sampler, batch = GlobalSampler(rows, seed=self.number, global_batch=self.batch, order=ordering), self.batch
        while sampler.order.n_places % batch == 0:
            batch += 1
        return GlobalSampler(rows, seed=self.number, global_batch=batch, order=ordering)


class _Try:
    def __init__(self, setting: _Setting, folder: Path) -> None:
        self.setting, self.folder, self.store = setting, folder, _store()
        self.sampler = setting.sampler()
        self.steps = self.sampler.steps_per_epoch
        self.wanted = [self.sampler.step(_EPOCH, step) for step in range(self.steps)]
        self.problems: list[str] = []
        self.n_runs = self.n_fed = self.n_lost = self.n_repeated = 0

    def run(self) -> Case:
        self._counts()
        whole = self._ledgers("whole", self.setting.world)
        for rank, ledger in enumerate(whole):
            for step in range(self.steps):
                ledger.append(0, step, self.sampler.rank_slice(0, step, rank, self.setting.world))
        self._feed("left alone", 0, self.setting.world, self.setting.threads, whole)
        self._prove("left alone", [ledger.path for ledger in whole])
        for step in range(1, self.steps):
            self._resume(step)
        self._workers(self.steps // 2)
        return Case(
            problem="; ".join(self.problems[:3]) or None,
            counts={
                "runs": self.n_runs,
                "rows fed": self.n_fed,
                "rows lost": self.n_lost,
                "rows repeated": self.n_repeated,
            },
        )

    def _counts(self) -> None:
        """Hold what is wanted against what the order is for."""
        came = np.bincount(np.concatenate(self.wanted), minlength=self.store.n_rows)[np.sort(self.sampler.rows)]
        weights = np.array([1.0, 1.6, 0.7])[np.arange(len(came)) % 3]
        low, high = {
            "shuffled": (1.0, 1.0),
            "paired": (1.0, 1.0),
            "repeated": (np.floor(weights), np.ceil(weights)),
            "with_replacement": (0.0, 12.0),
        }[self.setting.order]
        if not np.all((came >= low) & (came <= high)):
            self.problems.append(
                f"an epoch in the order {self.setting.order} gives rows {came.min()} to {came.max()} times"
            )

    def _resume(self, step: int) -> None:
        """Stop before a step, and go on with another number of ranks and threads, from the state as JSON."""
        what = f"taken up at step {step}"
        turn = (self.setting.number + step) % (len(WORLDS) - 1) + 1
        world = WORLDS[(WORLDS.index(self.setting.world) + turn) % len(WORLDS)]
        threads = THREADS[(THREADS.index(self.setting.threads) + step) % len(THREADS)]
        before = []
        for path in sorted(self.folder.glob("whole-*")):
            before.append(self.folder / f"{path.stem[6:]}-{step}-before.ledger")
            before[-1].write_bytes(path.read_bytes()[: -(step % 5) or None])
            ledger = Ledger(before[-1], n_rows=self.store.n_rows)
            ledger.cut_back_to(_EPOCH, step)
            ledger.close()
        state = json.loads(json.dumps(self.sampler.state(_EPOCH, step).to_json()))
        self.sampler = self.setting.sampler()
        start = self.sampler.resume(state).step
        after = self._ledgers(f"{step}-after", world)
        self._feed(what, start, world, threads, after)
        self._prove(what, [*before, *(ledger.path for ledger in after)])

    def _workers(self, step: int) -> None:
        """Feed one rank's part of the rest of the epoch through torch's worker processes."""
        world, workers = self.setting.world, self.setting.threads
        rank = self.setting.number % world
        slices = [self.sampler.rank_slice(_EPOCH, later, rank, world) for later in range(step, self.steps)]
        slices = [rows for rows in slices if len(rows)]
        loader = DataLoader(
            StampDataset(self.store.publication),
            batch_sampler=[rows.tolist() for rows in slices],
            num_workers=workers,
            collate_fn=as_tensors,
            timeout=120 if workers else 0,
        )
        for rows, batch in zip(slices, loader, strict=True):
            self._same(f"through {workers} workers", rows, batch["logical"].numpy(), batch["pixels"].numpy())
        self.n_runs += 1

    def _feed(self, what: str, start: int, world: int, threads: int, ledgers: Sequence[Ledger]) -> None:
        parts: list[list[Rows]] = [[] for _ in range(self.steps)]
        for rank, ledger in enumerate(ledgers):
            for step, rows, pixels in _fed(self.store, self.sampler, start, rank, world, threads):
                self._same(what, rows, rows, pixels)
                parts[step].append(rows)
                ledger.append(_EPOCH, step, rows)
            ledger.close()
        for step in range(start, self.steps):
            self._same(f"{what}, step {step}", self.wanted[step], np.concatenate(parts[step]), None)
        came = np.bincount(np.concatenate([rows for step in parts for rows in step]), minlength=self.store.n_rows)
        due = np.bincount(np.concatenate(self.wanted[start:]), minlength=self.store.n_rows)
        self.n_runs, self.n_fed = self.n_runs + 1, self.n_fed + int(came.sum())
        self.n_lost += int(np.maximum(due - came, 0).sum())
        self.n_repeated += int(np.maximum(came - due, 0).sum())

    def _same(self, what: str, wanted: Rows, came: Rows, pixels: npt.NDArray | None) -> None:
        if not np.array_equal(wanted, came):
            self.problems.append(f"{what}: rows {came[:5].tolist()} ... came, not {wanted[:5].tolist()} ...")
        if pixels is not None and not np.array_equal(pixels, self.store.take(wanted).pixels):
            self.problems.append(f"{what}: pixels are not those of their rows")

    def _ledgers(self, name: str, world: int) -> list[Ledger]:
        return [Ledger(self.folder / f"{name}-{rank}.ledger", n_rows=self.store.n_rows) for rank in range(world)]

    def _prove(self, what: str, paths: Sequence[Path]) -> None:
        check = verify_ledger(
            paths, self.sampler, epochs=_EPOCH + 1, n_rows=self.store.n_rows, names=lambda rows: [*map(str, rows)]
        )
        if not check.passed:
            self.problems.append(f"{what}: {check.message()}")


def _fed(store: StampStore, sampler: GlobalSampler, start: int, rank: int, world: int, threads: int) -> Iterator[Fed]:
    """Yield step, rows and pixels as one rank gets them; without threads, straight from the store."""
    if threads == 0:
        for step in range(start, sampler.steps_per_epoch):
            rows = sampler.rank_slice(_EPOCH, step, rank, world)
            yield step, rows, store.take(rows).pixels
        return
    for batch in Loader(store, threads=threads).training_batches(
        sampler, DihedralAugmentation(1), epoch=_EPOCH, start_step=start, rank=rank, world=world
    ):
        yield batch.step, batch.logical, batch.pixels[: batch.n].numpy()


@cache
def _store() -> StampStore:
    _store_folder = tempfile.mkdtemp(prefix="exactly-once-")
    published, _ = store_of(Home(Path(_store_folder)), [make_rows(120)])
    return StampStore.open(published)


SUBJECT = Subject(
    name="exactly_once",
    question="for any ranks, threads, batch, rows that it doesn't divide, order, and step at which another number of ranks goes "
    "on: the same global order, no row lost, none repeated, ledgers green",
    unit="combinations",
    goal=500,
    case=case,
    n_cases=len(WORLDS) * len(THREADS) * len(ORDERS) * len(SIZES),
)
