"""The smooth fits of a version of completeness, and what they leave over: fitted against observed, cell by cell."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from lens_pipeline.evaluation.axes import AXES
from lens_pipeline.evaluation.cells import Cut, Side, cut_grid
from lens_pipeline.evaluation.clustered_cells import clustered_proportions
from lens_pipeline.evaluation.config import CompletenessConfig
from lens_pipeline.evaluation.counting import Attempts, Threshold
from lens_pipeline.evaluation.goodness_of_fit import CellResiduals, calibration, falls_short, goodness_of_fit
from lens_pipeline.evaluation.regions import LEFT_OUT, spread_unknown
from lens_pipeline.evaluation.selection_function import COMPLETENESS, FALLS_SHORT, MIN_N_EFF, SMOOTH, TOTAL
from lens_pipeline.evaluation.smooth_fit import Floats, Ints, SmoothFit, can_cross, fit_smooth

_FOLDS = 5
_LEAST_GALAXIES = 50
Record = dict[str, Any]


@dataclass(frozen=True)
class Fits:
    """What was fitted.

    Attributes
    ----------
    surfaces : list of dict
        Each fit as ``selection_function.json`` has it.
    residuals : list of dict
        Rows of COMPLETENESS_FIT.
    notes : list of str
        Axes and rows that were left out, or why nothing was fitted.
    """

    surfaces: list[Record]
    residuals: list[Record]
    notes: list[str]


def fit_selection(attempts: Attempts, thresholds: Sequence[Threshold], config: CompletenessConfig) -> Fits:
    """Fit each threshold on the axes of the settings that were measured, on at most so many rows of whole galaxies.

    Where the parent sample's losses are known, completeness times them is fitted too: with the share that is kept, and with
    each end of its interval.
    """
    axes = [axis for axis in config.fit_axes if attempts.stored[axis].null_count() < attempts.stored.height]
    notes = [f"{axis} is null for all injections and is left out" for axis in config.fit_axes if axis not in axes]
    if not axes:
        return Fits([], [], notes or ["no axis is set (fit_axes)"])
    columns = [attempts.stored[axis].to_numpy().astype(np.float64, copy=False) for axis in axes]
    values = np.stack(columns, axis=1)
    known = np.isfinite(values).all(axis=1) & (attempts.weights > 0)
    if n_unknown := int((~known).sum()):
        notes.append(f"{n_unknown:,} injections lack a value or a weight and are left out")
    chosen = np.flatnonzero(known & _some_galaxies(attempts.galaxies, config.max_fit_rows))
    if chosen.size < known.sum():
        notes.append(f"fitted on {chosen.size:,} of {int(known.sum()):,} injections (max_fit_rows)")
    values, weights, galaxies = values[chosen], attempts.weights[chosen], attempts.galaxies[chosen]
    if (n := np.unique(galaxies).size) < _LEAST_GALAXIES:
        return Fits([], [], [*notes, f"nothing is fitted: {n:,} galaxies, fewer than {_LEAST_GALAXIES}"])
    regions = None if attempts.regions is None else attempts.regions[chosen]
    if regions is not None and (why := spread_unknown(regions)):
        notes.append(f"{LEFT_OUT}: {why}")
        regions = None
    shares: Sequence[Floats] = ()
    if attempts.shares.reason is None and not attempts.shares.unknown:
        shares = [of_rows[chosen] for of_rows in attempts.shares.shares]
    cuts = _cuts(attempts, axes, chosen, config)
    surfaces, residuals = [], []
    for threshold in thresholds:
        recovered = (attempts.logits[chosen] > threshold.logit).astype(np.float64)
        crossed = can_cross(recovered, weights, galaxies, len(axes), config.fit_knots)
        rows = _Rows(values, weights, galaxies, config.fit_knots, crossed, regions)
        fit = rows.fit(recovered)
        unseen = rows.cross_validated(recovered)
        found = [rows.beside(cut, recovered, fit, unseen) for cut in cuts]
        residuals += [{"operating_point": threshold.name} | row for of_cells, _ in found for row in of_cells]
        # An axis alone is where a fit of one axis shows what it can't follow; of more axes it hides what they do together.
        goodness = [good for cut, (_, good) in zip(cuts, found, strict=True) if len(cut.axes) == min(len(axes), 2)]
        misfit = max(good["misfit"] or 0.0 for good in goodness)
        surface: Record = {
            "operating_point": threshold.name, "axes": axes, "units": [AXES[axis].unit for axis in axes],
            "kind": SMOOTH, COMPLETENESS: [replace(fit, misfit=misfit).to_json()], FALLS_SHORT: falls_short(goodness),
            "support": _support(values, config.fit_support_bins), MIN_N_EFF: config.min_n_eff,
            "calibration": calibration(unseen, recovered, weights) | {"goodness_of_fit": goodness},
        }  # fmt: skip
        if shares:
            totals = [rows.fit(recovered * share) for share in shares]
            surface[TOTAL] = [replace(total, misfit=misfit).to_json() for total in totals]
        surfaces.append(surface)
    return Fits(surfaces, residuals, notes)


@dataclass(frozen=True)
class _Rows:
    """Injections that are fitted, in the order of their galaxies, and how."""

    values: Floats
    weights: Floats
    galaxies: Ints
    n_knots: int
    crossed: bool
    regions: Ints | None

    def fit(self, recovered: Floats) -> SmoothFit:
        columns = self.values, recovered, self.weights, self.galaxies, self.n_knots
        return fit_smooth(*columns, crossed=self.crossed, regions=self.regions)

    def cross_validated(self, recovered: Floats) -> Floats:
        """Return what is said of each row by a fit that has not seen its galaxy."""
        _, number = np.unique(self.galaxies, return_inverse=True)
        unseen = np.empty(recovered.size)
        for fold in range(_FOLDS):
            mine = number % _FOLDS == fold
            # Of these fits the value alone is asked.
            left = {"values": self.values[~mine], "weights": self.weights[~mine], "galaxies": self.galaxies[~mine]}
            others = replace(self, **left, regions=None)
            unseen[mine] = others.fit(recovered[~mine]).value(self.values[mine])
        return unseen

    def beside(self, cut: Cut, recovered: Floats, fit: SmoothFit, unseen: Floats) -> tuple[list[Record], Record]:
        """Return rows of COMPLETENESS_FIT of some cells, without their threshold, and how well the fit follows them together."""
        n = len(cut.cells)
        found = clustered_proportions([recovered > 0], cut.stored, n, self.galaxies, self.weights)[0]
        of_cell = csr_array((self.weights, (cut.stored, np.arange(recovered.size))), shape=(n, recovered.size))
        fitted = fit.value(self.values)
        total = np.maximum(of_cell.sum(axis=1), np.finfo(np.float64).tiny)
        expected, blind, spread = (of_cell @ each / total for each in (fitted, unseen, unseen * (1 - unseen)))
        turned = (of_cell @ (fit.design(self.values) * (fitted * (1 - fitted))[:, None])) / total[:, None]
        n_eff = np.array([observed.n_eff or 0.0 for _, observed in found])
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = spread / n_eff
            leverage = np.einsum("ij,jk,ik->i", turned, fit.covariance, turned) / variance
        residual = np.array([np.nan if observed.value is None else observed.value for _, observed in found]) - blind
        sigma = np.where((variance > 0) & (variance < np.inf), residual / variance**0.5, np.nan)
        records = [
            _named(sides)
            | {
                "n": observed.n, "n_eff": observed.n_eff, "observed": observed.value, "fitted": float(expected[i]),
                "cross_validated": float(blind[i]), "residual": float(residual[i]),
                "residual_sigma": None if np.isnan(sigma[i]) else float(sigma[i]),
            }
            for i, (sides, (_, observed)) in enumerate(zip(cut.cells, found, strict=True))
            if observed.value is not None
        ]  # fmt: skip
        cells = CellResiduals(residual, blind, spread, n_eff, np.clip(leverage, 0, 1))
        return records, goodness_of_fit(" x ".join(cut.axes), cells)


def _cuts(attempts: Attempts, axes: Sequence[str], chosen: Ints, config: CompletenessConfig) -> list[Cut]:
    """Each axis cut into cells, then each pair of axes; of the rows that are fitted."""
    whole = [cut for axis in axes if (cut := attempts.cut(axis, config)) is not None]
    alone = [replace(cut, stored=cut.stored[chosen], lost=None) for cut in whole]
    return [*alone, *(cut_grid(pair) for pair in combinations(alone, 2))]


def _named(sides: Sequence[Side]) -> Record:
    first, second = sides[0], sides[1] if len(sides) > 1 else None
    return {
        "axis": " x ".join(side.axis for side in sides), "cell": " x ".join(side.name for side in sides),
        "low": first.low, "high": first.high, "unit": AXES[first.axis].unit,
        "low_2": second and second.low, "high_2": second and second.high, "unit_2": second and AXES[second.axis].unit,
    }  # fmt: skip


def _some_galaxies(galaxies: Ints, most: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whole galaxies, as many of every so many as give no more rows than asked for."""
    every = max(1, -(-galaxies.size // most))
    keep: np.ndarray[Any, np.dtype[np.bool_]] = galaxies % every == 0
    return keep


def _support(values: Floats, n_bins: int) -> Record:
    """Which boxes of a coarse grid hold an injection."""
    edges = [np.linspace(column.min(), column.max(), n_bins + 1) for column in values.T]
    held, _ = np.histogramdd(values, bins=edges)
    return {"edges": [edge.tolist() for edge in edges], "held": np.flatnonzero(held).tolist()}
