"""The whole chain as a person runs it: from a shell, killed, run again, and with settings and data that are wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from lens_pipeline.contracts.catalogue import CATALOGUE
from lens_pipeline.defs.publishing import column_schema
from lens_pipeline.defs.sections import SECTIONS
from lens_pipeline.storage.home import Home

# The whole chain takes four minutes on two busy cores; on a slower machine that isn't a hang yet.
pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parent.parent
DAGSTER = Path(sys.executable).parent / "dagster"
ELSEWHERE = {
    # ASCII for files whose encoding nobody named, and a quarter of an hour off any whole one.
    "LC_ALL": "C",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONUTF8": "0",
    "TZ": "Asia/Kathmandu",
    "PYTHONHASHSEED": "1",
    "PYTHONPATH": str(ROOT),
}
SMALL: dict[str, Any] = {
    "resources": {"workspace": {"config": {"dataset": "small"}}},
    "ops": {
        "parent_sample": {"config": {"n_galaxies": 320, "n_bricks": 64}},
        "region_splits": {"config": {"floor_rows": 1, "share_tolerance": 0.1}},
        "lens_classifier": {"config": {"epochs": 2, "batch_size": 32, "checkpoint_every_steps": 2}},
    },
}


def environment(home: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DAGSTER", "MLFLOW", "LENS_PIPELINE"))}
    dagster_home = home / "dagster"
    dagster_home.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "infra" / "dagster.yaml", dagster_home / "dagster.yaml")
    return {**kept, "LENS_PIPELINE_HOME": str(home / "published"), "DAGSTER_HOME": str(dagster_home)}


def command(home: Path, select: str, config: dict[str, Any]) -> list[str]:
    home.mkdir(parents=True, exist_ok=True)
    path = home / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    selection = ["--select", select, "-m", "lens_pipeline.definitions", "-c", str(path)]
    return [str(DAGSTER), "asset", "materialize", *selection]


def materialize(
    home: Path, select: str, config: dict[str, Any] = SMALL, elsewhere: bool = False
) -> subprocess.CompletedProcess[str]:
    """Materialize from a shell; or from one elsewhere, in another language and time zone, for private files, on one core."""
    surroundings: dict[str, Any] = {"cwd": ROOT, "env": environment(home)}
    if elsewhere:
        surroundings = {
            "cwd": home,
            "umask": 0o077,
            "preexec_fn": _take_one_core,
            "env": {**surroundings["env"], **ELSEWHERE},
        }
    return subprocess.run(
        command(home, select, config), capture_output=True, text=True, errors="replace", check=False, **surroundings
    )


def _take_one_core() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def versions(home: Path, dataset: str = "small") -> dict[str, str]:
    published = Home(home / "published")
    return {a: published.open(dataset, a).version for a in SECTIONS if published.has_current(dataset, a)}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the whole chain ran once, with one command."""
    home = tmp_path_factory.mktemp("chain")
    done = materialize(home, "*")
    assert done.returncode == 0, done.stderr
    return home


