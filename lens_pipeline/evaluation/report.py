"""The evaluation_report stage: the table of metrics, and one self-contained page made from published tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa

from lens_pipeline.contracts.catalogue import COMPLETENESS, METRICS
from lens_pipeline.evaluation.cells import ARC_SNR, CONTINUOUS, THETA_E, axes_in
from lens_pipeline.evaluation.config import ReportConfig
from lens_pipeline.evaluation.gallery import Gallery, PixelSource, galleries
from lens_pipeline.evaluation.metrics import (
    BootstrapSettings,
    Metric,
    likelihood_metrics,
    metric_table,
    null_test,
    rank_metrics,
    threshold_metrics,
    tie_metrics,
    unresolved_threshold_metrics,
)
from lens_pipeline.evaluation.operating_point import HIGHEST_CONTROL
from lens_pipeline.evaluation.out_of_fold import CrossFit, out_of_fold_metrics
from lens_pipeline.evaluation.page import PageContent, render
from lens_pipeline.evaluation.plots import completeness_png, histogram_png, history_png, roc_png, why_not_drawn
from lens_pipeline.evaluation.ranking import RankedScores, RocCurve, missing_class, roc_curve
from lens_pipeline.evaluation.resolution import ResolutionRule, smallest_resolvable_fpr
from lens_pipeline.evaluation.scored_rows import (
    OPEN_SPLITS,
    TEST,
    distinct_rows,
    galaxy_numbers,
    join_store,
    open_rows,
    refuse_other,
)
from lens_pipeline.evaluation.sealed import SealedRows, open_test_rows
from lens_pipeline.evaluation.wording import threshold_words
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging

PAGE = "report.html"


@dataclass(frozen=True)
class ReportResult:
    """What was written.

    Attributes
    ----------
    table : pyarrow.Table
        METRICS.
    page : bytes
        report.html.
    images : dict
        PNG bytes by name: roc, histogram, history, completeness_theta_e_arcsec, completeness_arc_snr, ...
    null_test_confidence : float
        For the check of the null test.
    """

    table: pa.Table
    page: bytes
    images: dict[str, bytes]
    primary_operating_point: str
    null_test_confidence: float


@dataclass(frozen=True)
class ReportInputs:
    """The publications that a report is about."""

    scores: Publication
    operating_point: Publication
    completeness: Publication
    store: Publication
    splits: Publication
    classifiers: tuple[Publication, ...]


def build_report(
    config: ReportConfig,
    *,
    scores: Publication,
    operating_point: Publication,
    completeness: Publication,
    store: Publication,
    splits: Publication,
    classifiers: Sequence[Publication],
    pixels: PixelSource,
    staging: Staging,
) -> ReportResult:
    """Measure, draw and write the report.

    Parameters
    ----------
    classifiers : sequence of Publication
        What made the scores: one, or the members of an ensemble.

    Raises
    ------
    EvaluationError
        If the publications were not made from each other.
    """
    inputs = ReportInputs(scores, operating_point, completeness, store, splits, tuple(classifiers))
    for classifier in classifiers:
        refuse_other(scores, "scores", classifier)
    refuse_other(completeness, "completeness", operating_point)
    refuse_other(splits, "region_splits", store)
    sealed = open_test_rows(scores, operating_point, staging)
    test = join_store(sealed.rows, scores=scores, store=store)
    distinct = distinct_rows(test)
    rule = ResolutionRule(**operating_point.attributes["rule"])
    settings = BootstrapSettings(config.n_bootstrap, config.seed)
    cross_fit = CrossFit.of(completeness)
    metrics = [
        *_test_metrics(sealed, distinct, rule, settings),
        *_open_metrics(inputs, rule, settings),
        *(out_of_fold_metrics(cross_fit) if cross_fit else ()),
    ]
    table = metric_table(metrics)
    staging.write_table(None, table, METRICS)
    table_of_cells = completeness.read_table()
    COMPLETENESS.validate(table_of_cells, where=f"completeness {completeness.version}")
    cells = pl.DataFrame(table_of_cells)
    curve = _curve(distinct)
    images = _images(inputs, curve, distinct, sealed, pl.DataFrame(table), cells, rule)
    if cross_fit:
        images |= _completeness_images("out_of_fold", cross_fit.cells, CONTINUOUS)
    primary = primary_point(sealed.usable)
    content = PageContent(
        metrics=pl.DataFrame(table),
        operating_points=sealed.operating_points,
        completeness=cells,
        cross_fit=cross_fit,
        primary=primary["operating_point"],
        images=images,
        galleries=_galleries(config, test, primary, pixels),
        n_repeats=test.height - distinct.height,
    )
    sources = {name: value for name, value in inputs.__dict__.items() if name != "classifiers"}
    page = render(content, sources, classifiers, staging).encode()
    staging.write_bytes(PAGE, page)
    return ReportResult(table, page, images, primary["operating_point"], config.null_test_confidence)


def primary_point(usable: pl.DataFrame) -> dict[str, Any]:
    """Return the resolved operating point of the smallest rate, else the one at the highest control.

    Parameters
    ----------
    usable : polars.DataFrame
        Rows of OPERATING_POINT that have a threshold.
    """
    resolved = usable.filter(pl.col("target_fpr").is_not_null()).sort("target_fpr")
    return (resolved if resolved.height else usable.filter(pl.col("operating_point") == HIGHEST_CONTROL)).row(
        0, named=True
    )


def _test_metrics(
    sealed: SealedRows, distinct: pl.DataFrame, rule: ResolutionRule, settings: BootstrapSettings
) -> list[Metric]:
    targets = sealed.operating_points["target_fpr"].drop_nulls().to_list()
    metrics = rank_metrics(distinct, TEST, targets, rule, settings)
    for point in sealed.operating_points.iter_rows(named=True):
        name = point["operating_point"]
        if point["threshold"] is None:
            metrics += unresolved_threshold_metrics(distinct, TEST, name, point["reason"])
        else:
            metrics += threshold_metrics(distinct, TEST, name, point["threshold"])
    metrics.append(null_test(distinct, TEST, settings))
    return [*metrics, *likelihood_metrics(distinct, TEST), *tie_metrics(distinct, TEST)]


def _open_metrics(inputs: ReportInputs, rule: ResolutionRule, settings: BootstrapSettings) -> list[Metric]:
    metrics: list[Metric] = []
    for split in OPEN_SPLITS:
        rows = open_rows(inputs.scores, split)
        distinct = distinct_rows(join_store(rows, scores=inputs.scores, store=inputs.store))
        metrics += rank_metrics(distinct, split, [], rule, settings)
        metrics += likelihood_metrics(distinct, split)
    return metrics


def _curve(distinct: pl.DataFrame) -> RocCurve | None:
    n_lenses = int(distinct["is_lens"].sum())
    if missing_class(n_lenses, distinct.height - n_lenses):
        return None
    return roc_curve(RankedScores.of(distinct["logit"], distinct["is_lens"], galaxy_numbers(distinct)))


def _images(
    inputs: ReportInputs,
    curve: RocCurve | None,
    distinct: pl.DataFrame,
    sealed: SealedRows,
    metrics: pl.DataFrame,
    cells: pl.DataFrame,
    rule: ResolutionRule,
) -> dict[str, bytes]:
    smallest = smallest_resolvable_fpr(curve, rule) if curve else None
    points = _points_on_test(metrics, sealed.usable)
    images = {
        "roc": roc_png(curve, points, smallest, rule.min_false_positives),
        "histogram": histogram_png(distinct, sealed.usable),
        "history": history_png([pl.DataFrame(classifier.read_table()) for classifier in inputs.classifiers]),
    }
    axes = sorted(axes_in(cells), key=lambda axis: axis not in (THETA_E, ARC_SNR))
    return images | _completeness_images("completeness", cells, axes)


def _completeness_images(prefix: str, cells: pl.DataFrame, axes: Sequence[str]) -> dict[str, bytes]:
    """Draw the axes that have something to draw; of the others the page says why."""
    return {f"{prefix}_{axis}": completeness_png(cells, axis) for axis in axes if why_not_drawn(cells, axis) is None}


def _points_on_test(metrics: pl.DataFrame, usable: pl.DataFrame) -> pl.DataFrame:
    """Recall and FPR on test of each frozen threshold, one row each."""
    points = usable.select("operating_point")
    for name in ("recall", "fpr"):
        prefix = f"{name}_at_"
        mine = metrics.filter((pl.col("split") == TEST) & pl.col("metric").str.starts_with(prefix)).select(
            pl.col("metric").str.strip_prefix(prefix).alias("operating_point"),
            pl.col("value").alias(name),
            pl.col("low").alias(f"{name}_low"),
            pl.col("high").alias(f"{name}_high"),
        )
        points = points.join(mine, on="operating_point", how="left", validate="1:1", maintain_order="left")
    return points


def _galleries(config: ReportConfig, test: pl.DataFrame, primary: dict[str, Any], pixels: PixelSource) -> list[Gallery]:
    if not config.n_gallery:
        return []
    words = threshold_words(primary["operating_point"])
    return galleries(test, primary["threshold"], words, pixels, config.n_gallery)
