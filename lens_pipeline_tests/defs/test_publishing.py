"""Write, audit, publish under Dagster: a red check publishes nothing and stops what follows; a green one shows what it saw."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.contracts.config import Section
from lens_pipeline.contracts.errors import ContractError
from lens_pipeline.defs.publishing import Event, check_specs, publish
from lens_pipeline.defs.workspace import Workspace
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.staging import Staging


class NoSettings(Section):
    pass


def two_assets(
    findings: list[Check], *, fail: Exception | None = None, rows: tuple[str, ...] = ("a", "b")
) -> list[dg.AssetsDefinition]:
    def build(staging: Staging) -> int:
        staging.write_table(None, pa.table({"task_id": rows}))
        if fail is not None:
            raise fail
        return 2

    @dg.asset(check_specs=check_specs("first", *(f.name for f in findings if f.blocking), advisory=["odd"]))
    def first(context: dg.AssetExecutionContext, workspace: Workspace) -> Iterator[Event]:
        odd = red("odd", "odd", wrong=["a"], why="w", next_step="n", blocking=False)
        yield from publish(
            context,
            workspace,
            NoSettings(),
            inputs=[],
            build=build,
            check=lambda _, __: [*findings, odd],
            describe=lambda _, n: {"n": dg.MetadataValue.int(n)},
        )

    @dg.asset(deps=["first"])
    def second(workspace: Workspace) -> None:
        workspace.open("first")

    return [first, second]


def run(assets: list[dg.AssetsDefinition]) -> dg.ExecuteInProcessResult:
    return dg.materialize(assets, resources={"workspace": Workspace()}, raise_on_error=False)


SOUND = green("sound", "all fine", n=2)
BROKEN = red("broken", "rows are off", wrong=["a"], why="a test", next_step="mend the rows")


def test_a_green_asset_is_current_with_rows_schema_and_a_content_hash() -> None:
    result = run(two_assets([SOUND]))
    assert result.success
    materialized = result.asset_materializations_for_node("first")[0]
    current = Home.from_environment().open("simulated", "first")
    assert materialized.tags is not None
    assert materialized.tags["dagster/data_version"] == current.version
    assert materialized.metadata["dagster/row_count"].value == 2
    assert materialized.metadata["dagster/column_schema"].value.columns[0].name == "task_id"
    checks = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    assert checks == {"sound": True, "odd": False}


def test_a_red_check_is_recorded_publishes_nothing_and_skips_what_follows() -> None:
    result = run(two_assets([SOUND, BROKEN]))
    assert not result.success
    assert {e.check_name: e.passed for e in result.get_asset_check_evaluations()} == {
        "sound": True,
        "broken": False,
        "odd": False,
    }
    assert result.asset_materializations_for_node("first") == []
    assert {e.step_key for e in result.all_events if e.event_type_value == "STEP_START"} == {"first"}
    home = Home.from_environment()
    assert not home.has_current("simulated", "first")
    assert len(home.versions("simulated", "first")) == 1


def test_a_run_of_the_consumer_alone_still_gets_the_last_green_version() -> None:
    assert run(two_assets([SOUND])).success
    green_version = Home.from_environment().open("simulated", "first").version
    run(two_assets([BROKEN], rows=("a", "c")))
    assert Home.from_environment().open("simulated", "first").version == green_version


def test_a_refusal_is_told_in_its_own_words_and_leaves_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(two_assets([SOUND], fail=ContractError("column 'ra' is missing in a.parquet")))
    failure = next(e for e in result.all_events if e.event_type_value == "STEP_FAILURE")
    data = failure.step_failure_data
    assert data.user_failure_data is not None
    assert "column 'ra' is missing in a.parquet" in str(data.user_failure_data.description)
    assert Home.from_environment().versions("simulated", "first") == []


def test_provenance_says_which_run_and_settings_made_a_version(tmp_path: Path) -> None:
    result = run(two_assets([SOUND]))
    provenance = Home.from_environment().open("simulated", "first").manifest.provenance
    assert provenance == {"config": {}, "dagster_run_id": result.run_id}
