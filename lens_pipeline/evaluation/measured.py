"""All that a report measures: which metrics of which rows."""

from dataclasses import replace
from typing import Any

import polars as pl
import pyarrow as pa

from lens_pipeline.contracts.catalogue import CONFUSION
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.evaluation.config import ReportConfig
from lens_pipeline.evaluation.decision_metrics import (
    Decisions,
    confusion_table,
    decision_metrics,
    threshold_metrics,
    unresolved_threshold_metrics,
)
from lens_pipeline.evaluation.likelihood_metrics import calibration_metric, likelihood_metrics
from lens_pipeline.evaluation.metrics import BootstrapSettings, Metric, because
from lens_pipeline.evaluation.negatives import none_of_survey, of_survey, pairing_strata
from lens_pipeline.evaluation.rank_metrics import (
    AT_PREVALENCE,
    Asked,
    null_test,
    rank_metrics,
    tie_metrics,
    weighted_auroc,
)
from lens_pipeline.evaluation.resolution import ResolutionRule
from lens_pipeline.evaluation.scored_rows import OPEN_SPLITS, TEST, distinct_rows, join_store, open_rows
from lens_pipeline.evaluation.sealed import SealedRows
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging


def metrics_of_test(
    config: ReportConfig,
    sealed: SealedRows,
    distinct: pl.DataFrame,
    contract: DatasetContract,
    rule: ResolutionRule,
    prevalence: dict[str, Any] | None,
) -> list[Metric]:
    """Every metric of the test split: of all rows, and of ranks and frozen thresholds also by paired and unpaired controls.

    Parameters
    ----------
    distinct : polars.DataFrame
        Rows of test, negatives distinct.
    prevalence : dict, optional
        Share of lenses in the survey under `value`, as the operating point states it.
    """
    settings = BootstrapSettings(config.n_bootstrap, config.seed)
    points = sealed.operating_points
    targets = sorted({*points["target_fpr"].drop_nulls().to_list(), *config.tpr_at_fprs}, reverse=True)
    asked = Asked(config.fpr_at_tprs, config.partial_auc_max_fprs, prevalence["value"] if prevalence else None)
    metrics = rank_metrics(distinct, TEST, targets, rule, settings, asked=asked)
    alike = of_survey(distinct, contract)
    no_controls = none_of_survey(alike, distinct, contract)
    if alike.height < distinct.height:
        found = rank_metrics(alike, TEST, [], rule, settings, asked=Asked([], [], asked.prevalence))
        own = {metric.metric: metric for metric in because(found, no_controls) if metric.metric == AT_PREVALENCE}
        metrics = [own.get(metric.metric, metric) for metric in metrics]
    for point in points.iter_rows(named=True):
        name, threshold = point["operating_point"], point["threshold"]
        if threshold is None:
            metrics += unresolved_threshold_metrics(distinct, TEST, name, point["reason"])
        else:
            metrics += threshold_metrics(distinct, TEST, name, threshold)
            metrics += decision_metrics(Decisions.at(distinct, threshold, contract.class_names), TEST, name)
    for stratum, rows in pairing_strata(distinct).items():
        if rows.height == distinct.height:
            metrics += [replace(same, stratum=stratum) for same in metrics[: 2 + len(targets)]]
        else:
            metrics += rank_metrics(rows, TEST, targets, rule, settings, stratum=stratum)
        for point in sealed.usable.iter_rows(named=True):
            name = point["operating_point"]
            metrics += threshold_metrics(rows, TEST, name, point["threshold"], stratum)[1:]
    if distinct["weight"].n_unique() > 1:
        metrics.append(weighted_auroc(distinct, TEST, settings))
    metrics += because(null_test(alike, TEST, settings), no_controls)
    metrics += likelihood_metrics(distinct, TEST)
    return [*metrics, calibration_metric(distinct, TEST, settings), *tie_metrics(distinct, TEST)]


def open_metrics(
    scores: Publication, store: Publication, rule: ResolutionRule, settings: BootstrapSettings
) -> list[Metric]:
    """Rank and likelihood metrics of the splits that may be looked at freely."""
    metrics: list[Metric] = []
    for split in OPEN_SPLITS:
        distinct = distinct_rows(join_store(open_rows(scores, split), scores=scores, store=store))
        metrics += rank_metrics(distinct, split, [], rule, settings)
        metrics += likelihood_metrics(distinct, split)
    return metrics


def write_confusion(sealed: SealedRows, distinct: pl.DataFrame, contract: DatasetContract, staging: Staging) -> None:
    """Write the table ``confusion`` (CONFUSION) of every frozen threshold on test."""
    tables = [
        confusion_table(
            Decisions.at(distinct, point["threshold"], contract.class_names), TEST, point["operating_point"]
        )
        for point in sealed.usable.iter_rows(named=True)
    ]
    staging.write_table("confusion", pa.concat_tables(tables or [CONFUSION.schema.empty_table()]), CONFUSION)