@pytest.fixture
def copied(chain: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copies of the chain's home, in which some assets were never made."""

    def copy(*without: str) -> Path:
        home = tmp_path / "copy"
        shutil.copytree(chain / "published", home / "published")
        for asset in without:
            shutil.rmtree(home / "published" / "small" / asset)
        return home

    return copy


def test_one_command_goes_from_nothing_to_completeness_and_loses_no_row(chain: Path) -> None:
    published = Home(chain / "published")
    assert set(versions(chain)) == set(SECTIONS)
    manifest = published.open("small", "injection_manifest").read_table()
    store = published.open("small", "stamp_store")
    scores = published.open("small", "scores").read_table()
    quarantine = store.read_table("quarantine")
    keys = set(manifest["task_id"].to_pylist())
    assert len(keys) == manifest.num_rows == 640
    assert set(scores["task_id"].to_pylist()) == set(store.read_table()["task_id"].to_pylist())
    assert scores.num_rows + quarantine.num_rows == 640
    assert published.open("small", "completeness").read_table().num_rows > 10
    assert b"<html" in published.open("small", "evaluation_report").path("report.html").read_bytes()


def test_every_column_that_dagster_shows_says_what_it_means(chain: Path) -> None:
    published = Home(chain / "published")
    shown = {asset: column_schema(published.open("small", asset)) for asset in SECTIONS}
    tables = {asset for asset in shown if any(table.name == asset for table in CATALOGUE)}
    assert {asset for asset, schema in shown.items() if schema is not None} == tables
    unsaid = {
        asset: [column.name for column in schema.columns if "doesn't know" in (column.description or "doesn't know")]
        for asset, schema in shown.items()
        if schema is not None
    }
    assert {asset: names for asset, names in unsaid.items() if names} == {}


def test_the_model_is_asked_for_shortcuts_and_every_path_gives_its_logits(chain: Path) -> None:
    gates = Home(chain / "published").open("small", "shortcut_gates")
    rows = {row["name"]: row for row in gates.read_table().to_pylist()}
    paths = [row for row in rows.values() if row["kind"] == "path"]
    assert [(row["status"], row["value"] < 1e-5) for row in paths] == [("ok", True)] * 4
    assert rows["arc_over_removed"]["n_galaxies"] > 10
    assert rows["arc_over_removed"]["low"] < rows["arc_over_removed"]["high"]
    assert rows["injection_noise"]["n_galaxies"] > 10
    assert gates.path("evidence.png").read_bytes().startswith(b"\x89PNG")


def test_a_model_that_is_asked_again_with_other_settings_has_the_first_asking_on_record(
    chain: Path, copied: Callable[..., Path]
) -> None:
    home = copied()
    ops = {"shortcut_gates": {"config": {"n_counterfactuals": 32}}}
    done = materialize(home, "shortcut_gates", {"resources": SMALL["resources"], "ops": ops})
    assert done.returncode == 0, done.stderr
    first, again = (Home(at / "published").open("small", "shortcut_gates") for at in (chain, home))
    asked = first.attributes["asked"]
    assert (first.attributes["earlier_askings"], asked["n_counterfactuals"] > 32) == ([], True)
    assert again.attributes["asked"] == asked | {"n_counterfactuals": 32}
    assert again.attributes["earlier_askings"] == [first.version]


def test_every_version_passed_its_checks_and_names_what_it_was_made_from(chain: Path) -> None:
    published = Home(chain / "published")
    for asset in SECTIONS:
        publication = published.open("small", asset)
        assert publication.verdict is not None
        assert [c["name"] for c in publication.verdict["checks"] if c["blocking"] and not c["passed"]] == []
        assert publication.verdict["checks"]
        for source, version in publication.inputs.items():
            assert published.open("small", source).version == version


def test_scores_stand_on_the_rows_that_they_were_computed_for(chain: Path) -> None:
    published = Home(chain / "published")
    store, scores = published.open("small", "stamp_store").read_table(), published.open("small", "scores").read_table()
    label = dict(zip(*(store[c].to_pylist() for c in ("task_id", "label")), strict=True))
    model = dict(zip(*(store[c].to_pylist() for c in ("task_id", "lens_model")), strict=True))
    for row in scores.to_pylist():
        assert row["label"] == label[row["task_id"]] == int(model[row["task_id"]] != "CONTROL")


def test_the_same_chain_elsewhere_gives_the_same_bytes(chain: Path, tmp_path: Path) -> None:
    config = json.loads(json.dumps(SMALL))
    config["ops"]["stamps"] = {"config": {"workers": 1}}
    done = materialize(tmp_path, "*", config, elsewhere=True)
    assert done.returncode == 0, done.stderr
    # The doctor repeats what checks say in words, and some of them say how long things took.
    there, here = ({asset: v for asset, v in versions(home).items() if asset != "doctor"} for home in (tmp_path, chain))
    assert there == here


def test_one_asset_alone_reads_what_is_current(copied: Callable[..., Path], chain: Path) -> None:
    home = copied("operating_point")
    done = materialize(home, "operating_point")
    assert done.returncode == 0, done.stderr
    assert versions(home) == versions(chain)


def test_an_asset_whose_source_was_never_made_says_which_command_makes_it(tmp_path: Path) -> None:
    done = materialize(tmp_path, "stamps")
    assert done.returncode != 0
    assert "dagster asset materialize --select parent_sample -m lens_pipeline.definitions" in done.stderr


def test_a_run_killed_in_training_leaves_no_process_and_goes_on_to_the_same_model(
    copied: Callable[..., Path], chain: Path
) -> None:
    home = copied("lens_classifier", "scores", "operating_point", "completeness", "evaluation_report")
    process = subprocess.Popen(
        command(home, "lens_classifier", SMALL),
        env=environment(home),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    shelf = home / "published" / "small" / "lens_classifier"

    def checkpoints() -> list[Path]:
        return list(shelf.glob("default/.work/*/checkpoints/*.json"))

    wait_until(lambda: bool(checkpoints()) or process.poll() is not None, seconds=120)
    assert process.poll() is None, "training ended before it could be killed"
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 3
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    assert "lens_classifier" not in versions(home)
    done = materialize(home, "lens_classifier")
    assert done.returncode == 0, done.stderr
    history = next(shelf.glob("default/.work/*/history.jsonl")).read_text().splitlines()
    starts = [event for event in map(json.loads, history) if event["event"] == "run_started"]
    assert len(starts) == 2
    assert starts[1]["resumed_from"]
    assert versions(home)["lens_classifier"] == versions(chain)["lens_classifier"]


@pytest.mark.parametrize(
    ("asset", "setting", "value", "message"),
    [
        ("evaluation_report", "n_gallery", -1, "allowed: >= 0"),
        ("lens_classifier", "epochs", 0, "allowed: >= 1"),
        ("operating_point", "target_fpr", [0.1], "unknown setting; known are target_fprs"),
        ("region_splits", "train", 0.9, "leave nothing for test"),
    ],
)
def test_a_bad_setting_of_any_asset_is_refused_before_the_first_step(
    tmp_path: Path, asset: str, setting: str, value: object, message: str
) -> None:
    done = materialize(tmp_path, "*", {"ops": {asset: {"config": {setting: value}}}})
    assert done.returncode != 0
    assert message in done.stderr or f'unexpected config entry "{setting}"' in done.stderr
    assert "parent_sample ..." not in done.stderr
    assert not list((tmp_path / "published").glob("*/*"))


def wait_until(condition: Callable[[], bool], *, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"nothing happened in {seconds} s")
        time.sleep(0.05)
