"""Sensors that take in new files of a survey, and train again on what they brought."""

import json
from typing import Any

import dagster as dg

from lens_pipeline.defs.sections import RunConfig, resource_settings, validate_run_config
from lens_pipeline.defs.workspace import Workspace
from lens_pipeline.survey.config import ParentSampleConfig, Source
from lens_pipeline.survey.external_files import find_files
from lens_pipeline.survey.source_growth import Listing

_EVERY_S = 60


def new_data_sensors(preset: RunConfig, ingest: Any, retrain: Any) -> list[dg.SensorDefinition]:
    """Return both sensors for a preset whose source is a survey's own files, else none; they stand still until started."""
    config = validate_run_config(preset)["parent_sample"]
    assert isinstance(config, ParentSampleConfig)
    if config.source is not Source.external_stamps:
        return []
    workspace = Workspace(**resource_settings(preset, "workspace"))
    return [_new_fragments(config, workspace, ingest), _retrain_on_new_data(workspace, ingest, retrain)]


def _new_fragments(config: ParentSampleConfig, workspace: Workspace, ingest: Any) -> dg.SensorDefinition:
    @dg.sensor(
        name="new_fragments",
        job=ingest,
        minimum_interval_seconds=_EVERY_S,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Takes in a survey's files once they differ from what was taken in and have stood still for two ticks.",
    )
    def new_fragments(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        listing = Listing.of(find_files(config.folder))
        digest = listing.digest
        # seen: the listing of the tick before. known: the last one that a run was asked for, or that was taken in already.
        cursor = json.loads(context.cursor) if context.cursor else {"seen": None, "known": None}

        def skip(why: str, **changes: str) -> dg.SensorResult:
            return dg.SensorResult(skip_reason=why, cursor=json.dumps({**cursor, **changes}))

        if cursor["seen"] != digest:
            return skip(f"{len(listing.entries):,} files; waiting until they stand still", seen=digest)
        if cursor["known"] == digest:
            return skip("nothing came, went or changed")
        published = workspace.open_if_there("parent_sample")
        # A file rewritten at its old size shows only beside a listing that is known.
        if published is not None and cursor["known"] is None and listing.is_as_published(published.attributes["files"]):
            return skip(f"all {len(listing.entries):,} files are in parent_sample {published.version}", known=digest)
        return dg.SensorResult(
            run_requests=[dg.RunRequest(run_key=digest, tags={"lens_pipeline/listing": digest[:16]})],
            cursor=json.dumps({"seen": digest, "known": digest}),
        )

    return new_fragments


def _retrain_on_new_data(workspace: Workspace, ingest: Any, retrain: Any) -> dg.SensorDefinition:
    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.SUCCESS,
        monitored_jobs=[ingest],
        request_job=retrain,
        name="retrain_on_new_data",
        minimum_interval_seconds=_EVERY_S,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Trains again when an ingest ended with every blocking check green and brought other rows or splits.",
    )
    def retrain_on_new_data(context: dg.RunStatusSensorContext) -> dg.RunRequest | dg.SkipReason:
        # A red blocking check fails its run, and a run that failed is never seen here.
        store = workspace.open("stamp_store")
        splits = workspace.open_made_from("region_splits", "stamp_store", store.version)
        classifier = workspace.open_if_there("lens_classifier")
        made_from = {} if classifier is None else classifier.inputs
        if (made_from.get("stamp_store"), made_from.get("region_splits")) == (store.version, splits.version):
            return dg.SkipReason(f"the classifier was trained on stamp_store {store.version} already")
        return dg.RunRequest(run_key=f"{store.version}-{splits.version}")

    return retrain_on_new_data
