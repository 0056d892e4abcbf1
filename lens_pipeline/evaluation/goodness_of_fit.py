"""Whether a smooth fit can be believed: its calibration, and how far it is from what was counted on cells of its axes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]
Record = dict[str, Any]
# Of a cell, expected recovered and expected not (Cochran 1954, Biometrics 10, 417).
_LEAST_EXPECTED = 5
# A fit falls short where so small a p, times the number of sets of cells, is seen.
_SIGNIFICANT = 0.01
_MOST_STEPS, _TOLERANCE = 100, 1e-8


def calibration(predicted: Floats, recovered: Floats, weights: Floats) -> Record:
    """Regress outcomes on predicted log-odds (Cox 1958, Biometrika 45, 562): intercept 0 and slope 1 where they are honest.

    Parameters
    ----------
    predicted : (n,) array
        0 to 1.
    recovered : (n,) array
        0 or 1.
    weights : (n,) array
        Above 0.

    Returns
    -------
    dict
        intercept and slope, null where no line is the likeliest; brier, the weighted mean of (predicted - recovered)^2; and
        reason, why they are null.
    """
    eta = special.logit(np.clip(predicted, 1e-9, 1 - 1e-9))
    line, reason = _likeliest_line(eta, recovered > 0, weights / weights.mean())
    intercept, slope = (None, None) if line is None else (float(line[0]), float(line[1]))
    brier = float(np.average((predicted - recovered) ** 2, weights=weights))
    return {"intercept": intercept, "slope": slope, "brier": brier, "reason": reason}


@dataclass(frozen=True)
class CellResiduals:
    """What a fit leaves over on cells.

    Attributes
    ----------
    residual : (cell,) array
        Observed less predicted.
    predicted : (cell,) array
        Weighted mean of the predictions p.
    spread : (cell,) array
        That of p (1 - p).
    n_eff : (cell,) array
        Effective number of injections; 0 where it isn't known.
    leverage : (cell,) array
        Variance of the fit's mean over the cell, over that of what was counted there; 0 to 1.
    """

    residual: Floats
    predicted: Floats
    spread: Floats
    n_eff: Floats
    leverage: Floats


def goodness_of_fit(name: str, cells: CellResiduals) -> Record:
    """Sum the squares of residuals in standard errors over cells, and compare it with chi-squared.

    A fit follows the rows it was made on, so its residuals are smaller than their standard errors; each cell counts for one
    degree of freedom less its leverage, as in Rao & Scott's first-order correction (1984, Ann. Stat. 12, 46). Cells where fewer
    than 5 would be recovered, or not, at `n_eff` are left out.

    Returns
    -------
    dict
        cells (the name), n_cells, chi_squared, degrees_of_freedom, p; misfit, the mean over cells of the squared difference
        between truth and fit on the logit scale that chance doesn't account for, weighted by what cells know of it; and
        reason, why they are null.
    """
    used = cells.n_eff * np.minimum(cells.predicted, 1 - cells.predicted) >= _LEAST_EXPECTED
    n, degrees = int(used.sum()), float((1 - cells.leverage[used]).sum())
    told: Record = {"cells": name, "n_cells": n}
    if degrees < 1:
        why = (
            f"{n:,} of {used.size:,} cells expect {_LEAST_EXPECTED} recovered and {_LEAST_EXPECTED} not, which leaves "
            f"{degrees:.2g} degrees of freedom"
        )
        return told | dict.fromkeys(("chi_squared", "degrees_of_freedom", "p", "misfit")) | {"reason": why}
    n_eff, spread = cells.n_eff[used], cells.spread[used]
    chi_squared = float((cells.residual[used] ** 2 * n_eff / spread).sum())
    return told | {
        "chi_squared": chi_squared,
        "degrees_of_freedom": degrees,
        "p": float(special.chdtrc(degrees, chi_squared)),
        "misfit": max(0.0, (chi_squared - degrees) / float((n_eff * spread).sum())),
        "reason": None,
    }


def falls_short(goodness: Sequence[Record]) -> bool:
    """Whether a fit differs from what was counted by more than chance, the best of several chances being allowed for."""
    ps = [one["p"] for one in goodness if one["p"] is not None]
    return bool(ps) and min(ps) * len(ps) < _SIGNIFICANT


def _likeliest_line(eta: Floats, recovered: npt.NDArray[np.bool_], weights: Floats) -> tuple[Floats | None, str | None]:
    """Intercept and slope by Newton's steps, each halved until the likelihood doesn't fall; or why there are none."""
    n, n_found = recovered.size, int(recovered.sum())
    if n_found in (0, n):
        return None, f"{'all' if n_found else 'none'} of {n:,} injections are recovered"
    found, missed = eta[recovered], eta[~recovered]
    # Albert & Anderson (1984, Biometrika 71, 1): only where the two overlap is the likelihood greatest at a finite line.
    if found.min() >= missed.max() or missed.min() >= found.max():
        return None, f"predictions separate the {n_found:,} recovered of {n:,} injections, so no slope is too steep"
    design = np.stack([np.ones_like(eta), eta], axis=1)
    sign = np.where(recovered, 1.0, -1.0)

    def surprise(line: Floats) -> float:
        return float(-(weights * special.log_expit(sign * (design @ line))).sum())

    line = np.array([0.0, 1.0])
    for _ in range(_MOST_STEPS):
        said = special.expit(design @ line)
        slope = design.T @ (weights * (recovered - said))
        step = np.linalg.pinv((design * (weights * said * (1 - said))[:, None]).T @ design, hermitian=True) @ slope
        now = surprise(line)
        while surprise(line + step) > now and np.abs(step).max() > _TOLERANCE:
            step = step / 2
        line = line + step
        if np.abs(step).max() <= _TOLERANCE:
            return line, None
    return None, f"no line was found in {_MOST_STEPS} steps"
