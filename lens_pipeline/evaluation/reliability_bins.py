"""Reliability diagrams: stated probabilities against the share of lenses found, both classes weighing the same."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import special

from lens_pipeline.evaluation.calibrators import Bools, Floats, even_weights
from lens_pipeline.evaluation.intervals import Estimate, clustered_proportion

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
        What a row counts within its class; one of weight 0 is in no bin.
    galaxies : array of int, shape (n,)
    n_bins : int
        Most bins.

    Returns
    -------
    list of dict
        The share of lenses is weighted to even odds, a / (a + b) with a and b the shares of all lenses and of all controls that
        lie in the bin (`_share_of_lenses`). None where a class has no row that weighs anything: even odds need both.
    """
    counted = weights > 0
    ratio, is_lens, weights, galaxies = ratio[counted], is_lens[counted], weights[counted], galaxies[counted]
    if not 0 < np.count_nonzero(is_lens) < is_lens.size:
        return []
    p, weight = special.expit(ratio), even_weights(is_lens, weights)
    place = _bins(p, weight, max(1, min(n_bins, p.size // _MIN_ROWS_A_BIN)))
    rows = []
    for number in range(int(place.max()) + 1):
        mine = place == number
        lenses, controls = (
            clustered_proportion(mine[of], galaxies[of], weights[of], exact=True) for of in (is_lens, ~is_lens)
        )
        found = _share_of_lenses(lenses, controls, galaxies[mine])
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


def _share_of_lenses(lenses: Estimate, controls: Estimate, galaxies: npt.NDArray[np.int64]) -> Estimate:
    """Share of lenses in a bin at even odds, from the shares of all lenses and of all controls that lie in it.

    Each class has a Clopper & Pearson interval of its own (`intervals.clustered_proportion`), for the one row of a rare class
    weighs many of the other. MOVER puts them together on the log of their ratio (Donner & Zou 2012, Stat. Methods Med. Res. 21,
    347). A bin without one of the classes takes both parts at their worse ends. The effective number is that of the two
    variances, and at most that of the rows.
    """
    n, n_galaxies = galaxies.size, np.unique(galaxies).size
    a, b = float(lenses.value or 0.0), float(controls.value or 0.0)
    found = Estimate(a / (a + b), None, None, n, n_galaxies, None)
    if None in (lenses.low, controls.low):
        few = "lenses" if lenses.low is None else "controls"
        return replace(found, reason=f"no interval: of {few} {(lenses if few == 'lenses' else controls).reason}")
    ends = np.array([[one.value, one.low, one.high] for one in (lenses, controls)], dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        (of_a, low_a, high_a), (of_b, low_b, high_b) = np.log(ends)
        if a > 0 and b > 0:
            middle = of_a - of_b
            low = middle - np.hypot(of_a - low_a, high_b - of_b)
            high = middle + np.hypot(high_a - of_a, of_b - low_b)
        else:
            low, high = low_a - high_b, high_a - low_b
    assert lenses.n_eff
    assert controls.n_eff
    spread = (b * (1 - a) / lenses.n_eff + a * (1 - b) / controls.n_eff) / (a + b) ** 2
    n_eff = min(float(n), 1 / spread) if spread > 0 else float(n)
    return replace(found, low=float(special.expit(low)), high=float(special.expit(high)), n_eff=n_eff)


def _bins(p: Floats, weight: Floats, n_bins: int) -> npt.NDArray[np.int64]:
    """Bin of each row, numbered from 0 without gaps."""
    distinct, place = np.unique(p, return_inverse=True)
    of_value = np.bincount(place, weights=weight, minlength=distinct.size)
    middle = (np.cumsum(of_value) - of_value / 2) / weight.sum()
    _, number = np.unique(np.minimum((middle * n_bins).astype(np.int64), n_bins - 1), return_inverse=True)
    return np.asarray(number[place], dtype=np.int64)
