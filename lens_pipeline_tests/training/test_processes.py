"""What runs for us ends with us, in order."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORK = """
import signal, sys, time
def stop(*_):
    open(sys.argv[1] + "/stopped", "w").close()
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
open(sys.argv[1] + "/started", "w").close()
time.sleep(60)
"""
OURS = """
import sys
from lens_pipeline.training.processes import run_for_us
print(run_for_us([sys.executable, "-c", sys.argv[1], sys.argv[2]]))
"""


def appears(path: Path) -> bool:
    deadline = time.monotonic() + 30
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return path.exists()


@pytest.mark.parametrize(("how", "said"), [(signal.SIGTERM, "-15\n"), (signal.SIGKILL, "")])
def test_what_a_command_runs_is_asked_to_stop_when_the_command_is_ended_or_killed(
    tmp_path: Path, how: signal.Signals, said: str
) -> None:
    with subprocess.Popen([sys.executable, "-c", OURS, WORK, str(tmp_path)], stdout=subprocess.PIPE, text=True) as ours:
        assert appears(tmp_path / "started")
        ours.send_signal(how)
        assert ours.stdout is not None
        assert ours.stdout.read() == said
    assert appears(tmp_path / "stopped")


def test_the_exit_code_is_handed_on() -> None:
    done = subprocess.run([sys.executable, "-c", OURS, "raise SystemExit(7)", "-"], capture_output=True, text=True)
    assert done.stdout == "7\n"
