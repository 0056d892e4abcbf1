"""Metrics of a split's own ROC and of precision and recall: areas, TPR at given FPRs, FPR at given TPRs; and the null test."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from lens_pipeline.evaluation.bootstrap import Statistic, rank_estimates
from lens_pipeline.evaluation.fpr_bound import fpr_bound
from lens_pipeline.evaluation.intervals import GALAXY, REGION, Estimate, clustered_proportion
from lens_pipeline.evaluation.metrics import (
    ALL_ROWS,
    BOUND,
    NULL_TEST,
    NULL_TEST_MAX_ARC_SNR_MATCHED,
    NULL_TEST_P,
    POPULATION,
    UNDEFINED,
    UNRESOLVED,
    Basis,
    BootstrapSettings,
    Metric,
    metric_of,
    over_clusters,
)
from lens_pipeline.evaluation.null_rank_test import p_if_alike
from lens_pipeline.evaluation.operating_point import name_of
from lens_pipeline.evaluation.rank_statistics import (
    AUROC,
    area_statistic,
    fpr_statistic,
    precision_statistic,
    tpr_statistic,
)
from lens_pipeline.evaluation.ranking import RankedScores, missing_class, roc_curve
from lens_pipeline.evaluation.regions import of_galaxies, region_numbers, spread_unknown, unplaced
from lens_pipeline.evaluation.resolution import ResolutionRule, resolve
from lens_pipeline.evaluation.score_health import score_health
from lens_pipeline.evaluation.scored_rows import galaxy_numbers
from lens_pipeline.evaluation.tallies import tpr_before

AT_PREVALENCE = "average_precision_at_survey_prevalence"
# Precision at a prevalence weighs each false positive above: of 5 to 50 of them its interval held the truth in 85 % of draws.
_PRECISION_NEEDS = 10


@dataclass(frozen=True)
class Asked:
    """Further metrics of a ROC.

    Attributes
    ----------
    tprs, max_fprs : sequence of float
        Where FPRs are asked for, and up to which FPRs areas are.
    prevalence : float or None
        Share of lenses in the survey; None where nobody has stated it.
    """

    tprs: Sequence[float]
    max_fprs: Sequence[float]
    prevalence: float | None


def rank_metrics(
    rows: pl.DataFrame,
    split: str,
    targets: Iterable[float],
    rule: ResolutionRule,
    settings: BootstrapSettings,
    *,
    asked: Asked | None = None,
    stratum: str = ALL_ROWS,
) -> list[Metric]:
    """AUROC, average precision (at the split's own balance), TPR at each target FPR, and what else is asked for.

    Every row counts once, as it was injected; `weighted_auroc` weighs injections as the population has them.

    Parameters
    ----------
    rows : polars.DataFrame
        `logit`, `is_lens` and `galaxy_id`, `region_id` where there is one; distinct negatives.
    """
    ranked = ranked_rows(rows)
    unresolved = _unresolved(ranked, list(targets), rule, asked)
    # Replicates hold other numbers of each class; precision is asked for at the balance that there is.
    own = ranked.n_positives / max(1, rows.height)
    statistics = {"auroc": AUROC, "average_precision": precision_statistic(own if 0 < own < 1 else None)}
    for target in targets:
        statistics[f"tpr_at_{name_of(target)}"] = tpr_statistic(target)
    if asked:
        statistics |= _further(asked)
    resolved = {name: statistic for name, statistic in statistics.items() if name not in unresolved}
    found = shared_estimates(rows, ranked, resolved, settings)
    metrics, basis = [], Basis.of(rows)
    for name in statistics:
        if name in unresolved:
            status, reason = unresolved[name]
            nothing = Estimate(None, None, None, rows.height, 0, None, reason)
            metrics.append(metric_of(name, split, basis, nothing, status=status, stratum=stratum))
        elif name.startswith("fpr_at_tpr_") and found[name].value == 0:
            bound = fpr_bound(rows, float(name.removeprefix("fpr_at_tpr_")), found[name])
            metrics.append(metric_of(name, split, basis, bound, status=BOUND, stratum=stratum))
        else:
            metrics.append(metric_of(name, split, basis, found[name], stratum=stratum))
    return metrics + (_challenge_metrics(basis, split, ranked, stratum) if asked else [])


def weighted_auroc(rows: pl.DataFrame, split: str, settings: BootstrapSettings) -> Metric:
    """AUROC in which each injection weighs `weight`, the density of the population over that of the proposal.

    0 to 1, 0.5 is chance; null where a class is absent.
    """
    weight = rows.select(pl.when("is_lens").then("weight").otherwise(1.0)).to_series()
    ranked = RankedScores.of(rows["logit"], rows["is_lens"], galaxy_numbers(rows), weight)
    estimate = shared_estimates(rows, ranked, {"auroc": AUROC}, settings)["auroc"]
    return metric_of("auroc_weighted", split, rows, estimate, stratum=POPULATION)


def null_test(rows: pl.DataFrame, split: str, settings: BootstrapSettings) -> list[Metric]:
    """AUROC of injections too faint to see (arc_snr_matched < 0.5) against controls: 0.5 if only arcs were learned.

    0 to 1; null with the reason where no injection is so faint, nobody measured `arc_snr_matched`, or there are no controls. And
    the probability of one as far from 0.5 where such injections score like controls (`p_if_alike`): the larger of those over
    galaxies and, where there are 5 or more, over regions.
    """
    too_faint = pl.col("is_lens") & (pl.col("arc_snr_matched") < NULL_TEST_MAX_ARC_SNR_MATCHED)
    chosen = rows.filter((~pl.col("is_lens") | too_faint).fill_null(False))
    if rows.filter(pl.col("is_lens"))["arc_snr_matched"].null_count() == rows["is_lens"].sum():
        estimate = Estimate(None, None, None, chosen.height, 0, None, "arc_snr_matched is null for all injections")
    elif not chosen["is_lens"].any():
        reason = f"no injection has arc_snr_matched < {NULL_TEST_MAX_ARC_SNR_MATCHED}"
        estimate = Estimate(None, None, None, chosen.height, 0, None, reason)
    else:
        estimate = shared_estimates(chosen, ranked_rows(chosen), {NULL_TEST: AUROC}, settings)[NULL_TEST]
    chance = estimate if estimate.value is None else _chance(chosen)
    return [metric_of(name, split, chosen, one) for name, one in ((NULL_TEST, estimate), (NULL_TEST_P, chance))]


def tie_metrics(rows: pl.DataFrame, split: str) -> list[Metric]:
    """Where scores saturate: shares of distinct, of tied and of extreme logits, and of controls that tie at the highest.

    Distinct logits over rows; controls at the highest logit of all over controls; rows of the largest tie block, and rows beyond
    logit 16.64 on either side (a float32 sigmoid is 0 or 1 there), over rows. 0 to 1; undefined without rows.
    """
    controls = rows.filter(~pl.col("is_lens"))
    highest = rows["logit"].max() if rows.height else None
    tied = (controls["logit"] == highest).to_numpy()
    top = over_clusters(
        controls, lambda clusters, whole: clustered_proportion(tied, clusters, exact=True, whole_where_few=whole)
    )
    health = score_health(rows["logit"], rows["is_lens"])
    counted = {
        "distinct_logit_share": health.distinct_share,
        "largest_tie_share": health.largest_tie_share,
        "extreme_logit_share": health.extreme_share,
    }
    why = "a count over all rows, so it has no sampling interval" if rows.height else "there are no rows"
    metrics = [
        metric_of(name, split, rows, Estimate(value if rows.height else None, None, None, rows.height, 0, None, why))
        for name, value in counted.items()
    ]
    return [*metrics, metric_of("control_share_at_highest_logit", split, controls, top)]


def ranked_rows(rows: pl.DataFrame) -> RankedScores:
    """Rank rows with `logit`, `is_lens` and `galaxy_id`."""
    return RankedScores.of(rows["logit"], rows["is_lens"], galaxy_numbers(rows))


def shared_estimates(
    rows: pl.DataFrame, ranked: RankedScores, statistics: Mapping[str, Statistic], settings: BootstrapSettings
) -> dict[str, Estimate]:
    """Estimate statistics of the same ranks together, over galaxies and, where those of all rows are known, over regions."""
    numbers = region_numbers(rows)
    why = None if numbers is None else unplaced(numbers)
    regions = None if numbers is None or why else ranked.regrouped(rows["is_lens"], numbers)
    found = rank_estimates(ranked, statistics, n_replicates=settings.n_replicates, seed=settings.seed, regions=regions)
    return {name: of_galaxies(one, why) for name, one in found.items()} if why else found


def _chance(rows: pl.DataFrame) -> Estimate:
    ranked, regions = ranked_rows(rows), region_numbers(rows)
    chances = {GALAXY: p_if_alike(ranked)}
    if regions is not None and not spread_unknown(regions):
        chances[REGION] = p_if_alike(ranked.regrouped(rows["is_lens"], regions))
    cluster = max(chances, key=lambda one: chances[one])
    why = "no interval: it is a probability that needs none"
    return Estimate(chances[cluster], None, None, rows.height, ranked.n_clusters, None, why, cluster)


def _further(asked: Asked) -> dict[str, Statistic]:
    return {
        AT_PREVALENCE: precision_statistic(asked.prevalence),
        **{f"partial_auc_to_{name_of(most)}": area_statistic(most) for most in asked.max_fprs},
        **{f"fpr_at_tpr_{tpr:g}": fpr_statistic(tpr) for tpr in asked.tprs},
    }


def _unresolved(
    ranked: RankedScores, targets: Sequence[float], rule: ResolutionRule, asked: Asked | None
) -> dict[str, tuple[str, str | None]]:
    absent = missing_class(ranked.n_positives, ranked.n_negatives)
    if absent:
        return {f"tpr_at_{name_of(target)}": (UNDEFINED, absent) for target in targets}
    curve = roc_curve(ranked)
    found = {target: resolve(curve, target, rule) for target in targets}
    reasons = {
        f"tpr_at_{name_of(target)}": (UNRESOLVED, place.reason)
        for target, place in found.items()
        if place.threshold is None
    }
    if asked and asked.prevalence is None:
        reasons[AT_PREVALENCE] = (UNDEFINED, "the operating point states no prevalence of lenses")
    # Areas and precision that rest on a part of the ROC: the rate that they turn on, and what it is.
    turns_on = {f"partial_auc_to_{name_of(most)}": (most, "area") for most in (asked.max_fprs if asked else ())}
    if asked and asked.prevalence is not None:
        turns_on[AT_PREVALENCE] = (asked.prevalence, "precision at such a prevalence")
    for name, (rate, what) in turns_on.items():
        needed = rule.min_false_positives * (_PRECISION_NEEDS if name == AT_PREVALENCE else 1)
        if rate * ranked.n_negatives < needed:
            words = (
                f"the {what} turns on false-positive rates up to {rate:g}, and of {ranked.n_negatives:,} distinct controls fewer "
                f"than {needed} stand for that"
            )
            reasons[name] = (UNRESOLVED, words)
    return reasons


def _challenge_metrics(basis: Basis, split: str, ranked: RankedScores, stratum: str) -> list[Metric]:
    """TPR0 and TPR10 of the strong-lens challenges: the most that is found with no, and with fewer than 10, false positives."""
    n_negatives = basis.n_negatives
    absent = missing_class(basis.n_positives, n_negatives)
    metrics = []
    for n in (1, 10):
        words = (
            f"no interval: it rests on the {'highest' if n == 1 else f'{n} highest'} of {n_negatives:,} negatives and falls as "
            "they become more, so neither a bootstrap nor a binomial law holds for it"
        )
        value = None if absent else float(tpr_before(ranked.tallies, n)[0])
        if value is not None and n_negatives < n:
            value, words = None, f"there are fewer than {n} negatives: {n_negatives:,}"
        estimate = Estimate(
            value, None, None, basis.n_positives + n_negatives, ranked.n_clusters, None, absent or words
        )
        metrics.append(metric_of("tpr0" if n == 1 else f"tpr{n}", split, basis, estimate, stratum=stratum))
    return metrics
