"""A preset is validated whole before anything runs, and each job gets its own part."""

from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import yaml

from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.defs.sections import SECTIONS, job_part, load_preset, validate_run_config

PRESETS = Path(__file__).parent.parent.parent / "presets"


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_is_sound(path: Path) -> None:
    preset = load_preset(path)
    assert preset["resources"]["workspace"]["config"]["dataset"] == path.stem


def test_the_simulated_preset_is_the_default() -> None:
    assert validate_run_config(load_preset(PRESETS / "simulated.yaml")) == validate_run_config({})


def test_every_problem_is_listed_at_once_with_what_is_allowed() -> None:
    bad: dict[str, Any] = {
        "opps": {},
        "ops": {
            "lens_classifer": {},
            "lens_classifier": {"config": {"epochs": 0, "epoch": 3}},
            "evaluation_report": {"config": {"n_gallery": "many"}},
        },
    }
    with pytest.raises(ConfigError) as caught:
        validate_run_config(bad)
    message = str(caught.value)
    for part in (
        "5 to mend",
        "opps: unknown key",
        "ops.lens_classifer: no such asset",
        "ops.lens_classifier.config.epochs: Input should be greater than or equal to 1, 0 was given",
        "ops.lens_classifier.config.epoch: unknown setting; known are model",
        "ops.evaluation_report.config.n_gallery",
    ):
        assert part in message


@pytest.mark.parametrize("asset", list(SECTIONS))
def test_an_unknown_name_is_refused_with_its_setting_and_every_name_there_is(asset: str) -> None:
    for name, field in SECTIONS[asset].model_fields.items():
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, Enum)):
            continue
        with pytest.raises(ConfigError, match=rf"ops\.{asset}\.config\.{name}: .*'lrg_dr12' was given") as caught:
            validate_run_config({"ops": {asset: {"config": {name: "lrg_dr12"}}}})
        assert [known.value for known in field.annotation if f"'{known.value}'" not in str(caught.value)] == []


@pytest.mark.parametrize("asset", list(SECTIONS))
def test_every_bound_of_every_setting_is_tried_just_inside_and_just_outside(asset: str) -> None:
    section = SECTIONS[asset]
    for name, field in section.model_fields.items():
        for bound in field.metadata:
            for kind, step in (("ge", -1), ("gt", 0), ("le", 1), ("lt", 0)):
                limit = getattr(bound, kind, None)
                if limit is None:
                    continue
                outside = limit + step if isinstance(limit, int) else limit + step * max(1e-6, abs(limit) * 1e-6)
                with pytest.raises(ConfigError, match=rf"ops\.{asset}\.config\.{name}"):
                    validate_run_config({"ops": {asset: {"config": {name: outside}}}})
                if kind in ("ge", "le"):
                    try:
                        validate_run_config({"ops": {asset: {"config": {name: limit}}}})
                    except ConfigError as error:
                        assert f"config.{name}" not in str(error), f"{name} = {limit} is allowed and was refused"  # noqa: PT017


def test_a_preset_that_is_missing_or_is_not_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("ops: {")
    with pytest.raises(ConfigError, match=r"there is no preset .*; there are: .*one\.yaml"):
        load_preset(tmp_path / "two.yaml")
    with pytest.raises(ConfigError, match="isn't YAML"):
        load_preset(tmp_path / "one.yaml")


def test_yaml_that_would_make_an_object_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hostile.yaml"
    path.write_text("ops: !!python/object/apply:os.system ['touch hostile']")
    with pytest.raises(ConfigError, match="isn't YAML"):
        load_preset(path)


def test_a_job_gets_the_sections_of_its_own_assets_only() -> None:
    preset = {"resources": {"workspace": {}}, "ops": {"stamps": {"config": {}}, "scores": {"config": {}}}}
    assert job_part(preset, frozenset({"scores"})) == {
        "resources": {"workspace": {}},
        "ops": {"scores": {"config": {}}},
    }


def test_the_generated_pages_are_what_the_code_says() -> None:
    from lens_pipeline.cli.documents import settings_page, tables_page

    docs = PRESETS.parent / "docs"
    assert (docs / "tables.md").read_text() == tables_page()
    assert (docs / "settings.md").read_text() == settings_page()


def test_presets_hold_nothing_but_plain_data() -> None:
    for path in PRESETS.glob("*.yaml"):
        assert set(yaml.safe_load(path.read_text())) == {"ops", "resources", "loggers"}


def test_a_choice_is_written_the_same_way_in_yaml_on_dagsters_page_and_in_code() -> None:
    choices = {field.annotation for section in SECTIONS.values() for field in section.model_fields.values()}
    enums = [choice for choice in choices if isinstance(choice, type) and issubclass(choice, Enum)]
    assert enums
    assert [member for enum in enums for member in enum if member.name != member.value] == []


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"ops": [1, 2]}, "ops: must be a mapping, not list"),
        ({"ops": {"lens_classifier": 3}}, "ops.lens_classifier: must be a mapping with the key config, not int"),
        ({"ops": {"lens_classifier": {"epochs": 2}}}, "ops.lens_classifier.epochs: only config may stand here"),
        ({"resources": {"workspac": {}}}, "resources.workspac: unknown; there are workspace, tracking"),
        (
            {"resources": {"workspace": {"config": {"datset": "a"}}}},
            "datset: unknown setting; known are dataset, model",
        ),
        ({"loggers": {"consol": {}}}, "loggers.consol: unknown; there are console"),
    ],
)
def test_a_key_that_stands_where_nothing_reads_it_is_refused(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate_run_config(bad)


def test_the_known_resources_are_those_that_the_code_has() -> None:
    from lens_pipeline.defs.sections import _KNOWN
    from lens_pipeline.defs.tracking import Tracking
    from lens_pipeline.defs.workspace import Workspace

    assert set(_KNOWN["resources"]["workspace"]) == set(Workspace.model_fields)
    assert set(_KNOWN["resources"]["tracking"]) == set(Tracking.model_fields)
