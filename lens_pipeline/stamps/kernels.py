"""Loops over pixels that numpy has no single call for, compiled by numba when first used and kept in its cache.

Belongs here: plain arithmetic on arrays, written as loops. What a number means for a row is judged in `decode.py`.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bits = NDArray[np.uint32]
P = ParamSpec("P")
R = TypeVar("R")

_SIGN = np.uint32(0x80000000)
_ALL = np.uint32(0xFFFFFFFF)
_ZERO, _ONE, _BYTE_PAIR = np.uint32(0), np.uint32(1), np.uint32(16)
# float32 -> float16 by its bits, half to even. Normal numbers: move the exponent's bias from 127 to 15 and round away 13
# bits. Smaller ones: adding 0.5 puts float16's last bit at the last bit of the float32 sum, so the addition rounds.
_NORMAL_FROM = np.uint32(113 << 23)
_BITS_DROPPED = np.uint32(13)
_REBIAS_AND_ROUND = np.uint32((((15 - 127) << 23) + 0xFFF) & 0xFFFFFFFF)
_HALF, _HALF_BITS = np.float32(0.5), np.uint32(126 << 23)
# Shift and mask of each digit of a radix select, most significant first.
_DIGITS = ((21, 0x7FF), (10, 0x7FF), (0, 0x3FF))
# Keys that the first bracket is drawn from, and how far from the wanted one its ends are: missed once in some hundred bands.
_SAMPLE, _MARGIN = 32, 8
# Prime, so that the sample of an image is not of a few columns.
_SAMPLE_STRIDE = 1021
# Steps left at which going up key by key is done sooner than another cut.
_NEAR = 3
_MOST_CUTS = 16


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function, kept in numba's cache, to run without the interpreter's lock."""
    try:
        kept: Callable[P, R] = njit(nogil=True, cache=True)(function)
    except RuntimeError:  # No folder that the cache could be written to: compile in every process instead.
        kept = njit(nogil=True)(function)
    return kept


@compiled
def _select(keys: Bits, place: int, kept: Bits, counts: NDArray[np.int64]) -> np.uint32:
    """Radix select: count a digit's values, keep the keys of the one that holds the place, go on to the next digit."""
    n, source = len(keys), keys
    for shift, mask in _DIGITS:
        counts[:] = 0
        for i in range(n):
            counts[(source[i] >> np.uint32(shift)) & np.uint32(mask)] += 1
        digit = 0
        while place >= counts[digit]:
            place -= counts[digit]
            digit += 1
        m = 0
        for i in range(n):
            key = source[i]
            kept[m] = key
            m += ((key >> np.uint32(shift)) & np.uint32(mask)) == np.uint32(digit)
        source, n = kept, m
    chosen: np.uint32 = kept[place]
    return chosen


@compiled
def _as_float(key: np.uint32, pair_bits: Bits, pair: Floats) -> np.float64:
    pair_bits[0] = key ^ (_SIGN if key >= _SIGN else _ALL)
    return np.float64(pair[0])


@compiled
def _as_key(value: np.float64, pair_bits: Bits, pair: Floats) -> np.uint32:
    pair[0] = np.float32(value)
    bits = pair_bits[0]
    return np.uint32(bits ^ (_ALL if bits >= _SIGN else _SIGN))


@compiled
def _up_to(keys: Bits, chosen: np.uint32) -> tuple[np.int64, np.uint32]:
    """Count the keys up to one, and find the smallest above it.

    All of 32 bits, as are the keys, so that the compiler makes one pass of it that runs many keys wide.
    """
    n, after = _ZERO, _ALL
    for i in range(len(keys)):
        key = keys[i]
        n = np.uint32(n + (_ONE if key <= chosen else _ZERO))
        after = min(after, _ALL if key <= chosen else key)
    return np.int64(n), after


@compiled
def _of_rank(sample: Bits, rank: int) -> np.uint32:
    """Return the key of a rank among a few: counting is sooner done than sorting, whose branches no processor foresees."""
    found = _ZERO
    for i in range(_SAMPLE):
        key, n_below = sample[i], 0
        for j in range(_SAMPLE):
            n_below += sample[j] < key
        found = max(found, key if n_below <= rank else _ZERO)
    return found


