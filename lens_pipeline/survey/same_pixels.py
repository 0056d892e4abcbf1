"""One galaxy under two names, told by its pixels: also where a copy is turned, mirrored, scaled or a little noisier.

Belongs here: finding copies among cutouts, at a cost that grows with their number alone. Where galaxies stand on the sky is for
`mirror.twins_of`.

What two cutouts of one image share, and two galaxies never do, is the noise. So light that is smooth over three pixels is taken
away, and bright pixels weigh no more than three sigma: the cores of two round galaxies would else be alike.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray

from lens_pipeline.survey.cutout_measures import brightest_place
from lens_pipeline.survey.galaxy_images import CutoutRefusedError, GalaxyImage

# Pixels to each side of a galaxy's brightest place that are compared.
_HALF = 8
# Of two patches of a copy; noise of 3 % of the image's leaves as much. Two of 30 real galaxies reach 0.64, two simulated
# ellipticals of r = 14 with nearly one profile 0.97.
LEAST_CORRELATION = 0.999
_MOST_SIGMAS, _MAD_TO_SIGMA = 3.0, 1.4826
# Numbers that turning, mirroring and scaling leave as they are: each scatters by about 1 among galaxies. Those of two patches
# that correlate by 0.999 differ by 0.045 (one sigma).
_N_INVARIANTS, _CELL, _APART = 8, 0.6, 0.15

Patch = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Seen:
    galaxy_id: str
    number: int
    place: tuple[int, int]
    invariants: tuple[float, ...]


@dataclass
class SeenPixels:
    """Galaxies so far, to be found again by their pixels.

    Attributes
    ----------
    pixels : (galaxy, band, y, x) array
        Where the pixels of every galaxy so far can be read; it may be on disk.
    """

    pixels: NDArray[np.float32]
    _cells: dict[tuple[int, ...], list[_Seen]] = field(default_factory=dict, init=False, repr=False)

    def must_be_new(self, galaxy_id: str, number: int, image: GalaxyImage) -> None:
        """Note a galaxy, unless it is a copy of one before it.

        Parameters
        ----------
        number : int
            Its place in `pixels`.

        Raises
        ------
        CutoutRefusedError
            ``same_pixels`` if around its light, in any band, pixels are those of a galaxy before it.
        """
        found = []
        for i, band in enumerate(image.bands):
            place = brightest_place(image.pixels[i], image.pixel_scale_arcsec)
            patch = _patch(image.pixels[i], place)
            if patch is None:
                continue
            invariants = _invariants(patch)
            for one in self._like(i, invariants):
                other = _patch(self.pixels[one.number, i], one.place)
                correlation, turned = (0.0, False) if other is None else _alike(patch, other)
                if correlation > LEAST_CORRELATION:
                    how = ", turned or mirrored" if turned else ""
                    raise CutoutRefusedError(
                        "same_pixels",
                        f"its pixels around its light in {band} are those of {one.galaxy_id}{how} (correlation "
                        f"{correlation:.6f})",
                    )
            found.append((i, _Seen(galaxy_id, number, place, invariants)))
        for i, seen in found:
            self._cells.setdefault((i, *_cell(seen.invariants)), []).append(seen)

    def _like(self, band: int, invariants: tuple[float, ...]) -> Iterator[_Seen]:
        """Galaxies whose invariants differ so little that they may be copies."""
        low, high = (_cell(tuple(value + off for value in invariants)) for off in (-_APART, _APART))
        for cell in product(*({a, b} for a, b in zip(low, high, strict=True))):
            for one in self._cells.get((band, *cell), ()):
                if all(abs(a - b) <= _APART for a, b in zip(invariants, one.invariants, strict=True)):
                    yield one


def _patch(pixels: NDArray[np.float32], place: tuple[int, int]) -> Patch | None:
    """Return what isn't smooth around a place, of mean 0 and variance 1; None where that is nothing at most pixels.

    A pixel less the mean of its eight neighbours, cut at three sigma (MAD). Beyond the cutout's border it is 0.
    """
    y, x = place
    reach = _HALF + 1
    near = np.zeros((2 * reach + 1, 2 * reach + 1))
    top, left = max(y - reach, 0), max(x - reach, 0)
    there = pixels[top : y + reach + 1, left : x + reach + 1]
    near[top - y + reach :, left - x + reach :][: there.shape[0], : there.shape[1]] = np.where(
        np.isfinite(there), there, 0
    )
    rows = near[:-2] + near[1:-1] + near[2:]
    rough = 9 / 8 * near[1:-1, 1:-1] - (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 8
    level = np.median(rough)
    sigma = _MAD_TO_SIGMA * np.median(np.abs(rough - level))
    if not sigma > 0:
        return None
    cut = np.clip((rough - level) / sigma, -_MOST_SIGMAS, _MOST_SIGMAS)
    return np.asarray((cut - cut.mean()) / cut.std())


def _sets_of_pixels() -> NDArray[np.float64]:
    """Weights (invariant, pixel) whose sums over a patch are its invariants.

    Pixels that turning and mirroring carry into each other are in one set; sets are strewn over the patch, so that their sums
    are independent.
    """
    off = np.abs(np.arange(-_HALF, _HALF + 1))
    far, near = np.maximum(off[:, None], off), np.minimum(off[:, None], off)
    orbit = np.unique(far * (_HALF + 1) + near, return_inverse=True)[1].ravel()
    weights = (orbit % _N_INVARIANTS == np.arange(_N_INVARIANTS)[:, None]).astype(float)
    return np.asarray(weights / np.sqrt(weights.sum(axis=1, keepdims=True)))


_SETS = _sets_of_pixels()


def _invariants(patch: Patch) -> tuple[float, ...]:
    return tuple((_SETS @ patch.ravel()).tolist())


def _cell(invariants: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(int(value // _CELL) for value in invariants)


def _alike(one: Patch, other: Patch) -> tuple[float, bool]:
    """Return the greatest correlation with another patch in its eight orientations, and whether that one is turned."""
    turned = [np.rot90(side, k) for side in (other, other.T) for k in range(4)]
    correlations = [float(np.mean(one * each)) for each in turned]
    best = int(np.argmax(correlations))
    return correlations[best], best > 0
