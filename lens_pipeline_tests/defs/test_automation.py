"""Jobs take their part of a preset, and the weekly retraining stands still until somebody starts it."""

import datetime
from pathlib import Path

import dagster as dg
import pytest

from lens_pipeline.definitions import build_definitions
from lens_pipeline.defs.sections import SECTIONS, load_preset

PRESETS = Path(__file__).parent.parent.parent / "presets"


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_job_can_be_built_from_every_preset(path: Path) -> None:
    definitions = build_definitions(load_preset(path))
    # As the server loads them, all together: two of one name are refused only there.
    dg.Definitions.validate_loadable(definitions)
    chain, ingest, retrain = (definitions.resolve_job_def(name) for name in ("full_chain", "ingest", "retrain"))
    assert set(chain.asset_layer.executable_asset_keys) == {dg.AssetKey(name) for name in SECTIONS}
    names = {key.path[-1] for key in retrain.asset_layer.executable_asset_keys}
    assert names == {
        "lens_classifier",
        "scores",
        "operating_point",
        "completeness",
        "real_lens_recovery",
        "evaluation_report",
        "doctor",
    }
    taken_in = {key.path[-1] for key in ingest.asset_layer.executable_asset_keys}
    assert (taken_in | names, taken_in & names) == (set(SECTIONS), set())
    assert retrain.run_config is not None
    assert retrain.run_config["resources"]["workspace"]["config"]["dataset"] == path.stem


def test_the_schedule_is_weekly_in_a_stated_timezone_and_stopped() -> None:
    schedule = build_definitions().resolve_schedule_def("weekly_retraining")
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 3 * * 1", "UTC")


def test_a_tick_of_the_schedule_asks_for_one_retraining() -> None:
    schedule = build_definitions().resolve_schedule_def("weekly_retraining")
    monday = datetime.datetime(2030, 1, 7, 3, tzinfo=datetime.UTC)
    with dg.build_schedule_context(scheduled_execution_time=monday) as context:
        tick = schedule.evaluate_tick(context)
    assert tick.run_requests is not None
    assert len(tick.run_requests) == 1
    assert schedule.job_name == "retrain"
