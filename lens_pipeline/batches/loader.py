"""Rows to tensors: threads gather ahead of the model into a ring of reused buffers, never worker processes.

Every batch carries its rows' logical numbers; every join is by them. Training batches follow the global sampler;
evaluation batches take each row once, in order, and have no place for an augmentation.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lens_pipeline.batches.augment import DihedralAugmentation
from lens_pipeline.batches.device_rows import DeviceRows, TensorRows
from lens_pipeline.contracts.errors import ContractError
from lens_pipeline.stamps.row_sources import RowSource
from lens_pipeline.stamps.sampler import GlobalSampler
from lens_pipeline.stamps.store import Rows

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

    def part(self, rows: slice) -> "Batch":
        """Return the same step cut to some of the tensors' rows."""
        elements = None if self.elements is None else self.elements[rows]
        return replace(
            self,
            logical=self.logical[rows],
            pixels=self.pixels[rows],
            median=self.median[rows],
            mad=self.mad[rows],
            elements=elements,
        )


@dataclass(frozen=True)
class _Job:
    logical: Logical
    n_padded: int
    step: int
    n_global: int
    # What each row's dihedral element is drawn from: the augmentation and the epoch.
    drawn: tuple[DihedralAugmentation, int] | None = None


class Loader:
    """Hands out a source's rows in batches, gathered ahead by threads into buffers that are kept from one epoch to the next.

    Several epochs may be under way at once, each with buffers of its own.

    Parameters
    ----------
    source : RowSource or DeviceRows
        Where the rows are taken from: a `StampStore`, or what `opening.open_rows` chose.
    threads : int
        Gathering threads; what they read doesn't depend on their number.
    pin : bool
        Page-lock the buffers, for copies to a GPU. A buffer is filled again once the copies out of it have ended.
    """

    def __init__(self, source: RowSource | DeviceRows, *, threads: int, pin: bool = False) -> None:
        self._source, self._pin = source, pin
        self._n_buffers = threads + _AHEAD
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="gather")
        self._free: list[_Buffer] = []

    def training_batches(
        self,
        sampler: GlobalSampler,
        augmentation: DihedralAugmentation,
        *,
        epoch: int,
        start_step: int = 0,
        rank: int,
        world: int,
    ) -> Iterator[Batch]:
        """Yield this rank's part of every step of an epoch, each row exactly once over all ranks.

        A rank whose part of a short last step is empty gets one row of zeros that belongs to nobody, so that every rank
        takes every step.

        Parameters
        ----------
        start_step : int
            First step to yield: a resumed epoch goes on where it stood, which may be its end.
        """

        def jobs() -> Iterator[_Job]:
            for step in range(start_step, sampler.steps_per_epoch):
                mine = sampler.rank_slice(epoch, step, rank, world)
                yield _Job(mine, max(len(mine), 1), step, sampler.rows_of(step), (augmentation, epoch))

        return self._gathered(jobs(), max(len(sampler.rank_slice(epoch, 0, rank, world)), 1))

    def evaluation_batches(self, rows: Logical, *, batch_size: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Yield every row once, in order, cut into batches of which each rank takes every `world`-th.

        Each batch is padded with zeros to a multiple of 16 rows, so that on CPU a row's logit has the same bits whatever
        the batch size, the number of ranks and the rows beside it.

        Raises
        ------
        ContractError
            If a row is given twice.
        """
        if len(np.unique(rows)) != len(rows):
            raise ContractError(
                f"{len(rows) - len(np.unique(rows)):,} of {len(rows):,} rows to evaluate are given twice."
            )
        jobs = (
            _Job(rows[start : start + batch_size], _padded(len(rows[start : start + batch_size])), step, len(rows))
            for step, start in enumerate(range(0, len(rows), batch_size))
            if step % world == rank
        )
        return self._gathered(jobs, _padded(batch_size))

    def _gathered(self, jobs: Iterator[_Job], largest: int) -> Iterator[Batch]:
        ring = deque(self._buffer(largest) for _ in range(self._n_buffers))
        waiting: deque[tuple[_Buffer, Future[Batch]]] = deque()

        def refill() -> None:
            while ring and (job := next(jobs, None)) is not None:
                self._source.expect(job.logical)
                buffer = ring.popleft()
                waiting.append((buffer, self._pool.submit(_fill, self._source, job, buffer)))

        try:
            refill()
            while waiting:
                buffer, future = waiting.popleft()
                try:
                    batch = future.result()
                    buffer.wait_until_filled()
                    yield batch
                finally:
                    buffer.mark_read()
                    ring.append(buffer)
                refill()
        finally:
            for _, future in waiting:
                future.cancel()
            wait([future for _, future in waiting])
            self._free += [*ring, *(buffer for buffer, _ in waiting)]

    def _buffer(self, n: int) -> "_Buffer":
        """One that an earlier epoch left, if it is large enough, or a new one."""
        while self._free:
            buffer = self._free.pop()
            if len(buffer) >= n:
                return buffer
        return _Buffer(n, self._source, self._pin)


def _padded(n: int) -> int:
    return -(-n // FORWARD_MULTIPLE) * FORWARD_MULTIPLE


class _Buffer:
    """Tensors that are filled again and again; for rows from the host, the same memory as arrays."""

    def __init__(self, n: int, source: RowSource | DeviceRows, pin: bool) -> None:
        shape = source.contract.stamp_shape
        self._n = n
        self._device = source.device if isinstance(source, DeviceRows) else torch.device("cpu")
        where: dict[str, Any] = {"device": self._device, "pin_memory": pin and self._device.type == "cpu"}
        self.pixels = torch.zeros((n, *shape), dtype=torch.float16, **where)
        self.median = torch.zeros((n, shape[0]), dtype=torch.float32, **where)
        self.mad = torch.zeros((n, shape[0]), dtype=torch.float32, **where)
        self.rows: Any = (
            TensorRows(self.pixels, self.median, self.mad)
            if isinstance(source, DeviceRows)
            else Rows(self.pixels.numpy(), self.median.numpy(), self.mad.numpy())
        )
        # Work on a GPU goes on after the call that asked for it: who filled and who read is marked in the GPU's own order.
        self._on_gpu = pin or self._device.type == "cuda"
        self._filled: torch.cuda.Event | None = None
        self._read: torch.cuda.Event | None = None

    def __len__(self) -> int:
        return self._n

    def wait_until_read(self) -> None:
        """Before filling: what the reader asked for, copies from here above all, must have ended."""
        if self._read is not None:
            self._read.synchronize()

    def mark_filled(self) -> None:
        """After filling, in the thread that filled."""
        if self._device.type == "cuda":
            self._filled = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._filled.record(torch.cuda.current_stream(self._device))

    def wait_until_filled(self) -> None:
        """Before reading, in the thread that reads: its stream, not the thread, waits."""
        if self._filled is not None:
            torch.cuda.current_stream(self._device).wait_event(self._filled)

    def mark_read(self) -> None:
        """After the last read was asked for, in the thread that asked."""
        if self._on_gpu:
            self._read = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._read.record()


def _fill(source: RowSource | DeviceRows, job: _Job, buffer: _Buffer) -> Batch:
    n = len(job.logical)
    buffer.wait_until_read()
    if n:
        source.take(job.logical, out=buffer.rows.head(n))
    if n < job.n_padded:
        for tensor in (buffer.pixels, buffer.median, buffer.mad):
            tensor[n : job.n_padded] = 0
    buffer.mark_filled()
    return Batch(
        logical=job.logical,
        pixels=buffer.pixels[: job.n_padded],
        median=buffer.median[: job.n_padded],
        mad=buffer.mad[: job.n_padded],
        step=job.step,
        n_global=job.n_global,
        elements=_elements(job),
    )


def _elements(job: _Job) -> torch.Tensor | None:
    if job.drawn is None:
        return None
    augmentation, epoch = job.drawn
    elements = torch.zeros(job.n_padded, dtype=torch.int64)
    elements[: len(job.logical)] = torch.from_numpy(augmentation.elements(epoch, job.logical))
    return elements
