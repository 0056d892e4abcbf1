"""Rows from the store into batches: gathering against copying, epochs against other ways to read them, a cold cache."""

import io
import itertools
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader

from benchmarks.harness import Result, compare, summarise
from benchmarks.synthetic import CONTRACT, publish, publish_store
from lens_pipeline.batches.augment import DihedralAugmentation
from lens_pipeline.batches.dataset import StampDataset, as_tensors
from lens_pipeline.batches.loader import Loader
from lens_pipeline.stamps.gather import aligned
from lens_pipeline.stamps.iterate import iter_batches
from lens_pipeline.stamps.row_sources import FileRows
from lens_pipeline.stamps.sampler import GlobalSampler
from lens_pipeline.stamps.segments import segment_name
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication

FULL_SIZE = 10_600_000
_BATCH = 256
_THREADS = 2
_AUGMENTATION = DihedralAugmentation(1)


def run(quick: bool) -> list[Result]:
    n, rounds = (1024, 3) if quick else (16_384, 15)
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        one, many = publish_store(home, n), publish_store(home, n, n_segments=65)
        return [
            # First: a file that is still mapped isn't let go of.
            *_cold(one, 2 if quick else 5),
            _gather("gather", one, rounds),
            _gather("gather_65_segments", many, rounds),
            _epoch_two_threads(one, 3 if quick else 9),
            _epoch_of_copying(one, 3 if quick else 15),
            _cached_epoch(one, publish(home, 64 if quick else 256), 3 if quick else 9),
            *_sampler(quick),
        ]


def _gather(name: str, publication: Publication, rounds: int) -> Result:
    store = StampStore.open(publication)
    batches = np.random.default_rng(0).permutation(store.n_rows).reshape(-1, _BATCH)
    room, source = store.empty(_BATCH), aligned((store.n_rows, *CONTRACT.stamp_shape), np.float16)
    np.concatenate(store.pixels.arrays, out=source)

    def ours() -> None:
        for batch in batches:
            store.take(batch, out=room)

    def copy() -> None:
        for start in range(0, store.n_rows, _BATCH):
            np.copyto(room.pixels, source[start : start + _BATCH])

    return compare(name, ours, copy, against="copying as many bytes in order", goal=0.85, n=store.n_rows, rounds=rounds)


def _cold(publication: Publication, rounds: int) -> list[Result]:
    """Wall time from a file that isn't cached (as far as this system lets go of it; the disk's own cache stays)."""
    path = publication.path(segment_name(0), verify=False)
    n = publication.attributes["n_stored"]

    def mapped_batches() -> None:
        store, room = StampStore.open(publication), StampStore.open(publication).empty(_BATCH)
        for batch in np.random.default_rng(0).permutation(n).reshape(-1, _BATCH):
            store.take(batch, out=room)

    def read_batches() -> None:
        store = StampStore.open(publication)
        for _ in iter_batches(store, batch_size=_BATCH, seed=0, threads=2, source=FileRows(store)):
            pass

    def read_in_order() -> None:
        store = StampStore.open(publication)
        for _ in iter_batches(store, batch_size=_BATCH, threads=2, source=FileRows(store)):
            pass

    def read_file() -> None:
        room = bytearray(_BATCH * 24_576)
        with open(path, "rb", buffering=0) as file:
            while file.readinto(room):
                pass

    def cold(side: Callable[[], None]) -> Callable[[], float]:
        def took() -> float:
            _forget(path)
            began = time.perf_counter()
            side()
            return time.perf_counter() - began

        return took

    return [
        _in_turn("cold_pread", cold(read_batches), cold(mapped_batches), rounds, n=n,
                 against="the memory map, random batches of 256, cold cache, wall time"),
        _in_turn("cold_pread_in_order", cold(read_in_order), cold(read_file), rounds, n=n,
                 against="reading the file from end to end, cold cache, wall time"),
    ]  # fmt: skip


def _forget(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)


def _epoch_two_threads(publication: Publication, rounds: int) -> Result:
    dataset = StampDataset(publication)
    store, n = dataset.store, len(dataset)
    sampler = GlobalSampler(np.arange(n), seed=0, global_batch=_BATCH)
    loader: DataLoader[Any] = DataLoader(
        dataset, batch_size=_BATCH, shuffle=True, num_workers=2, persistent_workers=True, collate_fn=as_tensors
    )

    two_threads = Loader(store, threads=2)

    def ours() -> None:
        for _ in two_threads.training_batches(sampler, _AUGMENTATION, epoch=0, rank=0, world=1):
            pass

    def worker_processes() -> None:
        for _ in loader:
            pass

    return compare(
        "epoch_two_threads", ours, worker_processes, against="DataLoader(num_workers=2) on the same map, wall time",
        goal=5, n=n, rounds=rounds, clock=time.perf_counter,
    )  # fmt: skip


