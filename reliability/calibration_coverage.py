"""How often intervals of a calibration hold the truth: reliability diagrams, what each method is worth, the frozen one.

A case draws 2,000 sets of rows of one size and kind from two normal laws and a model that is too certain by half: as many lenses
as controls, or 30 or 300 among 3,000. The laws are known, so the truth of each fit and of what lies between a bin's edges is.
`p_lens` of a row has no interval of its own: the diagrams say how far it can be trusted.
"""

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import polars as pl
from scipy import special

from lens_pipeline.evaluation.calibration import Labelled, cross_fitted, galaxy_folds, judged, prior_logit_of
from lens_pipeline.evaluation.calibrators import Calibrator, Floats, Method, even_weights
from lens_pipeline.evaluation.likelihood_metrics import (
    N_BINS,
    brier_scores,
    calibration_metric,
    likelihood_metrics,
    log_losses,
)
from lens_pipeline.evaluation.metrics import BootstrapSettings
from reliability.coverage import DRAWS, KINDS, Found, Kind, coverage_case
from reliability.subject import Case, Subject

_SHIFTS, FLATTER = np.linspace(1.0, 2.5, 31), 1.5
_METHODS = (Method.uncalibrated, Method.beta)
_FOLDS, _DIAGRAM_BINS = 5, 10
_SETTINGS = BootstrapSettings(200, 0)
# Kinds, and of how many rows one is a lens: 30 and 300 among 3,000 controls, whose galaxies hold at most one and exactly five.
_EQUAL = 2
_FEW = ((Kind(3030, 1), 101), (Kind(3030, 10), 101), (Kind(3300, 1), 11), (Kind(3300, 55), 11))
SETS = (*((kind, _EQUAL) for kind in KINDS), *_FEW)
# Scores at the middles of so many parts of each law, of equal chance.
_PARTS = 15_000
# A bin's interval is made of exact ones, and a calibration error near 0 can't be missed below: both are held more often than
# needed. A gain's interval is widened for what folds share, which of few rows is less than all.
_BOUNDS = {"bin": (0.93, 1.0), "ece": (0.93, 1.0), "gain": (0.9, 1.0), "": (0.93, 0.97)}


def case(number: int) -> Case:
    """Draw one family, size, kind and share of lenses."""
    (kind, one_in), (_, family) = CASES[number]
    how = "" if one_in == _EQUAL else f", {kind.n // one_in} lenses"
    return coverage_case("calibration_coverage", number, kind, lambda rng, of: family(rng, of, one_in), _BOUNDS, how)


class Law:
    """Two normal laws of unit variance, and a model whose logit is the log likelihood ratio times `FLATTER`.

    Parameters
    ----------
    shift : float
        How far lenses score above controls.
    one_in : int
        One row in so many is a lens.
    """

    def __init__(self, shift: float, one_in: int) -> None:
        self.shift, self.one_in = shift, one_in
        middles = special.ndtri((np.arange(_PARTS) + 0.5) / _PARTS)
        self.logits, self.is_lens = self.scored(np.r_[middles, middles + shift]), np.arange(2 * _PARTS) >= _PARTS

    @property
    def balance(self) -> Floats:
        """Shares of controls and of lenses, shape (1, 2)."""
        return np.array([[1 - 1 / self.one_in, 1 / self.one_in]])

    def scored(self, scores: Floats) -> Floats:
        """Logits that the model gives."""
        return FLATTER * self.shift * (scores - self.shift / 2)

    def draw(self, rng: np.random.Generator, kind: Kind) -> Labelled:
        """Rows of which every so manieth is a lens; injections weigh differently."""
        lens = np.arange(kind.n) % self.one_in == self.one_in - 1
        noise, galaxy = kind.noise(rng)
        weights = np.where(lens, rng.uniform(0.5, 1.5, kind.n), 1.0)
        return Labelled(self.scored(noise + self.shift * lens), lens, weights, galaxy)

    def mean(self, loss: Callable[[Floats, np.ndarray], Floats], fits: list[Calibrator], shares: Floats) -> float:
        """Mean loss of fits, each used for such a share of all weight in controls and in lenses, shape (n_fits, 2)."""
        prior = special.logit(shares[:, 1].sum())
        found = [loss(fit.log_likelihood_ratio(self.logits) + prior, self.is_lens).reshape(2, -1) for fit in fits]
        return float(np.sum(shares * np.mean(found, axis=2)))

    def shares_of_lenses(self, edges: Floats, fits: list[Calibrator], shares: Floats) -> Floats:
        """Share of lenses below, between and above edges of the ratio, shape (n_edges + 1,); shares as in `mean`."""
        grid, inside = np.linspace(-9, 9 + self.shift, 4001), np.zeros((2, edges.size + 1))
        for fit, share in zip(fits, shares, strict=True):
            between = np.interp(edges, fit.log_likelihood_ratio(self.scored(grid)), grid)
            score = np.r_[-np.inf, between, np.inf]
            # Each on the side of 0 where it isn't a difference of numbers near 1.
            inside += share[:, None] * [-np.diff(special.ndtr(-score)), np.diff(special.ndtr(score - self.shift))]
        return np.asarray(inside[1] / inside.sum(axis=0))

    def calibration_error(self, fit: Calibrator) -> float:
        """Calibration error at the balance of the rows, in as many bins of equal numbers as the metric has."""
        order, prior = np.argsort(self.logits, kind="stable"), special.logit(1 / self.one_in)
        off = special.expit(fit.log_likelihood_ratio(self.logits) + prior) - special.expit(
            self.logits / FLATTER + prior
        )
        weight = np.repeat(self.balance, _PARTS)[order] / _PARTS
        place = ((np.cumsum(weight) - weight / 2) * N_BINS).astype(np.int64)
        return float(np.abs(np.bincount(place, weights=weight * off[order])).sum())


