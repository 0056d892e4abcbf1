"""A sweep that is remembered in a real PostgreSQL server, which is locked, stopped, and refuses.

Runs where the server's programs and psycopg2 are; neither is in requirements.lock: ``pip install psycopg2-binary``.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.training import study as study_module
from lens_pipeline.training.study import TrialStore
from lens_pipeline.training.sweep import Sweep, Trial
from lens_pipeline_tests.training.test_sweep import BASE, SPACE, SweepConfig, quickly, states
from lens_pipeline_tests.training.test_sweep import sweep as in_a_file

BIN = next((path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)), None)
BIN = BIN or (Path(found).parent if (found := shutil.which("initdb")) else None)
psycopg2 = pytest.importorskip("psycopg2", reason="psycopg2 is not installed: no sweep is stored in PostgreSQL here")
pytestmark = pytest.mark.skipif(BIN is None, reason="PostgreSQL's initdb and postgres are not on this machine")
PASSWORD = "sesame"


class Server:
    """A cluster of its own on loopback. The server refuses to run as root, for whom the user postgres stands in."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._data, self._as = folder / "data", "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        shutil.chown(folder, self._as)
        secret = folder / "password"
        secret.write_text(PASSWORD)
        shutil.chown(secret, self._as)
        self._run("initdb", "-D", self._data, "-U", "tester", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync")

    @property
    def address(self) -> str:
        return f"postgresql+psycopg2://tester:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -k {self._data} -F"
        self._run("pg_ctl", "-D", self._data, "-w", "-t", "120", "-l", self._data / "log", "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "stop", check=False)

    def connect(self) -> Any:
        return psycopg2.connect(host="127.0.0.1", port=self.port, user="tester", password=PASSWORD, dbname="postgres")

    def _run(self, program: str, *arguments: object, check: bool = True) -> None:
        assert BIN is not None
        user = {"user": self._as} if os.geteuid() == 0 else {}
        command = [str(BIN / program), *map(str, arguments)]
        subprocess.run(command, check=check, cwd="/", stdout=subprocess.DEVNULL, **user)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    # Not below pytest's folder, which nobody but its owner may enter.
    with tempfile.TemporaryDirectory(prefix="lens_pipeline-postgres-") as folder:
        made = Server(Path(folder))
        made.start()
        yield made
        made.stop()


def sweep(server: Server, folder: Path, train: Any = quickly, name: str = "", **changes: Any) -> Sweep:
    folder.mkdir(exist_ok=True)
    space = SweepConfig.model_validate(SPACE | {"pruner": "none"} | changes)
    store = TrialStore(name or str(folder), folder, larger_is_better=False, address=server.address)
    return Sweep(space, BASE, store, folder, train)


def drawn(made: Sweep) -> list[Any]:
    return list(made.table().select(["trial", "state", "value", "learning_rate", "dropout"]).to_pylist())


def test_a_sweep_in_postgresql_draws_what_one_in_a_file_draws_in_one_go_or_two(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    here = in_a_file(tmp_path / "file", pruner="none")
    here.run()
    sweep(server, tmp_path / "there", trials=2).run()
    there = sweep(server, tmp_path / "there")
    there.run()
    assert drawn(there) == drawn(here)


KILLED = """
import os, signal, sys
from pathlib import Path
from types import SimpleNamespace
from lens_pipeline_tests.training.test_sweep_postgres import quickly, sweep
def train(trial, on_event, cancelled):
    if trial.number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return quickly(trial, on_event, cancelled)
sweep(SimpleNamespace(address=sys.argv[2]), Path(sys.argv[1]), train, "killed").run()
"""


def test_a_trial_whose_process_was_killed_is_found_by_its_place_and_tried_again(server: Server, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), server.address]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    made = sweep(server, tmp_path, name="killed")
    assert states(made) == ["complete", "complete", "running"]
    made.run()
    rows = made.table().to_pylist()
    assert [row["state"] for row in rows] == ["complete", "complete", "fail", *["complete"] * 4]
    assert rows[3]["dropout"] == rows[2]["dropout"]


def test_a_locked_table_is_a_clear_error_after_the_wait_and_the_sweep_goes_on_later(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_module, "LOCK_SECONDS", 0.5)
    other = server.connect()

    def locking(trial: Trial, on_event: Callable[[dict[str, Any]], None], cancelled: Callable[[], bool]) -> float:
        if trial.number == 1:
            other.cursor().execute("LOCK TABLE trials IN ACCESS EXCLUSIVE MODE")
        return quickly(trial, on_event, cancelled)

    with pytest.raises(StorageError, match=r"another process has locked it for 0\.5 s") as caught:
        sweep(server, tmp_path, locking).run()
    assert PASSWORD not in str(caught.value)
    other.rollback()
    other.close()
    made = sweep(server, tmp_path)
    made.run()
    assert states(made).count("complete") == 6


def test_a_server_that_goes_away_in_a_trial_is_a_clear_error_and_what_ended_stands(
    server: Server, tmp_path: Path
) -> None:
    def stopping(trial: Trial, on_event: Callable[[dict[str, Any]], None], cancelled: Callable[[], bool]) -> float:
        if trial.number == 2:
            server.stop()
        return quickly(trial, on_event, cancelled)

    try:
        with pytest.raises(StorageError, match=r"the sweep's storage postgresql\+psycopg2://127\.0\.0\.1/") as caught:
            sweep(server, tmp_path, stopping).run()
        assert PASSWORD not in str(caught.value)
        assert "tester" not in str(caught.value)
        with pytest.raises(StorageError, match="can't be used"):
            sweep(server, tmp_path)
    finally:
        server.start()
    made = sweep(server, tmp_path)
    assert states(made)[:2] == ["complete", "complete"]
    made.run()
    assert states(made).count("complete") == 6


def test_a_wrong_password_is_refused_and_never_shown(server: Server, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="can't be used") as caught:
        TrialStore("x", tmp_path, larger_is_better=False, address=server.address.replace(PASSWORD, "swordfish"))
    assert "swordfish" not in str(caught.value)
