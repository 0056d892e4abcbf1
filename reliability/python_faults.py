"""The same faults where there is no compiler: Python's own calls that change files are counted, and the N-th goes wrong.

Sees what Python announces to audit hooks (opening to write, renaming, removing, making folders, linking, truncating), calls
of os.fsync, and each parquet file as one call that ends half-way. The C library sees every write; this sees fewer calls and
needs nothing.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pyarrow.parquet as pq

from reliability.faults import FAULTS

_CHANGES = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"})
_REMOVES = frozenset({"os.rename", "os.remove", "os.rmdir"})
_WRITES = os.O_CREAT | os.O_TRUNC
_NUMBERS = {
    FAULTS["EIO once"]: errno.EIO,
    FAULTS["EIO from then on"]: errno.EIO,
    FAULTS["ENOSPC from then on"]: errno.ENOSPC,
    FAULTS["EDQUOT once"]: errno.EDQUOT,
}


class PythonFaults:
    """Counts and spoils in place of the C library, with its functions' names."""

    def __init__(self) -> None:
        self._root, self._fault, self._at, self._counted, self._hits, self._armed = "", 0, 0, 0, 0, False

    def install(self) -> None:
        """Begin to listen; there is no way back, so do it in a process of its own."""
        sys.addaudithook(self._heard)
        os.fsync = self._around(os.fsync)
        real = pq.write_table

        def write_table(table: Any, where: Path, **options: Any) -> None:
            if self._comes(str(where)):
                real(table, where, **options)
                os.truncate(where, where.stat().st_size // 2)
                self._strike(str(where))
            real(table, where, **options)

        pq.write_table = write_table

    def faults_arm(self, folder: bytes, fault: int, at: int, log: int) -> None:
        """Begin to count; nothing is logged."""
        self._root, self._fault, self._at = os.fsdecode(folder), fault, at
        self._counted, self._hits, self._armed = 0, 0, True

    def faults_disarm(self) -> None:
        """Let everything be."""
        self._armed = False

    def faults_counted(self) -> int:
        """Return how many calls were counted."""
        return self._counted

    def faults_hits(self) -> int:
        """Return how many calls were spoilt."""
        return self._hits

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._armed:
            return
        opens = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES
        if (opens or event in _CHANGES) and isinstance(arguments[0], (str, bytes, os.PathLike)):
            path = os.fsdecode(arguments[0])
            if self._comes(path, removes=event in _REMOVES):
                if opens and self._fault == FAULTS["kill"]:  # Killed with the file cut or made, and nothing in it.
                    self._armed = False
                    os.open(path, arguments[2], 0o644)
                self._strike(path)

    def _around(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def fsync(descriptor: int) -> None:
            if self._comes(self._root):
                self._strike("")
            real(descriptor)

        return fsync

    def _comes(self, path: str, *, removes: bool = False) -> bool:
        """Count a call and say whether it is to be spoilt. A full disk doesn't refuse to remove."""
        if not self._armed or not path.startswith(self._root):
            return False
        full = self._fault == FAULTS["ENOSPC from then on"]
        if full and removes:
            return False
        self._counted += 1
        persists = full or self._fault == FAULTS["EIO from then on"]
        return self._fault != 0 and (self._counted >= self._at if persists else self._counted == self._at)

    def _strike(self, path: str) -> NoReturn:
        self._hits += 1
        if self._fault == FAULTS["kill"]:
            os.kill(os.getpid(), signal.SIGKILL)
        number = _NUMBERS[self._fault]
        raise OSError(number, os.strerror(number), path)