def _in_folds(rows: Labelled) -> tuple[np.ndarray, Callable[[Method], list[Calibrator]], Floats]:
    """Fold of each row, the fits without each fold, and what share of all weight it has of controls and of lenses."""
    folds = galaxy_folds(rows.galaxies, rows.is_lens, _FOLDS)
    assert folds is not None
    even = even_weights(rows.is_lens, rows.weights) / rows.is_lens.size
    left_out = [folds == fold for fold in range(int(folds.max()) + 1)]
    shares = [[float(even[out & (rows.is_lens == lens)].sum()) for lens in (False, True)] for out in left_out]
    return folds, lambda method: [rows.fit(method, 0.0, ~out) for out in left_out], np.array(shares)


def _diagram(rng: np.random.Generator, kind: Kind, one_in: int) -> Iterator[Found]:
    """Yield the share of lenses of each bin, rows by the fit without their fold, as `operating_point` has it.

    The truth is the laws' own share between the bin's edges, which lie in the middle between neighbouring bins.
    """
    law = Law(float(rng.choice(_SHIFTS)), one_in)
    rows = law.draw(rng, kind)
    folds, fits, shares = _in_folds(rows)
    for method in _METHODS:
        ratio = cross_fitted(method, rows, folds, 0.0)
        assert ratio is not None
        bins = rows.reliability(method, ratio, _DIAGRAM_BINS)
        lowest, highest = (special.logit([found[end] for found in bins]) for end in ("p_low", "p_high"))
        truths = law.shares_of_lenses((highest[:-1] + lowest[1:]) / 2, fits(method), shares)
        for place, (found, truth) in enumerate(zip(bins, truths, strict=True)):
            which = {0: "lowest", len(bins) - 1: "highest"}.get(place, "between")
            yield f"bin {which}, {method}", float(truth), (found["low"], found["high"])  # type: ignore[misc]


def _judgement(rng: np.random.Generator, kind: Kind, one_in: int) -> Iterator[Found]:
    """Yield log loss, Brier score and gain of fits on rows that they have not seen; the truth is that of these very fits."""
    law = Law(float(rng.choice(_SHIFTS)), one_in)
    rows = law.draw(rng, kind)
    folds, fits, shares = _in_folds(rows)
    ratios = {method: cross_fitted(method, rows, folds, 0.0) for method in _METHODS}
    losses = {}
    for method in _METHODS:
        fitted = fits(method)
        losses[method] = law.mean(log_losses, fitted, shares)
        truth = {"log_loss": losses[method], "brier": law.mean(brier_scores, fitted, shares)}
        if method is not Method.uncalibrated:
            truth["gain"] = losses[Method.uncalibrated] - losses[method]
        found = judged(method, ratios[method], ratios[Method.uncalibrated], rows, folds)
        for name, value in truth.items():
            yield f"{name}, {method}", value, (found[f"{name}_low"], found[f"{name}_high"])  # type: ignore[misc]


def _frozen(rng: np.random.Generator, kind: Kind, one_in: int) -> Iterator[Found]:
    """Yield metrics of a fit on rows of another set at its balance, as `evaluation_report` has them of test."""
    law = Law(float(rng.choice(_SHIFTS)), one_in)
    fit = law.draw(rng, kind).fit(Method.beta, 0.0)
    test = law.draw(rng, kind)
    columns = {
        "logit": fit.log_likelihood_ratio(test.logits) + prior_logit_of(test.is_lens),
        "is_lens": test.is_lens,
        "label": test.is_lens.astype(int),
        "galaxy_id": test.galaxies,
    }
    rows = pl.DataFrame(columns)
    truth = {
        "log_loss": law.mean(log_losses, [fit], law.balance),
        "brier": law.mean(brier_scores, [fit], law.balance),
        "ece": law.calibration_error(fit),
    }
    for metric in [*likelihood_metrics(rows, "drawn"), calibration_metric(rows, "drawn", _SETTINGS)]:
        yield f"{metric.metric}_calibrated", truth[metric.metric], (metric.low, metric.high)


FAMILIES = (("diagram", _diagram), ("judgement", _judgement), ("frozen", _frozen))
CASES = list(product(SETS, FAMILIES))

SUBJECT = Subject(
    name="calibration_coverage",
    question="95 % intervals of reliability diagrams, of each calibration's worth by cross-validation, and of the frozen one's "
    "losses and calibration error hold the truth in 93 to 97 % of 2,000 draws (bins and calibration error in 93 % or more, a "
    "gain in 90 % or more), of as many lenses as controls and of 30 and 300 among 3,000; what can't be said is left out with a "
    "reason.",
    unit="sets of rows",
    goal=len(CASES) * DRAWS,
    case=case,
    n_cases=len(CASES),
)
