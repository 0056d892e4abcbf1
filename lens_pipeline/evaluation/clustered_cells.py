"""The proportion of each of many cells, for rows that are alike within a galaxy and may carry weights: one pass over the rows.

Belongs here: `intervals.clustered_proportion` of every cell at once, over galaxies and over regions, on rows that stand in the
order of both.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lens_pipeline.evaluation.cell_sums import Bools, Floats, Ints, Numbers, Spread, Sums, gathered, parts
from lens_pipeline.evaluation.intervals import (
    FEW_CLUSTERS,
    FEW_HOLD_THE_RARER,
    Estimate,
    clopper_pearson,
    few_clusters_ratio,
    outweighed,
    wilson,
)
from lens_pipeline.evaluation.regions import count_without, in_cell


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
    regions: Ints | None = None,
    exact: bool = False,
) -> list[list[CellEstimate]]:
    """Weighted proportion of each cell, for each of several outcomes, as `clustered_proportion` gives it.

    With regions it is made anew with them as clusters, and that which knows less is given, as `metrics.over_clusters` does of
    all rows; its `n_clusters` are galaxies all the same.

    Parameters
    ----------
    recovered : sequence of (n,) bool array
        Outcomes, e.g. one a threshold.
    cells : (n,) unsigned integer array
        Number of each row's cell, below `n_cells`; of 16 bits, which sort fastest, where that is enough.
    galaxies : (n,) int64 array
        Number of each row's galaxy, never falling.
    weights : (n,) float64 array
    regions : (n,) int64 array, optional
        Number of each row's region, 0 where nobody knows it, never falling; those of a galaxy's rows are the same.
    exact : bool
        Clopper-Pearson (for rare events) instead of Wilson.

    Returns
    -------
    list of list of CellEstimate
        By outcome, then by cell.

    Raises
    ------
    ValueError
        If the rows aren't in the order of their galaxies, or of their regions.
    """
    levels = [galaxies] if regions is None else [galaxies, regions]
    for name, numbers in zip(("galaxies", "regions"), levels, strict=False):
        if (numbers[1:] < numbers[:-1]).any():
            raise ValueError(f"rows must stand in the order of their {name}")
    sums, clusters = Sums.zeros(n_cells, len(recovered)), [Spread.zeros(n_cells, len(recovered)) for _ in levels]
    blocks = [
        gathered([y[part] for y in recovered], cells[part], [one[part] for one in levels], weights[part], sums)
        for part in parts(levels[-1])
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.clip(sums.recovered / sums.weight, 0, 1)
    for block in blocks:
        for of_level, spread in zip(block, clusters, strict=True):
            of_level.add_to(spread, value, sums.weight)
    found = [
        [_estimate(sums, clusters[0], i, cell, float(value[i, cell]), exact) for cell in range(n_cells)]
        for i in range(len(recovered))
    ]
    if regions is not None:
        without = count_without(regions, cells, n_cells).tolist()
        found = [
            [
                in_cell(one, _estimate(sums, clusters[1], i, cell, float(value[i, cell]), exact, False), without[cell])
                for cell, one in enumerate(of_outcome)
            ]
            for i, of_outcome in enumerate(found)
        ]
    return [
        [CellEstimate(int(n), one) for n, one in zip(counts, of_outcome, strict=True)]
        for counts, of_outcome in zip(sums.n_recovered, found, strict=True)
    ]


def _estimate(
    sums: Sums, clusters: Spread, outcome: int, cell: int, p: float, exact: bool, whole_where_few: bool = True
) -> Estimate:
    n, m, weight = int(sums.n[cell]), int(clusters.n[cell]), float(sums.weight[cell])
    if n == 0 or weight <= 0:
        return Estimate(None, None, None, n, 0, None, "there are no rows" if n == 0 else "all weights are 0")
    if m == n and sums.lightest[cell] == sums.heaviest[cell]:
        n_eff = n_for_interval = float(n)
    elif m < 2:
        return Estimate(p, None, None, n, m, None, "all rows come from one galaxy, so their spread is unknown")
    else:
        few = (clusters.misses if p > 0.5 else clusters.hits)[outcome, cell] < FEW_CLUSTERS
        if few and not whole_where_few:
            return Estimate(p, None, None, n, m, None, FEW_HOLD_THE_RARER)
        effective_clusters = weight**2 / float(clusters.squares[cell])
        if why := outweighed(effective_clusters, m, float(clusters.heaviest[cell]) / weight):
            return Estimate(p, None, None, n, m, None, why)
        ceiling = effective_clusters if few else weight**2 / float(sums.squares[cell])
        variance = (m - 1) / m * float(clusters.residuals[outcome, cell])
        n_eff = min(ceiling, p * (1 - p) / variance) if variance > 0 else ceiling
        n_for_interval = n_eff * few_clusters_ratio(n, effective_clusters)
    interval = clopper_pearson if exact else wilson
    low, high = interval(p * n_for_interval, n_for_interval)
    return Estimate(p, min(low, p), max(high, p), n, m, n_eff)
