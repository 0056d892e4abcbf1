"""Children whose N-th change to the disk goes wrong: a C library between them and libc, and a server that forks them.

Needs a C compiler (`cc`, or the one that CC names) and Linux. Imports are paid once: the server has everything loaded and
forks a child a run.
"""

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parent / "shim" / "faults.c"
ROOT = Path(__file__).parent.parent
# The numbers are the library's.
FAULTS = {
    "kill": 1,
    "EIO once": 2,
    "EIO from then on": 3,
    "ENOSPC from then on": 4,
    "EDQUOT once": 5,
    "short write": 6,
    "half a write, then kill": 7,
}
NO_FAULT = 0
HUNG_AFTER_S = 60


@dataclass(frozen=True)
class Outcome:
    """How a child ended.

    Attributes
    ----------
    signal : int
        That killed it, else 0.
    error : tuple of str, or None
        Type and message of the exception it ended with.
    operations : int
        Calls counted, of those that the fault applies to; 0 if it was killed.
    struck : bool
        Whether the fault came.
    """

    signal: int
    error: tuple[str, str] | None
    operations: int
    struck: bool


def compile_library(folder: Path) -> Path:
    """Compile the library.

    Raises
    ------
    RuntimeError
        If there is no compiler, saying so; or if it fails, with what it said.
    """
    compiler = os.environ.get("CC") or shutil.which("cc")
    if not compiler or not sys.platform.startswith("linux"):
        raise RuntimeError(
            "This subject needs Linux and a C compiler: install one (package gcc or clang), or name it: CC=..."
        )
    target = folder / "faults.so"
    done = subprocess.run(
        [compiler, "-O2", "-shared", "-fPIC", "-o", str(target), str(SOURCE), "-ldl", "-pthread"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{compiler} could not compile {SOURCE.name}: {done.stderr[-500:]}")
    return target


class Server:
    """Forks children that run a scenario with a fault.

    Parameters
    ----------
    library : Path or None
        As compiled; None for the faults that need no compiler (see `python_faults`).
    """

    def __init__(self, library: Path | None) -> None:
        preload = {"LD_PRELOAD": str(library)} if library else {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "reliability.fault_server", *([] if library else ["python"])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, **preload, "PYTHONPATH": str(ROOT)},
        )

    def run(
        self,
        scenario: str,
        home: Path,
        fault: int = NO_FAULT,
        at: int = 0,
        *,
        log: Path | None = None,
        meanwhile: Callable[[], object] | None = None,
    ) -> Outcome:
        """Run a scenario in a child of its own, and `meanwhile` again and again until it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"scenario": scenario, "home": str(home), "fault": fault, "at": at, "log": str(log) if log else None}
        self._process.stdin.write((json.dumps(asked) + "\n").encode())
        self._process.stdin.flush()
        while meanwhile is not None and not select.select([self._process.stdout], [], [], 0)[0]:
            meanwhile()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the fault server ended with {self._process.wait()}")
        answer = json.loads(line)
        error = (answer["error"][0], answer["error"][1]) if answer["error"] else None
        return Outcome(answer["signal"], error, answer["operations"], answer["struck"])

    def close(self) -> None:
        """End the server."""
        with contextlib.suppress(OSError):
            self._process.communicate()


@contextmanager
def serving(*, compiled: bool = True) -> Iterator[tuple[Server, Path]]:
    """Start a server, by default with the library, and give it with a folder to work in; both go in the end.

    The folder is in memory where that can be: what reaches a disk is for `power_loss`, and flushing takes most of the time.
    """
    in_memory = Path("/dev/shm")
    parent = in_memory if os.access(in_memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="faults-", dir=parent) as name:
        folder = Path(name).resolve()
        server = Server(compile_library(folder) if compiled else None)
        try:
            yield server, folder
        finally:
            server.close()
