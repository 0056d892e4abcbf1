"""The process that has everything loaded and forks a child a run; `faults.Server` starts it, under the library or without."""

import ctypes
import json
import os
import signal
import sys
import tempfile
import traceback
from functools import cache
from pathlib import Path
from typing import Any

from lens_pipeline.storage.home import Home
from reliability.faults import HUNG_AFTER_S
from reliability.publications import SCENARIOS
from reliability.python_faults import PythonFaults


def main() -> None:
    """Answer each line of JSON on standard input with one on standard output."""
    library = _library(in_python=sys.argv[1:] == ["python"])
    for line in sys.stdin:
        asked = json.loads(line)
        _warm_up(asked["scenario"])
        print(json.dumps(_fork(library, asked)), flush=True)


@cache
def _warm_up(scenario: str) -> None:
    """Run it once, so that what is imported or compiled late is there before any fork."""
    with tempfile.TemporaryDirectory() as name:
        SCENARIOS[scenario].prepare(Home(Path(name)))
        SCENARIOS[scenario].publish(Home(Path(name)))


def _library(*, in_python: bool) -> Any:
    if in_python:
        faults = PythonFaults()
        faults.install()
        return faults
    library = ctypes.CDLL(None)
    library.faults_arm.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_int)
    library.faults_counted.restype = library.faults_hits.restype = ctypes.c_long
    return library


def _fork(library: Any, asked: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _run(library, asked, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    answer = json.loads(said) if said else {"error": None, "operations": 0, "struck": ended_by == signal.SIGKILL}
    return {**answer, "signal": ended_by}


def _run(library: Any, asked: dict[str, Any], writing: int) -> None:
    signal.alarm(HUNG_AFTER_S)
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if asked["log"] else -1
    error = None
    library.faults_arm(os.fsencode(asked["home"]), asked["fault"], asked["at"], log)
    try:
        SCENARIOS[asked["scenario"]].publish(Home(Path(asked["home"])))
    except BaseException as raised:
        where = traceback.extract_tb(raised.__traceback__)[-1]
        error = (type(raised).__name__, f"{raised} [{Path(where.filename).name}:{where.lineno}]")
    library.faults_disarm()
    answer = {"error": error, "operations": library.faults_counted(), "struck": library.faults_hits() > 0}
    os.write(writing, json.dumps(answer).encode())
    os._exit(0)


if __name__ == "__main__":
    main()
