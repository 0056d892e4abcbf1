"""How common lenses are: a number with its range and its source, and what it makes of recall and false-positive rate.

Intervals of what is combined of several estimates are MOVER's (Zou & Donner 2008, Statistics in Medicine 27, 1693): of a sum
the distances of each part's ends from its value are added in quadrature, on the scale where the parts add up. Parts are taken as
independent; recall and false-positive rate of the same galaxies rise together, so intervals of purity are wider than need be.

Controls that are real galaxies may hold lenses that nobody has found yet: from none to as many as the survey's galaxies. With as
many they are the survey's galaxies, of which a share F are candidates and pi C are lenses among these. Intervals reach over both.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from scipy import special

from lens_pipeline.evaluation.config import OperatingPointConfig
from lens_pipeline.evaluation.intervals import Estimate

Ends = tuple[float, float, float]


@dataclass(frozen=True)
class Prevalence:
    """Share of lenses among galaxies such as the parent sample's.

    Attributes
    ----------
    value, low, high : float
        Between 0 and 1; the range counts as a 95 % interval.
    source : str
        Where it comes from, in words.
    """

    value: float
    low: float
    high: float
    source: str

    @classmethod
    def of(cls, config: OperatingPointConfig) -> "Prevalence":
        """Read the settings."""
        return cls(
            config.lens_prevalence,
            config.lens_prevalence_low,
            config.lens_prevalence_high,
            config.lens_prevalence_source,
        )

    def as_attributes(self) -> dict[str, float | str]:
        """Return what is published beside every number that rests on it."""
        return asdict(self)


def purity(
    prevalence: Prevalence, recall: Estimate, fpr: Estimate, *, controls_may_be_lenses: bool = False
) -> Estimate:
    """Share of lenses among candidates, pi C / (pi C + (1 - pi) F), with its interval.

    From log-odds, which add up: logit(pi) + log C - log F. Where no control lies above the threshold the rate has an upper bound
    only, so there is no value; the lower end then takes every part at its worse end. Unit: fraction, 0 to 1. Undefined (null with
    the reason) where recall or rate is, or both are 0.

    Parameters
    ----------
    controls_may_be_lenses : bool
        Whether the interval is to hold pi C / F too, which it is where controls hold as many lenses as the survey.
    """
    pi = np.array(_ends(prevalence))
    found = _purity(special.logit(pi), special.expit, recall, fpr)
    if not controls_may_be_lenses:
        return found
    return _reaching(found, _purity(np.log(pi), lambda log_share: np.exp(np.minimum(log_share, 0.0)), recall, fpr))


def candidates(
    prevalence: Prevalence,
    recall: Estimate,
    fpr: Estimate,
    per_deg2: Estimate,
    *,
    controls_may_be_lenses: bool = False,
) -> Estimate:
    """Candidates per square degree, D (pi C + (1 - pi) F), with its interval; null with the reason where a part is unknown.

    Parameters
    ----------
    per_deg2 : Estimate
        Galaxies of the parent sample in a square degree, D.
    controls_may_be_lenses : bool
        Whether the interval is to hold D F too, which it is where controls hold as many lenses as the survey.
    """
    n = recall.n + fpr.n
    if reason := _unknown(recall, fpr) or (per_deg2.reason if per_deg2.value is None else None):
        return Estimate(None, None, None, n, fpr.n_clusters, None, reason)
    pi, share, false = (_ends(one) for one in (prevalence, recall, fpr))
    lenses = np.exp(_sum_of([np.log(pi), np.log(share)])) if share[0] > 0 else np.array([0.0, 0.0, pi[2] * share[2]])
    rate = _sum_of([lenses, (1 - pi[0]) * np.array(false)])
    nothing = Estimate(None, None, None, n, fpr.n_clusters, None)
    found = _times(nothing, rate, per_deg2)
    return _reaching(found, _times(nothing, np.array(false), per_deg2)) if controls_may_be_lenses else found


def true_fpr_low(prevalence: Prevalence, recall: Estimate, fpr: Estimate) -> float | None:
    """Lower end of the rate among controls that are no lenses, if as many of them are lenses as the prevalence's upper end.

    A share u of lenses among controls, found with recall C, makes a rate f look like (1 - u) f + u C. None where a part is
    unknown.
    """
    if _unknown(recall, fpr) or fpr.low is None or recall.high is None:
        return None
    u = prevalence.high
    return min(fpr.low, max(0.0, (fpr.low - u * recall.high) / (1 - u)))


def _purity(
    prior: np.ndarray, share_of: Callable[[np.ndarray], np.ndarray], recall: Estimate, fpr: Estimate
) -> Estimate:
    """Purity on a scale where prior + log C - log F adds up; `share_of` leads back from it."""
    nothing = Estimate(None, None, None, recall.n + fpr.n, fpr.n_clusters, None)
    if reason := _unknown(recall, fpr):
        return replace(nothing, reason=reason)
    with np.errstate(divide="ignore"):
        found, false = (np.log(_ends(one)) for one in (recall, fpr))
    if fpr.value == 0:
        low = float(share_of(prior[1] + found[1] - false[2]))
        reason = "no control lies above the threshold, so purity has a lower bound only"
        return replace(nothing, low=low, high=1.0, reason=reason)
    if recall.value == 0:
        high = float(share_of(prior[2] + found[2] - false[1]))
        reason = "no injection lies above the threshold, so purity has an upper bound only"
        return replace(nothing, low=0.0, high=high, reason=reason)
    value, low, high = share_of(_sum_of([prior, found, (-false[0], -false[2], -false[1])]))
    return replace(nothing, value=float(value), low=float(low), high=float(high))


def _times(nothing: Estimate, rate: np.ndarray, per_deg2: Estimate) -> Estimate:
    """Rate times density; where the rate's value is 0 by the upper ends."""
    density = _ends(per_deg2)
    if rate[0] <= 0:
        return replace(nothing, value=0.0, low=0.0, high=float(rate[2] * density[2]))
    with np.errstate(divide="ignore"):
        value, low, high = np.exp(_sum_of([np.log(np.maximum(rate, 0.0)), np.log(density)]))
    return replace(nothing, value=float(value), low=float(low), high=float(high))


def _reaching(found: Estimate, other: Estimate) -> Estimate:
    """Widen an interval so that it holds another one too."""
    if found.low is None or found.high is None or other.low is None or other.high is None:
        return found
    return replace(found, low=min(found.low, other.low), high=max(found.high, other.high))


def _unknown(recall: Estimate, fpr: Estimate) -> str | None:
    for one in (recall, fpr):
        if one.value is None or one.low is None or one.high is None:
            return one.reason
    if recall.value == fpr.value == 0:
        return "neither an injection nor a control lies above the threshold"
    return None


def _ends(one: Prevalence | Estimate) -> Ends:
    return (float(one.value or 0.0), float(one.low or 0.0), float(one.high or 0.0))


def _sum_of(parts: Sequence[Sequence[float] | np.ndarray]) -> np.ndarray:
    """Value, low and high of a sum of parts that each have theirs."""
    part = np.asarray(parts, dtype=np.float64)
    value = float(part[:, 0].sum())
    down, up = (float(np.sqrt(np.sum((part[:, 0] - part[:, end]) ** 2))) for end in (1, 2))
    return np.array([value, value - down, value + up])
