"""The process that has everything loaded and forks a child a run; started by `faults.Server` under the library."""

import ctypes
import json
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from lens_pipeline.storage.home import Home
from reliability.faults import HUNG_AFTER_S
from reliability.publications import SCENARIOS, publish_scores


def main() -> None:
    """Answer each line of JSON on standard input with one on standard output."""
    with tempfile.TemporaryDirectory() as name:  # What is imported late is imported once, before any fork.
        publish_scores(Home(Path(name)), 1)
    for line in sys.stdin:
        print(json.dumps(_fork(json.loads(line))), flush=True)


def _fork(asked: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _run(asked, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    answer = json.loads(said) if said else {"error": None, "operations": 0, "struck": ended_by == signal.SIGKILL}
    return {**answer, "signal": ended_by}


def _run(asked: dict[str, Any], writing: int) -> None:
    signal.alarm(HUNG_AFTER_S)
    library = ctypes.CDLL(None)
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if asked["log"] else -1
    error = None
    library.faults_arm(os.fsencode(asked["home"]), asked["fault"], ctypes.c_long(asked["at"]), log)
    try:
        SCENARIOS[asked["scenario"]].publish(Home(Path(asked["home"])))
    except BaseException as raised:
        where = traceback.extract_tb(raised.__traceback__)[-1]
        error = (type(raised).__name__, f"{raised} [{Path(where.filename).name}:{where.lineno}]")
    library.faults_disarm()
    library.faults_counted.restype = library.faults_hits.restype = ctypes.c_long
    answer = {"error": error, "operations": library.faults_counted(), "struck": library.faults_hits() > 0}
    os.write(writing, json.dumps(answer).encode())
    os._exit(0)


if __name__ == "__main__":
    main()
