"""Differences between two finders' proportions over the same rows, cell by cell, with intervals that know of galaxies."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from lens_pipeline.evaluation.cell_sums import Bools, Floats, Ints, Numbers
from lens_pipeline.evaluation.intervals import CONFIDENCE, FEW_CLUSTERS, Estimate, outweighed

_HALVINGS = 60


@dataclass(frozen=True)
class Difference(Estimate):
    """What one model or finder has more of than another.

    Attributes
    ----------
    above : float or None
        Chance that it is above 0 by the law of its interval, so that the two agree; half where nothing tells the two apart.
    p_value : float or None
        Of a test that both do equally well, where there is one.
    """

    above: float | None = None
    p_value: float | None = None


def paired_difference(
    this: Bools, other: Bools, clusters: Ints, weights: Floats | None = None, *, whole_where_few: bool = True
) -> Difference:
    """Difference of all rows, which stand in any order: `paired_differences` of a single cell, by default of equal weights."""
    order = np.argsort(clusters, kind="stable")
    ones = np.ones(order.size) if weights is None else weights[order]
    cell = np.zeros(order.size, np.uint16)
    columns = this[order], other[order], cell, 1, clusters[order], ones
    return paired_differences(*columns, whole_where_few=whole_where_few)[0]


def paired_differences(
    this: Bools,
    other: Bools,
    cells: Numbers,
    n_cells: int,
    galaxies: Ints,
    weights: Floats,
    *,
    whole_where_few: bool = True,
) -> list[Difference]:
    """Weighted share of rows that `this` finds, less the share that `other` finds, of each cell.

    With d = 1 where this alone finds a row, -1 where the other alone does, delta = sum w d / sum w. Its variance v comes from
    the sums of w (d - delta) over galaxies, as that of `intervals.clustered_proportion` does, and its effective number is that
    of independent pairs which would know as much: (share that one alone finds - delta^2) / v, at most Kish's, and that of whole
    galaxies where fewer than 5 hold a row that one alone finds; times (t_{n-1} / t_{k-1})^2 for k galaxies, by Kish's number of
    their weights. Below 2 of them there is no interval. It is Tango's at that number, and the chance of being above 0 is by
    the score that his interval asks 0 with.

    Parameters
    ----------
    this, other : (n,) bool array
    cells : (n,) unsigned integer array
        Number of each row's cell, below `n_cells`.
    galaxies : (n,) int64 array
        Number of each row's galaxy, or other cluster, never falling.
    weights : (n,) float64 array
    whole_where_few : bool
        Whether whole clusters are counted where fewer than 5 hold a row that one alone finds, as is right of galaxies only.

    Returns
    -------
    list of Difference
        One a cell, between -1 and 1.

    Raises
    ------
    ValueError
        If the rows aren't in the order of their galaxies.
    """
    if (galaxies[1:] < galaxies[:-1]).any():
        raise ValueError("rows must stand in the order of their galaxies")
    order = np.argsort(cells, kind="stable")
    cell, w = cells[order].astype(np.int64), weights[order]
    d = this[order].astype(np.float64) - other[order]
    galaxy = galaxies[order]
    first = np.ones(cell.size, bool)
    first[1:] = (cell[1:] != cell[:-1]) | (galaxy[1:] != galaxy[:-1])
    cluster, cell_of = np.cumsum(first) - 1, cell[first]
    n = np.bincount(cell, minlength=n_cells)
    m = np.bincount(cell_of, minlength=n_cells)

    def summed(values: Floats) -> Floats:
        return np.bincount(cell, values, n_cells).astype(np.float64, copy=False)

    total, ahead, behind = summed(w), summed(w * (d > 0)), summed(w * (d < 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        delta = (ahead - behind) / total
        of_cluster = np.bincount(cluster, w)
        residual = np.bincount(cluster, w * (d - delta[cell]))
        of_others = total[cell_of] - of_cluster
        variance = (m - 1) / m * np.bincount(cell_of, (residual / of_others) ** 2, n_cells)
        mixed = np.bincount(cell_of, np.bincount(cluster, d != 0) > 0, n_cells)
        whole = (mixed < FEW_CLUSTERS) & whole_where_few
        clusters_worth = total**2 / np.bincount(cell_of, of_cluster**2, n_cells)
        ceiling = np.where(whole, clusters_worth, total**2 / summed(w * w))
        n_eff = np.where(variance > 0, np.minimum(ceiling, ((ahead + behind) / total - delta**2) / variance), ceiling)
        tail = (1 + CONFIDENCE) / 2
        effective = n_eff * (special.stdtrit(n - 1, tail) / special.stdtrit(clusters_worth - 1, tail)) ** 2
        b, c = ahead / total * effective, behind / total * effective
        low, high = tango(b, c, effective)
        above = special.ndtr(np.where(b + c > 0, (b - c) / np.sqrt(b + c), 0.0))
    heaviest = np.zeros(n_cells)
    np.maximum.at(heaviest, cell_of, of_cluster)
    found = []
    for i in range(n_cells):
        rests_on = int(n[i]), int(m[i])
        if why := _why_unknown(*rests_on, *map(float, (total[i], clusters_worth[i], heaviest[i]))):
            value = float(delta[i]) if total[i] > 0 else None
            found.append(Difference(value, None, None, *rests_on, None, why))
        else:
            ends = float(low[i]), float(high[i])
            found.append(Difference(float(delta[i]), *ends, *rests_on, float(n_eff[i]), above=float(above[i])))
    return found


def _why_unknown(n: int, m: int, weight: float, clusters_worth: float, heaviest: float) -> str | None:
    """Say why n rows of m clusters have no interval; None if they have one."""
    if weight <= 0:
        return "there are no rows" if n == 0 else "all weights are 0"
    if m < 2:
        return "all rows come from one galaxy, so their spread is unknown"
    return outweighed(clusters_worth, m, heaviest / weight)


def tango(ahead: npt.ArrayLike, behind: npt.ArrayLike, n: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Score interval of a difference between two proportions of the same rows (Tango 1998, Stat. Med. 17, 891), at 95 %.

    Its ends are the differences D at which (b - c - n D) / sqrt(n (2 q + D (1 - D))) is z and -z, q being the most likely
    share of rows that the other alone finds if the difference is D: the larger root of
    2 n q^2 + (-b - c + (2 n - b + c) D) q - c D (1 - D).
    Unlike Wald's it has width where no row, or every row, is found by one alone.

    Parameters
    ----------
    ahead, behind : array of float
        Rows b and c that this alone and the other alone finds, or effective counts.
    n : array of float
        Rows, above 0; NaN gives NaN.
    """
    b, c, rows = (np.asarray(one, np.float64) for one in (ahead, behind, n))
    z = float(special.ndtri((1 + CONFIDENCE) / 2))
    delta = (b - c) / rows

    def end(sign: float) -> Floats:
        below, above = (np.full(delta.shape, -1.0), delta) if sign > 0 else (delta, np.full(delta.shape, 1.0))
        for _ in range(_HALVINGS):
            middle = (below + above) / 2
            too_low = _score(b, c, rows, middle) > sign * z
            below, above = np.where(too_low, middle, below), np.where(too_low, above, middle)
        return np.where(np.isnan(delta), np.nan, (below + above) / 2)

    return end(1.0), end(-1.0)


def _score(b: Floats, c: Floats, n: Floats, difference: Floats) -> Floats:
    linear = -b - c + (2 * n - b + c) * difference
    constant = -c * difference * (1 - difference)
    q = (np.sqrt(np.maximum(linear**2 - 8 * n * constant, 0)) - linear) / (4 * n)
    spread = np.sqrt(np.maximum(n * (2 * q + difference * (1 - difference)), 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((b - c - n * difference) / spread)
