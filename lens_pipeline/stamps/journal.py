"""Which units of work are done: one checksummed line each, appended only when their bytes are durable.

A line that a crash tore is cut off, and its unit is done again.
"""

import json
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Journal:
    """An append-only file of JSON objects, a line each, ``CRC-32 in hexadecimal, space, JSON``; a context manager.

    Opening it cuts off what follows its last sound line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()
        end = sum(length for length, _ in self._lines())
        self._file = os.open(path, os.O_WRONLY)
        os.ftruncate(self._file, end)
        os.lseek(self._file, end, os.SEEK_SET)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def append(self, entries: Sequence[dict[str, Any]]) -> None:
        """Add entries and make them durable."""
        view = memoryview(b"".join(_line(entry) for entry in entries))
        while view:
            view = view[os.write(self._file, view) :]
        os.fdatasync(self._file)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Stream the entries, oldest first."""
        return (entry for _, entry in self._lines())

    def _lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        with open(self._path, "rb") as file:
            for line in file:
                checksum, _, text = line.partition(b" ")
                if not line.endswith(b"\n") or checksum != _checksum(text[:-1]):
                    return
                yield len(line), json.loads(text)


def _line(entry: dict[str, Any]) -> bytes:
    text = json.dumps(entry, separators=(",", ":")).encode()
    return _checksum(text) + b" " + text + b"\n"


def _checksum(text: bytes) -> bytes:
    return b"%08x" % zlib.crc32(text)
