"""Shares and percentiles of weighted rows in clusters, the injections of a galaxy, with the galaxy as the unit of chance.

Belongs here: how many independent rows so many weighted and clustered ones are worth, and the intervals that follow. Rows of a
galaxy that are alike are worth little more than one; rows that know nothing of each other are worth what their weights leave.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Interval = tuple[float, float | None, float | None]


@dataclass(frozen=True)
class Clustered:
    """Rows with a value, their galaxy and a weight above 0; at least one.

    Attributes
    ----------
    values : (n,) array
    galaxies : (n,) array
        Number of each row's galaxy.
    weights : (n,) array
    """

    values: NDArray[np.float64]
    galaxies: NDArray[np.int64]
    weights: NDArray[np.float64]

    def percentile(self, percentile: int) -> Interval:
        """Return a percentile with its 95 % interval; None for its ends where there is one galaxy.

        It is the least value that has that share of the weights at or below it. The interval is that of order statistics (David &
        Nagaraja 2003, sect. 7.1) of as many rows as these are worth for the share below the percentile: Woodruff (1952) with the
        effective size of Korn & Graubard (1998).
        """
        order = np.argsort(self.values, kind="stable")
        ordered, summed = self.values[order], np.cumsum(self.weights[order])
        share = percentile / 100
        value = float(ordered[_place(summed, share, side="left")])
        size = self.effective_size(self.values <= value)
        if size == 0:
            return value, None, None
        worth = max(int(size), 1)
        first, last = (float(stats.binom.ppf(tail, worth, share)) for tail in (0.025, 0.975))
        # Places among so many rows, and the same shares of the weights of all.
        low, high = max(first - 1, 0) / worth, min(last + 1, worth) / worth
        below, above = ordered[_place(summed, low, side="right")], ordered[_place(summed, high, side="left")]
        return value, min(float(below), value), max(float(above), value)

    def share(self, member: NDArray[np.bool_]) -> Interval:
        """Return the members' share of the weights, with Wilson's 95 % interval for as many rows as these are worth."""
        share, worth = self._share(member), self.effective_size(member)
        if worth == 0:
            return share, None, None
        # Wilson (1927), of a size that needn't be whole.
        z2 = float(stats.norm.ppf(0.975)) ** 2 / worth
        middle = (share + z2 / 2) / (1 + z2)
        half = np.sqrt(z2 * (share * (1 - share) + z2 / 4)) / (1 + z2)
        return share, max(float(middle - half), 0.0), min(float(middle + half), 1.0)

    def effective_size(self, member: NDArray[np.bool_]) -> float:
        """Return how many independent rows these are worth for the share of members; 0 for rows of one galaxy.

        The binomial variance over the variance between galaxies, by linearization of a ratio of weighted totals, times
        (z / t of one less than the galaxies)^2 for how little few galaxies say of that (Korn & Graubard 1998). At most what the
        weights leave of the rows, `n_eff`; what those of galaxies leave of these where each has one row and all weigh alike, and
        where all rows or none are members: how alike rows are isn't known then.
        """
        _, place = np.unique(self.galaxies, return_inverse=True)
        of_galaxies = np.asarray(np.bincount(place, weights=self.weights), float)
        n_galaxies = len(of_galaxies)
        if n_galaxies < 2:
            return 0.0
        if member.all() or not member.any() or (n_galaxies == len(member) and np.ptp(self.weights) == 0):
            return kish(of_galaxies)
        share = self._share(member)
        excess = np.bincount(place, weights=self.weights * member) - share * of_galaxies
        variance = n_galaxies / (n_galaxies - 1) * float((excess**2).sum()) / float(self.weights.sum()) ** 2
        few = float(stats.norm.ppf(0.975) / stats.t.ppf(0.975, n_galaxies - 1)) ** 2
        # Galaxies whose shares agree better than chance would have them are no reason to trust more than the rows there are.
        return self.n_eff * few if variance == 0 else min(share * (1 - share) / variance * few, self.n_eff)

    @property
    def n_galaxies(self) -> int:
        """How many galaxies the rows are of."""
        return len(np.unique(self.galaxies))

    @property
    def n_eff(self) -> float:
        """How many rows of equal weight these are worth, knew they nothing of each other."""
        return kish(self.weights)

    def _share(self, member: NDArray[np.bool_]) -> float:
        return float(np.average(member, weights=self.weights))


def kish(weights: NDArray[np.float64]) -> float:
    """Effective number of independent rows with these weights, (sum w)^2 / sum w^2 (Kish 1965, Survey Sampling)."""
    return float(weights.sum()) ** 2 / float((weights**2).sum())


def _place(summed: NDArray[np.float64], share: float, *, side: str) -> int:
    """Place of the row where summed weights reach a share of them all (side left), or go beyond it (right)."""
    return min(int(np.searchsorted(summed, share * summed[-1], side=side)), len(summed) - 1)  # type: ignore[call-overload]
