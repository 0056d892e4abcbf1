"""The job hyperparameter_sweep publishes the best setting as a preset that loads, and shows every trial in Dagster and MLflow."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from lens_pipeline.cli.main import main
from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.definitions import build_definitions
from lens_pipeline.defs.mlflow_runs import MlflowRun, Record
from lens_pipeline.defs.sections import load_preset, validate_run_config
from lens_pipeline.defs.sweep import BEST, best_preset, run_in_process, sweep_run_config
from lens_pipeline.defs.tracking import EXPERIMENT, Tracking
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training import sweep as engine
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.failures import TrainingCancelledError
from lens_pipeline.training.folder import RunFolder
from lens_pipeline.training.sweep import Trial
from lens_pipeline_tests.training.events import epoch, run_started
from lens_pipeline_tests.training.making import small_survey
from lens_pipeline_tests.training.test_search import NOTHING

PRESET: dict[str, Any] = {
    "resources": {"workspace": {"config": {"dataset": "tried"}}},
    "loggers": {"console": {}},
    "ops": {
        "region_splits": {"config": {"seed": 3}},
        "lens_classifier": {"config": {"epochs": 3, "clip_norm": 2.0, "dropout": 0.1}},
        "sweep": {
            "config": {**NOTHING, "learning_rate": [1e-3, 1e-1], "dropout": [0.0, 0.5], "trials": 4, "pruner": "none"}
        },
    },
}


def value_of(config: TrainingConfig) -> float:
    return abs(config.learning_rate - 0.03) + config.dropout


def pretend(store: Publication, told: Publication) -> engine.Train:
    """Stands for trainings: each leaves a history."""
    assert "withheld_from" in told.attributes

    def train(trial: Trial, on_event: Callable[[dict[str, Any]], None], cancelled: Callable[[], bool]) -> float:
        events = [run_started(), *(epoch(n, val_loss=value_of(trial.config) + 0.1 * (2 - n)) for n in range(3))]
        with open(RunFolder(trial.folder).history, "a") as file:
            for event in events:
                file.write(json.dumps(event) + "\n")
                on_event(event)
                if cancelled():
                    raise TrainingCancelledError("cancelled")
        return value_of(trial.config)

    return train


@pytest.fixture
def surveyed(monkeypatch: pytest.MonkeyPatch) -> Home:
    home = Home.from_environment()
    store, splits = small_survey(home, n_galaxies=60)
    for publication in (store, splits):
        home.conclude(publication, [])
    monkeypatch.setattr(engine, "trainer", pretend)
    return home


def test_the_best_setting_becomes_a_preset_that_loads_and_all_is_shown(
    surveyed: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "preset.yaml", tmp_path / "best.yaml"
    path.write_text(yaml.safe_dump(PRESET))
    assert main(["sweep", str(path), "--trials", "3", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    published = surveyed.open("tried", "sweep")
    table = published.read_table().to_pylist()
    assert [row["state"] for row in table] == ["complete"] * 3
    best = min(table, key=lambda row: row["value"])
    n = sum(
        row["split"] == "val_select" for row in surveyed.open("tried", "region_splits").read_table("rows").to_pylist()
    )
    figure = f"val_loss {best['value']:.5g}, standard error 0.06, on {n} rows of val_select"
    assert f"best of 3 trials: {figure}, trial {best['trial']}" in said
    assert figure in out.read_text().splitlines()[0]

    loaded = load_preset(out)
    section = validate_run_config(loaded)["lens_classifier"]
    assert section == TrainingConfig(
        epochs=3, clip_norm=2.0, dropout=best["dropout"], learning_rate=best["learning_rate"]
    )
    assert loaded["ops"]["region_splits"] == PRESET["ops"]["region_splits"]
    assert out.read_bytes() == published.path(BEST).read_bytes()
    assert {f"{name}.png" for name in ("history", "importances", "parallel_coordinates")} <= set(
        published.manifest.files
    )

    runs = tracked()
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    trials = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {parent.info.run_id}
    assert sorted(run.data.metrics["objective"] for run in trials) == pytest.approx(
        sorted(row["value"] for row in table)
    )
    assert {run.info.status for run in runs} == {"FINISHED"}
    client = Tracking(uri="", experiment=EXPERIMENT).client()
    assert {"best.yaml", "history.png", "importances.png", "parallel_coordinates.png", "sweep.parquet"} <= {
        file.path for file in client.list_artifacts(parent.info.run_id)
    }
    assert len(client.get_metric_history(trials[0].info.run_id, "val_loss")) == 3


@pytest.mark.parametrize(
    ("name", "why"), [("there.yaml", "is there already"), ("no/such/best.yaml", "there is no folder")]
)
def test_a_file_that_the_best_setting_cant_be_written_to_is_refused_before_the_first_trial(
    surveyed: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, why: str
) -> None:
    path, there = tmp_path / "preset.yaml", tmp_path / "there.yaml"
    path.write_text(yaml.safe_dump(PRESET))
    there.write_text("mine")
    assert main(["sweep", str(path), "--trials", "1", "--out", str(tmp_path / name)]) == 1
    assert why in capsys.readouterr().err
    assert there.read_text() == "mine"
    assert not surveyed.has_current("tried", "sweep")


def test_dagster_shows_the_pictures_and_a_second_start_goes_on(surveyed: Home) -> None:
    instance = dg.DagsterInstance.ephemeral()
    run_in_process(PRESET, {"trials": 1}, instance)
    run_in_process(PRESET, {"trials": 3}, instance)
    assert surveyed.open("tried", "sweep").read_table().num_rows == 3
    shown = instance.get_latest_materialization_event(dg.AssetKey("sweep"))
    assert shown is not None
    assert shown.asset_materialization is not None
    metadata = shown.asset_materialization.metadata
    for name in ("history", "importances", "parallel_coordinates"):
        assert "data:image/png;base64," in str(metadata[name].value)
    assert "lens_classifier:" in str(metadata["best_preset"].value)


KILLED = """
import os, signal, time
import dagster as dg
from lens_pipeline.defs.mlflow_runs import MlflowRun
from lens_pipeline.defs.sweep import run_in_process
from lens_pipeline.training import sweep as engine
from lens_pipeline_tests.defs.test_sweep import PRESET, pretend
def trainer(store, told):
    train = pretend(store, told)
    def killed(trial, on_event, cancelled):
        if trial.number:
            while not MlflowRun(trial.folder).is_told:
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        return train(trial, on_event, cancelled)
    return killed
