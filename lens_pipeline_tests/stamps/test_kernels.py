"""Medians, MADs and float16 roundings are numpy's, bit for bit."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lens_pipeline.stamps.kernels import summarise

Floats = npt.NDArray[np.float32]


def summarised(pixels: Floats) -> tuple[npt.NDArray[np.float16], Floats]:
    half = np.empty(pixels.shape, np.float16)
    stats = np.empty((len(pixels), 2), np.float32)
    summarise(pixels, half, stats)
    return half, stats


def bits(values: npt.NDArray[np.floating]) -> bytes:
    return (values + values.dtype.type(0)).tobytes()


@pytest.mark.parametrize("n", [1, 2, 3, 63, 64, 4096, 4225])
@pytest.mark.parametrize("kind", ["sky", "offset", "ties", "tiny", "negative", "scales", "heaps"])
def test_median_and_mad_equal_numpys(n: int, kind: str) -> None:
    random = np.random.default_rng(n)
    values = random.normal(0, 0.01, (5, n))
    values[:, : n // 8] += random.exponential(5, (5, n // 8))
    if kind == "offset":
        values += 1000
    if kind == "ties":
        values = np.round(values, 2)
    if kind == "tiny":
        values *= 1e-38
    if kind == "scales":  # No bracket narrows on these: the radix select finds them.
        values *= random.choice([1e-30, 1e-10, 1, 1e4], values.shape)
    if kind == "heaps":
        values += random.choice([-100, 100], values.shape)
    if kind == "negative":
        values = -np.abs(values) - 3
    pixels = values.astype(np.float32)
    _, stats = summarised(pixels)
    median = np.median(pixels, axis=1)
    assert bits(stats[:, 0]) == bits(median)
    assert bits(stats[:, 1]) == bits(np.median(np.abs(pixels - median[:, None]), axis=1))


@given(
    arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 40)), elements=st.floats(-65504, 65504, width=32))
)
@settings(max_examples=200, deadline=None)
def test_any_values_within_range_give_numpys_numbers(pixels: Floats) -> None:
    half, stats = summarised(pixels)
    median = np.median(pixels, axis=1)
    assert bits(stats[:, 0]) == bits(median)
    assert bits(stats[:, 1]) == bits(np.median(np.abs(pixels - median[:, None]), axis=1))
    assert half.tobytes() == pixels.astype(np.float16).tobytes()


def test_float16_rounding_is_numpys_around_every_float16_number() -> None:
    # Each finite float16, the midpoints between them, and the float32 numbers just beside both.
    exact = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middle = (exact[:-1] + exact[1:]) / np.float32(2)
    centres = np.concatenate([exact, middle])
    around = np.concatenate([centres, np.nextafter(centres, np.float32(9e9)), np.nextafter(centres, np.float32(-9e9))])
    around = around[np.abs(around) <= 65504]
    pixels = np.stack([around, -around])
    half, _ = summarised(pixels)
    assert half.tobytes() == pixels.astype(np.float16).tobytes()


def test_values_out_of_range_harm_no_other_row() -> None:
    pixels = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    wanted = summarised(pixels)
    pixels[1] = np.array([np.nan, np.inf, -np.inf, 1e38] * 16, np.float32)
    half, stats = summarised(pixels)
    assert half[[0, 2]].tobytes() == wanted[0][[0, 2]].tobytes()
    assert stats[[0, 2]].tobytes() == wanted[1][[0, 2]].tobytes()
