"""Shares and percentiles of rows that come in clusters, the injections of a galaxy, with the galaxy as the unit of chance.

Belongs here: how many independent rows so many clustered ones are worth, and the intervals that follow. Rows of a galaxy that
are alike are worth little more than one; rows that know nothing of each other are worth their number.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Interval = tuple[float, float | None, float | None]


def clustered_percentile(values: NDArray[np.float64], galaxies: NDArray[np.int64], percentile: int) -> Interval:
    """Return a percentile of all values with its 95 % interval; None for its ends where there is one galaxy.

    The interval is that of order statistics (David & Nagaraja 2003, sect. 7.1) of as many rows as these are worth for the share
    below the percentile: Woodruff (1952) with the effective size of Korn & Graubard (1998).

    Parameters
    ----------
    values : (n,) array
        At least one.
    galaxies : (n,) array
        Number of each value's galaxy.
    """
    ordered, share = np.sort(values), percentile / 100
    value = float(np.quantile(ordered, share))
    size = effective_size(values <= value, galaxies)
    if size == 0:
        return value, None, None
    worth = max(int(size), 1)
    first, last = (float(stats.binom.ppf(tail, worth, share)) for tail in (0.025, 0.975))
    # Places among so many rows, and the same places among all.
    low, high = max(first - 1, 0) / worth, min(last + 1, worth) / worth
    below, above = ordered[int(low * len(ordered))], ordered[int(np.ceil(high * len(ordered))) - 1]
    return value, min(float(below), value), max(float(above), value)


def clustered_share(member: NDArray[np.bool_], galaxies: NDArray[np.int64]) -> Interval:
    """Return the share of rows that are members, with Wilson's 95 % interval for as many rows as these are worth."""
    share, worth = float(member.mean()), effective_size(member, galaxies)
    if worth == 0:
        return share, None, None
    # Wilson (1927), of a size that needn't be whole.
    z2 = float(stats.norm.ppf(0.975)) ** 2 / worth
    middle = (share + z2 / 2) / (1 + z2)
    half = np.sqrt(z2 * (share * (1 - share) + z2 / 4)) / (1 + z2)
    return share, max(float(middle - half), 0.0), min(float(middle + half), 1.0)


def effective_size(member: NDArray[np.bool_], galaxies: NDArray[np.int64]) -> float:
    """Return how many independent rows these are worth for the share of members; 0 for rows of one galaxy.

    The binomial variance over the variance between galaxies, by linearization of a ratio of totals, times
    (z / t of one less than the galaxies)^2 for how little few galaxies say of that (Korn & Graubard 1998). At most the number of
    rows; that of galaxies where each has one row, and where all rows or none are members: how alike rows are isn't known then.
    """
    _, place, sizes = np.unique(galaxies, return_inverse=True, return_counts=True)
    n_galaxies, n_rows = len(sizes), len(member)
    if n_galaxies < 2:
        return 0.0
    share = float(member.mean())
    if share in (0.0, 1.0) or n_galaxies == n_rows:
        return float(n_galaxies)
    excess = np.bincount(place, weights=member, minlength=n_galaxies) - share * sizes
    variance = n_galaxies / (n_galaxies - 1) * float((excess**2).sum()) / n_rows**2
    few = float(stats.norm.ppf(0.975) / stats.t.ppf(0.975, n_galaxies - 1)) ** 2
    # Galaxies whose shares agree better than chance would have them are no reason to trust more than the rows there are.
    return n_rows * few if variance == 0 else min(share * (1 - share) / variance * few, float(n_rows))
