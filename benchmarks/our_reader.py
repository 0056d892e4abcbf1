"""Our side of the comparison of readers: ``python -m benchmarks.our_reader HOME THREADS`` serves epochs as `peers` does."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peers import BATCH, serve
from lens_pipeline.batches.augment import DihedralAugmentation
from lens_pipeline.batches.loader import Loader
from lens_pipeline.stamps.sampler import GlobalSampler
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.storage.home import Home


def main() -> None:
    """Open the current store of a home and serve."""
    store = StampStore.open(Home(Path(sys.argv[1])).open("bench", "stamp_store"))
    threads = int(sys.argv[2])
    sampler = GlobalSampler(np.arange(store.n_rows), seed=0, global_batch=BATCH)
    augmentation = DihedralAugmentation(seed=0)
    loader = Loader(store, threads=threads)
    torch.set_num_threads(1)

    def epoch(number: int) -> Iterable[Any]:
        for batch in loader.training_batches(sampler, augmentation, epoch=number, rank=0, world=1):
            yield batch.pixels[: batch.n]

    serve(f"{threads} thread{'s' if threads > 1 else ''}", epoch)


if __name__ == "__main__":
    main()