engine.trainer = trainer
run_in_process(PRESET, {"trials": 3}, dg.DagsterInstance.ephemeral())
"""


def test_runs_that_a_killed_sweep_left_behind_are_ended_at_its_next_start(surveyed: Home) -> None:
    # The lost trial is tried once more and lost again, so that nobody goes on with its run.
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        # A trial that is over is told so while the sweep goes on.
        assert {run.info.run_name: run.info.status for run in tracked()}["trial 0"] == "FINISHED"
    stray = surveyed.work_folder("elsewhere", "lens_classifier", "killed")
    Record(Tracking().tracking_uri, EXPERIMENT, None, "a training whose process was killed").write(stray)
    MlflowRun(stray).sync()
    assert sorted(run.info.status for run in tracked()) == ["FINISHED", "RUNNING", "RUNNING", "RUNNING"]
    run_in_process(PRESET, {"trials": 3}, dg.DagsterInstance.ephemeral())
    runs = tracked()
    ended = {run.info.run_name: run.info.status for run in runs}
    assert ended["a training whose process was killed"] == "KILLED"
    (lost,) = [run for run in runs if run.data.tags.get("lens_pipeline.trial_reason") == "its process was killed"]
    assert (lost.info.status, lost.data.tags["lens_pipeline.trial_state"]) == ("KILLED", "fail")
    others = [run.info.status for run in runs if run.info.run_id != lost.info.run_id]
    assert sorted(others) == ["FINISHED", "FINISHED", "FINISHED", "KILLED"]


def tracked() -> list[Any]:
    client = Tracking(uri="", experiment=EXPERIMENT).client()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def test_a_space_or_a_monitor_that_cannot_work_is_refused_before_any_trial(surveyed: Home) -> None:
    with pytest.raises(dg.Failure, match=r"(?s)ConfigError: the sweep's space was refused.*warmup_epochs 9"):
        run_in_process(PRESET, {"warmup_epochs": [0.0, 9.0]}, dg.DagsterInstance.ephemeral())
    unresolvable = {**PRESET, "ops": {"lens_classifier": {"config": {"monitor": "val_auroc"}}}}
    with pytest.raises(dg.Failure, match="TrainingError: monitor val_auroc would be decided by chance"):
        run_in_process(unresolvable, {}, dg.DagsterInstance.ephemeral())
    with pytest.raises(ConfigError, match=r"ops\.sweep\.config\.dropout"):
        run_in_process(PRESET, {"dropout": [0.5]}, dg.DagsterInstance.ephemeral())
    assert not list(surveyed.path.glob("tried/sweep/*/.work/*/study.db"))


def test_the_job_is_no_part_of_the_chain_and_takes_its_presets_section() -> None:
    definitions = build_definitions(PRESET)
    job = definitions.resolve_job_def("hyperparameter_sweep")
    assert job.run_config == sweep_run_config(PRESET)
    assert dg.AssetKey("sweep") not in definitions.resolve_asset_graph().get_all_asset_keys()


def test_a_preset_that_would_not_load_is_never_left_as_the_best(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="learning_rate"):
        best_preset(PRESET, {"learning_rate": 7.0}, tmp_path / BEST, why="a test")
    assert not (tmp_path / BEST).exists()
