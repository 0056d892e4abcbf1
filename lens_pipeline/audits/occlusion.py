"""Where in a stamp the evidence lies: what a model loses when patches of an injection become the control's pixels.

Belongs here: occlusion maps (Zeiler & Fergus 2014, section 4.2) and the share of the evidence in the annulus of the arc.
Replacing by the control of the same galaxy asks about what injecting added, and about nothing else: host and neighbours stay
where they are, and only noise, drawn anew, is exchanged beside the arc.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Patches are an eighth of a stamp across, and each pixel lies in four of them.
_PATCHES_ACROSS = 8

Image = NDArray[np.float64]
Stamp = NDArray[np.float32]


@dataclass(frozen=True)
class Annulus:
    """The ring |r - theta_E| <= FWHM around the host, in which most of an arc's light falls.

    Attributes
    ----------
    x, y, radius, half_width : float
        Pixels; x and y from the stamp's centre.
    """

    x: float
    y: float
    radius: float
    half_width: float

    def mask(self, size: int) -> NDArray[np.bool_]:
        """Pixels of a stamp whose centre lies in it, (size, size)."""
        axis = np.arange(size) - (size - 1) / 2
        r = np.hypot(axis[:, None] - self.y, axis - self.x)
        return np.asarray(np.abs(r - self.radius) <= self.half_width)


def corners(size: int) -> list[tuple[int, int]]:
    """First row and column of every patch, which overlap by half."""
    across = size // _PATCHES_ACROSS
    starts = range(0, size - across + 1, max(across // 2, 1))
    return [(row, column) for row in starts for column in starts]


def occluded(stamp: Stamp, background: Stamp) -> Stamp:
    """Replace each patch of a stamp by the background's, one at a time; the whole stamp first.

    Parameters
    ----------
    stamp, background : (band, y, x) float32 array

    Returns
    -------
    (1 + patch, band, y, x) float32 array
        Patches in the order of `corners`.
    """
    size = stamp.shape[-1]
    across, places = size // _PATCHES_ACROSS, corners(size)
    stamps = np.repeat(stamp[None], 1 + len(places), axis=0)
    for one, (row, column) in zip(stamps[1:], places, strict=True):
        patch = (slice(None), slice(row, row + across), slice(column, column + across))
        one[patch] = background[patch]
    return stamps


def evidence_map(logits: NDArray[np.float32], size: int) -> Image:
    """Evidence of each pixel: the mean over its patches of the logit that the stamp loses with a patch, (size, size).

    Parameters
    ----------
    logits : (1 + patch,) array
        Of the stamps of `occluded`.
    """
    across = size // _PATCHES_ACROSS
    total, times = np.zeros((size, size)), np.zeros((size, size))
    lost = logits[0].astype(np.float64) - logits[1:].astype(np.float64)
    for value, (row, column) in zip(lost, corners(size), strict=True):
        patch = (slice(row, row + across), slice(column, column + across))
        total[patch] += value
        times[patch] += 1
    return np.asarray(total / np.maximum(times, 1))


def share_inside(evidence: Image, annulus: Annulus) -> float | None:
    """Share of the positive evidence inside an annulus, 0 to 1; None where no patch lowers the score."""
    positive = np.maximum(evidence, 0)
    total = float(positive.sum())
    return float(positive[annulus.mask(len(evidence))].sum()) / total if total > 0 else None
