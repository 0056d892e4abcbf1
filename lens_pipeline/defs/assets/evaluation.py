"""The evaluation group: logits, frozen thresholds, completeness, and the page that a referee could read."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from lens_pipeline.defs import registry
from lens_pipeline.defs.ensemble_run import log_ensemble
from lens_pipeline.defs.publishing import Event, Metadata, check_specs, markdown_table, picture, publish
from lens_pipeline.defs.sections import (
    CompletenessSection,
    EvaluationReportSection,
    OperatingPointSection,
    ScoresSection,
)
from lens_pipeline.defs.tracking import Tracking
from lens_pipeline.defs.workspace import Workspace
from lens_pipeline.evaluation import checks
from lens_pipeline.evaluation.axes import HEADLINE
from lens_pipeline.evaluation.beside import MADE_FROM
from lens_pipeline.evaluation.intervals import Estimate
from lens_pipeline.evaluation.looks import looked_at_once, published_reads
from lens_pipeline.evaluation.operating_point import OperatingPointResult, fit_operating_point
from lens_pipeline.evaluation.survey_yield import Survey
from lens_pipeline.scoring.aliases import is_ensemble
from lens_pipeline.scoring.checks import DIGESTS, score_conservation, score_saturation, scores_match_their_digests
from lens_pipeline.scoring.memorisation import MEMORISATION, training_rows_score_like_unseen_ones
from lens_pipeline.scoring.out_of_fold import CHECK as OUT_OF_FOLD
from lens_pipeline.scoring.out_of_fold import METRICS_TABLE, out_of_fold_is_whole, spread_table
from lens_pipeline.scoring.run import ScoringResult, score_store
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.config import Source
from lens_pipeline.survey.parent_density import galaxy_density

if TYPE_CHECKING:
    from lens_pipeline.evaluation.completeness import CompletenessResult
    from lens_pipeline.evaluation.report import ReportResult

_KEYS = ("task_id", "logical", "label")
# Figures of the report that the page of completeness has.
_SHOWN_BY_COMPLETENESS = ("completeness_", "surface_", "sky")


@dg.asset(
    group_name="evaluation",
    deps=["lens_classifier", "stamp_store", "region_splits"],
    check_specs=check_specs(
        *("scores", "score_conservation", DIGESTS, "score_saturation", OUT_OF_FOLD), advisory=[MEMORISATION]
    ),
)
def scores(context: dg.AssetExecutionContext, config: ScoresSection, workspace: Workspace) -> Iterator[Event]:
    """One logit per stored row, all splits, keyed: by one model, or the mean of several."""
    store = workspace.open("stamp_store")
    splits = workspace.open_made_from("region_splits", "stamp_store", store.version)
    models = [workspace.of_model(member) for member in config.members] or [workspace]
    classifiers = [model.open_made_from("lens_classifier", "region_splits", splits.version) for model in models]

    def describe(made: Publication, result: ScoringResult) -> Metadata:
        members = made.attributes.get("members", [])
        return {
            "rows": dg.MetadataValue.int(result.n_rows),
            "reader": dg.MetadataValue.text(result.reader),
            **({"members": dg.MetadataValue.json(members)} if members else {}),
            **(
                {"cross_validation": markdown_table(spread_table(made.read_table(METRICS_TABLE)))}
                if f"{METRICS_TABLE}.parquet" in made.manifest.files
                else {}
            ),
        }

    yield from publish(
        context,
        workspace,
        config,
        inputs=[*classifiers, store, splits],
        build=lambda staging: score_store(config, classifiers, store, splits, staging),
        check=lambda made, _: [
            score_conservation(made.read_table(columns=_KEYS), store.read_table(columns=_KEYS)),
            scores_match_their_digests(made.read_table(), store, classifiers),
            score_saturation(made.read_table(columns=["logit", "label"]), config),
            out_of_fold_is_whole(made, store, splits),
            training_rows_score_like_unseen_ones(made, classifiers, store, splits),
        ],
        describe=describe,
    )


@dg.asset(
    group_name="evaluation",
    deps=["scores", "stamp_store", "parent_sample"],
    check_specs=check_specs("operating_point", "both_classes_present"),
)
def operating_point(
    context: dg.AssetExecutionContext, config: OperatingPointSection, workspace: Workspace
) -> Iterator[Event]:
    """Thresholds for target false-positive rates, fitted on val_calibrate and frozen before test is evaluated."""
    scores = workspace.open("scores")
    store = workspace.open_version("stamp_store", scores.inputs["stamp_store"])
    stamps = workspace.open_version("stamps", store.inputs["stamps"])
    parent = workspace.open_version("parent_sample", stamps.inputs["parent_sample"])

    def describe(_: Publication, result: OperatingPointResult) -> Metadata:
        return {
            "thresholds": markdown_table(result.table),
            "in_the_survey": markdown_table(result.survey_yield),
            "by_kind_of_control": markdown_table(result.by_negatives),
            "calibration": markdown_table(result.calibration.table),
        }

    yield from publish(
        context,
        workspace,
        config,
        inputs=[scores, store, parent],
        build=lambda staging: fit_operating_point(
            config, scores=scores, store=store, staging=staging, survey=_survey(parent)
        ),
        check=lambda _, __: [checks.both_classes_present(scores.read_table(), ("val_calibrate", "test"))],
        describe=describe,
    )


def _survey(parent: Publication) -> Survey:
    """Say whether a parent sample is made up, and how dense it is where a catalogue says what area it covers."""
    source = parent.attributes.get("source")
    if "area_deg2" not in parent.attributes:
        reason = f"a parent sample from source {source} covers no known area"
        return Survey(Estimate(None, None, None, 0, 0, None, reason), simulated=source == Source.simulated)
    found = galaxy_density(parent.entry(f"{parent.asset}.parquet").rows or 0, parent.attributes)
    return Survey(Estimate(found.value, found.low, found.high, found.n, found.n, None))


@dg.asset(
    group_name="evaluation",
    deps=["scores", "operating_point", "stamp_store", "region_splits", "injection_manifest"],
    check_specs=check_specs("completeness", "attempts_are_conserved", advisory=["completeness_rises_with_arc_snr"]),
)
def completeness(
    context: dg.AssetExecutionContext, config: CompletenessSection, workspace: Workspace
) -> Iterator[Event]:
    """Completeness on test against Einstein radius, seeing, arc S/N and lens model, with intervals."""
    # Imported when it is used: splines and astropy's tables take a second to load.
    from lens_pipeline.evaluation.completeness import CONTAMINANTS_TABLE, build_completeness

    scores, point, store, splits = evaluated(workspace)
    stamps = workspace.open_version("stamps", store.inputs["stamps"])
    manifest = workspace.open_version("injection_manifest", stamps.inputs["injection_manifest"])
    parent = workspace.open_version("parent_sample", stamps.inputs["parent_sample"])
    yield from publish(
        context,
        workspace,
        config,
        inputs=[scores, point, store, splits, manifest, parent],
        build=lambda staging: build_completeness(
            config,
            scores=scores,
            operating_point=point,
            store=store,
            splits=splits,
            manifest=manifest,
            parent=parent,
            staging=staging,
        ),
        check=lambda _, result: [
            checks.attempts_are_conserved(result.attempted, result.n_scored),
            checks.completeness_rises_with_arc_snr(result.table),
        ],
        describe=lambda made, result: {
            "attempted": dg.MetadataValue.int(result.attempted.n),
            "scored": dg.MetadataValue.int(result.n_scored),
            "quarantined": dg.MetadataValue.int(result.attempted.lost.height),
            **_drawn(made, result),
            "contaminants": markdown_table(made.read_table(CONTAMINANTS_TABLE)),
        },
    )


@dg.asset(
    group_name="evaluation",
    # Not shortcut_gates: a model that they turn red needs its report all the more. They wait for less and so come before it.
    deps=[
        *("scores", "operating_point", "completeness", "lens_classifier", "stamp_store", "region_splits"),
        *("real_lens_recovery", "model_comparison"),
    ],
    check_specs=check_specs(
        "evaluation_report",
        "metrics_are_complete",
        advisory=["null_injections_score_like_controls", "test_rows_are_looked_at_once"],
    ),
)
def evaluation_report(
    context: dg.AssetExecutionContext, config: EvaluationReportSection, workspace: Workspace, tracking: Tracking
) -> Iterator[Event]:
    """Plots and one HTML page that a referee could read; every number with n and an interval."""
    # Imported when it is used: matplotlib and what fills the page take a second to load.
    from lens_pipeline.evaluation.report import build_report

    scores, point, store, splits = evaluated(workspace)
    table = workspace.open_made_from("completeness", "operating_point", point.version)
    classifiers = workspace.open_scored(scores)
    read = {one.asset: one for one in (scores, point, table)}
    beside = [
        one for asset, names in MADE_FROM.items() if (one := workspace.newest_about(asset, *(read[n] for n in names)))
    ]

    def describe(report: Publication, result: "ReportResult") -> Metadata:
        seen: Metadata = {}
        if is_ensemble(scores):
            seen = {"members": dg.MetadataValue.json({one.model: one.version for one in classifiers})}
            log_ensemble(context, workspace.home, tracking, scores, classifiers, report, result.images)
        else:
            tracking.log_report(context, classifiers[0], report, result.images)
        seen |= registry.describe(workspace.home, tracking, scores if is_ensemble(scores) else classifiers[0], report)
        return {
            "page": dg.MetadataValue.path(str(report.path("report.html"))),
            "headline": markdown_table(result.table),
            **{
                name: picture(png, name.replace("_", " "))
                for name, png in result.images.items()
                if not name.startswith(_SHOWN_BY_COMPLETENESS)
            },
            **seen,
        }

    yield from publish(
        context,
        workspace,
        config,
        inputs=[scores, point, table, store, splits, *classifiers, *beside],
        build=lambda staging: build_report(
            config,
            scores=scores,
            operating_point=point,
            completeness=table,
            store=store,
            splits=splits,
            classifiers=classifiers,
            pixels=StampStore.open(store),
            staging=staging,
            past_reads=published_reads(workspace.home, workspace.dataset, workspace.model),
            beside=beside,
        ),
        check=lambda _, result: [
            checks.metrics_are_complete(result.table),
            checks.null_injections_score_like_controls(result.table, result.null_test_confidence),
            looked_at_once(result.looks),
        ],
        describe=describe,
    )


def _drawn(made: Publication, result: "CompletenessResult") -> Metadata:
    """Draw completeness along each axis and on each grid, or say why it can't be drawn, and the sky."""
    # Imported when it is used: matplotlib takes a second to load.
    from lens_pipeline.evaluation import completeness_plots as plots
    from lens_pipeline.evaluation.completeness import GRID_TABLE, REGIONS_TABLE
    from lens_pipeline.evaluation.figures import figure_png

    def against(axis: str) -> dg.MetadataValue[Any]:
        cells = pl.DataFrame(result.table)
        if why := plots.why_not_drawn(cells, axis):
            return dg.MetadataValue.text(why)
        return picture(figure_png(plots.completeness_figure(cells, axis)), f"against {axis}")

    grids = plots.pairs_of(_of_primary(made, GRID_TABLE, result))
    sky = plots.sky_map_figure(_of_primary(made, REGIONS_TABLE, result))
    return {
        **{f"against_{axis}": against(axis) for axis in HEADLINE},
        **{
            f"on_grid_{number}": picture(figure_png(plots.surface_figure(cells)), f"against {cells['grid'][0]}")
            for number, cells in enumerate(grids, start=1)
        },
        "on_the_sky": picture(figure_png(sky), "false positives on test, region by region"),
    }


def _of_primary(made: Publication, table: str, result: "CompletenessResult") -> pl.DataFrame:
    """Rows of a table at the threshold that the report leads with."""
    return pl.DataFrame(made.read_table(table)).filter(pl.col("operating_point") == result.primary)


def evaluated(workspace: Workspace) -> tuple[Publication, Publication, Publication, Publication]:
    """Open scores, the operating point fitted on them, and the store and splits that they were made from."""
    scores = workspace.open("scores")
    point = workspace.open_made_from("operating_point", "scores", scores.version)
    store = workspace.open_version("stamp_store", scores.inputs["stamp_store"])
    splits = workspace.open_version("region_splits", scores.inputs["region_splits"])
    return scores, point, store, splits
