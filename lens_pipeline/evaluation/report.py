"""The evaluation_report stage: the table of metrics, and one self-contained page made from published tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa

from lens_pipeline.contracts.catalogue import COMPLETENESS, METRICS
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.evaluation.axes import ARC_SNR, HEADLINE, THETA_E, axes_in
from lens_pipeline.evaluation.baseline import baseline_claim, filter_rows_of
from lens_pipeline.evaluation.beside import Beside
from lens_pipeline.evaluation.calibrated_test import publish_calibrated_test
from lens_pipeline.evaluation.completeness import CONTAMINANTS_TABLE, GRID_TABLE, REGIONS_TABLE
from lens_pipeline.evaluation.completeness_plots import pairs_of, sky_map_png, surface_png
from lens_pipeline.evaluation.config import ReportConfig
from lens_pipeline.evaluation.gallery import Gallery, PixelSource, galleries
from lens_pipeline.evaluation.looks import READS, Look, looks_metric, looks_of
from lens_pipeline.evaluation.measured import metrics_of_test, open_metrics, write_confusion
from lens_pipeline.evaluation.metrics import ALL_ROWS, BootstrapSettings, Metric, metric_table
from lens_pipeline.evaluation.out_of_fold import CrossFit, out_of_fold_metrics
from lens_pipeline.evaluation.page import PageContent, render
from lens_pipeline.evaluation.plots import completeness_png, histogram_png, history_png, roc_png, why_not_drawn
from lens_pipeline.evaluation.ranking import RankedScores, RocCurve, missing_class, roc_curve
from lens_pipeline.evaluation.reliability_plot import reliability_png
from lens_pipeline.evaluation.resolution import ResolutionRule, smallest_resolvable_fpr
from lens_pipeline.evaluation.scored_rows import (
    TEST,
    distinct_rows,
    galaxy_numbers,
    join_store,
    refuse_other,
)
from lens_pipeline.evaluation.sealed import SealedRows, open_test_rows, primary_point
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
    looks : list of Look
        At the test rows of this model, this one included.
    """

    table: pa.Table
    page: bytes
    images: dict[str, bytes]
    primary_operating_point: str
    null_test_confidence: float
    looks: list[Look]


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
    past_reads: Sequence[dict[str, str]] = (),
    beside: Sequence[Publication] = (),
) -> ReportResult:
    """Measure, draw and write the report.

    Parameters
    ----------
    classifiers : sequence of Publication
        What made the scores: one, or the members of an ensemble.
    past_reads : sequence of dict
        Reads of test with scores of this model that were published before (`looks.published_reads`).
    beside : sequence of Publication
        Versions of real_lens_recovery, shortcut_gates and model_comparison about these scores, as far as there are.

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
    for other in beside:
        refuse_other(other, other.asset, scores)
    sealed = open_test_rows(scores, operating_point, staging)
    test = join_store(sealed.rows, scores=scores, store=store)
    distinct = distinct_rows(test)
    rule = ResolutionRule(**operating_point.attributes["rule"])
    settings = BootstrapSettings(config.n_bootstrap, config.seed)
    contract = DatasetContract.model_validate(store.attributes["dataset_contract"])
    cross_fit = CrossFit.of(completeness)
    looks = _looks(staging, completeness, past_reads)
    calibrated = publish_calibrated_test(operating_point, store, test, distinct, settings, staging)
    metrics = [
        *metrics_of_test(config, sealed, distinct, contract, rule, operating_point.attributes.get("prevalence")),
        *calibrated.metrics,
        _looks_metric(looks, distinct),
        *open_metrics(scores, store, rule, settings),
        *(out_of_fold_metrics(cross_fit) if cross_fit else ()),
    ]
    table = metric_table(metrics)
    staging.write_table(None, table, METRICS)
    write_confusion(sealed, distinct, contract, staging)
    table_of_cells = completeness.read_table()
    COMPLETENESS.validate(table_of_cells, where=f"completeness {completeness.version}")
    cells = pl.DataFrame(table_of_cells)
    curve = _curve(distinct)
    images = _images(inputs, curve, distinct, sealed, pl.DataFrame(table), cells, rule)
    images["reliability"] = reliability_png(calibrated.before, calibrated.after)
    if cross_fit:
        images |= _completeness_images("out_of_fold", cross_fit.cells, HEADLINE)
    primary = primary_point(sealed.usable)
    surfaces = {
        cells["grid"][0]: surface_png(cells) for cells in pairs_of(_of_point(completeness, GRID_TABLE, primary))
    }
    regions = _of_point(completeness, REGIONS_TABLE, primary)
    if regions.drop_nulls(["ra", "dec", "fpr"]).height:
        images["sky"] = sky_map_png(regions)
    content = PageContent(
        metrics=pl.DataFrame(table),
        operating_points=sealed.operating_points,
        completeness=cells,
        cross_fit=cross_fit,
        calibrations=calibrated.methods,
        top_controls=calibrated.controls,
        prevalence=operating_point.attributes["prevalence"],
        survey_yield=pl.DataFrame(operating_point.read_table("survey_yield")),
        by_negatives=pl.DataFrame(operating_point.read_table("by_negatives")),
        primary=primary["operating_point"],
        images=images,
        galleries=_galleries(config, test, primary, pixels),
        n_repeats=test.height - distinct.height,
        looks=looks,
        beside=Beside.of(beside),
        surfaces=surfaces,
        baseline=filter_rows_of(completeness),
        baseline_claim=baseline_claim(completeness, primary["operating_point"]),
        contaminants=_of_point(completeness, CONTAMINANTS_TABLE, primary),
    )
    sources = {name: value for name, value in inputs.__dict__.items() if name != "classifiers"}
    page = render(content, sources, classifiers, staging).encode()
    staging.write_bytes(PAGE, page)
    return ReportResult(table, page, images, primary["operating_point"], config.null_test_confidence, looks)


def _of_point(completeness: Publication, table: str, point: dict[str, Any]) -> pl.DataFrame:
    """Rows of one of its tables at a threshold."""
    rows = pl.DataFrame(completeness.read_table(table))
    return rows.filter(pl.col("operating_point") == point["operating_point"])


def _looks(staging: Staging, completeness: Publication, past_reads: Sequence[dict[str, str]]) -> list[Look]:
    """Collect the looks at test, this one included."""
    return looks_of([*past_reads, *completeness.attributes.get(READS, []), *staging.attributes[READS]])


def _looks_metric(looks: list[Look], distinct: pl.DataFrame) -> Metric:
    n_lenses = int(distinct["is_lens"].sum())
    return looks_metric(looks, n_lenses, distinct.height - n_lenses, distinct["galaxy_id"].n_unique())


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
        whole = (pl.col("split") == TEST) & (pl.col("stratum") == ALL_ROWS)
        mine = metrics.filter(whole & pl.col("metric").str.starts_with(prefix)).select(
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
