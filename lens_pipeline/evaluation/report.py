"""The evaluation_report stage: the table of metrics, and one self-contained page made from published tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa

from lens_pipeline.contracts.catalogue import COMPLETENESS, METRICS, ROC
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.evaluation.baseline import baseline_claim, filter_rows_of
from lens_pipeline.evaluation.beside import MADE_FROM, Beside
from lens_pipeline.evaluation.calibrated_test import publish_calibrated_test
from lens_pipeline.evaluation.completeness import CONTAMINANTS_TABLE, GRID_TABLE, REGIONS_TABLE
from lens_pipeline.evaluation.config import ReportConfig
from lens_pipeline.evaluation.drawings import Tables
from lens_pipeline.evaluation.gallery import Gallery, PixelSource, galleries
from lens_pipeline.evaluation.looks import READS, Look, looks_metric, looks_of
from lens_pipeline.evaluation.measured import metrics_of_test, open_metrics, write_confusion
from lens_pipeline.evaluation.metrics import BootstrapSettings, Metric, metric_table
from lens_pipeline.evaluation.out_of_fold import CrossFit, out_of_fold_metrics
from lens_pipeline.evaluation.page import PageContent, render
from lens_pipeline.evaluation.pairs import beside_controls, pair_metric
from lens_pipeline.evaluation.rank_metrics import ranked_rows
from lens_pipeline.evaluation.ranking import missing_class, roc_curve
from lens_pipeline.evaluation.resolution import ResolutionRule, smallest_resolvable_fpr
from lens_pipeline.evaluation.roc_table import roc_table
from lens_pipeline.evaluation.scored_rows import (
    TEST,
    distinct_rows,
    join_store,
    refuse_other,
)
from lens_pipeline.evaluation.sealed import open_test_rows, primary_point
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
        Figures of the page as PNG bytes by name (`drawings.Drawn`).
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
        Versions of real_lens_recovery, shortcut_gates and model_comparison about these scores, and about this operating point
        and completeness where they have thresholds, as far as there are.

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
        for source in (scores, operating_point, completeness):
            if source.asset in MADE_FROM[other.asset]:
                refuse_other(other, other.asset, source)
    sealed = open_test_rows(scores, operating_point, staging)
    test = join_store(sealed.rows, scores=scores, store=store, more=("pair_id",))
    distinct = distinct_rows(test)
    pairs = beside_controls(test)
    rule = ResolutionRule(**operating_point.attributes["rule"])
    settings = BootstrapSettings(config.n_bootstrap, config.seed)
    contract = DatasetContract.model_validate(store.attributes["dataset_contract"])
    cross_fit = CrossFit.of(completeness)
    looks = _looks(staging, completeness, past_reads)
    calibrated = publish_calibrated_test(operating_point, store, test, distinct, settings, staging)
    metrics = [
        *metrics_of_test(config, sealed, distinct, contract, rule, operating_point.attributes.get("prevalence")),
        pair_metric(pairs, TEST),
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
    curve = roc_table(distinct, TEST, rule, settings)
    staging.write_table("roc", curve, ROC)
    primary = primary_point(sealed.usable)
    drawn = Tables(
        metrics=pl.DataFrame(table),
        roc=pl.DataFrame(curve),
        cells=cells,
        rows=distinct,
        points=sealed.usable,
        histories=[pl.DataFrame(classifier.read_table()) for classifier in classifiers],
        before=calibrated.before,
        after=calibrated.after,
        grids=_of_point(completeness, GRID_TABLE, primary),
        regions=_of_point(completeness, REGIONS_TABLE, primary),
        out_of_fold=cross_fit.cells if cross_fit else None,
        smallest_resolvable_fpr=_smallest_resolvable_fpr(distinct, rule),
        min_false_positives=rule.min_false_positives,
    ).draw()
    content = PageContent(
        metrics=pl.DataFrame(table),
        operating_points=sealed.operating_points,
        completeness=cells,
        cross_fit=cross_fit,
        calibrations=calibrated.methods,
        top_controls=calibrated.controls,
        no_p_lens=calibrated.no_p_lens,
        prevalence=operating_point.attributes["prevalence"],
        survey_yield=pl.DataFrame(operating_point.read_table("survey_yield")),
        by_negatives=pl.DataFrame(operating_point.read_table("by_negatives")),
        primary=primary["operating_point"],
        drawn=drawn,
        galleries=_galleries(config, distinct, pairs, primary, pixels),
        n_repeats=test.height - distinct.height,
        looks=looks,
        beside=Beside.of(beside),
        baseline=filter_rows_of(completeness),
        baseline_claim=baseline_claim(completeness, primary["operating_point"]),
        contaminants=_of_point(completeness, CONTAMINANTS_TABLE, primary),
    )
    sources = {name: value for name, value in inputs.__dict__.items() if name != "classifiers"}
    page = render(content, sources, classifiers, staging).encode()
    staging.write_bytes(PAGE, page)
    return ReportResult(table, page, drawn.png, primary["operating_point"], config.null_test_confidence, looks)


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


def _smallest_resolvable_fpr(distinct: pl.DataFrame, rule: ResolutionRule) -> float | None:
    n_lenses = int(distinct["is_lens"].sum())
    if missing_class(n_lenses, distinct.height - n_lenses):
        return None
    return smallest_resolvable_fpr(roc_curve(ranked_rows(distinct)), rule)


def _galleries(
    config: ReportConfig, distinct: pl.DataFrame, pairs: pl.DataFrame, primary: dict[str, Any], pixels: PixelSource
) -> list[Gallery]:
    if not config.n_gallery:
        return []
    words = threshold_words(primary["operating_point"])
    return galleries(distinct, pairs, primary["threshold"], words, pixels, config.n_gallery)
