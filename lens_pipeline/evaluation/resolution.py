"""Which false-positive rates a set of negatives can resolve, and the threshold for those that it can.

A rate is *resolved* when some threshold keeps the FPR at or under it, still lets through enough distinct galaxies to be
a rate and not an accident, and comes near enough to it that no tie block leaps over it.
"""

from dataclasses import dataclass

import numpy as np

from lens_pipeline.evaluation.ranking import RocCurve


@dataclass(frozen=True)
class ResolutionRule:
    """When a rate counts as resolved; see OperatingPointConfig for what the two numbers mean."""

    min_false_positives: int
    min_share_of_target: float


@dataclass(frozen=True)
class Resolved:
    """The place on a ROC that serves a target rate, or why there is none.

    Attributes
    ----------
    place : int or None
        Index of the point on the curve; None if unresolved.
    threshold : float or None
        Logit strictly above which a row is recovered.
    reason : str or None
        Why the rate is unresolved, with the numbers.
    """

    place: int | None
    threshold: float | None
    reason: str | None


def smallest_resolvable_fpr(curve: RocCurve, rule: ResolutionRule) -> float | None:
    """Least FPR with enough galaxies above the threshold; None if all negatives together are too few.

    Letting everything through (FPR 1) is no threshold and doesn't count.
    """
    enough = (curve.false_positive_galaxies >= rule.min_false_positives) & (curve.fpr < 1)
    return float(curve.fpr[int(np.argmax(enough))]) if enough.any() else None


def resolve(curve: RocCurve, target_fpr: float, rule: ResolutionRule) -> Resolved:
    """Find the lowest threshold whose FPR is at most the target, if the negatives resolve it."""
    place = int(np.flatnonzero(curve.fpr <= target_fpr * (1 + 1e-12))[-1])
    galaxies = int(curve.false_positive_galaxies[place])
    reached = float(curve.fpr[place])
    if galaxies >= rule.min_false_positives and reached >= rule.min_share_of_target * target_fpr:
        return Resolved(place, threshold_below(curve, place), None)
    return Resolved(None, None, _why(curve, target_fpr, place, rule))


def threshold_below(curve: RocCurve, place: int) -> float:
    """Return the next distinct logit: a row at it is not recovered, every row above it is."""
    after = min(place + 1, curve.lowest_recovered.size - 1)
    return float(curve.lowest_recovered[after])


def _why(curve: RocCurve, target_fpr: float, place: int, rule: ResolutionRule) -> str:
    n = int(curve.false_positives[-1])
    block = int(curve.false_positives[min(place + 1, curve.false_positives.size - 1)] - curve.false_positives[place])
    smallest = smallest_resolvable_fpr(curve, rule)
    limit = (
        f"the smallest rate that they resolve is {smallest:.3g}"
        if smallest is not None
        else f"no rate below 1 has {rule.min_false_positives} galaxies above its threshold"
    )
    if block > 1 and block > target_fpr * n:
        which = "their highest logit" if curve.false_positives[place] == 0 else "one logit"
        logit, low, high = curve.lowest_recovered[place + 1], curve.fpr[place], curve.fpr[place + 1]
        return (
            f"{block:,} of {n:,} distinct controls share {which} ({logit:.6g}), so no threshold lies between FPR "
            f"{low:.3g} and {high:.3g}; {limit}"
        )
    galaxies = int(curve.false_positive_galaxies[place])
    return (
        f"a rate of {target_fpr:g} lets {curve.false_positives[place]:,} of {n:,} distinct controls through, from "
        f"{galaxies:,} {'galaxy' if galaxies == 1 else 'galaxies'} where {rule.min_false_positives} are asked for; {limit}"
    )
