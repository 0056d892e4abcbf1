"""A smooth selection function: a logistic regression on splines of some axes, with intervals over galaxies and over regions.

Belongs here: the model, its fit, and how it is written down. What it leaves over is in `fit_residuals`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special
from scipy.interpolate import BSpline
from scipy.sparse import csr_array

from lens_pipeline.evaluation.intervals import CONFIDENCE, FEW_CLUSTERS, kish

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_DEGREE = 3
# Variance of the prior of a coefficient, on the logit scale: wide, and enough to hold what no row speaks of.
_PRIOR_VARIANCE = 100.0
# Of each coefficient, so that splines of a pair of axes are multiplied: injections, as many as make a place not small by default,
# and galaxies that hold the rarer outcome (Peduzzi et al. 1996, J. Clin. Epidemiol. 49, 1373).
_ROWS_EACH, _RARER_EACH = 100, 10


@dataclass(frozen=True)
class SmoothFit:
    """Completeness = expit(a + sum over axes of a cubic spline + sum over pairs of axes of what they do together).

    That is b x x', or, where it is crossed, a coefficient for each product of a spline of one and a spline of the other.

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
    row_leverage, galaxy_leverage : (c, c) arrays
        A, so that 1 / x^T A x is how many rows, or whole galaxies, speak of a point with the splines x: Kish's number of the
        weights that a linear fit on the same splines would give them there.
    n_galaxies : int
    crossed : bool
    misfit : float
        Variance, on the logit scale, of what the truth differs from the fit by; 0 until it is measured (`goodness_of_fit`).
    region_covariance : (c, c) array or None
        Jackknife over regions, of one Newton step each (Wolter 2007, ch. 4); None where regions aren't known or too few.
    n_regions : float
        Effective number of regions (Kish's, of their weights); 0 without them.
    """

    knots: tuple[Floats, ...]
    middle: Floats
    spread: Floats
    coefficients: Floats
    covariance: Floats
    row_leverage: Floats
    galaxy_leverage: Floats
    n_galaxies: int
    crossed: bool = False
    misfit: float = 0.0
    region_covariance: Floats | None = None
    n_regions: float = 0.0

    def value(self, values: Floats) -> Floats:
        """Return completeness at points, shape (n, axis), as (n,)."""
        return special.expit(self.design(values) @ self.coefficients)

    def design(self, values: Floats) -> Floats:
        """Return what the coefficients are multiplied by at points, shape (n, axis), as (n, c)."""
        return _design(values, self.knots, self.middle, self.spread, crossed=self.crossed)

    def predict(self, values: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Return completeness p at points, shape (n, axis), the ends of its 95 % interval, and its effective n, each (n,).

        The effective n is p (1 - p) over the sandwich's variance of p, but never more than the rows that speak of the point:
        where nearly all outcomes are alike the sandwich has nothing to learn a spread from. Where fewer than 5 of the
        galaxies that speak of it would hold the rarer outcome, whole galaxies are counted, as in cells. The interval is that of
        Clopper & Pearson at the effective n, shrunk for a variance known from few galaxies (Korn & Graubard 1998, Survey
        Methodology 24, 193). The misfit's variance is added to that of the effective n. Where the variance over regions
        leaves more open, it counts, and so does their number.

        Beyond the knots the nearest end is taken; whether that is asked for is the caller's business.
        """
        design = self.design(values)
        eta = design @ self.coefficients
        found, missed = special.expit(eta), special.expit(-eta)
        with np.errstate(divide="ignore", over="ignore"):
            rows, galaxies = 1 / _quadratic(design, self.row_leverage), 1 / _quadratic(design, self.galaxy_leverage)
        few = np.minimum(found, missed) * galaxies < FEW_CLUSTERS
        spoken = np.where(few, np.minimum(rows, galaxies), rows)
        n_eff, paid = self._worth(design, spoken, found * missed, self.covariance, self.n_galaxies)
        if self.region_covariance is not None:
            of_regions = self._worth(design, spoken, found * missed, self.region_covariance, self.n_regions)
            wider = of_regions[1] < paid
            n_eff, paid = (np.where(wider, *both) for both in zip(of_regions, (n_eff, paid), strict=True))
        tail = (1 - CONFIDENCE) / 2
        # A shape of 0 has no quantile; the least number has one, which is 0.
        hits, misses = (np.maximum(share * paid, np.finfo(np.float64).tiny) for share in (found, missed))
        low, high = special.betaincinv(hits, misses + 1, tail), special.betaincinv(hits + 1, misses, 1 - tail)
        return found, low.astype(np.float64), high.astype(np.float64), n_eff

    def _worth(
        self, design: Floats, spoken: Floats, spread: Floats, covariance: Floats, n_clusters: float
    ) -> tuple[Floats, Floats]:
        """Effective n by a covariance over clusters, and what of it is left where those are few, each (n,)."""
        with np.errstate(divide="ignore", over="ignore"):
            n_eff = np.minimum(spoken, 1 / (spread * _quadratic(design, covariance)))
        n_eff = n_eff / (1 + spread * self.misfit * n_eff)
        tail = (1 - CONFIDENCE) / 2
        return n_eff, n_eff * float(special.ndtri(tail) / special.stdtrit(max(n_clusters - 1, 1), tail)) ** 2

    def to_json(self) -> dict[str, Any]:
        """Write everything that `predict` needs."""
        return {
            "knots": [knots.tolist() for knots in self.knots],
            "middle": self.middle.tolist(),
            "spread": self.spread.tolist(),
            "coefficients": self.coefficients.tolist(),
            "covariance": self.covariance.tolist(),
            "row_leverage": self.row_leverage.tolist(),
            "galaxy_leverage": self.galaxy_leverage.tolist(),
            "n_galaxies": self.n_galaxies,
            "crossed": self.crossed,
            "misfit": self.misfit,
            "region_covariance": None if self.region_covariance is None else self.region_covariance.tolist(),
            "n_regions": self.n_regions,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "SmoothFit":
        """Read what `to_json` wrote."""
        names = ("middle", "spread", "coefficients", "covariance", "row_leverage", "galaxy_leverage")
        arrays = {name: np.array(content[name], np.float64) for name in names}
        return cls(
            knots=tuple(np.array(knots, np.float64) for knots in content["knots"]),
            n_galaxies=content["n_galaxies"],
            crossed=content["crossed"],
            misfit=content["misfit"],
            region_covariance=None if (told := content["region_covariance"]) is None else np.array(told, np.float64),
            n_regions=content["n_regions"],
            **arrays,
        )


def can_cross(recovered: Floats, weights: Floats, galaxies: Ints, n_axes: int, n_knots: int) -> bool:
    """Whether rows are enough to multiply the splines of each pair of axes.

    That is 100 injections (Kish's number), and 10 galaxies that hold the rarer outcome, for each coefficient.

    Parameters
    ----------
    recovered : (n,) array
        Share of each row that counts as recovered, 0 to 1.
    weights, galaxies : (n,) arrays
    """
    each = n_knots + _DEGREE - 2
    n_coefficients = 1 + n_axes * each + n_axes * (n_axes - 1) // 2 * each**2
    rarer = min(np.unique(galaxies[outcome]).size for outcome in (recovered > 0, recovered < 1))
    return kish(weights) >= _ROWS_EACH * n_coefficients and rarer >= _RARER_EACH * n_coefficients


def fit_smooth(
    values: Floats,
    recovered: Floats,
    weights: Floats,
    galaxies: Ints,
    n_knots: int,
    *,
    crossed: bool = False,
    regions: Ints | None = None,
) -> SmoothFit:
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
    crossed : bool
        Whether the splines of each pair of axes are multiplied; rows must be enough (`can_cross`).
    regions : (n,) array, optional
        Number of each row's region, if intervals are to know of them.
    """
    # Loaded where it is needed: the definitions are loaded by every command.
    from sklearn.linear_model import LogisticRegression

    knots = tuple(_knots(column, n_knots) for column in values.T)
    middle, spread = values.mean(axis=0), np.maximum(values.std(axis=0), 1e-9)
    design = _design(values, knots, middle, spread, crossed=crossed)
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
    prior = np.diag(np.full(coefficients.size, 1 / _PRIOR_VARIANCE))
    prior[0, 0] = 0.0
    _, place = np.unique(galaxies, return_inverse=True)
    n_galaxies = int(place.max()) + 1
    of_galaxy = csr_array((np.ones(place.size), (place, np.arange(place.size))), shape=(n_galaxies, place.size))
    score_of_row = design * (weight * (recovered - found))[:, None]
    scores = of_galaxy @ score_of_row
    spread_of_scores = scores.T @ scores * (n_galaxies / max(n_galaxies - 1, 1))
    weighed = design * weight[:, None]
    informed = design * np.sqrt(weight * found * (1 - found))[:, None]
    information = informed.T @ informed + prior
    inverse = np.linalg.pinv(information, hermitian=True)
    flat = np.linalg.pinv(weighed.T @ design + prior, hermitian=True)
    # With the prior in the middle too, no row speaks of what no row spans.
    row_leverage, galaxy_leverage = (flat @ (each.T @ each + prior) @ flat for each in (weighed, of_galaxy @ weighed))
    covariance = inverse @ spread_of_scores @ inverse
    by_region, n_regions = None, 0.0
    if regions is not None:
        by_region = _jackknife(score_of_row, informed, information, regions)
        n_regions = kish(np.bincount(regions, weights=weight))
    return SmoothFit(
        knots, middle, spread, coefficients, covariance, row_leverage, galaxy_leverage, n_galaxies, crossed,
        region_covariance=by_region, n_regions=n_regions,
    )  # fmt: skip


def _jackknife(scores: Floats, informed: Floats, information: Floats, clusters: Ints) -> Floats:
    """Covariance of coefficients from what leaving each cluster out changes them by, to first order, shape (c, c).

    A cluster of which there are few draws the fit to itself, so that its residuals alone tell too little.
    """
    order = np.argsort(clusters, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(clusters[order])) + 1)
    left_out = [
        np.linalg.pinv(information - informed[part].T @ informed[part], hermitian=True) @ scores[part].sum(axis=0)
        for part in parts
    ]
    changes: Floats = np.stack(left_out)
    return np.asarray((len(parts) - 1) / len(parts) * changes.T @ changes)


def _quadratic(design: Floats, matrix: Floats) -> Floats:
    """x^T A x of each row x."""
    squares: Floats = np.einsum("ij,ij->i", design @ matrix, design)
    return np.maximum(squares, 0)


def _knots(values: Floats, n_knots: int) -> Floats:
    knots = np.unique(np.quantile(values, np.linspace(0, 1, n_knots)))
    return knots if knots.size > 1 else np.array([knots[0], knots[0] + 1.0])


def _design(values: Floats, knots: Sequence[Floats], middle: Floats, spread: Floats, *, crossed: bool) -> Floats:
    inside = np.stack([np.clip(c, p[0], p[-1]) for c, p in zip(values.T, knots, strict=True)], axis=1)
    splines = [_splines(column, places) for column, places in zip(inside.T, knots, strict=True)]
    standard = ((inside - middle) / spread).T
    pairs = [
        (first[:, :, None] * second[:, None, :]).reshape(len(values), -1)
        for first, second in combinations(splines if crossed else [x[:, None] for x in standard], 2)
    ]
    return np.concatenate([np.ones((len(values), 1)), *splines, *pairs], axis=1)


def _splines(inside: Floats, places: Floats) -> Floats:
    ends = np.concatenate([np.repeat(places[0], _DEGREE), places, np.repeat(places[-1], _DEGREE)])
    n = ends.size - _DEGREE - 1
    # The splines of an axis sum to 1; one of them is the intercept's.
    return np.asarray(BSpline(ends, np.eye(n), _DEGREE)(inside))[:, 1:]
