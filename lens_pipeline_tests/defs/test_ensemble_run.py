"""An ensemble in MLflow: a run of its own that its members' runs point to, and a registered model that names their versions."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from lens_pipeline.cli.main import main
from lens_pipeline.contracts.catalogue import METRICS
from lens_pipeline.defs.ensemble_run import log_ensemble
from lens_pipeline.defs.mlflow_runs import Record, unsettled
from lens_pipeline.defs.registry import describe, register, registered_name
from lens_pipeline.defs.tracking import EXPERIMENT, VERSION_TAG, Tracking, work_folders
from lens_pipeline.scoring.aliases import choose_champion
from lens_pipeline.scoring.ensemble import describe_members
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline_tests.defs.test_registry import publish
from lens_pipeline_tests.scoring.test_card import publish_gates, publish_report
from lens_pipeline_tests.training.making import small_survey

MODEL = "default.seeds-1-2"
NAME = registered_name("tried", MODEL)


@pytest.fixture
def home() -> Home:
    return Home.from_environment()


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> tuple[Publication, Publication]:
    return small_survey(Home(tmp_path_factory.mktemp("survey")), n_galaxies=40)


@pytest.fixture
def members(home: Home, survey: tuple[Publication, Publication]) -> list[Publication]:
    return [publish(home, survey, seed, model=f"default.seed-{seed}") for seed in (1, 2)]


@pytest.fixture
def scores(home: Home, members: list[Publication]) -> Publication:
    row = {"metric": "auroc", "split": "mean of folds", "value": 0.8, "low": 0.7, "high": None, "status": "ok"}
    counts = {"n_positives": 1, "n_negatives": 1, "n_clusters": 1, "unit": "", "stratum": "all", "cluster": "galaxy"}
    with home.stage("tried", "scores", model=MODEL, inputs=members) as staging:
        staging.attributes["members"] = describe_members(members)
        staging.write_table("out_of_fold_metrics", pa.Table.from_pylist([row | counts], schema=METRICS.schema))
        made = staging.commit()
    home.conclude(made, [])
    return made


def logged(home: Home, scores: Publication, members: list[Publication], report: Publication) -> Any:
    """Log in a step, as the report does; return the ensemble's run."""
    tracking = Tracking()

    @dg.asset
    def evaluation_report(context: dg.AssetExecutionContext) -> None:
        log_ensemble(context, home, tracking, scores, members, report, {"roc": b"png"})

    tracking.setup_for_execution(dg.build_init_resource_context())
    assert dg.materialize([evaluation_report], instance=dg.DagsterInstance.ephemeral()).success
    client = tracking.client()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`lens_pipeline.scores` = '{scores.version}'")
    return run


def test_an_ensembles_run_has_its_metrics_figures_card_and_members_and_theirs_point_to_it(
    home: Home, scores: Publication, members: list[Publication]
) -> None:
    tracking, report = Tracking(), publish_report(home, scores)
    folder = home.work_folder("tried", "lens_classifier", "run-1", model="default.seed-1")
    tags = {VERSION_TAG: members[0].version}
    Record(tracking.tracking_uri, EXPERIMENT, None, "seed 1", tags=tags, status="FINISHED").write(folder)
    first = logged(home, scores, members, report)
    again = logged(home, scores, members, report)
    assert again.info.run_id == first.info.run_id
    assert again.info.status == "FINISHED"
    assert again.data.metrics["test_auroc"] == 0.9
    assert again.data.metrics["mean_of_folds_auroc_low"] == 0.7
    assert "test_tpr_at_fpr_1e-02" not in again.data.metrics
    assert again.data.params["member.default.seed-2"] == members[1].version
    assert "The mean logit of 2 models" in again.data.tags["mlflow.note.content"]
    client = tracking.client()
    assert {"roc.png", "report.html"} <= {file.path for file in client.list_artifacts(again.info.run_id)}
    member = client.get_run(again.data.tags["lens_pipeline.member.default.seed-1"])
    assert member.data.tags[f"lens_pipeline.ensemble.{MODEL}"] == again.info.run_id
    assert member.info.status == "FINISHED"


def test_an_ensemble_is_registered_with_its_card_its_members_addresses_and_the_aliases(
    home: Home, scores: Publication, members: list[Publication], capsys: pytest.CaptureFixture[str]
) -> None:
    tracking = Tracking()
    for member in members[:1]:
        register(home, tracking, "tried", member.model)
    assert register(home, tracking, "tried", MODEL).words(scores.version) == f"{NAME}, version 1 (candidate)"
    client = tracking.client()
    there = client.get_model_version_by_alias(NAME, "candidate")
    assert "no evaluation_report about this version" in there.description
    model = client.get_logged_model(there.tags["lens_pipeline.logged_model"])
    files = Path(model.artifact_location.removeprefix("file://"))
    about = json.loads((files / "ensemble.json").read_text())
    assert [member["version"] for member in about["mean_of"]] == [member.version for member in members]
    uris = [member["uri"] for member in about["mean_of"]]
    assert uris == [f"models:/{registered_name('tried', 'default.seed-1')}/1", None]
    report = publish_report(home, scores)
    shown = describe(home, tracking, scores, report)
    assert str(shown["registry"].value) == f"{NAME}, version 1 (candidate)"
    assert "0.90 (0.85 to 0.95)" in client.get_model_version_by_alias(NAME, "candidate").description
    publish_gates(home, scores)
    choose_champion(home, "tried", MODEL)
    assert main(["registry", "--dataset", "tried", "--model", MODEL]) == 0
    listed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [scores.version, report.version, "1", "candidate,", "champion"] in listed
    assert client.get_model_version_by_alias(NAME, "champion").version == there.version


def test_a_server_that_is_down_is_told_of_an_ensemble_by_the_next_training(
    home: Home, scores: Publication, members: list[Publication]
) -> None:
    assert not unsettled(work_folders())
    report = publish_report(home, scores)
    tracking = Tracking(uri="http://127.0.0.1:9")

    @dg.asset
    def evaluation_report(context: dg.AssetExecutionContext) -> None:
        log_ensemble(context, home, tracking, scores, members, report, {})

    tracking.setup_for_execution(dg.build_init_resource_context())
    assert dg.materialize([evaluation_report], instance=dg.DagsterInstance.ephemeral()).success
    assert [folder.name for folder in unsettled(work_folders())] == [scores.version]
