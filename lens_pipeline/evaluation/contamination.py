"""The lowest threshold whose candidates are pure enough, at the prevalence of lenses in the survey."""

from dataclasses import replace

import numpy as np
import polars as pl

from lens_pipeline.evaluation.intervals import Estimate
from lens_pipeline.evaluation.metrics import proportion_over
from lens_pipeline.evaluation.prevalence import Prevalence
from lens_pipeline.evaluation.ranking import RocCurve
from lens_pipeline.evaluation.resolution import ResolutionRule, Resolved, threshold_below
from lens_pipeline.evaluation.tallies import Floats


def resolve_contamination(
    curve: RocCurve, lenses: pl.DataFrame, budget: float, prevalence: Prevalence, rule: ResolutionRule
) -> Resolved:
    """Find the lowest threshold at which no more than a share of candidates are no lenses, if the controls resolve it.

    That share is (1 - pi) F / (pi C + (1 - pi) F), with the false-positive rate F and the population's recall C at the threshold.
    Controls are taken to hold no lens, the stricter view: lenses among them count as false positives, so that the threshold is
    rather too high for the budget than too low.

    Parameters
    ----------
    lenses : polars.DataFrame
        Injections, with `logit` and `weight`.
    budget : float
        Largest share, between 0 and 1.
    """
    recall = _weighted_recall(curve, lenses)
    false, true = (1 - prevalence.value) * curve.fpr, prevalence.value * recall
    with np.errstate(invalid="ignore"):
        contamination = false / (true + false)
    enough = (curve.false_positive_galaxies >= rule.min_false_positives) & (curve.fpr < 1)
    good = np.flatnonzero(enough & (contamination <= budget * (1 + 1e-12)))
    if good.size:
        place = int(good[-1])
        return Resolved(place, threshold_below(curve, place), None)
    return Resolved(None, None, _why(curve, recall, contamination, enough, budget, prevalence, rule))


def fpr_on_fitted(controls: pl.DataFrame, threshold: float, *, for_contamination: bool) -> Estimate:
    """False-positive rate at a threshold, of the very controls that it was fitted on.

    The rate above the (k + 1)-th highest of n controls lies in Clopper and Pearson's interval of k in n as often as that says.
    A threshold for a contamination stands where a run of few false positives ended: there the upper end is that with the
    next control let through as well.

    Parameters
    ----------
    controls : polars.DataFrame
        Distinct controls, with `logit`, `galaxy_id` and, where there is one, `region_id`.
    """
    logit = controls["logit"]
    above = (logit > threshold).to_numpy()
    found = proportion_over(controls, above, exact=True)
    if not for_contamination or found.high is None or above.all():
        return found
    one_more = proportion_over(controls, (logit >= logit.filter(~above).max()).to_numpy(), exact=True)
    return found if one_more.high is None else replace(found, high=max(found.high, one_more.high))


def _weighted_recall(curve: RocCurve, lenses: pl.DataFrame) -> Floats:
    """Recall at each point of the curve, injections weighing as the population has them."""
    ordered = lenses.select("logit", "weight").sort("logit")
    logit, weight = ordered["logit"].to_numpy(), ordered["weight"].to_numpy()
    above = np.concatenate([np.cumsum(weight[::-1])[::-1], [0.0]])
    return np.asarray(above[np.searchsorted(logit, curve.lowest_recovered, side="left")] / weight.sum())


def _why(
    curve: RocCurve,
    recall: Floats,
    contamination: Floats,
    enough: np.ndarray,
    budget: float,
    prevalence: Prevalence,
    rule: ResolutionRule,
) -> str:
    n = int(curve.false_positives[-1])
    if not enough.any():
        return (
            f"no rate below 1 has {rule.min_false_positives} galaxies above its threshold among {n:,} distinct controls, so no "
            "contamination can be told"
        )
    best = int(np.flatnonzero(enough)[np.argmin(contamination[enough])])
    needed = budget / (1 - budget) * prevalence.value / (1 - prevalence.value) * recall[best]
    return (
        f"at a prevalence of {prevalence.value:.3g} the least contamination that {n:,} distinct controls resolve is "
        f"{contamination[best]:.3g} (FPR {curve.fpr[best]:.3g}, recall {recall[best]:.3g}); {budget:g} needs an FPR of about "
        f"{needed:.2g}, and so some {rule.min_false_positives / needed:,.0f} controls"
        if needed > 0
        else f"no injection lies above any threshold that {n:,} distinct controls resolve"
    )
