"""What a full-size training costs, from its parts: stamps a second that one core hands over, and operations of one stamp.

Writes docs/training-cost.md. What is measured is the reader, on the machine that runs this; the share of a GPU's peak that
training reaches is an assumption, said on the page, until `lens_classifier` has run on one: its history has the true one (mfu).
"""

import json
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.harness import RESULTS, Result, summarise
from benchmarks.synthetic import publish_store
from lens_pipeline.batches.augment import DihedralAugmentation
from lens_pipeline.batches.loader import Loader
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.stamps.sampler import GlobalSampler
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.storage.home import Home
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.flops import flops_per_stamp, peak_of
from lens_pipeline.training.models import spec_for

PAGE = Path(__file__).parent.parent / "docs" / "training-cost.md"
_NAME = "loader_one_core"
_BATCH = 256
_EPOCHS = 12
_ROWS = (1_300_000, 10_600_000)
_GPUS = ((1, "V100", "float16"), (1, "H100", "bf16"), (8, "H100", "bf16"))
_MODELS = ("test_resnet", "resnet18", "convnext_tiny")
_UTILISATION = 0.20


def run(quick: bool) -> list[Result]:
    n, rounds = (512, 2) if quick else (16_384, 7)
    with tempfile.TemporaryDirectory() as name:
        store = StampStore.open(publish_store(Home(Path(name)), n))
        sampler = GlobalSampler(np.arange(n), seed=0, global_batch=_BATCH)
        loader, augmentation = Loader(store, threads=1), DihedralAugmentation(0)

        def rate(epoch: int) -> float:
            started = time.perf_counter()
            for _ in loader.training_batches(sampler, augmentation, epoch=epoch, rank=0, world=1):
                pass
            return n / (time.perf_counter() - started)

        rate(0)
        found = [rate(epoch) for epoch in range(1, rounds + 1)]
    result = summarise(
        _NAME, found, against="nothing: a figure of this machine, page cache warm", goal=None, n=n, unit="stamps/s"
    )
    if not quick:
        result.write()
        write_page()
    return [result]


def write_page() -> Path:
    """Work the page out from the measured figure."""
    measured = json.loads((RESULTS / f"{_NAME}.json").read_text())
    contract = DatasetContract()
    row_bytes = 2 * int(np.prod(contract.stamp_shape)) + 8 * len(contract.bands)
    lines = []
    for model in _MODELS:
        spec = spec_for(TrainingConfig.model_validate({"model": model}), contract)
        for n_gpus, gpu, precision in _GPUS:
            compute = n_gpus * _UTILISATION * peak_of(gpu, precision) / flops_per_stamp(spec)
            reading = n_gpus * measured["ratio"]
            rate = min(compute, reading)
            bound = "the GPU" if compute <= reading else "the reader"
            hours = [rows * _EPOCHS / rate / 3600 for rows in _ROWS]
            lines.append(
                f"| `{model}` | {n_gpus} x {gpu} | {precision} | {compute:,.0f} | {reading:,.0f} | {bound} | "
                f"{rate * row_bytes / 1e9:.2f} | " + " | ".join(f"{h:,.2f} h" for h in hours) + " |"
            )
    sizes = ", ".join(f"{rows / 1e6:g} M rows are {rows * row_bytes / 1e9:,.0f} GB" for rows in _ROWS)
    PAGE.write_text(
        "# What a training costs\n\n"
        "Made by `python -m benchmarks cost`; do not edit. "
        f"{_EPOCHS} epochs of 1.3 and of 10.6 million stamps, from parts:\n\n"
        f"- **Reader**, measured: {measured['ratio']:,.0f} stamps/s ({measured['low']:,.0f} to {measured['high']:,.0f}) by one "
        f"core from a store in the page cache, shuffled, in batches of {_BATCH}; n = {measured['n']:,} stamps, "
        f"{measured['rounds']} rounds; {measured['machine']}. One core a GPU. {sizes}: what doesn't fit memory is read from "
        "disk, at the GB/s of the table.\n"
        "- **Operations** of a stamp, forward and backward, counted ([models](models.md)).\n"
        f"- **GPU**, assumed: {_UTILISATION:.0%} of the peak by the data sheet (`lens_pipeline/training/flops.py`). No GPU "
        "was at hand when this page was made. A training's own share stands in its history as `mfu`.\n"
        "- Left out: sharing gradients among GPUs, validation (a forward pass of val_select each epoch), the start.\n\n"
        "| model | GPUs | precision | GPU, stamps/s | reader, stamps/s | bound by | reads, GB/s | 1.3 M x 12 | 10.6 M x 12 |\n"
        "|---|---|---|---|---|---|---|---|---|\n" + "\n".join(lines) + "\n"
    )
    return PAGE
