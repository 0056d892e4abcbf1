"""A smooth selection function: a logistic regression on splines of some axes, with intervals that know of galaxies as clusters.

Belongs here: the model, its fit, and how it is written down. What it leaves over is in `fit_residuals`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special
from scipy.interpolate import BSpline

from lens_pipeline.evaluation.intervals import CONFIDENCE

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_DEGREE = 3
# Variance of the prior of a coefficient, on the logit scale: wide, and enough to hold what no row speaks of.
_PRIOR_VARIANCE = 100.0


@dataclass(frozen=True)
class SmoothFit:
    """Completeness = expit(a + sum over axes of a cubic spline + sum over pairs of axes of b x x').

    Attributes
    ----------
    knots : tuple of (k,) array
        Of each axis: its least value, quantiles of the injections, its greatest.
    middle, spread : (axis,) array
        That pairs of axes are standardised by.
    coefficients : (c,) array
        Intercept, then splines axis by axis, then pairs.
    covariance : (c, c) array
        Sandwich estimate over galaxies (Liang & Zeger 1986, Biometrika 73, 13).
    n_galaxies : int
    """

    knots: tuple[Floats, ...]
    middle: Floats
    spread: Floats
    coefficients: Floats
    covariance: Floats
    n_galaxies: int

    def predict(self, values: Floats) -> tuple[Floats, Floats, Floats]:
        """Return completeness at points, shape (n, axis), with the ends of its 95 % interval, each (n,).

        Beyond the knots the nearest end is taken; whether that is asked for is the caller's business.
        """
        design = _design(values, self.knots, self.middle, self.spread)
        eta = design @ self.coefficients
        error = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", design, self.covariance, design), 0))
        half = float(special.stdtrit(max(self.n_galaxies - 1, 1), (1 + CONFIDENCE) / 2)) * error
        return special.expit(eta), special.expit(eta - half), special.expit(eta + half)

    def to_json(self) -> dict[str, Any]:
        """Write everything that `predict` needs."""
        return {
            "knots": [knots.tolist() for knots in self.knots],
            "middle": self.middle.tolist(),
            "spread": self.spread.tolist(),
            "coefficients": self.coefficients.tolist(),
            "covariance": self.covariance.tolist(),
            "n_galaxies": self.n_galaxies,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "SmoothFit":
        """Read what `to_json` wrote."""
        arrays = {
            name: np.array(content[name], np.float64) for name in ("middle", "spread", "coefficients", "covariance")
        }
        return cls(
            knots=tuple(np.array(knots, np.float64) for knots in content["knots"]),
            n_galaxies=content["n_galaxies"],
            **arrays,
        )


def fit_smooth(values: Floats, recovered: Floats, weights: Floats, galaxies: Ints, n_knots: int) -> SmoothFit:
    """Fit by maximum likelihood, weighted, under a wide normal prior on every coefficient but the intercept.

    Parameters
    ----------
    values : (n, axis) array
    recovered : (n,) array
        Share of each row that counts as recovered, 0 to 1.
    weights : (n,) array
    galaxies : (n,) array
        Number of each row's galaxy.
    n_knots : int
        Of each axis, both ends among them.
    """
    # Loaded where it is needed: the definitions are loaded by every command.
    from sklearn.linear_model import LogisticRegression

    knots = tuple(_knots(column, n_knots) for column in values.T)
    middle, spread = values.mean(axis=0), np.maximum(values.std(axis=0), 1e-9)
    design = _design(values, knots, middle, spread)
    weight = weights / weights.mean()
    # A row that counts in part is two rows, one recovered and one not, which share its weight.
    both = np.concatenate([np.flatnonzero(recovered > 0), np.flatnonzero(recovered < 1)])
    n_found = int((recovered > 0).sum())
    outcome = np.arange(both.size) < n_found
    share = np.where(outcome, recovered[both], 1 - recovered[both])
    if outcome.all() or not outcome.any():
        coefficients = np.zeros(design.shape[1])
        coefficients[0] = special.logit((recovered.sum() + 0.5) / (recovered.size + 1))
    else:
        model = LogisticRegression(C=_PRIOR_VARIANCE, solver="newton-cholesky", max_iter=200)
        model.fit(design[both, 1:], outcome, sample_weight=weight[both] * share)
        coefficients = np.concatenate([model.intercept_, model.coef_[0]])
    found = special.expit(design @ coefficients)
    prior = np.full(coefficients.size, 1 / _PRIOR_VARIANCE)
    prior[0] = 0.0
    curvature = (design * (weight * found * (1 - found))[:, None]).T @ design + np.diag(prior)
    _, place = np.unique(galaxies, return_inverse=True)
    n_galaxies = int(place.max()) + 1
    scores = np.zeros((n_galaxies, coefficients.size))
    np.add.at(scores, place, design * (weight * (recovered - found))[:, None])
    inverse = np.linalg.pinv(curvature, hermitian=True)
    spread_of_scores = scores.T @ scores * (n_galaxies / max(n_galaxies - 1, 1))
    return SmoothFit(knots, middle, spread, coefficients, inverse @ spread_of_scores @ inverse, n_galaxies)


def _knots(values: Floats, n_knots: int) -> Floats:
    knots = np.unique(np.quantile(values, np.linspace(0, 1, n_knots)))
    return knots if knots.size > 1 else np.array([knots[0], knots[0] + 1.0])


def _design(values: Floats, knots: Sequence[Floats], middle: Floats, spread: Floats) -> Floats:
    parts = [np.ones((len(values), 1))]
    for column, places in zip(values.T, knots, strict=True):
        within = np.clip(column, places[0], places[-1])
        ends = np.concatenate([np.repeat(places[0], _DEGREE), places, np.repeat(places[-1], _DEGREE)])
        n = ends.size - _DEGREE - 1
        # The splines of an axis sum to 1; one of them is the intercept's.
        parts.append(np.asarray(BSpline(ends, np.eye(n), _DEGREE)(within))[:, 1:])
    inside = np.stack([np.clip(c, p[0], p[-1]) for c, p in zip(values.T, knots, strict=True)], axis=1)
    standard = (inside - middle) / spread
    first, second = np.triu_indices(values.shape[1], 1)
    parts.append(standard[:, first] * standard[:, second])
    return np.concatenate(parts, axis=1)
