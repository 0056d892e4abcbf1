"""Logits of every stored row by one model."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from lens_pipeline.batches.augment import N_ELEMENTS
from lens_pipeline.batches.loader import Batch, Loader
from lens_pipeline.batches.opening import open_rows
from lens_pipeline.batches.reader import Choice
from lens_pipeline.contracts.errors import ScoringError, first_few
from lens_pipeline.scoring.config import ScoringConfig
from lens_pipeline.scoring.ensemble import mean_logits
from lens_pipeline.scoring.model import Classifier
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.training.choices import Device
from lens_pipeline.training.forward import evaluate_logits
from lens_pipeline.training.gpus import device_for


def score_rows(
    classifier: Classifier,
    store: StampStore,
    config: ScoringConfig,
    on_choice: Callable[[Choice], object] = lambda choice: None,
) -> npt.NDArray[np.float32]:
    """Logits of every stored row, float32 (row, output), by logical number.

    With `tta` a row's logit is the mean over the 8 turns and flips of its stamp.
    On CPU each thread runs whole forward passes of its own, so that neither the number of threads nor the batch size
    moves a bit of any logit.

    Parameters
    ----------
    on_choice : callable
        Told how the rows are read, and why, before the first is.

    Raises
    ------
    ConfigError
        If a reader or a device was asked for that can't be had.
    ScoringError
        If a row was not scored exactly once, a logit isn't finite, or scoring changed the model.
    """
    device = device_for(config.device)
    threads = 1 if config.device is Device.cuda else config.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(1)
    model = classifier.model.to(device)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    logits = np.zeros((store.n_rows, classifier.spec.outputs), dtype=np.float32)
    seen = np.zeros(store.n_rows, dtype=np.int64)

    rows = np.arange(store.n_rows, dtype=np.int64)
    source, choice = open_rows(store, config.reader, rows=[rows], ranks=1, device=device, once=True)
    on_choice(choice)

    def share(part: int) -> None:
        torch.set_num_threads(1)
        loader = Loader(source, threads=1, pin=device.type == "cuda")
        batches = loader.evaluation_batches(rows, batch_size=config.batch_size, rank=part, world=threads)
        for batch in batches:
            logits[batch.logical] = mean_logits(
                [
                    evaluate_logits(
                        model, classifier.preprocessing, seen, device, channels_last=config.channels_last
                    ).numpy()
                    for seen in (turned(batch) if config.tta else [batch])
                ]
            )
            seen[batch.logical] += 1

    with ThreadPoolExecutor(threads, thread_name_prefix="score") as pool:
        for future in [pool.submit(share, part) for part in range(threads)]:
            future.result()
    _refuse_unsound(logits, seen)
    changed = [name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])]
    if changed or model.training:
        raise ScoringError(f"scoring changed the model's buffers {first_few(changed)}: it was not in eval mode.")
    return logits


def turned(batch: Batch) -> Iterator[Batch]:
    """Yield the batch's stamps under each of the 8 elements of the dihedral group."""
    for element in range(N_ELEMENTS):
        yield replace(batch, elements=torch.full((len(batch.pixels),), element, dtype=torch.int64))


def _refuse_unsound(logits: npt.NDArray[np.float32], seen: npt.NDArray[np.int64]) -> None:
    wrong = np.flatnonzero(seen != 1)
    if len(wrong):
        raise ScoringError(
            f"{len(wrong):,} of {len(seen):,} rows were not scored exactly once; first logical numbers: "
            f"{first_few(wrong.tolist())}."
        )
    wild = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(wild):
        raise ScoringError(
            f"{len(wild):,} of {len(seen):,} rows have a logit that isn't finite; first logical numbers: "
            f"{first_few(wild.tolist())}. The model diverged: train it again with a lower learning_rate."
        )
