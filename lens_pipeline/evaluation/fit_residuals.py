"""The smooth fits of a version of completeness, and what they leave over: fitted against observed, cell by cell."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from lens_pipeline.evaluation.axes import AXES
from lens_pipeline.evaluation.clustered_cells import clustered_proportions
from lens_pipeline.evaluation.config import CompletenessConfig
from lens_pipeline.evaluation.counting import Attempts, Threshold
from lens_pipeline.evaluation.selection_function import COMPLETENESS, MIN_N_EFF, SMOOTH, TOTAL
from lens_pipeline.evaluation.smooth_fit import Floats, Ints, fit_smooth

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
    shares: Sequence[Floats] = ()
    if attempts.shares.reason is None and not attempts.shares.unknown:
        shares = [of_rows[chosen] for of_rows in attempts.shares.shares]
    surfaces, residuals = [], []
    for threshold in thresholds:
        recovered = (attempts.logits[chosen] > threshold.logit).astype(np.float64)
        fit = fit_smooth(values, recovered, weights, galaxies, config.fit_knots)
        surface: Record = {
            "operating_point": threshold.name, "axes": axes, "units": [AXES[axis].unit for axis in axes],
            "kind": SMOOTH, COMPLETENESS: [fit.to_json()],
            "support": _support(values, config.fit_support_bins), MIN_N_EFF: config.min_n_eff,
        }  # fmt: skip
        if shares:
            totals = [fit_smooth(values, recovered * share, weights, galaxies, config.fit_knots) for share in shares]
            surface[TOTAL] = [total.to_json() for total in totals]
        unseen = _cross_validated(values, recovered, weights, galaxies, config.fit_knots)
        surface["calibration"] = calibration(unseen, recovered, weights)
        surfaces.append(surface)
        fitted = fit.value(values)
        for axis in axes:
            residuals += _residuals(axis, attempts, chosen, threshold, recovered, fitted, unseen, config)
    return Fits(surfaces, residuals, notes)


def calibration(predicted: Floats, recovered: Floats, weights: Floats) -> dict[str, float]:
    """Regress outcomes on predicted log-odds (Cox 1958, Biometrika 45, 562): intercept 0 and slope 1 where they are honest.

    Returns
    -------
    dict
        intercept, slope, and brier, the weighted mean of (predicted - recovered)^2.
    """
    eta = special.logit(np.clip(predicted, 1e-9, 1 - 1e-9))
    design = np.stack([np.ones_like(eta), eta], axis=1)
    line = np.array([0.0, 1.0])
    for _ in range(25):
        found = special.expit(design @ line)
        curvature = (design * (weights * found * (1 - found))[:, None]).T @ design
        line = line + np.linalg.pinv(curvature) @ (design.T @ (weights * (recovered - found)))
    brier = float(np.average((predicted - recovered) ** 2, weights=weights))
    return {"intercept": float(line[0]), "slope": float(line[1]), "brier": brier}


def _some_galaxies(galaxies: Ints, most: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whole galaxies, as many of every so many as give no more rows than asked for."""
    every = max(1, -(-galaxies.size // most))
    keep: np.ndarray[Any, np.dtype[np.bool_]] = galaxies % every == 0
    return keep


def _cross_validated(values: Floats, recovered: Floats, weights: Floats, galaxies: Ints, n_knots: int) -> Floats:
    _, number = np.unique(galaxies, return_inverse=True)
    unseen = np.empty(recovered.size)
    for fold in range(_FOLDS):
        mine = number % _FOLDS == fold
        fit = fit_smooth(values[~mine], recovered[~mine], weights[~mine], galaxies[~mine], n_knots)
        unseen[mine] = fit.value(values[mine])
    return unseen


def _support(values: Floats, n_bins: int) -> Record:
    """Which boxes of a coarse grid hold an injection."""
    edges = [np.linspace(column.min(), column.max(), n_bins + 1) for column in values.T]
    held, _ = np.histogramdd(values, bins=edges)
    return {"edges": [edge.tolist() for edge in edges], "held": np.flatnonzero(held).tolist()}


def _residuals(
    axis: str, attempts: Attempts, chosen: Ints, threshold: Threshold, recovered: Floats, fitted: Floats,
    unseen: Floats, config: CompletenessConfig,
) -> list[Record]:  # fmt: skip
    cut = attempts.cut(axis, config)
    if cut is None:
        return []
    cells, n = cut.stored[chosen], len(cut.cells)
    weights = attempts.weights[chosen]
    found = clustered_proportions([recovered > 0], cells, n, attempts.galaxies[chosen], weights)[0]
    total = np.bincount(cells, weights, n)
    means = [np.bincount(cells, weights * values, n) for values in (fitted, unseen)]
    records = []
    for i, ((side,), (_, observed)) in enumerate(zip(cut.cells, found, strict=True)):
        if observed.value is None:
            continue
        expected, blind = (float(mean[i] / total[i]) for mean in means)
        sigma = np.sqrt(blind * (1 - blind) / observed.n_eff) if observed.n_eff else 0.0
        records.append(
            {
                "operating_point": threshold.name,
                "axis": axis,
                "cell": side.name,
                "low": side.low,
                "high": side.high,
                "unit": AXES[axis].unit,
                "n": observed.n,
                "n_eff": observed.n_eff,
                "observed": observed.value,
                "fitted": expected,
                "cross_validated": blind,
                "residual": observed.value - blind,
                "residual_sigma": (observed.value - blind) / float(sigma) if sigma > 0 else None,
            }
        )
    return records
