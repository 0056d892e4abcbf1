"""The proportion of each of many cells, for rows that are alike within a galaxy and may carry weights: one pass over the rows.

Belongs here: `intervals.clustered_proportion` of every cell at once, on rows that stand in the order of their galaxies.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from lens_pipeline.evaluation.intervals import CONFIDENCE, FEW_CLUSTERS, Estimate, clopper_pearson, wilson

Bools = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.unsignedinteger[Any]]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
# Rows that are looked at together: what they need stays in a core's cache.
_BLOCK = 65_536


class CellEstimate(NamedTuple):
    """Rows of a cell that were recovered, and their weighted proportion."""

    n_recovered: int
    proportion: Estimate


def clustered_proportions(
    recovered: Sequence[Bools],
    cells: Numbers,
    n_cells: int,
    galaxies: Ints,
    weights: Floats,
    *,
    exact: bool = False,
) -> list[list[CellEstimate]]:
    """Weighted proportion of each cell, for each of several outcomes, as `clustered_proportion` gives it.

    Parameters
    ----------
    recovered : sequence of (n,) bool array
        Outcomes, e.g. one a threshold.
    cells : (n,) unsigned integer array
        Number of each row's cell, below `n_cells`; of 16 bits, which sort fastest, where that is enough.
    galaxies : (n,) int64 array
        Number of each row's galaxy, never falling.
    weights : (n,) float64 array
    exact : bool
        Clopper-Pearson (for rare events) instead of Wilson.

    Returns
    -------
    list of list of CellEstimate
        By outcome, then by cell.

    Raises
    ------
    ValueError
        If the rows aren't in the order of their galaxies.
    """
    if (galaxies[1:] < galaxies[:-1]).any():
        raise ValueError("rows must stand in the order of their galaxies")
    sums = _Sums.zeros(n_cells, len(recovered))
    blocks = [
        _Block.of([y[part] for y in recovered], cells[part], galaxies[part], weights[part], sums)
        for part in _parts(galaxies)
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.clip(sums.recovered / sums.weight, 0, 1)
    for block in blocks:
        block.add_residuals(value, sums)
    return [
        [
            CellEstimate(int(sums.n_recovered[i, cell]), _estimate(sums, i, cell, value[i, cell], exact))
            for cell in range(n_cells)
        ]
        for i in range(len(recovered))
    ]


@dataclass(frozen=True)
class _Sums:
    """What is summed over the rows and clusters of each cell.

    Of each cell, shape (cell,): rows, clusters, sums of weights and of their squares over rows and over clusters, extremes. Of
    each outcome, shape (outcome, cell): rows and weight recovered, clusters that hold some and that hold some not recovered,
    and the sum over clusters of squared residuals.
    """

    n: Ints
    n_clusters: Ints
    weight: Floats
    squares: Floats
    cluster_squares: Floats
    lightest: Floats
    heaviest: Floats
    n_recovered: Ints
    recovered: Floats
    hits: Ints
    misses: Ints
    residuals: Floats

    @classmethod
    def zeros(cls, n_cells: int, n_outcomes: int) -> "_Sums":
        whole, each = (n_cells,), (n_outcomes, n_cells)
        return cls(
            n=np.zeros(whole, np.int64), n_clusters=np.zeros(whole, np.int64), weight=np.zeros(whole),
            squares=np.zeros(whole), cluster_squares=np.zeros(whole), lightest=np.full(whole, np.inf),
            heaviest=np.full(whole, -np.inf), n_recovered=np.zeros(each, np.int64), recovered=np.zeros(each),
            hits=np.zeros(each, np.int64), misses=np.zeros(each, np.int64), residuals=np.zeros(each),
        )  # fmt: skip


@dataclass(frozen=True)
class _Block:
    """Clusters of some galaxies, a cluster being a galaxy's rows of one cell, in the order of their cells.

    Attributes
    ----------
    filled, starts, counts : (k,) int array
        Cells that hold a cluster, the first cluster of each, and their number.
    total : (m,) float array
        Weight of each cluster.
    found : (outcome, m) float array
        Weight recovered.
    """

    filled: Ints
    starts: Ints
    counts: Ints
    total: Floats
    found: Floats

    @classmethod
    def of(cls, recovered: Sequence[Bools], cells: Numbers, galaxies: Ints, weights: Floats, sums: _Sums) -> "_Block":
        """Gather rows into clusters, and add what needs no residual to the sums."""
        order = np.argsort(cells, kind="stable")
        cell, galaxy, weight = cells[order], galaxies[order], weights[order]
        changes = cell[1:] != cell[:-1]
        rows = np.concatenate([[0], np.flatnonzero(changes) + 1])
        filled = cell[rows].astype(np.int64)
        first = np.ones(order.size, bool)
        first[1:] = changes | (galaxy[1:] != galaxy[:-1])
        cluster = np.cumsum(first) - 1
        starts = cluster[rows]
        total: Floats = np.bincount(cluster, weight).astype(np.float64, copy=False)
        found: Floats = np.empty((len(recovered), total.size))
        for i, y in enumerate(recovered):
            outcome = y[order]
            found[i] = np.bincount(cluster, weight * outcome, total.size)
            sums.n_recovered[i, filled] += np.add.reduceat(outcome, rows, dtype=np.int64)
        counts = np.diff(starts, append=total.size)
        sums.n[filled] += np.diff(rows, append=order.size)
        sums.n_clusters[filled] += counts
        sums.weight[filled] += np.add.reduceat(total, starts)
        sums.squares[filled] += np.add.reduceat(weight * weight, rows)
        sums.cluster_squares[filled] += np.add.reduceat(total * total, starts)
        sums.lightest[filled] = np.minimum(sums.lightest[filled], np.minimum.reduceat(weight, rows))
        sums.heaviest[filled] = np.maximum(sums.heaviest[filled], np.maximum.reduceat(weight, rows))
        for i, one in enumerate(found):
            sums.recovered[i, filled] += np.add.reduceat(one, starts)
            sums.hits[i, filled] += np.add.reduceat(one > 0, starts, dtype=np.int64)
            sums.misses[i, filled] += np.add.reduceat(total > one, starts, dtype=np.int64)
        return cls(filled, starts, counts, total, found)

    def add_residuals(self, value: Floats, sums: _Sums) -> None:
        """Add each cluster's squared residual from its cell's proportion."""
        for i, one in enumerate(self.found):
            residual = one - np.repeat(value[i, self.filled], self.counts) * self.total
            sums.residuals[i, self.filled] += np.add.reduceat(residual * residual, self.starts)


def _parts(galaxies: Ints) -> Iterator[slice]:
    """Cut rows into runs that hold each galaxy whole."""
    start = 0
    while start < galaxies.size:
        last = galaxies[min(start + _BLOCK, galaxies.size) - 1]
        stop = int(np.searchsorted(galaxies, last, side="right"))
        yield slice(start, stop)
        start = stop


def _estimate(sums: _Sums, outcome: int, cell: int, value: float, exact: bool) -> Estimate:
    n, m, weight = int(sums.n[cell]), int(sums.n_clusters[cell]), float(sums.weight[cell])
    if n == 0 or weight <= 0:
        return Estimate(None, None, None, n, 0, None, "there are no rows" if n == 0 else "all weights are 0")
    p = float(value)
    if m == n and sums.lightest[cell] == sums.heaviest[cell]:
        n_eff = n_for_interval = float(n)
    elif m < 2:
        return Estimate(p, None, None, n, m, None, "all rows come from one galaxy, so their spread is unknown")
    else:
        rarer = sums.misses[outcome, cell] if p > 0.5 else sums.hits[outcome, cell]
        ceiling = weight**2 / float((sums.cluster_squares if rarer < FEW_CLUSTERS else sums.squares)[cell])
        variance = m / (m - 1) * float(sums.residuals[outcome, cell]) / weight**2
        n_eff = min(ceiling, p * (1 - p) / variance) if variance > 0 else ceiling
        tail = (1 + CONFIDENCE) / 2
        n_for_interval = n_eff * float(special.stdtrit(n - 1, tail) / special.stdtrit(m - 1, tail)) ** 2
    interval = clopper_pearson if exact else wilson
    low, high = interval(p * n_for_interval, n_for_interval)
    return Estimate(p, min(low, p), max(high, p), n, m, n_eff)
