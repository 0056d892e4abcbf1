"""Probability densities of one quantity, known at knots and linear in between: a value, a share, a draw.

Belongs here: arithmetic on densities. Which density a quantity has is said in `population.py` and in the settings.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lens_pipeline.contracts.errors import ConfigError


@dataclass(frozen=True)
class Density:
    """A density that integrates to 1.

    Attributes
    ----------
    knots : (n,) array
        Rising; a knot that stands twice is a jump.
    heights : (n,) array
        The density at the knots.
    """

    knots: NDArray[np.float64]
    heights: NDArray[np.float64]

    @classmethod
    def of(cls, knots: ArrayLike, heights: ArrayLike, what: str) -> "Density":
        """Normalise heights to a density.

        Parameters
        ----------
        what : str
            What the density is of, for the message.

        Raises
        ------
        ConfigError
            If it can't be normalised: too few knots, knots that fall, a height that is negative or not finite, or no area.
        """
        x, y = np.asarray(knots, dtype=float), np.asarray(heights, dtype=float)
        problem = _problem(x, y)
        if problem is None:
            area = float(np.sum(_areas(x, y)))
            if area > 0 and np.isfinite(area):
                return cls(x, y / area)
            problem = f"its integral is {area:g}"
        raise ConfigError(
            f"the density of {what} can't be normalised: {problem}. Give at least two knots that don't fall, and as many "
            "heights that are finite, not negative and not all 0."
        )

    @classmethod
    def uniform(cls, low: float, high: float, what: str) -> "Density":
        """Return the uniform density; of no width, it is a point that is always drawn."""
        return cls(np.array([low, low]), np.ones(2)) if low == high else cls.of([low, high], [1.0, 1.0], what)

    @cached_property
    def _summed(self) -> NDArray[np.float64]:
        """Probability below each knot."""
        return np.concatenate([[0.0], np.cumsum(_areas(self.knots, self.heights))])

    @property
    def edges(self) -> tuple[float, float]:
        """Where it begins and ends."""
        return float(self.knots[0]), float(self.knots[-1])

    def reaches(self, x: float) -> bool:
        """Whether a value can be drawn: it lies in, or at an end of, a stretch where the density isn't 0."""
        lit = (self.heights[:-1] > 0) | (self.heights[1:] > 0)
        return bool(np.any(lit & (self.knots[:-1] <= x) & (x <= self.knots[1:])))

    def at(self, x: ArrayLike) -> NDArray[np.float64]:
        """Return the density at values; 0 outside, and at a jump the height above it."""
        values = np.asarray(x, dtype=float)
        place, width, share = self._within(values)
        inside = (values >= self.knots[0]) & (values <= self.knots[-1]) & (width > 0)
        heights = self.heights[place] * (1 - share) + self.heights[place + 1] * share
        return np.where(inside, heights, 0.0)

    def below(self, x: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of less than x."""
        values = np.clip(np.asarray(x, dtype=float), *self.edges)
        place, width, share = self._within(values)
        left = self.heights[place]
        return self._summed[place] + width * share * (left + 0.5 * share * (self.heights[place + 1] - left))

    def share(self, low: float, high: float) -> float:
        """Return the probability between two values."""
        if self.knots[0] == self.knots[-1]:
            return float(low <= self.knots[0] <= high)
        return self._below_one(high) - self._below_one(low)

    def quantile(self, p: float) -> float:
        """Return the value that a share p lies below: the inverse of `below`."""
        knots, heights, summed = self._lists
        place = min(max(bisect_right(summed, p * summed[-1]) - 1, 0), len(knots) - 2)
        while place > 0 and summed[place + 1] == summed[place]:
            place -= 1
        left, right, low, high = heights[place], heights[place + 1], knots[place], knots[place + 1]
        area = p * summed[-1] - summed[place]
        # The root of left t + (right - left) t^2 / (2 width) = area, in the form that no cancellation spoils.
        root = left + math.sqrt(max(left * left + 2 * area * (right - left) / max(high - low, 1e-300), 0.0))
        return min(high, low + 2 * area / root) if root > 0 else low

    def between(self, low: float, high: float, u: float) -> float:
        """Draw a value between two values, from a number uniform in [0, 1)."""
        bottom, top = self._below_one(low), self._below_one(high)
        return min(max(self.quantile(bottom + u * (top - bottom)), low), high)

    @cached_property
    def _lists(self) -> tuple[list[float], list[float], list[float]]:
        """Knots, heights and probabilities below: one number at a time, lists are ten times faster than arrays."""
        return self.knots.tolist(), self.heights.tolist(), self._summed.tolist()

    def _below_one(self, x: float) -> float:
        knots, heights, summed = self._lists
        place = min(max(bisect_right(knots, x) - 1, 0), len(knots) - 2)
        width, left = knots[place + 1] - knots[place], heights[place]
        share = min(max((x - knots[place]) / width, 0.0), 1.0) if width > 0 else 0.0
        return summed[place] + width * share * (left + 0.5 * share * (heights[place + 1] - left))

    def without(self, low: float, high: float, what: str) -> "Density":
        """Return the density outside a band, normalised again.

        Raises
        ------
        ConfigError
            If nothing is left.
        """
        start, end = self.edges
        low, high = max(low, start), min(high, end)
        if low >= high:
            return self
        below, above = self.knots < low, self.knots > high
        ends = self._limits(low)[0], 0.0, 0.0, self._limits(high)[1]
        return Density.of(
            np.concatenate([self.knots[below], [low, low, high, high], self.knots[above]]),
            np.concatenate([self.heights[below], ends, self.heights[above]]),
            what,
        )

    def _limits(self, x: float) -> tuple[float, float]:
        """Heights just below and just above a value."""
        return float(self.at(np.nextafter(x, -np.inf))), float(self.at(np.nextafter(x, np.inf)))

    def _within(self, values: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
        """Segment of each value, the segment's width, and the value's place in it, 0 to 1."""
        place = np.clip(np.searchsorted(self.knots, values, side="right") - 1, 0, len(self.knots) - 2)
        width = self.knots[place + 1] - self.knots[place]
        share = np.clip((values - self.knots[place]) / np.where(width > 0, width, 1.0), 0, 1)
        return place, width, share


def _areas(knots: NDArray[np.float64], heights: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.diff(knots) * (heights[1:] + heights[:-1]) / 2


def _problem(knots: NDArray[np.float64], heights: NDArray[np.float64]) -> str | None:
    if len(knots) != len(heights):
        return f"{len(knots)} knots have {len(heights)} heights"
    if len(knots) < 2:
        return f"it has {len(knots)} knots"
    if not np.all(np.isfinite(knots)) or np.any(np.diff(knots) < 0):
        return f"its knots fall or aren't finite: {_listed(knots)}"
    if not np.all(np.isfinite(heights)) or np.any(heights < 0):
        return f"its heights are negative or not finite: {_listed(heights)}"
    return None


def _listed(values: Sequence[float] | NDArray[np.float64]) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:6])
    return shown if len(values) <= 6 else f"{shown}, ... ({len(values)} in all)"