def _epoch_of_copying(publication: Publication, rounds: int) -> Result:
    """Hold a shuffled epoch against two threads that copy the same pixels in order: what no reader into batches can pass."""
    store = StampStore.open(publication)
    n = store.n_rows
    sampler = GlobalSampler(np.arange(n), seed=0, global_batch=_BATCH)
    loader, pixels = Loader(store, threads=_THREADS), store.pixels.arrays[0]
    # As many buffers as the loader turns over: three more than threads.
    room = [store.empty(_BATCH).pixels for _ in range(_THREADS + 3)]

    def ours() -> None:
        for _ in loader.training_batches(sampler, _AUGMENTATION, epoch=0, rank=0, world=1):
            pass

    with ThreadPoolExecutor(_THREADS) as pool:

        def copy() -> None:
            blocks = [pixels[start : start + _BATCH] for start in range(0, n, _BATCH)]
            for _ in pool.map(np.copyto, itertools.cycle(room), blocks):
                pass

        return compare(
            "epoch_of_copying", ours, copy, against="two threads that copy as many bytes in order: what no reader can pass",
            goal=None, n=n, rounds=rounds, clock=time.perf_counter,
        )  # fmt: skip


def _cached_epoch(publication: Publication, stamps: Publication, rounds: int) -> Result:
    """CPU time of a stamp; augmentation apart is its draw, the turning is the device's."""
    store = StampStore.open(publication)
    n, n_audited = store.n_rows, stamps.attributes["fragments"][0]["rows"]
    sampler = GlobalSampler(np.arange(n), seed=0, global_batch=_BATCH)
    fragment = stamps.folder / stamps.attributes["fragments"][0]["file"]

    one_thread = Loader(store, threads=1)

    def ours() -> None:
        for _ in one_thread.training_batches(sampler, _AUGMENTATION, epoch=0, rank=0, world=1):
            pass

    def audited() -> None:
        blobs = pq.read_table(fragment, columns=["stamp_npz"])["stamp_npz"].to_pylist()
        random = np.random.default_rng(0)
        for start in range(0, len(blobs), _BATCH):
            samples = [_audited_sample(blob, random) for blob in blobs[start : start + _BATCH]]
            torch.utils.data.default_collate(samples)

    def a_stamp(side: Callable[[], None], rows: int) -> Callable[[], float]:
        def took() -> float:
            began = time.process_time()
            side()
            return (time.process_time() - began) / rows

        return took

    return _in_turn("cached_epoch", a_stamp(ours, n), a_stamp(audited, n_audited), rounds, n=n, goal=150,
                    against="parquet, np.load, np.median and augmentation a sample, CPU time")  # fmt: skip


def _audited_sample(blob: bytes, random: np.random.Generator) -> npt.NDArray[np.float32]:
    with np.load(io.BytesIO(blob)) as archive:
        pixels = np.stack([archive[name] for name in CONTRACT.members])
    for band in pixels:
        median = np.median(band)
        mad = np.median(np.abs(band - median))
        band[:] = np.clip((band - median) / (1.4826 * mad), -10, 10)
    pixels = np.rot90(pixels, random.integers(4), axes=(1, 2))
    return np.ascontiguousarray(pixels[:, :, ::-1] if random.integers(2) else pixels)


def _in_turn(
    name: str, ours: Callable[[], float], theirs: Callable[[], float], rounds: int, *, against: str, n: int,
    goal: float | None = None,
) -> Result:  # fmt: skip
    """Compare sides that say themselves what they took, after one round that isn't counted."""
    ratios = []
    for turn in range(rounds + 1):
        first, second = (ours, theirs) if turn % 2 else (theirs, ours)
        took = {first: first(), second: second()}
        if turn:
            ratios.append(took[theirs] / took[ours])
    return summarise(name, ratios, against=against, goal=goal, n=n)


def _sampler(quick: bool) -> list[Result]:
    sampler = GlobalSampler(np.arange(FULL_SIZE), seed=0, global_batch=256)
    rates, seeks = [], []
    for turn in range(3 if quick else 9):
        began = time.process_time()
        sampler.step(turn, 20_000)
        seeks.append(10e-3 / (time.process_time() - began))
        began = time.process_time()
        for step in range(640):
            sampler.step(turn, step)
        rates.append(640 * 256 / (time.process_time() - began) / 1e6)
    return [
        summarise("sampler", rates, against="CPU time, 10.6 M rows, batches of 256", goal=5, n=640 * 256,
                  unit="M indices/s"),
        summarise("sampler_seek", seeks, against="10 ms, at 10.6 M rows", goal=1, n=1),
    ]  # fmt: skip