@compiled
def _two_from(
    keys: Bits, place: int, kept: Bits, counts: NDArray[np.int64], pair_bits: Bits, pair: Floats
) -> tuple[np.uint32, np.uint32]:
    """Return the key that would stand at a place after sorting, and the one after it.

    Narrows a bracket around it by counting, its first ends from a sample and each next cut where it would be were the values
    between its ends spread evenly; then goes up to it key by key. Exact whatever the values; where they are such that it
    takes long, a radix select.
    """
    n = len(keys)
    sample = kept[:_SAMPLE]
    for i in range(_SAMPLE):
        sample[i] = keys[(i * _SAMPLE_STRIDE) % n]
    rank = place * _SAMPLE // n
    low = _of_rank(sample, max(rank - _MARGIN, 0))
    high = _of_rank(sample, min(rank + _MARGIN, _SAMPLE - 1))
    n_low, after = _up_to(keys, low)
    n_high, _ = _up_to(keys, high)
    to_low, to_high, is_empty = float(place - n_low), float(n_high - place), False
    for _ in range(_MOST_CUTS):
        if n_low > place or n_high <= place:
            break
        if is_empty or place - n_low < _NEAR:
            cut = after
        else:
            low_value = _as_float(low, pair_bits, pair)
            value = low_value + to_low / (to_low + to_high) * (_as_float(high, pair_bits, pair) - low_value)
            # Numbers of two sizes would make it one of 64 bits, and the passes half as wide.
            cut = np.uint32(max(after, min(_as_key(value, pair_bits, pair), np.uint32(high - _ONE))))
        n_cut, next_one = _up_to(keys, cut)
        if n_cut <= place:
            low, n_low, after = cut, n_cut, next_one
            # Halving the other end's weight keeps it from standing still where values are spread unevenly (Illinois).
            to_low, to_high, is_empty = float(place - n_low), to_high / 2, False
        elif cut == after:
            return cut, (cut if n_cut > place + 1 else next_one)
        else:
            is_empty = n_cut == n_high
            high, n_high = cut, n_cut
            to_low, to_high = to_low / 2, float(n_high - place)
    chosen = _select(keys, place, kept, counts)
    n_up_to, after = _up_to(keys, chosen)
    return chosen, (chosen if n_up_to > place + 1 else after)


@compiled
def _summarise(pixels: Floats, half: NDArray[np.uint16], stats: Floats) -> None:
    n, p = pixels.shape
    keys, kept = np.empty(p, np.uint32), np.empty(max(p, _SAMPLE), np.uint32)
    moved = np.empty(p, np.float32)
    moved_bits = moved.view(np.uint32)
    counts = np.empty(2048, np.int64)
    pair_bits = np.empty(2, np.uint32)
    pair = pair_bits.view(np.float32)
    place, is_even = (p - 1) // 2, p % 2 == 0
    for row in range(n):
        values = pixels[row]
        bits = values.view(np.uint32)
        for i in range(p):
            # Keys sort as unsigned integers the way their floats sort.
            keys[i] = bits[i] ^ (_ALL if bits[i] >= _SIGN else _SIGN)
        lower, upper = _two_from(keys, place, kept, counts, pair_bits, pair)
        pair_bits[0] = lower ^ (_SIGN if lower >= _SIGN else _ALL)
        pair_bits[1] = upper ^ (_SIGN if upper >= _SIGN else _ALL)
        # Adding +0 makes one zero of the two.
        median = ((pair[0] + pair[1]) / np.float32(2) if is_even else pair[0]) + np.float32(0)
        for i in range(p):
            moved[i] = abs(values[i] - median)
        for i in range(p):
            keys[i] = moved_bits[i] | _SIGN
        lower, upper = _two_from(keys, place, kept, counts, pair_bits, pair)
        pair_bits[0], pair_bits[1] = lower ^ _SIGN, upper ^ _SIGN
        stats[row, 0] = median
        stats[row, 1] = (pair[0] + pair[1]) / np.float32(2) if is_even else pair[0]
        for i in range(p):
            moved[i] = abs(values[i]) + _HALF
        for i in range(p):
            size = np.uint32(bits[i] & ~_SIGN)
            last = np.uint32((size >> _BITS_DROPPED) & _ONE)
            normal = np.uint32(np.uint32(size + _REBIAS_AND_ROUND + last) >> _BITS_DROPPED)
            rounded = normal if size >= _NORMAL_FROM else np.uint32(moved_bits[i] - _HALF_BITS)
            half[row, i] = np.uint16(rounded | ((bits[i] & _SIGN) >> _BYTE_PAIR))


def summarise(pixels: Floats, half: NDArray[np.float16], stats: Floats) -> None:
    """Round bands to float16 and find each one's median and median absolute deviation.

    Runs without the interpreter's lock, so that threads run side by side.

    Parameters
    ----------
    pixels : (n, n_pixels) float32 array, C order
        Within float16's range; rows that are not get meaningless results and harm no other.
    half : (n, n_pixels) float16 array, C order
        Filled with `pixels` rounded half to even, as ``astype`` does.
    stats : (n, 2) float32 array, C order
        Filled with ``np.median(row)`` and ``np.median(np.abs(row - np.median(row)))``, bit for bit, except that a zero
        is always +0; the MAD is raw, *not* scaled by 1.4826.
    """
    _summarise(pixels, half.view(np.uint16), stats)
