"""Reliability diagrams: stated probabilities against the share of lenses found, both classes weighing the same."""

import numpy as np
import numpy.typing as npt
from scipy import special

from lens_pipeline.evaluation.calibrators import Bools, Floats, even_weights
from lens_pipeline.evaluation.intervals import clustered_proportion

# In smaller bins of cross-validation single rows move the very fits that put them there, and intervals are too narrow.
_MIN_ROWS_A_BIN = 20


def reliability_rows(
    method: str, ratio: Floats, is_lens: Bools, weights: Floats, galaxies: npt.NDArray[np.int64], n_bins: int
) -> list[dict[str, object]]:
    """Rows of a reliability table, one a bin of equal weight.

    There are fewer bins where less than 20 rows would be in one, and where probabilities are equal, which stay in one bin.

    Parameters
    ----------
    ratio : array of float64, shape (n,)
        Log likelihood ratios; the probability is expit(ratio), at even odds.
    is_lens : array of bool, shape (n,)
    weights : array of float, shape (n,)
        What a row counts within its class.
    galaxies : array of int, shape (n,)
    n_bins : int
        Most bins.

    Returns
    -------
    list of dict
        The share of lenses is weighted to even odds. Its interval is Clopper & Pearson's at the effective number of rows
        (`intervals.clustered_proportion`): Wilson's is too narrow in the highest bin, where nearly all are lenses.
    """
    p, weight = special.expit(ratio), even_weights(is_lens, weights)
    place = _bins(p, weight, max(1, min(n_bins, p.size // _MIN_ROWS_A_BIN)))
    rows = []
    for number in range(int(place.max(initial=-1)) + 1):
        mine = place == number
        found = clustered_proportion(is_lens[mine], galaxies[mine], weight[mine], exact=True)
        rows.append(
            {
                "method": method,
                "bin": number,
                "p_low": float(p[mine].min()),
                "p_high": float(p[mine].max()),
                "p_mean": float(np.average(p[mine], weights=weight[mine])),
                "observed": found.value,
                "low": found.low,
                "high": found.high,
                "n": found.n,
                "n_lenses": int(is_lens[mine].sum()),
                "n_galaxies": found.n_clusters,
                "n_eff": found.n_eff,
                "reason": found.reason,
            }
        )
    return rows


def _bins(p: Floats, weight: Floats, n_bins: int) -> npt.NDArray[np.int64]:
    """Bin of each row, numbered from 0 without gaps."""
    distinct, place = np.unique(p, return_inverse=True)
    of_value = np.bincount(place, weights=weight, minlength=distinct.size)
    middle = (np.cumsum(of_value) - of_value / 2) / weight.sum()
    _, number = np.unique(np.minimum((middle * n_bins).astype(np.int64), n_bins - 1), return_inverse=True)
    return np.asarray(number[place], dtype=np.int64)
