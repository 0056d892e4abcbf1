"""``lens_pipeline train``: a cross-validation or a seed ensemble, member by member, then the evaluation of their mean."""

import os
from typing import Any

from lens_pipeline.cli.summary import figure
from lens_pipeline.defs.members import (
    EVALUATION,
    Group,
    evaluation_config,
    materialize,
    published,
    refuse_unusable_members,
    run_config_of,
)
from lens_pipeline.defs.sections import RunConfig, resource_settings
from lens_pipeline.defs.workspace import Workspace
from lens_pipeline.evaluation.axes import ARC_SNR, THETA_E
from lens_pipeline.evaluation.metrics import ALL_ROWS, OK, UNDEFINED, completed
from lens_pipeline.evaluation.out_of_fold import POOLED, CrossFit
from lens_pipeline.scoring.out_of_fold import METRICS_TABLE
from lens_pipeline.storage.home import DEFAULT_MODEL
from lens_pipeline.storage.publication import Publication


def run(preset: RunConfig, *, folds: int | None, seeds: list[int] | None) -> int:
    """Train what isn't published yet, score with the mean of all, evaluate, and say where the outcome stands."""
    workspace = Workspace(**resource_settings(preset, "workspace"))
    base = workspace.model or DEFAULT_MODEL
    group = Group.of_folds(base, folds) if folds is not None else Group.of_seeds(base, seeds or [])
    refuse_unusable_members(preset, group)
    if not os.environ.get("DAGSTER_HOME"):
        print("DAGSTER_HOME is not set: these runs leave no history for Dagster's page (make sets it to .dagster_home)")
    for member in group.members:
        there = published(preset, member)
        if there is None:
            print(f"{member.model}: training", flush=True)
            materialize(["lens_classifier"], run_config_of(preset, member))
        else:
            print(f"{member.model}: lens_classifier {there.version} stands, with these settings", flush=True)
    materialize(EVALUATION, evaluation_config(preset, group))
    _tell(workspace.of_model(group.model))
    return 0


def _tell(workspace: Workspace) -> None:
    scores, report = workspace.open("scores"), workspace.open("evaluation_report")
    print(
        f"\nmodel {workspace.model} of {workspace.dataset}: scores {scores.version}, evaluation_report {report.version}"
    )
    for member in scores.attributes["members"]:
        print(f"  {member['model']:<32} lens_classifier {member['version']}")
    if f"{METRICS_TABLE}.parquet" in scores.manifest.files:
        _tell_out_of_fold(scores)
        tell_cross_fit(workspace.open_version("completeness", report.inputs["completeness"]))
    for row in completed(report.read_table()).to_pylist():
        if (
            row["split"] == "test"
            and row["stratum"] == ALL_ROWS
            and row["metric"] in ("auroc", "average_precision", "log_loss")
        ):
            print(f"  test {row['metric']:<28} {_figure(row)}  {_counts(row)}")
    print(f"  page    {report.path('report.html')}")
    print(
        f"  to score other stamps: lens_pipeline predict --dataset {workspace.dataset} --model {workspace.model} INPUT --out FILE"
    )


def _tell_out_of_fold(scores: Publication) -> None:
    for row in scores.read_table(METRICS_TABLE).to_pylist():
        if row["metric"] in ("auroc", "log_loss"):
            where = "all folds" if row["split"] == POOLED else row["split"]
            print(f"  {where:<14} {row['metric']:<18} {_figure(row)}  {_counts(row)}")


def tell_cross_fit(completeness: Publication) -> None:
    """Print the completeness of each fold and of cells, with n, interval and the bound of the false-positive rate."""
    found = CrossFit.of(completeness)
    if found is None:
        return
    print("  completeness out of fold, above the highest control of each fold:")
    for row in found.thresholds.iter_rows(named=True):
        where = "all folds" if row["split"] == POOLED else row["split"]
        print(
            f"    {where:<16} {_completeness(row)}; FPR at most {row['fpr_high']:.3g} ({row['n_negatives']:,} controls)"
        )
    for row in found.cells.iter_rows(named=True):
        if row["axis"] in (THETA_E, ARC_SNR):
            print(f"    {row['axis']:<16} {row['cell']:<16} {_completeness(row)}")


def _completeness(row: dict[str, Any]) -> str:
    value, low, high = (row[f"completeness{end}"] for end in ("", "_low", "_high"))
    found = figure(value, low, high, UNDEFINED if value is None else OK, row["reason"])
    return f"{found:<26} n = {row['n']:,} injections in {row['n_galaxies']:,} galaxies"


def _figure(row: dict[str, Any]) -> str:
    return figure(row["value"], row["low"], row["high"], row["status"], row["reason"])


def _counts(row: dict[str, Any]) -> str:
    return f"n = {row['n_positives']:,} injections and {row['n_negatives']:,} controls"
