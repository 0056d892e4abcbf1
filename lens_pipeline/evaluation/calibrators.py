"""From a logit to a probability: the log likelihood ratio of lens to control that a score stands for, and p_lens at a prevalence.

Every calibrator is fitted with both classes weighing the same, whatever their numbers, so what it gives stands for no mix of
classes; a prevalence comes in afterwards (Saerens, Latinne & Decaestecker 2002, Neural Computation 14, 21).
Injections weigh as the population has them, for it is the population's lenses that a probability is about.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from lens_pipeline.contracts.errors import EvaluationError
from lens_pipeline.evaluation.intervals import MIN_CLUSTERS, kish

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_STEEPEST = 1e3


class Method(StrEnum):
    """How a logit becomes a log likelihood ratio."""

    uncalibrated = "uncalibrated"
    temperature = "temperature"
    beta = "beta"
    isotonic = "isotonic"


@dataclass(frozen=True)
class Calibrator:
    """A fitted map from logit to log likelihood ratio, never falling.

    Attributes
    ----------
    method : Method
    parameters : dict of str to list of float
        `temperature`: temperature. `beta`: a, b, c. `isotonic`: logit and log_likelihood_ratio, the knots between which it is
        linear and beyond which it is constant.
    prior_logit : float
        Log-odds of a lens among the rows that the model was trained on.
    lowest_lens, highest_control : float
        Logits between which both classes were seen; elsewhere a ratio is extrapolated.
    n_lens_galaxies, n_control_galaxies : int or None
        Galaxies of each class that it was fitted on; None where nobody counted.
    """

    method: Method
    parameters: dict[str, list[float]]
    prior_logit: float
    lowest_lens: float
    highest_control: float
    n_lens_galaxies: int | None = None
    n_control_galaxies: int | None = None

    @property
    def why_no_p_lens(self) -> str | None:
        """Why its ratios are no basis of a probability, that of fewer than 20 galaxies of a class; None where they are."""
        counts = {"lenses": self.n_lens_galaxies, "controls": self.n_control_galaxies}
        if None in counts.values():
            return "nothing says how many galaxies its calibration was fitted on; materialize operating_point again"
        few = [f"{n} galaxies with {name}" for name, n in counts.items() if n is not None and n < MIN_CLUSTERS]
        if not few:
            return None
        return (
            f"its calibration was fitted on {' and '.join(few)}, of fewer than {MIN_CLUSTERS} any number could come out; give "
            "val_calibrate more (region_splits)"
        )

    def log_likelihood_ratio(self, logits: npt.ArrayLike) -> Floats:
        """Natural log of how much likelier such a score is for a lens than for a control, in nats; same shape."""
        scores = np.asarray(logits, dtype=np.float64)
        p = self.parameters
        if self.method is Method.isotonic:
            return np.asarray(np.interp(scores, p["logit"], p["log_likelihood_ratio"]), dtype=np.float64)
        if self.method is Method.beta:
            return np.asarray(_beta(scores) @ np.array([*p["a"], *p["b"], *p["c"]]), dtype=np.float64)
        return np.asarray(scores / p.get("temperature", [1.0])[0] - self.prior_logit, dtype=np.float64)

    def p_lens(self, logits: npt.ArrayLike, prevalence: float) -> Floats:
        """Probability of a lens where lenses are this share of all: expit(log likelihood ratio + logit(prevalence)).

        With the prevalence of the rows a model was trained on this is the usual calibrated probability; another one is the prior
        shift of Saerens et al. (2002), equation 2.4.

        Parameters
        ----------
        prevalence : float
            Between 0 and 1, both left out.

        Raises
        ------
        EvaluationError
            If the prevalence is none.
        """
        if not 0 < prevalence < 1:
            raise EvaluationError(
                f"a prevalence of {prevalence:g} is none: give the share of lenses among all galaxies, above 0 and below 1"
            )
        return np.asarray(special.expit(self.log_likelihood_ratio(logits) + special.logit(prevalence)))

    def is_extrapolated(self, logits: npt.ArrayLike) -> Bools:
        """Whether a score lies where the fit saw one class only: its ratio rests on the shape of the curve alone."""
        scores = np.asarray(logits, dtype=np.float64)
        return (scores > self.highest_control) | (scores < self.lowest_lens)

    @property
    def uncalibrated(self) -> "Calibrator":
        """The score taken at its word."""
        return replace(self, method=Method.uncalibrated, parameters={})

    def as_json(self) -> dict[str, Any]:
        """Everything that `from_json` needs."""
        return {
            "method": self.method.value,
            "parameters": self.parameters,
            "prior_logit": self.prior_logit,
            "lowest_lens": self.lowest_lens,
            "highest_control": self.highest_control,
            "n_lens_galaxies": self.n_lens_galaxies,
            "n_control_galaxies": self.n_control_galaxies,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Calibrator":
        """Read what `as_json` wrote."""
        return cls(**(content | {"method": Method(content["method"])}))


def fit_calibrator(
    method: Method, logits: npt.ArrayLike, is_lens: npt.ArrayLike, weights: npt.ArrayLike, prior_logit: float
) -> Calibrator:
    """Fit by the log loss of both classes at equal weight.

    - uncalibrated: s - prior_logit.
    - temperature: s / T - prior_logit (Guo et al. 2017, ICML). It has no offset of its own, so it takes the model's log-odds to
      be at the balance of its training rows; where the loss weighs classes they aren't, and beta is the choice.
    - beta: a log p - b log(1 - p) + c with p = expit(s), a and b at least 0 (Kull, Silva Filho & Flach 2017, AISTATS).
    - isotonic: the best non-decreasing step function (Zadrozny & Elkan 2002, KDD) of the rows and one more at each end, a
      control at the highest score and a lens at the lowest (rule of succession): the share p of the lenses above the highest
      control is worth a ratio of at most p (n_controls + 1).

    Slopes of temperature and beta have a log-F(1, 1) prior, of one row, on the scale of a score's standard deviation
    (Greenland & Mansournia 2015, Stat. Med. 34, 3133). It takes most of the bias from fits to few rows of a class, however many
    the other has, as targets that are smoothed (Platt 1999) don't. Where classes don't overlap the curve is flattened until the
    lowest lens has a ratio of at most n_controls + 1 and the highest control one of at least 1 / (n_lenses + 1).

    Parameters
    ----------
    logits : array of float, shape (n,)
    is_lens : array of bool, shape (n,)
    weights : array of float, shape (n,)
        What a row counts within its class, at least 0.
    prior_logit : float
        Log-odds of a lens among the rows that the model was trained on.

    Raises
    ------
    EvaluationError
        If a class is empty (or weighs nothing), or a logit isn't finite.
    """
    counted = np.asarray(weights, dtype=np.float64) > 0
    scores = np.asarray(logits, dtype=np.float64)[counted]
    lens = np.asarray(is_lens, dtype=bool)[counted]
    weight = even_weights(lens, np.asarray(weights, dtype=np.float64)[counted])
    n_lenses = int(lens.sum())
    if not 0 < n_lenses < lens.size or not np.all(np.isfinite([*(scores.min(), scores.max()), prior_logit])):
        raise EvaluationError(
            f"a calibration needs lenses and controls with finite logits: {n_lenses:,} lenses and {lens.size - n_lenses:,} "
            f"controls were given, logits from {np.min(scores, initial=np.inf):g} to {np.max(scores, initial=-np.inf):g}, "
            f"log-odds {prior_logit:g} in training"
        )
    match method:
        case Method.uncalibrated:
            parameters: dict[str, list[float]] = {}
        case Method.temperature:
            parameters = _fit_temperature(scores, lens, weight, prior_logit)
        case Method.beta:
            parameters = _fit_beta(scores, lens, weight)
        case Method.isotonic:
            parameters = _fit_isotonic(scores, lens, weight)
    return Calibrator(method, parameters, prior_logit, float(scores[lens].min()), float(scores[~lens].max()))


def even_weights(is_lens: Bools, weights: Floats) -> Floats:
    """Scale weights so that both classes count the same and all add up to the number of rows, shape (n,)."""
    total = (float(weights[~is_lens].sum()), float(weights[is_lens].sum()))
    return np.asarray(weights * np.where(is_lens, 0.5 / (total[1] or 1.0), 0.5 / (total[0] or 1.0)) * is_lens.size)


def _fit_temperature(scores: Floats, lens: Bools, weight: Floats, prior_logit: float) -> dict[str, list[float]]:
    found = _fit_linear(scores[:, None], lens, weight, [(1 / _STEEPEST, _STEEPEST)], -prior_logit)
    return {"temperature": [1 / float(found[0])]}


def _fit_beta(scores: Floats, lens: Bools, weight: Floats) -> dict[str, list[float]]:
    bounds = [(0.0, _STEEPEST), (0.0, _STEEPEST), (None, None)]
    a, b, c = _fit_linear(_beta(scores), lens, weight, bounds, 0.0)
    return {"a": [float(a)], "b": [float(b)], "c": [float(c)]}


def _fit_linear(
    features: Floats, lens: Bools, weight: Floats, bounds: list[tuple[float | None, float | None]], offset: float
) -> Floats:
    """Coefficients that minimise the log loss of features @ coefficients + offset, which is convex; 0 where nothing tells."""
    # Here and not at the top: whoever checks settings or applies a fit shouldn't pay for what makes one.
    from scipy.optimize import minimize

    share = weight / lens.size
    spread = np.sqrt(np.maximum(0, share @ features**2 - (share @ features) ** 2))
    one_row = 1 / kish(weight)

    def loss(coefficients: Floats) -> tuple[float, Floats]:
        z, u = features @ coefficients + offset, spread * coefficients
        value = share @ (np.logaddexp(0, z) - lens * z) + one_row * np.sum(np.logaddexp(0, u) - u / 2)
        slope = features.T @ (share * (special.expit(z) - lens)) + one_row * spread * (special.expit(u) - 0.5)
        return float(value), slope

    start = np.zeros(features.shape[1])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-13}).x
    return np.asarray(found * _flattening(features @ found, lens, offset), dtype=np.float64)


def _flattening(z: Floats, lens: Bools, offset: float) -> float:
    """Factor, at most 1, that keeps the lowest lens and the highest control within what the rows of the other class allow."""
    n_lenses = int(lens.sum())
    lowest, highest = float(z[lens].min()), float(z[~lens].max())
    most, least = np.log(lens.size - n_lenses + 1) - offset, -np.log(n_lenses + 1) - offset
    return float(min(1.0, most / lowest if lowest > most > 0 else 1.0, least / highest if highest < least < 0 else 1.0))


def _beta(scores: Floats) -> Floats:
    """Columns log p, -log(1 - p) and 1, without going through p, which is 1 from logit 37; shape (..., 3)."""
    return np.stack([-np.logaddexp(0, -scores), np.logaddexp(0, scores), np.ones_like(scores)], axis=-1)


def _fit_isotonic(scores: Floats, lens: Bools, weight: Floats) -> dict[str, list[float]]:
    from scipy.optimize import isotonic_regression

    more = lens.size / 2 / (np.bincount(lens, minlength=2) + 1)
    distinct, place = np.unique(np.concatenate([scores, [scores.max(), scores.min()]]), return_inverse=True)
    weight, lens = np.concatenate([weight, more]), np.concatenate([lens, [False, True]])
    of_block = np.bincount(place, weights=weight)
    found = isotonic_regression(np.bincount(place, weights=weight * lens) / of_block, weights=of_block)
    knots = np.unique(np.concatenate([found.blocks[:-1], found.blocks[1:] - 1]))
    return {"logit": distinct[knots].tolist(), "log_likelihood_ratio": special.logit(found.x[knots]).tolist()}
