"""Jobs and the retraining schedule."""

import os
from pathlib import Path
from typing import Any

import dagster as dg

from lens_pipeline.defs.sections import SECTIONS, RunConfig, job_part, load_preset

PRESET_VARIABLE = "LENS_PIPELINE_PRESET"
_EVERYTHING = frozenset(SECTIONS)
_TO_SPLITS = frozenset(
    {"parent_sample", "injection_manifest", "stamps", "realism_report", "stamp_store", "region_splits"}
)
_FROM_CLASSIFIER = _EVERYTHING - _TO_SPLITS


def jobs(preset: RunConfig) -> list[Any]:
    """Return full_chain (all assets), ingest (up to the splits) and retrain (from the classifier), each with its part."""
    return [
        dg.define_asset_job(
            "full_chain",
            selection=dg.AssetSelection.assets(*_EVERYTHING),
            config=job_part(preset, _EVERYTHING),
            description="From a survey to completeness tables.",
        ),
        dg.define_asset_job(
            "ingest",
            selection=dg.AssetSelection.assets(*_TO_SPLITS),
            config=job_part(preset, _TO_SPLITS),
            description="Take in what is new in the source, up to the splits; old regions keep theirs.",
        ),
        dg.define_asset_job(
            "retrain",
            selection=dg.AssetSelection.assets(*_FROM_CLASSIFIER),
            config=job_part(preset, _FROM_CLASSIFIER),
            description="Train again on the current store and splits, and evaluate.",
        ),
    ]


def weekly_retraining(retrain: Any) -> dg.ScheduleDefinition:
    """Return the weekly retraining, Mondays 03:00 UTC; stopped until somebody starts it."""
    return dg.ScheduleDefinition(
        name="weekly_retraining",
        job=retrain,
        cron_schedule="0 3 * * 1",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
    )


def preset_from_environment() -> RunConfig:
    """Return the preset that LENS_PIPELINE_PRESET names for the jobs, validated; else the defaults."""
    path = os.environ.get(PRESET_VARIABLE)
    return load_preset(Path(path)) if path else {}
