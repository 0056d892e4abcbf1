"""Numbers that say how the pixels of a stamp are distributed and hang together, whatever is drawn in it.

Belongs here: pixels and a mask to features. What two sets of features have in common is asked in `probe.py`.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from lens_pipeline.survey.optics import Image

_MAD_TO_SIGMA = 1.4826
# Bright neighbours would be all that second moments see.
_CLIP, _FAR = 4.0, 20.0
_QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
_LAGS = ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0))
_POWER_EDGES = (0.0, 0.06, 0.12, 0.2, 0.3, 0.4, 0.71)
# Of float32's 23 bits of mantissa: what float16 or a coarser step leaves empty.
_LOW_BITS = np.uint32((1 << 12) - 1)
_OWN = ("mean", "spread", "skewness", "least", "greatest", "share_beyond_3_sigma", "slope_x", "slope_y", "slope_r")
_DIGITS = ("share_of_round_numbers", "share_of_distinct_numbers")

Mask = NDArray[np.bool_]


def feature_names(bands: Sequence[str]) -> tuple[str, ...]:
    """Names of what `stamp_features` returns, in order."""
    of_band = (
        *(f"quantile_{share:g}" for share in _QUANTILES),
        *_OWN,
        *(f"correlation_{dy}_{dx}" for dy, dx in _LAGS),
        *(f"power_{low:g}_{high:g}" for low, high in pairwise(_POWER_EDGES)),
        *_DIGITS,
    )
    pairs = (f"correlation_{bands[i]}{bands[j]}" for i, j in _pairs(len(bands)))
    return (*(f"{name} in {band}" for band in bands for name in of_band), *pairs)


def stamp_features(stamps: NDArray[np.float32], mask: Mask, together: int | None = None) -> Image:
    """Measure stamps in the pixels of a mask, on a scale that they share.

    Median and MAD of those that stand together set zero and unit of each band, so that a difference of level or noise between
    them stays one.
    Powers are logarithms of the mean power of the masked image, by frequency in cycles a pixel.

    Parameters
    ----------
    stamps : (n, band, y, x) float32 array
        nanomaggy.
    mask : (y, x) bool array
    together : int, optional
        So many stamps in a row share a scale; by default all.

    Returns
    -------
    (n, feature) array
        In the order of `feature_names`.
    """
    n, n_bands = stamps.shape[:2]
    values = np.sort(stamps[:, :, mask], axis=-1)
    zero, unit = (np.repeat(of_band, together or n, axis=0) for of_band in zero_and_unit(values, together or n))
    scaled = (stamps - zero[..., None, None]) / unit[..., None, None]
    clipped = np.where(mask, np.clip(scaled, -_CLIP, _CLIP), 0.0)
    inside = clipped[:, :, mask]
    ordered = np.clip((values - zero[..., None]) / unit[..., None], -_FAR, _FAR)
    last = ordered.shape[-1] - 1
    own = [
        inside.mean(-1),
        inside.std(-1),
        (inside**3).mean(-1),
        ordered[..., 0],
        ordered[..., -1],
        (np.abs(ordered) > 3).mean(-1),
        *(inside @ axis[mask] / (last + 1) for axis in _axes(mask.shape[0])),
    ]
    digits = [share_of_round_numbers(values), (np.diff(values, axis=-1) > 0).mean(-1)]
    of_bands = [
        ordered[..., [round(share * last) for share in _QUANTILES]],
        np.stack(own, axis=-1),
        np.stack([_correlation(clipped, mask, dy, dx) for dy, dx in _LAGS], axis=-1),
        _powers(clipped),
        np.stack(digits, axis=-1),
    ]
    between = [(inside[:, i] * inside[:, j]).mean(-1)[:, None] for i, j in _pairs(n_bands)]
    return np.concatenate([np.concatenate(of_bands, axis=-1).reshape(n, -1), *between], axis=1)


def share_of_round_numbers(values: NDArray[np.float32]) -> Image:
    """Share of values, along the last axis, whose last 12 bits of mantissa are empty: of float16, or of a coarse step."""
    return np.asarray(((np.ascontiguousarray(values).view(np.uint32) & _LOW_BITS) == 0).mean(-1))


def zero_and_unit(values: NDArray[np.float32], together: int) -> tuple[Image, Image]:
    """Median and MAD, as a sigma, of each band over so many stamps in a row; 1 where most pixels are equal.

    Parameters
    ----------
    values : (n, band, pixel) array

    Returns
    -------
    (n / together, band) arrays
    """
    n_bands = values.shape[1]
    pooled = (
        values.reshape(-1, together, *values.shape[1:]).swapaxes(1, 2).reshape(-1, n_bands, together * values.shape[2])
    )
    zero = np.median(pooled.astype(float), axis=-1)
    unit = _MAD_TO_SIGMA * np.median(np.abs(pooled - zero[..., None]), axis=-1)
    return zero, np.where(unit > 0, unit, 1.0)


def _correlation(clipped: Image, mask: Mask, dy: int, dx: int) -> Image:
    """Mean product of pixels and those that stand `dy` rows and `dx` columns further, both in the mask."""
    n = mask.shape[0]
    here = (slice(0, n - dy), slice(max(0, -dx), n - max(0, dx)))
    there = (slice(dy, n), slice(max(0, dx), n - max(0, -dx)))
    both = int((mask[here] & mask[there]).sum())
    # Beyond the mask pixels are 0, and so are their products.
    return np.asarray((clipped[(..., *here)] * clipped[(..., *there)]).sum(axis=(-2, -1)) / max(both, 1))


def _powers(clipped: Image) -> Image:
    """Logarithm of the mean power in each ring of frequencies, (..., ring)."""
    power = np.abs(fft.rfft2(clipped)) ** 2
    rings = [power[..., ring].mean(-1) for ring in _rings(clipped.shape[-1])]
    return np.asarray(np.log(np.maximum(np.stack(rings, axis=-1), 1e-12)))


def _pairs(n_bands: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(n_bands) for j in range(i + 1, n_bands)]


@lru_cache(maxsize=4)
def _axes(size: int) -> tuple[Image, Image, Image]:
    """x, y and distance from the middle, each from -1 to 1 or 0 to about 1."""
    axis = np.linspace(-1, 1, size)
    x, y = np.meshgrid(axis, axis)
    return x, y, np.hypot(x, y) / np.sqrt(2)


@lru_cache(maxsize=4)
def _rings(size: int) -> tuple[Mask, ...]:
    frequency = np.hypot(fft.fftfreq(size)[:, None], fft.rfftfreq(size))
    return tuple((frequency >= low) & (frequency < high) for low, high in pairwise(_POWER_EDGES))
