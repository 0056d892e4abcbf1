"""A store for people who bring their own loop and no torch: batches of numpy arrays, with the rows' logical numbers.

>>> from lens_pipeline.stamps.iterate import iter_batches
>>> from lens_pipeline.stamps.store import StampStore, refuse_damaged
>>> from lens_pipeline.storage.home import Home
>>> publication = Home.from_environment().open("simulated", "stamp_store")
>>> refuse_damaged(publication)  # re-reads every byte; opening alone looks at headers and sizes
>>> store = StampStore.open(publication)
>>> keys = store.columns(["task_id", "label"])
>>> for batch in iter_batches(store, batch_size=256, seed=1):
...     labels = keys["label"].to_numpy()[batch.logical]
...     brightest = batch.rows.pixels.max(axis=(2, 3))  # nanomaggy, (row, band)
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.stamps.gather import aligned
from lens_pipeline.stamps.row_sources import RowSource
from lens_pipeline.stamps.sampler import GlobalSampler
from lens_pipeline.stamps.store import Logical, Rows, StampStore

_AHEAD = 2


class NumberedRows(NamedTuple):
    """Rows and who they are: `logical` (n,) int64, `rows` as many; valid on, each batch has memory of its own."""

    logical: Logical
    rows: Rows


def iter_batches(
    store: StampStore,
    rows: Logical | None = None,
    *,
    batch_size: int = 256,
    seed: int | None = None,
    epoch: int = 0,
    threads: int = 1,
    source: RowSource | None = None,
) -> Iterator[NumberedRows]:
    """Yield every row once, as numpy arrays; the last batch is short where the size does not divide them.

    Parameters
    ----------
    rows : (n,) int64 array, optional
        Logical numbers, each once; by default all rows.
    seed : int, optional
        Shuffle as training does, by (seed, epoch): the same for everyone who names the same. By default as given.
    threads : int
        Threads that gather ahead; they change no byte.
    source : RowSource, optional
        Another way of reading: `FileRows(store)` for a store larger than memory.

    Raises
    ------
    ValueError
        If a row is given twice, or the batch size is below 1.
    IndexError
        If a row is outside the store.
    """
    chosen = np.arange(store.n_rows, dtype=np.int64) if rows is None else np.asarray(rows, dtype=np.int64)
    if batch_size < 1:
        raise ValueError(f"a batch size of {batch_size} was asked for; 1 or more are possible")
    distinct = len(np.unique(chosen))
    if distinct != len(chosen):
        raise ValueError(f"{len(chosen):,} rows were given, {distinct:,} of them distinct; each must stand once")
    store.places_of(chosen)
    return _iterate(source or store, store.contract, _steps(chosen, batch_size, seed, epoch), threads)


def _steps(rows: Logical, batch_size: int, seed: int | None, epoch: int) -> Iterator[Logical]:
    if seed is None or not len(rows):
        yield from (rows[start : start + batch_size] for start in range(0, len(rows), batch_size))
        return
    sampler = GlobalSampler(rows, seed=seed, global_batch=batch_size)
    yield from (sampler.step(epoch, step) for step in range(sampler.steps_per_epoch))


def _iterate(
    source: RowSource, contract: DatasetContract, steps: Iterator[Logical], threads: int
) -> Iterator[NumberedRows]:
    def take(logical: Logical) -> NumberedRows:
        n_bands = len(contract.bands)
        room = Rows(
            pixels=aligned((len(logical), *contract.stamp_shape), np.float16),
            median=np.empty((len(logical), n_bands), np.float32),
            mad=np.empty((len(logical), n_bands), np.float32),
        )
        source.take(logical, room)
        return NumberedRows(logical, room)

    waiting: deque[Future[NumberedRows]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="gather") as pool:
        try:
            for logical in steps:
                source.expect(logical)
                waiting.append(pool.submit(take, logical))
                if len(waiting) >= threads + _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
