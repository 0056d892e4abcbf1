"""An ensemble's MLflow run: what its mean scores like, with the figures, its card and the way to its members' runs and back."""

from collections.abc import Mapping, Sequence

import dagster as dg

from lens_pipeline.defs.mlflow_runs import MlflowRun, Record
from lens_pipeline.defs.tracking import (
    ASSET_TAG,
    REPORT_TAG,
    RUN_TAG,
    VERSION_TAG,
    Tracking,
    figures_of,
    kept_pictures,
    title_of,
    work_folders,
)
from lens_pipeline.scoring.card import describe_model
from lens_pipeline.scoring.card_text import as_markdown
from lens_pipeline.scoring.out_of_fold import METRICS_TABLE
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication

SCORES_TAG, _MEMBER, _ENSEMBLE = "lens_pipeline.scores", "lens_pipeline.member", "lens_pipeline.ensemble"


def log_ensemble(
    context: dg.AssetExecutionContext,
    home: Home,
    tracking: Tracking,
    scores: Publication,
    members: Sequence[Publication],
    report: Publication,
    pictures: Mapping[str, bytes],
) -> None:
    """Give an ensemble a run of its own, one for each version of its scores; told again it is the same run.

    A run of a member bears the ensemble's run in its tags, and the other way round, as far as both were begun on this machine.

    Parameters
    ----------
    pictures : mapping
        Names to PNG.
    """
    folder = home.work_folder(scores.dataset, scores.asset, scores.version, model=scores.model)
    record = tracking.record(folder, title_of(scores.dataset, scores.model))
    tables = [report.read_table()]
    if f"{METRICS_TABLE}.parquet" in scores.manifest.files:
        tables.append(scores.read_table(METRICS_TABLE))
    of_members = {member.version: member for member in members}
    runs = {
        of_members[found.tags[VERSION_TAG]].model: (place, found)
        for place in work_folders()
        if (found := Record.read(place)) is not None and found.tags.get(VERSION_TAG) in of_members
    }
    record.tags |= {
        RUN_TAG: context.run.run_id,
        ASSET_TAG: context.asset_key.to_user_string(),
        "lens_pipeline.dataset": scores.dataset,
        "lens_pipeline.model": scores.model,
        SCORES_TAG: scores.version,
        REPORT_TAG: report.version,
        "mlflow.note.content": as_markdown(describe_model(home, scores, report)),
        **{
            f"{_MEMBER}.{model}": run_id
            for model, (place, _) in runs.items()
            if (run_id := MlflowRun(place).last_told().get("run_id"))
        },
    }
    record.params = {
        **{f"member.{member.model}": member.version for member in members},
        "tta": str(scores.attributes.get("tta", False)),
    }
    record.metrics |= {name: value for table in tables for name, value in figures_of(table).items()}
    record.artifacts = [*kept_pictures(folder, pictures), str(report.path("report.html"))]
    record.status = "FINISHED"
    tracking.tell(context, folder, record)
    if run_id := MlflowRun(folder).last_told().get("run_id"):
        for place, of_member in runs.values():
            of_member.tags[f"{_ENSEMBLE}.{scores.model}"] = run_id
            tracking.tell(context, place, of_member)
