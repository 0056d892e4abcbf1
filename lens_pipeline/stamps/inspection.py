"""First contact with parquet that others wrote: in a killable process with capped memory and time, never in this one.

A crafted or damaged footer or page can crash Arrow, make it ask for gigabytes, or keep it busy for ever. So a foreign file is
opened, read through and hashed by `inspection_worker.py` before any of it is read here, and only bytes with the SHA-256 that
it found are read afterwards. Belongs here: starting, limiting, asking and burying that process.
"""

import base64
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import pyarrow as pa

from lens_pipeline.contracts.errors import ContractError

_WORKER = "lens_pipeline.stamps.inspection_worker"
# What the process may know of this one's environment: no credentials.
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
# Arrow's other allocators reserve address space far beyond what they use, which the limit would count.
_QUIET = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
_MOST_ANSWER_BYTES = 64 << 20

Identity = tuple[int, int, int, int]


class FileRefusedError(ContractError):
    """A foreign file can't be read safely or at all; the message names it and says why."""


@dataclass(frozen=True)
class Limits:
    """What the inspection of one file may take.

    Attributes
    ----------
    memory : int
        Bytes above what the process needs before it opens anything.
    cpu_s, wall_s : int
        For a small file; both grow with its size.
    bytes_per_cpu_s, bytes_per_wall_s : int
        Slowest reading that is waited for: a core that decompresses, a network disk.
    """

    memory: int = 1 << 30
    cpu_s: int = 10
    wall_s: int = 60
    bytes_per_cpu_s: int = 20_000_000
    bytes_per_wall_s: int = 2_000_000


@dataclass(frozen=True)
class Inspection:
    """What was found in a file that can be read.

    Attributes
    ----------
    row_groups : tuple of int
        Rows of each row group, in order.
    sha256 : str or None
        Of the whole file; None where only the footer was asked for.
    identity : tuple
        Device, inode, size and time of change of the file that was inspected.
    """

    schema: pa.Schema
    row_groups: tuple[int, ...]
    sha256: str | None
    identity: Identity

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return sum(self.row_groups)


class Inspector:
    """One process that inspects files one after another, and is started again after one has killed it.

    Its process ends with the thread that first asked it for something, or asked it first after a death. One that ended
    between two files is started again and blames neither.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.n_started = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None

    def __enter__(self) -> "Inspector":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bury()

    def footer(self, path: Path, *, name: str | None = None) -> Inspection:
        """Inspect a file's footer alone; its values may still be anything.

        Raises
        ------
        FileRefusedError
            If the footer can't be right, or reading it takes too much.
        """
        return self._inspect(path, "", name or str(path), footer_only=True, is_leased=False)

    def inspect(self, path: Path, *, blob: str, name: str | None = None, is_leased: bool = False) -> Inspection:
        """Read every value of a file once and hash it whole.

        Parameters
        ----------
        blob : str
            The column of stamps, which is read in smaller batches than the others.
        name : str, optional
            What the file is called in an error, where that isn't its path.
        is_leased : bool
            Whether a cache guards the file while it is read.

        Raises
        ------
        FileRefusedError
            If it crashes, swells or outlasts the process, or isn't sound parquet.
        """
        return self._inspect(path, blob, name or str(path), footer_only=False, is_leased=is_leased)

    def _inspect(self, path: Path, blob: str, name: str, *, footer_only: bool, is_leased: bool) -> Inspection:
        size = path.stat().st_size
        limits = self.limits
        cpu_s = limits.cpu_s + size // limits.bytes_per_cpu_s
        wall_s = limits.wall_s + size / limits.bytes_per_wall_s
        if self._process is not None and self._process.poll() is not None:
            self._bury()
        process = self._process or self._start()
        request = {
            "path": str(path),
            "blob": blob,
            "footer_only": footer_only,
            "is_leased": is_leased,
            "cpu_s": cpu_s,
        }
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        answer = self._listen(process, time.monotonic() + wall_s)
        if not answer:
            raise FileRefusedError(f"{name} can't be read: {self._cause_of_death(wall_s)}. {_MEND}")
        if answer["ends"]:
            self._bury()
        if "refused" in answer:
            why = answer["refused"] or f"it needs more than {limits.memory >> 20:,} MiB of memory"
            raise FileRefusedError(f"{name} can't be read as parquet: {why}. {_MEND}")
        return Inspection(
            schema=pa.ipc.read_schema(pa.py_buffer(base64.b64decode(answer["schema"]))),
            row_groups=tuple(int(rows) for rows in answer["row_groups"]),
            sha256=answer["sha256"],
            identity=_as_identity(answer["identity"]),
        )

    def _start(self) -> subprocess.Popen[bytes]:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the process)
        known = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-m", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**known, **_QUIET},
        )
        self.n_started += 1
        settings = {"memory": self.limits.memory, "parent": os.getpid()}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(settings).encode() + b"\n")
        return self._process

    @staticmethod
    def _listen(process: subprocess.Popen[bytes], deadline: float) -> dict[str, Any] | None:
        """Read one line; None if the process ended, or said nothing in time, or wouldn't stop."""
        assert process.stdout is not None
        heard = bytearray()
        while not heard.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                return None
            piece = os.read(process.stdout.fileno(), 1 << 16)
            heard += piece
            if not piece or len(heard) > _MOST_ANSWER_BYTES:
                return None
        answer = json.loads(heard)
        return answer if isinstance(answer, dict) else None

    def _cause_of_death(self, wall_s: float) -> str:
        assert self._process is not None
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._bury()
            return f"reading it took more than {wall_s:,.0f} s, and was stopped"
        said = self._last_words()
        self._bury()
        if code == -signal.SIGXCPU:
            return "reading it kept a core busy for too long, and was stopped"
        died = f"of {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        return f"the process that read it died {died}" + (f" ({said})" if said else "")

    def _last_words(self) -> str:
        assert self._errors is not None
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - 4096))
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else ""

    def _bury(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        if self._errors is not None:
            self._errors.close()
        self._process = self._errors = None


_MEND = "Restore it from where it came, or move it out of the folder"


def _as_identity(values: list[int]) -> Identity:
    device, inode, size, changed = (int(value) for value in values)
    return (device, inode, size, changed)
