"""A cross-validation or an ensemble: names, settings, what is trained again and what isn't."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lens_pipeline.cli import members as command
from lens_pipeline.cli.summary import figure
from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.defs import members
from lens_pipeline.defs.members import Group, Member, evaluation_config, run_config_of
from lens_pipeline.defs.workspace import Workspace
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.code import code_sha256
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline_tests.scoring.test_card import publish_report
from lens_pipeline_tests.training.making import small_survey

PRESET: dict[str, Any] = {
    "resources": {"workspace": {"config": {"dataset": "tried"}}},
    "ops": {"lens_classifier": {"config": {"epochs": 2}}, "scores": {"config": {"tta": True}}},
}
GROUP = Group.of_folds("main", 3)


@pytest.fixture
def home() -> Home:
    return Home.from_environment()


@pytest.fixture
def survey(home: Home) -> tuple[Publication, Publication]:
    made = small_survey(home, n_galaxies=40)
    for publication in made:
        home.conclude(publication, [])
    return made


def publish(home: Home, survey: tuple[Publication, Publication], member: Member, code: str = "", **other: Any) -> None:
    config = {**run_config_of(PRESET, member)["ops"]["lens_classifier"]["config"], **other}
    provenance = {"code_sha256": code or code_sha256()}
    with home.stage("tried", "lens_classifier", model=member.model, inputs=[*survey], provenance=provenance) as staging:
        staging.attributes["config"] = TrainingConfig.model_validate(config).model_dump(mode="json")
        home.conclude(staging.commit(), [])


def test_members_are_models_by_name_with_the_presets_settings_and_their_own() -> None:
    config = run_config_of(PRESET, GROUP.members[1])
    assert config["resources"]["workspace"]["config"] == {"dataset": "tried", "model": "main.fold-1-of-3"}
    assert config["ops"] == {"lens_classifier": {"config": {"epochs": 2, "folds": 3, "fold": 1}}}
    assert PRESET["ops"]["lens_classifier"]["config"] == {"epochs": 2}


def test_their_mean_is_scored_under_a_name_of_its_own() -> None:
    config = evaluation_config(PRESET, GROUP)
    assert config["resources"]["workspace"]["config"]["model"] == "main.folds-3"
    names = [f"main.fold-{fold}-of-3" for fold in range(3)]
    assert config["ops"] == {"scores": {"config": {"tta": True, "members": names}}}


def test_seeds_in_any_order_are_the_same_ensemble() -> None:
    assert Group.of_seeds("main", [3, 1, 2]) == Group.of_seeds("main", [1, 2, 3])
    assert [member.model for member in Group.of_seeds("main", [2, 1]).members] == ["main.seed-1", "main.seed-2"]


@pytest.mark.parametrize("seeds", [[1], [1, 1], [1, 2, 1]])
def test_seeds_that_are_no_ensemble_are_refused(seeds: list[int]) -> None:
    with pytest.raises(ConfigError, match="2 seeds at least"):
        Group.of_seeds("main", seeds)


def test_one_fold_is_no_cross_validation() -> None:
    with pytest.raises(ConfigError, match="2 folds at least"):
        Group.of_folds("main", 1)


def test_a_member_is_found_again_by_settings_code_and_inputs(
    home: Home, survey: tuple[Publication, Publication]
) -> None:
    first, second, third = GROUP.members
    assert members.published(PRESET, first) is None
    publish(home, survey, first)
    publish(home, survey, second, epochs=3)
    publish(home, survey, third, code="another")
    found = members.published(PRESET, first)
    assert found is not None
    assert found.model == first.model
    assert members.published(PRESET, second) is None
    assert members.published(PRESET, third) is None


def test_only_what_is_missing_is_trained_and_then_all_are_evaluated(
    home: Home, survey: tuple[Publication, Publication], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, ...]] = []

    def materialize(assets: Sequence[str], config: dict[str, Any]) -> None:
        made.append((config["resources"]["workspace"]["config"]["model"], *assets))

    monkeypatch.setattr(command, "materialize", materialize)
    monkeypatch.setattr(command, "_tell", lambda workspace: None)
    monkeypatch.setattr(command, "refuse_unusable_members", lambda preset, group: None)
    group = Group.of_seeds("default", [1, 2, 3])
    publish(home, survey, group.members[1])
    assert command.run(PRESET, folds=None, seeds=[1, 2, 3]) == 0
    assert made == [
        ("default.seed-1", "lens_classifier"),
        ("default.seed-3", "lens_classifier"),
        ("default.seeds-1-2-3", "scores", "operating_point", "completeness", "evaluation_report", "shortcut_gates"),
    ]


def test_what_is_told_at_the_end_has_its_n_and_interval(
    home: Home, survey: tuple[Publication, Publication], capsys: pytest.CaptureFixture[str]
) -> None:
    with home.stage("tried", "scores", model="default.seeds-1-2", inputs=[*survey]) as staging:
        staging.write_table(None, pa.table({"task_id": ["a"]}))
        staging.attributes["members"] = [{"model": "default.seed-1", "version": "v1"}]
        scores = staging.commit()
    home.conclude(scores, [])
    publish_report(home, scores)
    command._tell(Workspace(dataset="tried", model="default.seeds-1-2"))
    said = " ".join(capsys.readouterr().out.split())
    assert "test auroc 0.9000 [0.8500, 0.9500] n = 12 injections and 34 controls" in said


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ((0.9, 0.85, 0.95, "ok", None), "0.9000 [0.8500, 0.9500]"),
        ((0.9, None, None, "ok", "no interval: a class has 3 galaxies, a ..."), "0.9000 (no interval: a class has 3 galaxies)"),
        ((0.9, 0.1, 1.0, "small", "3 effective injections"), "0.9000 [0.1000, 1.0000] (small)"),
        ((None, None, None, "undefined", "there are no such rows"), "undefined: there are no such rows"),
    ],
)  # fmt: skip
def test_a_number_stands_with_its_interval_or_says_why_it_has_none(row: tuple[Any, ...], said: str) -> None:
    assert figure(*row) == said


def test_a_run_that_fails_names_the_model_and_that_the_rest_stands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(members.sys, "executable", "/bin/false")
    with pytest.raises(members.TrainingError, match=r"lens_classifier of model main\.fold-0-of-3 failed"):
        members.materialize(["lens_classifier"], run_config_of(PRESET, GROUP.members[0]))
