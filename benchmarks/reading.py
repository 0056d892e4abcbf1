"""Gathering float16 rows from the store against copying as many bytes, and drawing the order they come in."""

import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.harness import Result, compare, summarise
from benchmarks.synthetic import publish
from lens_pipeline.stamps.config import StoreConfig
from lens_pipeline.stamps.ingest import build_store
from lens_pipeline.stamps.sampler import GlobalSampler
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.storage.home import Home

FULL_SIZE = 10_600_000


def run(quick: bool) -> list[Result]:
    return [_gather(quick), *_sampler(quick)]


def _gather(quick: bool) -> Result:
    n, rounds = (1024, 5) if quick else (4096, 15)
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        stamps = publish(home, n)
        with home.stage("bench", "stamp_store", inputs=[stamps]) as staging:
            build_store(StoreConfig.model_validate({}), stamps, staging)
            store = StampStore.open(staging.commit())
        batches = np.random.default_rng(0).permutation(n).reshape(-1, 256)
        room = store.empty(256)
        source = np.concatenate([store.pixels.arrays[0]])

        def ours() -> None:
            for batch in batches:
                store.take(batch, out=room)

        def copy() -> None:
            for start in range(0, n, 256):
                np.copyto(room.pixels, source[start : start + 256])

        return compare("gather", ours, copy, against="copying as many bytes in order", goal=0.85, n=n, rounds=rounds)


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
