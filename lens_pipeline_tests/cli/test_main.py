"""The commands beside Dagster's: a preset is checked without running it, and every published byte can be read again."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lens_pipeline.cli import predict, summary
from lens_pipeline.cli.main import main
from lens_pipeline.stamps.checks import store_checks
from lens_pipeline.stamps.config import StoreConfig
from lens_pipeline.storage.home import Home
from lens_pipeline_tests.stamps.making import make_rows, make_store, publish_stamps

PRESETS = Path(__file__).parent.parent.parent / "presets"


def publish() -> Path:
    with Home.from_environment().stage("sky", "scores") as staging:
        staging.write_table(None, pa.table({"task_id": ["a"]}))
        return staging.commit().folder


@pytest.mark.parametrize(
    "typed",
    [
        "p.yaml a.npy b.npy --model m --out o.parquet",
        "p.yaml --model m a.npy --out o.parquet b.npy",
        "p.yaml --tta a.npy b.npy --out o.parquet --model m",
        "--out o.parquet p.yaml a.npy --model m b.npy",
    ],
)
def test_options_may_stand_anywhere_between_a_preset_and_inputs(monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(predict, "run", lambda *given, tta, **_: asked.append((*given, tta)) or 0)
    assert main(["predict", *typed.split()]) == 0
    ((which, inputs, out, *_, tta),) = asked
    assert (which.preset, which.model, inputs, out) == (Path("p.yaml"), "m", ["a.npy", "b.npy"], Path("o.parquet"))
    assert tta is ("--tta" in typed)


@pytest.mark.parametrize("typed", ["predict a.npy --out o.parquet --bogus b.npy", "verify --remote sky"])
def test_what_no_command_knows_is_refused_by_name(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(typed.split())
    assert ended.value.code == 2
    assert f"unrecognized arguments: {'--bogus b.npy' if 'bogus' in typed else 'sky'}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (
            "predict a.npy --out o --dataset sky --version v1 --alias champion",
            "--version v1 and --alias champion both say",
        ),
        ("card --dataset sky --version v1 --alias candidate", "--version v1 and --alias candidate both say"),
        ("predict a.npy --out o --folder . --model tiny", "--folder names a version by itself"),
        ("predict a.npy --out o --folder . --alias champion", "--folder names a version by itself"),
        ("predict a.npy --out o --folder . --version v1", "--folder names a version by itself"),
    ],
)
def test_a_version_that_is_named_in_two_ways_is_refused(
    typed: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(typed.split()) == 1
    assert says in capsys.readouterr().err


def test_verify_finds_one_flipped_byte(capsys: pytest.CaptureFixture[str]) -> None:
    folder = publish()
    assert main(["verify"]) == 0
    table = folder / "scores.parquet"
    damaged = bytearray(table.read_bytes())
    damaged[40] ^= 1
    table.write_bytes(damaged)
    assert main(["verify", "--dataset", "sky"]) == 1
    printed = capsys.readouterr().out
    assert "damaged  sky/scores/default" in printed
    assert "1 versions" in printed
    assert "1 problems" in printed


def test_a_summary_of_nothing_names_the_next_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary"]) == 1
    assert "dagster asset materialize --select evaluation_report" in capsys.readouterr().err


def test_verify_names_a_manifest_that_is_damaged_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    folder = publish()
    (folder / "manifest.json").write_bytes(b"{}")
    assert main(["verify"]) == 1
    assert "manifest.json is damaged" in capsys.readouterr().out


def test_compact_publishes_a_store_without_holes_and_says_what_it_saved(capsys: pytest.CaptureFixture[str]) -> None:
    home = Home.from_environment()
    rows = make_rows(60)
    first, _ = make_store(home, publish_stamps(home, [rows[:30], rows[30:]]))
    stamps = publish_stamps(home, [rows[:30]])
    store, _ = make_store(home, stamps, previous=first)
    assert main(["compact", "--dataset", "tried"]) == 1
    assert "never published" in capsys.readouterr().err
    home.conclude(store, store_checks(store, stamps, StoreConfig()))
    assert main(["compact", "--dataset", "tried"]) == 0
    printed = capsys.readouterr().out
    assert f"before: {store.version}, 30 holes in 1 segments" in printed
    assert "no holes in 1 segments" in printed
    current = home.open("tried", "stamp_store")
    assert current.attributes["n_holes"] == 0
    assert f"{current.version} is current" in printed
    assert main(["compact", "--dataset", "tried"]) == 0
    assert "nothing to compact" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["check", str(PRESETS / "simulated.yaml")], ["verify"]])
def test_a_reader_that_has_seen_enough_ends_a_command_quietly_as_other_tools_end(arguments: list[str]) -> None:
    publish()
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as closed:
        command = [sys.executable, "-m", "lens_pipeline.cli.main", *arguments]
        ended = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.stderr, ended.returncode) == ("", 128 + signal.SIGPIPE)


def test_help_and_what_is_typed_wrongly_are_answered_without_loading_what_runs() -> None:
    heavy = "{'dagster', 'torch', 'scipy', 'sklearn', 'numba', 'astropy', 'matplotlib', 'mlflow'}"
    script = f"""
import sys
from lens_pipeline.cli.main import main
for typed in (["--help"], ["champion", "--help"], ["train", "p.yaml", "--seeds", "one"], ["sumary"]):
    try:
        main(typed)
    except SystemExit:
        pass
sys.exit(", ".join(sorted({heavy} & set(sys.modules))) or 0)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "GO or NO-GO" in ended.stdout
    assert "'one' is no list of whole numbers" in ended.stderr


def test_another_pipe_that_breaks_is_an_error_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> int:
        raise BrokenPipeError("a worker's")

    monkeypatch.setattr(summary, "run", broken)
    with pytest.raises(BrokenPipeError, match="a worker's"):
        main(["summary"])
