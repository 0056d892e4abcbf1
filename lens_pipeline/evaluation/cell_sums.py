"""What is summed over the rows of each of many cells, and over the galaxies and regions that they are of.

Belongs here: one pass over rows that stand in the order of their regions and galaxies. `clustered_cells` makes intervals of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.unsignedinteger[Any]]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
# Rows that are looked at together: what they need stays in a core's cache.
_BLOCK = 65_536


@dataclass(frozen=True)
class Sums:
    """What is summed over the rows of each cell.

    Of each cell, shape (cell,): rows, sums of weights and of their squares, extremes. Of each outcome, shape (outcome, cell):
    rows and weight recovered.
    """

    n: Ints
    weight: Floats
    squares: Floats
    lightest: Floats
    heaviest: Floats
    n_recovered: Ints
    recovered: Floats

    @classmethod
    def zeros(cls, n_cells: int, n_outcomes: int) -> "Sums":
        """Start with none."""
        each = (n_outcomes, n_cells)
        return cls(
            n=np.zeros(n_cells, np.int64), weight=np.zeros(n_cells), squares=np.zeros(n_cells),
            lightest=np.full(n_cells, np.inf), heaviest=np.full(n_cells, -np.inf),
            n_recovered=np.zeros(each, np.int64), recovered=np.zeros(each),
        )  # fmt: skip


@dataclass(frozen=True)
class Spread:
    """What is summed over the clusters of each cell, which are galaxies or regions.

    Of each cell, shape (cell,): clusters, squares of their weights, and the largest. Of each outcome, shape (outcome, cell):
    clusters that hold some recovered and that hold some not recovered, and squared residuals, each over the others' weight.
    """

    n: Ints
    squares: Floats
    heaviest: Floats
    hits: Ints
    misses: Ints
    residuals: Floats

    @classmethod
    def zeros(cls, n_cells: int, n_outcomes: int) -> "Spread":
        """Start with none."""
        each = (n_outcomes, n_cells)
        return cls(
            n=np.zeros(n_cells, np.int64), squares=np.zeros(n_cells), heaviest=np.zeros(n_cells), hits=np.zeros(each, np.int64),
            misses=np.zeros(each, np.int64), residuals=np.zeros(each),
        )  # fmt: skip


@dataclass(frozen=True)
class Clusters:
    """Clusters of some rows, a cluster being a galaxy's or a region's rows of one cell, in the order of their cells.

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

    def joined(self, first: Ints) -> "Clusters":
        """Join neighbours to larger clusters, of each of which the first is given."""
        starts = np.searchsorted(first, self.starts)
        counts = np.diff(starts, append=first.size)
        total = np.add.reduceat(self.total, first)
        return Clusters(self.filled, starts, counts, total, np.add.reduceat(self.found, first, axis=1))

    def add_to(self, spread: Spread, value: Floats, weight: Floats) -> None:
        """Add them, with residuals from their cells' proportions, shape (outcome, cell), over the weight of the others."""
        others = np.repeat(weight[self.filled], self.counts) - self.total
        most = np.maximum.reduceat(self.total, self.starts)
        spread.heaviest[self.filled] = np.maximum(spread.heaviest[self.filled], most)
        spread.n[self.filled] += self.counts
        spread.squares[self.filled] += np.add.reduceat(self.total * self.total, self.starts)
        for i, one in enumerate(self.found):
            residual = one - np.repeat(value[i, self.filled], self.counts) * self.total
            with np.errstate(invalid="ignore", divide="ignore"):
                residual /= others
            spread.residuals[i, self.filled] += np.add.reduceat(residual * residual, self.starts)
            spread.hits[i, self.filled] += np.add.reduceat(one > 0, self.starts, dtype=np.int64)
            spread.misses[i, self.filled] += np.add.reduceat(self.total > one, self.starts, dtype=np.int64)


def gathered(
    recovered: Sequence[Bools], cells: Numbers, levels: Sequence[Ints], weights: Floats, sums: Sums
) -> list[Clusters]:
    """Gather rows into clusters of each level, galaxies first, and add the rows to the sums."""
    order = np.argsort(cells, kind="stable")
    cell, weight = cells[order], weights[order]
    changes = cell[1:] != cell[:-1]
    rows = np.concatenate([[0], np.flatnonzero(changes) + 1])
    filled = cell[rows].astype(np.int64)
    first = np.ones(order.size, bool)
    galaxy = levels[0][order]
    first[1:] = changes | (galaxy[1:] != galaxy[:-1])
    cluster = np.cumsum(first) - 1
    starts = cluster[rows]
    total: Floats = np.bincount(cluster, weight).astype(np.float64, copy=False)
    found: Floats = np.empty((len(recovered), total.size))
    for i, y in enumerate(recovered):
        outcome = y[order]
        found[i] = np.bincount(cluster, weight * outcome, total.size)
        sums.n_recovered[i, filled] += np.add.reduceat(outcome, rows, dtype=np.int64)
        sums.recovered[i, filled] += np.add.reduceat(found[i], starts)
    sums.n[filled] += np.diff(rows, append=order.size)
    sums.weight[filled] += np.add.reduceat(total, starts)
    sums.squares[filled] += np.add.reduceat(weight * weight, rows)
    sums.lightest[filled] = np.minimum(sums.lightest[filled], np.minimum.reduceat(weight, rows))
    sums.heaviest[filled] = np.maximum(sums.heaviest[filled], np.maximum.reduceat(weight, rows))
    clusters = [Clusters(filled, starts, np.diff(starts, append=total.size), total, found)]
    for numbers in levels[1:]:
        larger = numbers[order[first]]
        new = np.ones(larger.size, bool)
        new[1:] = larger[1:] != larger[:-1]
        new[starts] = True
        clusters.append(clusters[0].joined(np.flatnonzero(new)))
    return clusters


def parts(clusters: Ints) -> Iterator[slice]:
    """Cut rows into runs that hold each cluster whole."""
    start = 0
    while start < clusters.size:
        last = clusters[min(start + _BLOCK, clusters.size) - 1]
        stop = int(np.searchsorted(clusters, last, side="right"))
        yield slice(start, stop)
        start = stop
