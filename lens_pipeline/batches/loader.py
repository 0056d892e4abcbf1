"""Rows to tensors: threads gather ahead of the model into a ring of reused buffers, never worker processes.

Every batch carries its rows' logical numbers; every join is by them. Training batches follow the global sampler;
evaluation batches take each row once, in order, and have no place for an augmentation.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from lens_pipeline.batches.augment import DihedralAugmentation
from lens_pipeline.contracts.errors import ContractError
from lens_pipeline.stamps.sampler import GlobalSampler
from lens_pipeline.stamps.store import Rows, StampStore

# On CPU, a forward pass of a multiple of 16 rows gives each row the same bits wherever it stands and whatever stands
# beside it; other sizes send the last rows through other kernels and move the last bit.
FORWARD_MULTIPLE = 16
_AHEAD = 3

Logical = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Rows on their way to the model; valid until the next one is asked for (its buffers are reused).

    Attributes
    ----------
    logical : int64 (n,)
        Logical numbers of the rows, in the order of the tensors' first `n` rows.
    pixels : torch.Tensor
        (row, band, y, x) float16 nanomaggy, with at least `n` rows; the rows after them are zeros that pad the forward
        pass and belong to nobody.
    median, mad : torch.Tensor
        (row, band) float32 nanomaggy, as many rows.
    step : int
        Step in the epoch.
    n_global : int
        Rows of this step over all ranks.
    elements : torch.Tensor or None
        The dihedral element of each row; None where nothing is augmented.
    """

    logical: Logical
    pixels: torch.Tensor
    median: torch.Tensor
    mad: torch.Tensor
    step: int
    n_global: int
    elements: torch.Tensor | None = None

    @property
    def n(self) -> int:
        """Rows that are somebody's."""
        return len(self.logical)


@dataclass(frozen=True)
class _Job:
    logical: Logical
    n_padded: int
    step: int
    n_global: int


def training_batches(
    store: StampStore,
    sampler: GlobalSampler,
    augmentation: DihedralAugmentation,
    *,
    epoch: int,
    start_step: int = 0,
    rank: int,
    world: int,
    threads: int,
    pin: bool = False,
) -> Iterator[Batch]:
    """Yield this rank's part of every step of an epoch, each row exactly once over all ranks.

    A rank whose part of a short last step is empty gets one row of zeros that belongs to nobody, so that every rank
    takes every step.

    Parameters
    ----------
    start_step : int
        First step to yield: a resumed epoch goes on where it stood.
    threads : int
        Gathering threads; what they read doesn't depend on their number.
    pin : bool
        Page-lock the buffers, for copies to a GPU.
    """

    def jobs() -> Iterator[_Job]:
        for step in range(start_step, sampler.steps_per_epoch):
            mine = sampler.rank_slice(epoch, step, rank, world)
            yield _Job(mine, max(len(mine), 1), step, len(sampler.step(epoch, step)))

    largest = max(len(sampler.rank_slice(epoch, step, rank, world)) for step in {start_step, 0})
    for batch in _gathered(store, jobs(), max(largest, 1), threads, pin):
        elements = torch.zeros(len(batch.pixels), dtype=torch.int64)
        elements[: batch.n] = torch.from_numpy(augmentation.elements(epoch, batch.logical))
        yield Batch(batch.logical, batch.pixels, batch.median, batch.mad, batch.step, batch.n_global, elements)


def evaluation_batches(
    store: StampStore,
    rows: Logical,
    *,
    batch_size: int,
    rank: int = 0,
    world: int = 1,
    threads: int,
    pin: bool = False,
) -> Iterator[Batch]:
    """Yield every row once, in order, cut into batches of which each rank takes every `world`-th.

    Each batch is padded with zeros to a multiple of 16 rows, so that on CPU a row's logit has the same bits whatever the
    batch size, the number of ranks and the rows beside it.

    Raises
    ------
    ContractError
        If a row is given twice.
    """
    if len(np.unique(rows)) != len(rows):
        raise ContractError(f"{len(rows) - len(np.unique(rows)):,} of {len(rows):,} rows to evaluate are given twice.")
    jobs = (
        _Job(rows[start : start + batch_size], _padded(len(rows[start : start + batch_size])), step, len(rows))
        for step, start in enumerate(range(0, len(rows), batch_size))
        if step % world == rank
    )
    yield from _gathered(store, jobs, _padded(batch_size), threads, pin)


def _padded(n: int) -> int:
    return -(-n // FORWARD_MULTIPLE) * FORWARD_MULTIPLE


class _Buffer:
    """Tensors that are filled again and again, and the same memory as the store's arrays."""

    def __init__(self, n: int, shape: Sequence[int], pin: bool) -> None:
        self.pixels = torch.zeros((n, *shape), dtype=torch.float16, pin_memory=pin)
        self.median = torch.zeros((n, shape[0]), dtype=torch.float32, pin_memory=pin)
        self.mad = torch.zeros((n, shape[0]), dtype=torch.float32, pin_memory=pin)
        self.rows = Rows(self.pixels.numpy(), self.median.numpy(), self.mad.numpy())


def _gathered(store: StampStore, jobs: Iterator[_Job], largest: int, threads: int, pin: bool) -> Iterator[Batch]:
    ring = deque(_Buffer(largest, store.contract.stamp_shape, pin) for _ in range(threads + _AHEAD))
    waiting: deque[tuple[_Buffer, Future[Batch]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="gather") as pool:

        def refill() -> None:
            while ring and (job := next(jobs, None)) is not None:
                buffer = ring.popleft()
                waiting.append((buffer, pool.submit(_fill, store, job, buffer)))

        try:
            refill()
            while waiting:
                buffer, future = waiting.popleft()
                yield future.result()
                ring.append(buffer)
                refill()
        finally:
            for _, future in waiting:
                future.cancel()


def _fill(store: StampStore, job: _Job, buffer: _Buffer) -> Batch:
    n = len(job.logical)
    if n:
        store.take(job.logical, out=buffer.rows.head(n))
    for tensor in (buffer.pixels, buffer.median, buffer.mad):
        tensor[n : job.n_padded] = 0
    return Batch(
        logical=job.logical,
        pixels=buffer.pixels[: job.n_padded],
        median=buffer.median[: job.n_padded],
        mad=buffer.mad[: job.n_padded],
        step=job.step,
        n_global=job.n_global,
    )
