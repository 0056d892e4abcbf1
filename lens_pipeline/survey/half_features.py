"""What differs in a pair by an amount whose sign changes from stamp to stamp: seen in both halves of a stamp at once.

Belongs here: what is measured in each half, and what of both agrees more than by chance. Half a stamp is two opposite quadrants;
between the halves stand pixels enough that their noise is drawn apart. Then the two stamps of a pair can be exchanged in one half
alone, where nothing but noise tells them apart: the product of a difference in the one half and in the other is as likely as its
negative, whatever the noise is like and however a galaxy shines. Where all pixels of a stamp were changed alike, whichever way,
it is positive.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lens_pipeline.survey.optics import Image
from lens_pipeline.survey.stamp_features import Mask, feature_names, stamp_features

# Noise of simulated stamps hangs together over two pixels: it is smoothed by a kernel of 3 x 3.
_GAP = 1.0
_LEAST_PIXELS = 50
# In the median's units: rare large products say no more than that.
_CLIP = 6.0
_LEVEL, _GAIN, _X, _Y = "level", "brightness", "place along x", "place along y"
_TEMPLATES = (_LEVEL, _GAIN, _X, _Y)


@dataclass(frozen=True)
class Agreement:
    """How far the halves of stamps agree on how pairs differ.

    Attributes
    ----------
    strength : (quantity,) array
        Sum of products over the root of the sum of their squares; a standard normal number by chance, or less spread.
    most : float
        What chance exceeds as seldom as was asked for, over all quantities.
    n : int
        Pairs.
    names : tuple of str
        What was measured.
    """

    strength: Image
    most: float
    n: int
    names: tuple[str, ...]

    @property
    def found(self) -> list[str]:
        """What agrees more than by chance, most first."""
        order = np.argsort(-self.strength, kind="stable")
        return [f"{self.names[i]} ({self.strength[i]:.1f})" for i in order if self.strength[i] > self.most]


def half_products(pair: NDArray[np.float32], mask: Mask, bands: Sequence[str]) -> Image | None:
    """Multiply how the two of a pair differ in the one half of a mask with how they do in the other.

    Parameters
    ----------
    pair : (2, band, y, x) float32 array
    mask : (y, x) bool array

    Returns
    -------
    (quantity,) array or None
        The features of `stamp_features` and what four templates have of the difference: a constant, the mean of the two, and its
        slopes along x and y; band by band. None where a half has next to no pixels.
    """
    halves = [mask & half for half in _halves(mask.shape[0])]
    if min(half.sum() for half in halves) < _LEAST_PIXELS:
        return None
    first, second = (_differences(pair, half) for half in halves)
    return first * second


def agreement(products: Image, bands: Sequence[str], *, false_alarms: float) -> Agreement:
    """Ask whether products of halves are positive more than chance makes them.

    Each quantity's products are added up over bands. Of signs that are even coins, the sum of their products with fixed numbers,
    over the root of the sum of those numbers' squares, exceeds t with a chance below exp(-t^2 / 2) (Hoeffding 1963, J. Am.
    Stat. Assoc. 58, 13, theorem 2), whatever the numbers; over all quantities that many times as often.

    Parameters
    ----------
    products : (pair, quantity) array
        Of `half_products`; each pair of another galaxy.
    false_alarms : float
        Share of data sets without any difference in which something is found, at most.
    """
    names = _names(bands)
    groups = tuple(dict.fromkeys(names))
    unit = np.median(np.abs(products), axis=0)
    scaled = np.clip(np.divide(products, unit, out=np.zeros_like(products), where=unit > 0), -_CLIP, _CLIP)
    by_group = np.stack([scaled[:, [name == group for name in names]].sum(axis=1) for group in groups], axis=1)
    root = np.sqrt((by_group**2).sum(axis=0))
    strength = np.divide(by_group.sum(axis=0), root, out=np.zeros(len(groups)), where=root > 0)
    return Agreement(strength, float(np.sqrt(2 * np.log(len(groups) / false_alarms))), len(products), groups)


def _names(bands: Sequence[str]) -> tuple[str, ...]:
    """Of what `half_products` returns, without the band."""
    features = [name.partition(" in ")[0] for name in feature_names(bands)]
    return (*features, *(name.partition(" along ")[0] for name in _TEMPLATES for _ in bands))


def _differences(pair: NDArray[np.float32], half: Mask) -> Image:
    ours, theirs = stamp_features(pair, half)
    difference = pair[0].astype(float) - pair[1]
    both = (pair[0].astype(float) + pair[1]) / 2
    slope_y, slope_x = np.gradient(both, axis=(1, 2))
    templates = np.stack([np.ones_like(both), both, slope_x, slope_y])[..., half]
    seen = (templates * difference[:, half]).sum(axis=-1) / np.sqrt((templates**2).sum(axis=-1))
    return np.concatenate([ours - theirs, seen.ravel()])


def _halves(size: int) -> tuple[Mask, Mask]:
    """Two pairs of opposite quadrants, without the rows and columns in the middle."""
    axis = np.arange(size) - (size - 1) / 2
    side = np.where(np.abs(axis) > _GAP, np.sign(axis), 0)
    quadrant = side[:, None] * side
    return quadrant > 0, quadrant < 0
