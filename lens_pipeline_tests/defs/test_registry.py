"""MLflow's registry follows what is published: told again nothing changes, told late nothing is missing."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import yaml

from lens_pipeline.cli.main import main
from lens_pipeline.contracts.catalogue import HISTORY
from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.defs.registry import Registered, describe, register, registered_name
from lens_pipeline.defs.tracking import Tracking
from lens_pipeline.scoring.aliases import Alias, choose_champion, open_alias
from lens_pipeline.scoring.export import PROGRAM
from lens_pipeline.scoring.model import read_classifier
from lens_pipeline.scoring.program import export_program
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.choices import Architecture
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.forward import serialize
from lens_pipeline.training.models import build_model, spec_for
from lens_pipeline_tests.scoring.test_card import publish_gates, publish_report
from lens_pipeline_tests.training.making import CONTRACT, small_survey

NAME = registered_name("tried", "default")
SOUND = (green("validation_is_whole", "it is"),)
# MLflow loads a model where this package and timm can't be found, and unpickles nothing.
LOAD = """
import sys

class Blocked:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("lens_pipeline", "timm"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
import mlflow, torch

mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pytorch.load_model(sys.argv[2])
logits = model(torch.full((5, 3, 16, 16), 0.5, dtype=torch.float16), torch.zeros(5, 3), torch.ones(5, 3))
print(tuple(logits.shape), logits.dtype)
"""


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> tuple[Publication, Publication]:
    return small_survey(Home(tmp_path_factory.mktemp("survey")), n_galaxies=40)


@pytest.fixture
def home() -> Home:
    return Home.from_environment()


def publish(
    home: Home,
    survey: tuple[Publication, Publication],
    seed: int,
    *checks: Check,
    program: str = "bytes",
    model: str | None = None,
) -> Publication:
    """Publish a classifier that never learned anything, with its program, bytes that only look like one, or none."""
    store, _ = survey
    config = TrainingConfig(model=Architecture.test_resnet, seed=seed)
    spec = spec_for(config, CONTRACT)
    torch.manual_seed(seed)
    contract = CONTRACT.model_dump(mode="json")
    about: dict[str, Any] = {
        "model": spec.to_json(),
        "preprocessing": {
            "name": "asinh_v1",
            "bands": ["g", "r", "z"],
            "noise_nanomaggy": [0.01] * 3,
            "softening": 1.0,
        },
        "contract": contract,
        "config": config.model_dump(mode="json"),
    }
    history = {"epoch": 0, "train_loss": 0.5, "val_loss": 0.5, "val_auroc": 0.7, "learning_rate": 0.001}
    with home.stage("tried", "lens_classifier", model=model, inputs=list(survey)) as staging:
        staging.write_bytes("model.safetensors", serialize(build_model(spec).state_dict()))
        staging.write_json("model.json", about)
        staging.write_table(None, pa.table({n: pa.array([v], HISTORY.column(n).dtype) for n, v in history.items()}))
        staging.attributes.update(
            dataset_contract=contract, best_epoch=0, epochs=1, ended="told to", monitor="val_loss"
        )
        if program == "bytes":
            staging.write_bytes(PROGRAM, b"program")
            staging.provenance["program"] = {"torch_version": "2.15.0+cpu"}
        if program == "real":
            trial = export_program(read_classifier(staging.folder), StampStore.open(store), staging.folder / PROGRAM)
            staging.provenance["program"] = trial.to_json()
        made = staging.commit()
    home.conclude(made, list(checks or SOUND))
    return made


def tell(home: Home, **becoming: Any) -> Registered:
    return register(home, Tracking(), "tried", "default", **becoming)


def held(alias: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(Tracking().tracking_uri).get_model_version_by_alias(NAME, alias)


def test_a_registered_model_loads_in_mlflow_without_this_package_and_without_unpickling(
    home: Home, survey: tuple[Publication, Publication], tmp_path: Path
) -> None:
    made = publish(home, survey, 1, program="real")
    assert tell(home).words(made.version) == f"{NAME}, version 1 (candidate)"
    done = subprocess.run(
        [sys.executable, "-c", LOAD, Tracking().tracking_uri, f"models:/{NAME}@candidate"],
        env={**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(5, 1) torch.float32"


def test_every_green_version_is_registered_once_and_the_aliases_follow_what_is_published(
    home: Home, survey: tuple[Publication, Publication]
) -> None:
    first, second = publish(home, survey, 1), publish(home, survey, 2)
    publish(home, survey, 3, red("validation_is_whole", "it is not", wrong=["x"], why="", next_step=""))
    lacking = publish(home, survey, 4, program="none")
    publish(home, survey, 2)
    found = tell(home)
    assert (found.numbers, found.new) == ({first.version: "1", second.version: "2"}, 2)
    assert found.without_program == [lacking.version]
    assert found.aliases == {"candidate": second.version}
    again = tell(home)
    assert (again.numbers, again.new, again.aliases) == (found.numbers, 0, found.aliases)
    publish_report(home, first)
    publish_gates(home, first)
    choose_champion(home, "tried", None, first.version)
    assert tell(home).aliases == {"candidate": second.version, "champion": first.version}
    assert [held(alias).tags["lens_pipeline.lens_classifier"] for alias in ("candidate", "champion")] == [
        second.version,
        first.version,
    ]


def test_a_new_report_and_new_gates_replace_the_card_that_was_registered(
    home: Home, survey: tuple[Publication, Publication]
) -> None:
    from mlflow.tracking import MlflowClient

    made = publish(home, survey, 1)
    tell(home)
    assert "no evaluation_report about this version" in held("candidate").description
    report = publish_report(home, made, auroc=0.87)
    tell(home)
    there = held("candidate")
    assert there.tags["lens_pipeline.evaluation_report"] == report.version
    assert "0.87 (0.85 to 0.95)" in there.description
    assert "it was never asked whether it learned a shortcut" in there.description
    publish_gates(home, made, "arc_over_fake_blob")
    tell(home)
    there = held("candidate")
    assert "1 of its shortcut gates are red (arc_over_fake_blob)" in there.description
    model_id = there.tags["lens_pipeline.logged_model"]
    location = MlflowClient(Tracking().tracking_uri).get_logged_model(model_id).artifact_location
    files = Path(location.removeprefix("file://"))
    assert "0.87 (0.85 to 0.95)" in (files / "model_card.md").read_text()
    assert (files / "data" / PROGRAM).read_bytes() == made.path(PROGRAM).read_bytes()
    assert (files / "lens_classifier" / "model.safetensors").read_bytes() == made.path("model.safetensors").read_bytes()


def test_what_becomes_current_next_is_the_candidate_already(
    home: Home, survey: tuple[Publication, Publication]
) -> None:
    first = publish(home, survey, 1)
    becoming = publish(home, survey, 2, red("validation_is_whole", "not yet", wrong=["x"], why="", next_step=""))
    assert tell(home).aliases == {"candidate": first.version}
    assert tell(home, becoming=[becoming, None]).aliases == {"candidate": becoming.version}


def test_a_server_that_is_down_fails_nothing_and_the_page_says_what_tells_it_later(
    home: Home, survey: tuple[Publication, Publication], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = publish(home, survey, 1)
    for name, value in {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "1"}.items():
        monkeypatch.setenv(name, value)
    seen = describe(home, Tracking(uri="http://127.0.0.1:9"), made)
    assert str(seen["registry"].value).startswith("not told: ")
    assert str(seen["registry"].value).endswith("Next: lens_pipeline registry --dataset tried")
    assert f"lens_classifier {made.version}" in str(seen["model_card"].value)
    assert tell(home).numbers == {made.version: "1"}
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_only_a_version_that_passed_and_was_evaluated_can_be_champion(
    home: Home, survey: tuple[Publication, Publication]
) -> None:
    made = publish(home, survey, 1, program="none")
    bad = publish(home, survey, 2, red("validation_is_whole", "no", wrong=["x"], why="", next_step=""), program="none")
    with pytest.raises(StorageError, match="no champion was chosen"):
        open_alias(home, "tried", None, Alias.champion)
    with pytest.raises(StorageError, match="has no evaluation_report that passed"):
        choose_champion(home, "tried", None)
    with pytest.raises(StorageError, match="has not passed its checks"):
        choose_champion(home, "tried", None, bad.version)
    publish_report(home, made)
    publish_gates(home, made)
    assert choose_champion(home, "tried", None).version == made.version
    assert open_alias(home, "tried", None, Alias.champion).version == made.version


def test_a_version_with_a_red_shortcut_gate_or_none_asked_is_champion_only_with_a_reason_that_is_kept(
    home: Home, survey: tuple[Publication, Publication]
) -> None:
    made = publish(home, survey, 1, program="none")
    publish_report(home, made)
    with pytest.raises(StorageError, match=r"never asked whether it learned a shortcut.*--select shortcut_gates"):
        choose_champion(home, "tried", None)
    gates = publish_gates(home, made, "arc_over_fake_blob")
    with pytest.raises(StorageError, match=rf"1 of its shortcut gates are red \(arc_over_fake_blob\).*{gates.version}"):
        choose_champion(home, "tried", None)
    with pytest.raises(StorageError, match="no champion was chosen"):
        open_alias(home, "tried", None, Alias.champion)
    assert choose_champion(home, "tried", None, despite="only a rehearsal").version == made.version
    choice = home.open("tried", "champion")
    assert choice.attributes["despite"] == "only a rehearsal"
    assert "arc_over_fake_blob" in choice.attributes["problem"]
    publish_gates(home, made)
    choose_champion(home, "tried", None)
    choice = home.open("tried", "champion")
    assert "despite" not in choice.attributes
    assert choice.attributes["unanswered_gates"] == ["null_flux_logits"]


@pytest.mark.parametrize(
    ("lacking", "unknown"),
    [
        ("gate", r"whether anything but arcs tells the classes apart wasn't asked"),
        ("counterfactual", r"whether the score follows the arc wasn't asked"),
        ("path", r"whether every path gives a row the same logit wasn't asked"),
    ],
)
def test_a_version_of_which_a_kind_of_gates_was_never_answered_is_champion_only_with_a_reason_that_is_kept(
    home: Home, survey: tuple[Publication, Publication], lacking: str, unknown: str
) -> None:
    made = publish(home, survey, 1, program="none")
    publish_report(home, made)
    publish_gates(home, made, kinds=tuple(kind for kind in ("gate", "counterfactual", "path") if kind != lacking))
    with pytest.raises(StorageError, match=rf"{unknown}.*docs/shortcut-gates.md.*--select shortcut_gates"):
        choose_champion(home, "tried", None)
    choose_champion(home, "tried", None, despite="the stamps come without pairs")
    choice = home.open("tried", "champion")
    assert choice.attributes["despite"] == "the stamps come without pairs"
    assert "wasn't asked" in choice.attributes["problem"]


def test_the_champion_can_be_changed_there_and_back(home: Home, survey: tuple[Publication, Publication]) -> None:
    first, second = (publish(home, survey, seed, program="none") for seed in (1, 2))
    for made in (first, second):
        publish_report(home, made)
        publish_gates(home, made)
    for chosen in (first, second, first):
        choose_champion(home, "tried", None, chosen.version)
        assert open_alias(home, "tried", None, Alias.champion).version == chosen.version
    assert open_alias(home, "tried", None, Alias.candidate).version == second.version


def test_the_commands_choose_list_and_show(
    home: Home, survey: tuple[Publication, Publication], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = publish(home, survey, 1), publish(home, survey, 2, program="none")
    report = publish_report(home, first)
    publish_gates(home, first, "arc_over_fake_blob")
    assert main(["champion", "--dataset", "tried", "--version", first.version]) == 1
    assert "--despite REASON" in capsys.readouterr().err
    publish_gates(home, first)
    assert main(["champion", "--dataset", "tried", "--version", first.version]) == 0
    said = capsys.readouterr().out
    assert f"lens_classifier {first.version} of tried is the champion." in said
    assert "1 of its shortcut gates were not answered, for or against: null_flux_logits" in said
    assert main(["registry", "--dataset", "tried"]) == 0
    listed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [first.version, report.version, "1", "champion"] in listed
    assert [second.version, "-", "-", "candidate"] in listed
    assert main(["card", "--dataset", "tried", "--alias", "champion"]) == 0
    assert f"# tried, default: lens_classifier {first.version}" in capsys.readouterr().out


def test_the_commands_ask_the_server_that_the_preset_names(
    home: Home,
    survey: tuple[Publication, Publication],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = publish(home, survey, 1)
    publish_report(home, made)
    publish_gates(home, made)
    for name, value in {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "1"}.items():
        monkeypatch.setenv(name, value)
    preset = tmp_path / "preset.yaml"
    resources = {"workspace": {"dataset": "tried"}, "tracking": {"uri": "http://127.0.0.1:9", "experiment": "ours"}}
    preset.write_text(yaml.safe_dump({"resources": {name: {"config": one} for name, one in resources.items()}}))
    for command in ("registry", "champion"):
        assert main([command, str(preset)]) == 0
        assert "MLflow at http://127.0.0.1:9 was not told" in capsys.readouterr().out
