"""Does the score follow the arc? A model's logits of variants of the same injections, and what they must do.

Belongs here: logits to rows of SHORTCUT_GATES. Each row is about one number a galaxy, so that nothing is counted twice, and
its interval is that of the median by order statistics, which holds whatever the logits' distribution is. How the variants are
made is in `variants.py`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lens_pipeline.audits.areas import paired_area
from lens_pipeline.audits.chance import LARGEST_DECIDING_LIMIT, chance_limit
from lens_pipeline.audits.gate import Gate, Kind, Status
from lens_pipeline.audits.variants import (
    DISPLACED,
    HALF_TURN,
    INJECTION,
    REMOVED,
    SCALED,
)
from lens_pipeline.evaluation.intervals import CONFIDENCE
from lens_pipeline.survey.roles import BLOB, TURNED, UNLENSED

# Below so many galaxies a median's interval is too wide to call anything.
LEAST_GALAXIES = 20
FLUX_SLOPE, NULL_LOGITS = "logit_rises_with_arc_flux", "null_flux_logits"
# Question to the two variants whose logits are subtracted, and what is asked in words.
DIFFERENCES = {
    "arc_over_removed": (INJECTION, REMOVED, "an injection, minus the same stamp without its arc"),
    "half_turn_over_removed": (HALF_TURN, REMOVED, "the arc turned by 180 degrees about its host, minus no arc"),
    f"arc_over_{TURNED}": (
        INJECTION,
        TURNED,
        "an arc, minus the same arc bent away from its host (turned about its centroid)",
    ),
    f"arc_over_{UNLENSED}": (INJECTION, UNLENSED, "an arc, minus its unlensed source at theta_E with the arc's flux"),
    f"arc_over_{BLOB}": (INJECTION, BLOB, "an arc, minus a smooth blob with its flux, place and size"),
}
_REPORTED = {
    "arc_over_displaced": (
        INJECTION,
        DISPLACED,
        "an arc, minus the same arc around nothing, a quarter of the stamp away",
    ),
}

_OF_SLOPE = (
    "slope of an injection's logit against log10 of its arc's flux, from a quarter of it to twice, at fixed shape"
)
_OF_NULL = (
    "logits of stamps that went through injection without an arc, and of their galaxies' controls, either way round"
)

_NO_VARIANT = (
    "no galaxy of val_calibrate has an injection that can be seen and made again in this way: of a survey's own stamps that "
    "needs a control with the same noise, and of the unlensed source they say nothing"
)

Logits = NDArray[np.float32]
Floats = NDArray[np.float64]


def counterfactual_gates(logits: dict[str, Logits]) -> list[Gate]:
    """Ask of each difference whether its median is above 0, and whether the logit rises with the arc's flux.

    Parameters
    ----------
    logits : dict
        Variant to (galaxy,) logits; NaN where a galaxy has no such variant.
    """
    found = [
        median_gate(name, _difference(logits, first, second), of=f"logit of {words}")
        for name, (first, second, words) in DIFFERENCES.items()
    ]
    found.append(median_gate(FLUX_SLOPE, flux_slopes(logits), of=_OF_SLOPE, unit="logit per dex"))
    for name, (first, second, words) in _REPORTED.items():
        found.append(median_gate(name, _difference(logits, first, second), of=f"logit of {words}", kind=Kind.baseline))
    return found


def flux_slopes(logits: dict[str, Logits]) -> Floats:
    """Least-squares slope of each galaxy's logits against log10 of the factors of the arc's flux, (galaxy,)."""
    factors = {**SCALED, INJECTION: 1.0}
    x = np.log10(list(factors.values()))
    y = np.stack([logits[name].astype(np.float64) for name in factors])
    away = x - x.mean()
    return np.asarray(away @ (y - y.mean(axis=0)) / (away @ away))


def _difference(logits: dict[str, Logits], first: str, second: str) -> Floats:
    return np.asarray(logits[first].astype(np.float64) - logits[second])


def median_interval(values: Floats, level: float = CONFIDENCE) -> tuple[float, float] | None:
    """Interval of a median by order statistics; None where there are too few values for the level.

    The k-th smallest and k-th largest of n, with the largest k for which a fair coin falls on one side fewer than k times in n
    tosses in at most (1 - level) / 2 of cases (the sign test inverted; e.g. Conover 1999, Practical Nonparametric Statistics,
    section 3.2). It covers at least as often as it says, also with ties.

    Parameters
    ----------
    values : (n,) array
        Independent, in any unit; finite.
    """
    k = int(stats.binom.ppf((1 - level) / 2, len(values), 0.5))
    if k < 1:
        return None
    ordered = np.sort(values)
    return float(ordered[k - 1]), float(ordered[-k])


def median_gate(name: str, values: Floats, *, of: str, unit: str = "logit", kind: Kind = Kind.counterfactual) -> Gate:
    """Return the row of a question whose median's lower limit must exceed 0; a baseline is reported whatever it is.

    Parameters
    ----------
    values : (galaxy,) array
        NaN where a galaxy says nothing.
    """
    there = values[np.isfinite(values)]
    n, limit = len(there), 0.0 if kind is Kind.counterfactual else None
    if not n:
        return Gate(name=name, kind=kind, of=of, unit=unit, limit=limit, status=Status.not_measured, reason=_NO_VARIANT)
    told: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "of": of,
        "unit": unit,
        "limit": limit,
        "n_positives": n,
        "n_galaxies": n,
    }
    interval = median_interval(there)
    if interval is None:
        why = f"{n} galaxies are too few for an interval of the median"
        return Gate(**told, status=Status.undecided, reason=why, value=float(np.median(there)))
    low, high = interval
    status, reason = Status.ok, None
    if kind is Kind.counterfactual and n < LEAST_GALAXIES:
        status, reason = Status.undecided, f"{n} galaxies are few; {LEAST_GALAXIES} would decide"
    elif kind is Kind.counterfactual and low <= 0:
        status = Status.red
        above = int((there > 0).sum())
        reason = f"{above:,} of {n:,} galaxies have a difference above 0, too few for a median that is"
    return Gate(
        **told, status=status, reason=reason, value=float(np.median(there)), low=low, high=high, level=CONFIDENCE
    )


def null_logits_gate(removed: Floats, controls: Floats) -> Gate:
    """Ask whether injecting nothing leaves a mark that the model sees: stamps without their arc against their controls.

    Parameters
    ----------
    removed, controls : (galaxy,) arrays
        Logits; NaN where a galaxy has no control.
    """
    both = np.isfinite(removed) & np.isfinite(controls)
    n = int(both.sum())
    told: dict[str, Any] = {"name": NULL_LOGITS, "kind": Kind.gate, "of": _OF_NULL, "unit": "AUROC"}
    if not n:
        return Gate(
            **told, status=Status.not_measured, reason="no injection was made again without its arc beside a control"
        )
    if n < LEAST_GALAXIES:
        return Gate(
            **told,
            n_galaxies=n,
            status=Status.undecided,
            reason=f"{n:,} galaxies, {LEAST_GALAXIES} are the least to ask",
        )
    limit = chance_limit(n, n)
    value, low, high = max(paired_area(removed[both], controls[both]), paired_area(controls[both], removed[both]))
    status, reason = Status.ok, None
    if value > limit:
        status, reason = Status.red, "the model tells stamps that went through injection from those that didn't"
    elif limit > LARGEST_DECIDING_LIMIT:
        status, reason = Status.undecided, f"{n:,} galaxies would not show an AUROC below {limit:.2f}"
    counts: dict[str, Any] = {"n_positives": n, "n_negatives": n, "n_galaxies": n}
    return Gate(
        **told, **counts, value=value, low=low, high=high, level=CONFIDENCE, limit=limit, status=status, reason=reason
    )
