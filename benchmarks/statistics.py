"""Median and MAD of each band, bit-exact (and float16 rounding, which comes with them), against np.median."""

import numpy as np

from benchmarks.harness import Result, compare
from benchmarks.synthetic import stamps
from lens_pipeline.stamps.kernels import summarise


def run(quick: bool) -> list[Result]:
    n, rounds = (64, 5) if quick else (256, 15)
    bands = stamps(n).reshape(-1, 64 * 64)
    half, stats = np.empty(bands.shape, np.float16), np.empty((len(bands), 2), np.float32)
    wanted = np.empty_like(stats)

    def ours() -> None:
        summarise(bands, half, stats)

    def numpy_median() -> None:
        for row, band in enumerate(bands):
            median = np.median(band)
            wanted[row] = median, np.median(np.abs(band - median))

    result = compare(
        "statistics", ours, numpy_median, against="np.median per band", goal=3.3, n=len(bands), rounds=rounds
    )
    if stats.tobytes() != wanted.tobytes():
        raise AssertionError("medians or MADs differ from numpy's")
    return [result]
