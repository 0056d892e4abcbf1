"""Counting what is recovered and what was never stored, cell by cell: what every table of completeness is made of."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from lens_pipeline.evaluation.axes import ALL, AXES, axes_of, is_known, with_axes
from lens_pipeline.evaluation.cell_sums import Bools, Floats, Ints
from lens_pipeline.evaluation.cells import Cut, Side, cut_axis, cut_grid, in_support
from lens_pipeline.evaluation.clustered_cells import clustered_proportions
from lens_pipeline.evaluation.config import CompletenessConfig
from lens_pipeline.evaluation.parent_share import ParentShare, RowShares
from lens_pipeline.evaluation.regions import region_numbers
from lens_pipeline.evaluation.scored_rows import galaxy_numbers

OK, SMALL, UNDEFINED = "ok", "small", "undefined"
_NUMBERS = (
    *("in_support", "n_eff", "completeness", "completeness_low", "completeness_high"),
    *("parent_share", "total", "total_low", "total_high"),
)
Record = dict[str, Any]


@dataclass(frozen=True)
class Threshold:
    """A frozen operating point: its name and its logit, above which a row is recovered."""

    name: str
    logit: float


@dataclass(frozen=True)
class Attempts:
    """Attempted injections, those that were scored in the order of their regions and galaxies, with every axis.

    Attributes
    ----------
    stored, lost : polars.DataFrame
        Axes of the scored ones, and of those never stored.
    known_of_lost : frozenset of str
        Axes that `lost` knows.
    order : (n,) int64 array
        Place of each scored one among the rows that were given.
    galaxies, weights, logits : (n,) arrays
        Of the scored ones; galaxies are numbered and never fall. One that stands in several regions counts in each.
    shares : RowShares
        What the parent sample's cuts keep of lenses like them.
    regions : (n,) int64 array or None
        Of `region_numbers`; they never fall either.
    """

    stored: pl.DataFrame
    lost: pl.DataFrame
    known_of_lost: frozenset[str]
    order: Ints
    galaxies: Ints
    weights: Floats
    logits: Floats
    shares: RowShares
    regions: Ints | None = None

    @classmethod
    def of(cls, lenses: pl.DataFrame, lost: pl.DataFrame, parent: ParentShare) -> "Attempts":
        """Order and measure them.

        Parameters
        ----------
        lenses : polars.DataFrame
            Scored injections, as `join_store` gives them.
        lost : polars.DataFrame
            Those never stored, of `attempted_in`.
        """
        galaxies, regions = galaxy_numbers(lenses), region_numbers(lenses)
        known = np.zeros_like(galaxies) if regions is None else regions
        order = np.lexsort((galaxies, known))
        rows = lenses[order] if (np.diff(order) < 0).any() else lenses
        known, galaxies = known[order], galaxies[order]
        changes = (known[1:] != known[:-1]) | (galaxies[1:] != galaxies[:-1])
        return cls(
            stored=with_axes(rows).select(list(AXES)),
            lost=with_axes(lost).select(list(AXES)),
            known_of_lost=frozenset(name for name in (ALL, *AXES) if is_known(name, lost.columns)),
            order=order,
            galaxies=np.concatenate([[0], np.cumsum(changes)]),
            weights=rows["weight"].to_numpy(),
            logits=rows["logit"].to_numpy(),
            shares=parent.of_rows(rows),
            regions=None if regions is None else known,
        )

    def cut(self, axis: str, config: CompletenessConfig) -> Cut | None:
        """Cut an axis into cells; None where it is null for all that is stored."""
        return cut_axis(axis, self.stored, self.lost if axis in self.known_of_lost else None, config)


class Tally:
    """Rows of the tables of completeness, for several thresholds, of one set of injections.

    Parameters
    ----------
    thresholds : iterable of Threshold
    """

    def __init__(self, attempts: Attempts, thresholds: Iterable[Threshold], config: CompletenessConfig) -> None:
        self._attempts, self._thresholds, self._config = attempts, tuple(thresholds), config
        self._recovered: list[Bools] = [attempts.logits > threshold.logit for threshold in self._thresholds]
        self._cuts: dict[str, Cut | None] = {}

    def along_axes(self) -> list[Record]:
        """Rows of COMPLETENESS along every axis."""
        return self._by_threshold([self._along(axis) for axis in axes_of(self._attempts.stored)])

    def on_grids(self) -> list[Record]:
        """Rows of COMPLETENESS_GRID."""
        return self._by_threshold([self._on(axes) for axes in self._config.grids])

    def _by_threshold(self, parts: list[list[list[Record]]]) -> list[Record]:
        return [record for i in range(len(self._thresholds)) for part in parts for record in part[i]]

    def cut(self, axis: str) -> Cut | None:
        """Cells of an axis; None where it is null for all that is stored."""
        if axis not in self._cuts:
            self._cuts[axis] = self._attempts.cut(axis, self._config)
        return self._cuts[axis]

    def _along(self, axis: str) -> list[list[Record]]:
        unit = AXES[axis].unit if axis != ALL else ""
        cut = self.cut(axis)
        if cut is None:
            named = {"axis": axis, "cell": ALL, "low": None, "high": None, "unit": unit}
            return self._undefined(named, [axis])
        return self._counted(cut, lambda cell: _side(cell[0]) | {"unit": unit})

    def _on(self, axes: Sequence[str]) -> list[list[Record]]:
        grid, cuts = " x ".join(axes), [self.cut(axis) for axis in axes]
        known = [cut for cut in cuts if cut is not None]
        if len(known) < len(axes):
            sides = tuple(Side(axis, ALL) for axis in axes)
            unknown = [axis for axis, cut in zip(axes, cuts, strict=True) if cut is None]
            return self._undefined(_grid_cell(grid, sides), unknown)
        return self._counted(cut_grid(known), lambda cell: _grid_cell(grid, cell))

    def _undefined(self, named: Record, axes: Sequence[str]) -> list[list[Record]]:
        n = self._attempts.stored.height
        why = f"{' and '.join(axes)} {'is' if len(axes) == 1 else 'are'} null for all {n:,} injections"
        nothing = dict.fromkeys(_NUMBERS) | {"status": UNDEFINED, "reason": why, "total_reason": why}
        cut = Cut((ALL,), ((Side(ALL, ALL),),), np.zeros(n, np.uint16), None)
        return [[record | nothing for record in records] for records in self._counted(cut, lambda _: named)]

    def _counted(self, cut: Cut, named: Any) -> list[list[Record]]:
        attempts, n = self._attempts, len(cut.cells)
        found = clustered_proportions(
            self._recovered, cut.stored, n, attempts.galaxies, attempts.weights, regions=attempts.regions
        )
        lost = None if cut.lost is None else np.bincount(cut.lost, minlength=n)
        tables = []
        for recovered, estimates in zip(self._recovered, found, strict=True):
            proportions = [estimate.proportion for estimate in estimates]
            totals = attempts.shares.totals(cut.stored, attempts.weights, recovered, proportions)
            records = []
            for i, (cell, (n_recovered, estimate), total) in enumerate(zip(cut.cells, estimates, totals, strict=True)):
                status, reason = self._status(estimate.n_eff, estimate.value, estimate.reason)
                n_lost = None if lost is None else int(lost[i])
                records.append(
                    named(cell)
                    | {
                        "in_support": in_support(cell, estimate.n + (n_lost or 0)),
                        "n": estimate.n,
                        "n_quarantined": n_lost,
                        "n_galaxies": estimate.n_clusters,
                        "n_recovered": n_recovered,
                        "n_eff": estimate.n_eff,
                        "cluster": estimate.cluster,
                        "completeness": estimate.value,
                        "completeness_low": estimate.low,
                        "completeness_high": estimate.high,
                        "status": status,
                        "reason": reason,
                    }
                    | total
                )
            tables.append(records)
        return [
            [{"operating_point": threshold.name} | record for record in records]
            for threshold, records in zip(self._thresholds, tables, strict=True)
        ]

    def _status(self, n_eff: float | None, value: float | None, reason: str | None) -> tuple[str, str | None]:
        if value is None:
            return UNDEFINED, reason
        if n_eff is None:
            return SMALL, reason
        if n_eff < self._config.min_n_eff:
            few = f"{n_eff:.3g} effective injections, fewer than {self._config.min_n_eff:g}"
            return SMALL, f"{few}; {reason}" if reason else few
        return OK, reason


def _side(side: Side) -> Record:
    return {"axis": side.axis, "cell": side.name, "low": side.low, "high": side.high}


def _grid_cell(grid: str, cell: tuple[Side, ...]) -> Record:
    named: Record = {"grid": grid, "cell": " x ".join(side.name for side in cell)}
    for i, side in enumerate(cell, start=1):
        named |= {f"{key}_{i}": value for key, value in _side(side).items()} | {f"unit_{i}": AXES[side.axis].unit}
    return named
