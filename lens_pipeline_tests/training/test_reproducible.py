"""The same settings, data and seed give the same bytes, whatever process makes them, and wherever.

How rows are read, threads and the like are settings: test_loop.py has them.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Process:
    """Where and how a program runs."""

    cwd: str = "."
    umask: int = 0o022
    cores: int | None = None
    environment: dict[str, str] = field(default_factory=dict)


PLAIN = Process(environment={"PYTHONHASHSEED": "0"})
OTHERS = {
    "another hash seed": Process(environment={"PYTHONHASHSEED": "1"}),
    # One core, ASCII for files whose encoding nobody named, a quarter of an hour off any whole one, and private files.
    "elsewhere": Process(
        cwd="/",
        umask=0o077,
        cores=1,
        environment={
            "PYTHONHASHSEED": "0",
            "LC_ALL": "C",
            "PYTHONCOERCECLOCALE": "0",
            "PYTHONUTF8": "0",
            "TZ": "Asia/Kathmandu",
        },
    ),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Hash of every published file, of a program that ran in each way; all run at once."""
    base = tmp_path_factory.mktemp("made")
    running = {name: _started(way, base / name.replace(" ", "-")) for name, way in {"plain": PLAIN, **OTHERS}.items()}
    said = {name: process.communicate(timeout=250) for name, process in running.items()}
    failed = {name: said[name][1][-2000:] for name, process in running.items() if process.returncode}
    assert not failed
    return {name: json.loads(out.splitlines()[-1]) for name, (out, _) in said.items()}


def _started(way: Process, folder: Path) -> "subprocess.Popen[str]":
    folder.mkdir()
    return subprocess.Popen(
        [sys.executable, "-m", "lens_pipeline_tests.training.reproducing", str(folder)],
        cwd=folder if way.cwd == "." else way.cwd,
        umask=way.umask,
        preexec_fn=lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: way.cores]),
        env={**os.environ, "PYTHONPATH": str(ROOT), **way.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("way", OTHERS)
def test_store_splits_weights_history_and_ledger_are_the_same_bytes(made: dict[str, dict[str, str]], way: str) -> None:
    assert {"stamp_store/segment-00000.f16", "region_splits/rows.parquet"} < made["plain"].keys()
    assert {"lens_classifier/model.safetensors", "lens_classifier/ledger-rank-0.ledger"} < made["plain"].keys()
    assert made[way] == made["plain"]
