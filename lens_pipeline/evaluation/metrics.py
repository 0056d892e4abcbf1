"""Every metric of the report as a row with its interval and what it rests on; undefined is null with the reason.

Negatives are counted distinct: `scored_rows.distinct_rows` comes first. Rates that need a threshold use the frozen one
(`recall_at_*`, `fpr_at_*`); `tpr_at_fpr_*` reads the split's own ROC.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from lens_pipeline.contracts.catalogue import METRICS
from lens_pipeline.evaluation.bootstrap import Statistic, rank_estimates
from lens_pipeline.evaluation.intervals import Estimate, clustered_mean, clustered_proportion
from lens_pipeline.evaluation.operating_point import name_of
from lens_pipeline.evaluation.ranking import (
    Floats,
    RankedScores,
    auroc,
    average_precision,
    missing_class,
    roc_curve,
    tpr_at_fpr,
)
from lens_pipeline.evaluation.resolution import ResolutionRule, resolve
from lens_pipeline.evaluation.scored_rows import galaxy_numbers

OK, UNRESOLVED, UNDEFINED = "ok", "unresolved", "undefined"
NULL_TEST = "null_test_auroc"
NULL_TEST_MAX_ARC_SNR_MATCHED = 0.5
_FRACTION, _NATS = "fraction", "nats"


@dataclass(frozen=True)
class Metric:
    """One row of METRICS."""

    metric: str
    split: str
    value: float | None
    low: float | None
    high: float | None
    n_positives: int
    n_negatives: int
    n_clusters: int
    unit: str
    status: str
    reason: str | None


@dataclass(frozen=True)
class BootstrapSettings:
    """Replicates and seed of the bootstrap over galaxies."""

    n_replicates: int
    seed: int


def metric_table(metrics: Iterable[Metric]) -> pa.Table:
    """METRICS of these rows."""
    return pa.Table.from_pylist([asdict(metric) for metric in metrics], schema=METRICS.schema)


def rank_metrics(
    rows: pl.DataFrame, split: str, targets: Iterable[float], rule: ResolutionRule, settings: BootstrapSettings
) -> list[Metric]:
    """AUROC, average precision (at the split's own balance) and TPR at each target FPR of the split's own ROC.

    Parameters
    ----------
    rows : polars.DataFrame
        `logit`, `is_lens` and `galaxy_id`; distinct negatives.
    """
    ranked = _ranked(rows)
    unresolved = _unresolved(ranked, targets, rule)
    statistics: dict[str, Statistic] = {"auroc": auroc, "average_precision": average_precision}
    for target in targets:
        if name_of(target) not in unresolved:
            statistics[f"tpr_at_{name_of(target)}"] = partial(tpr_at_fpr, fpr=target)
    estimates = rank_estimates(ranked, statistics, n_replicates=settings.n_replicates, seed=settings.seed)
    metrics = [_metric(name, split, rows, estimate) for name, estimate in estimates.items()]
    for name, (status, reason) in unresolved.items():
        nothing = Estimate(None, None, None, rows.height, 0, None, reason)
        metrics.append(_metric(f"tpr_at_{name}", split, rows, nothing, status=status))
    return metrics


def threshold_metrics(rows: pl.DataFrame, split: str, point: str, threshold: float) -> list[Metric]:
    """Recall and FPR where logit > a frozen threshold, with intervals clustered by galaxy (Wilson; Clopper-Pearson)."""
    metrics = []
    for name, is_lens, exact in (("recall", True, False), ("fpr", False, True)):
        mine = rows.filter(pl.col("is_lens") == is_lens)
        rate = clustered_proportion((mine["logit"] > threshold).to_numpy(), galaxy_numbers(mine), exact=exact)
        metrics.append(_metric(f"{name}_at_{point}", split, mine, rate))
    return metrics


def unresolved_threshold_metrics(rows: pl.DataFrame, split: str, point: str, reason: str) -> list[Metric]:
    """Recall and FPR of an operating point that has no threshold: unresolved, with the reason."""
    nothing = Estimate(None, None, None, rows.height, 0, None, reason)
    return [_metric(f"{name}_at_{point}", split, rows, nothing, status=UNRESOLVED) for name in ("recall", "fpr")]


def likelihood_metrics(rows: pl.DataFrame, split: str) -> list[Metric]:
    """Log loss and Brier score at the split's own balance, uncalibrated; null where a class is absent.

    log loss = mean of log(1 + exp(-s x)) with s = +1 for a lens and -1 for none, Brier = mean of (p - y)^2.
    """
    metrics = []
    absent = missing_class(*_class_counts(rows))
    for name, unit in (("log_loss", _NATS), ("brier", _FRACTION)):
        if absent:
            estimate = Estimate(None, None, None, rows.height, 0, None, absent)
        else:
            estimate = clustered_mean(_losses(name, rows), galaxy_numbers(rows), floor=0.0)
        metrics.append(_metric(name, split, rows, estimate, unit=unit))
    return metrics


def tie_metrics(rows: pl.DataFrame, split: str) -> list[Metric]:
    """Share of distinct logits among rows, and of controls that tie at the highest logit: where scores saturate."""
    controls = rows.filter(~pl.col("is_lens"))
    shared = rows.select(pl.col("logit").is_first_distinct()).to_series().to_numpy()
    distinct = clustered_proportion(shared, galaxy_numbers(rows))
    exact = "a count over all rows, so it has no sampling interval"
    metrics = [_metric("distinct_logit_share", split, rows, _without_interval(distinct, exact))]
    highest = rows["logit"].max() if rows.height else None
    top = clustered_proportion((controls["logit"] == highest).to_numpy(), galaxy_numbers(controls), exact=True)
    return [*metrics, _metric("control_share_at_highest_logit", split, controls, top)]


def null_test(rows: pl.DataFrame, split: str, settings: BootstrapSettings) -> Metric:
    """AUROC of injections too faint to see (arc_snr_matched < 0.5) against controls: 0.5 if only arcs were learned."""
    too_faint = pl.col("is_lens") & (pl.col("arc_snr_matched") < NULL_TEST_MAX_ARC_SNR_MATCHED)
    chosen = rows.filter((~pl.col("is_lens") | too_faint).fill_null(False))
    if rows.filter(pl.col("is_lens"))["arc_snr_matched"].null_count() == rows["is_lens"].sum():
        estimate = Estimate(None, None, None, chosen.height, 0, None, "arc_snr_matched is null for all injections")
    elif not chosen["is_lens"].any():
        reason = f"no injection has arc_snr_matched < {NULL_TEST_MAX_ARC_SNR_MATCHED}"
        estimate = Estimate(None, None, None, chosen.height, 0, None, reason)
    else:
        estimate = rank_estimates(
            _ranked(chosen), {NULL_TEST: auroc}, n_replicates=settings.n_replicates, seed=settings.seed
        )[NULL_TEST]
    return _metric(NULL_TEST, split, chosen, estimate)


def _ranked(rows: pl.DataFrame) -> RankedScores:
    return RankedScores.of(rows["logit"], rows["is_lens"], galaxy_numbers(rows))


def _unresolved(
    ranked: RankedScores, targets: Iterable[float], rule: ResolutionRule
) -> dict[str, tuple[str, str | None]]:
    absent = missing_class(ranked.n_positives, ranked.n_negatives)
    if absent:
        return {name_of(target): (UNDEFINED, absent) for target in targets}
    curve = roc_curve(ranked)
    found = {target: resolve(curve, target, rule) for target in targets}
    return {name_of(target): (UNRESOLVED, place.reason) for target, place in found.items() if place.threshold is None}


def _losses(name: str, rows: pl.DataFrame) -> Floats:
    logit = rows["logit"].to_numpy()
    is_lens: npt.NDArray[np.bool_] = rows["is_lens"].to_numpy()
    signed = np.where(is_lens, logit, -logit)
    if name == "log_loss":
        return np.logaddexp(0.0, -signed)
    missed = np.exp(-np.logaddexp(0.0, signed))
    return missed * missed


def _without_interval(estimate: Estimate, reason: str) -> Estimate:
    return Estimate(
        estimate.value, None, None, estimate.n, estimate.n_clusters, estimate.n_eff, estimate.reason or reason
    )


def _class_counts(rows: pl.DataFrame) -> tuple[int, int]:
    n_positives = int(rows["is_lens"].sum())
    return n_positives, rows.height - n_positives


def _metric(
    name: str, split: str, rows: pl.DataFrame, estimate: Estimate, *, unit: str = _FRACTION, status: str | None = None
) -> Metric:
    n_positives, n_negatives = _class_counts(rows)
    return Metric(
        metric=name,
        split=split,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        n_positives=n_positives,
        n_negatives=n_negatives,
        n_clusters=rows["galaxy_id"].n_unique(),
        unit=unit,
        status=status or (UNDEFINED if estimate.value is None else OK),
        reason=estimate.reason,
    )
