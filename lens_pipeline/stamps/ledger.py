"""The row ledger: each rank writes down which rows reached the model. The check that reads it is in `ledger_check.py`.

A file begins with a header (magic, format, bytes a row, number of rows of the store, CRC-32 of these) and goes on as a run of
blocks, one a step: a header of 12 bytes (step, epoch and count, CRC-32 of these and the rows) and the logical numbers,
little-endian, in 3 bytes each where the store has up to 2**24 rows, else in 4. With 12 rows a rank and step, or more, that is
at most 4 bytes a row in all.

A kill can leave a torn last block, which is cut off when the file is opened again. Anything unsound that a sound block
follows is damage, and never taken for the end.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from lens_pipeline.contracts.errors import StorageError

FORMAT = 2
MAX_EPOCHS, MAX_ROWS_PER_STEP = 2**15, 2**17 - 1
_MAGIC, _FORMAT_1 = b"LPLG", b"LPL1"
_FILE = struct.Struct("<4sHHII")
_BLOCK = struct.Struct("<III")
_READ_BYTES = 1 << 20
_COUNT_BITS = 17


@dataclass(frozen=True)
class Block:
    """One step of one rank.

    Attributes
    ----------
    content : bytes
        Logical numbers of the rows that the rank fed to the model, `width` bytes each.
    width : int
        3 or 4.
    """

    epoch: int
    step: int
    content: bytes
    width: int

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """Logical numbers, in the order in which they were fed."""
        return decode(self.content, self.width)


class Ledger:
    """One rank's append-only record.

    Parameters
    ----------
    path : Path
        File to append to; what a kill left torn is cut off.
    n_rows : int
        Rows of the store that the logical numbers belong to.

    Attributes
    ----------
    n_steps : int
        Steps that it records.

    Raises
    ------
    StorageError
        If the file is damaged, of another format, or about a store with another number of rows.
    """

    def __init__(self, path: Path, *, n_rows: int) -> None:
        self.path, self.n_rows, self.n_steps, self._width = path, n_rows, 0, width_for(n_rows)
        header = _file_header(n_rows)
        there = path.exists() and path.stat().st_size >= len(header)
        self._file = open(path, "r+b" if there else "w+b")  # noqa: SIM115 (open as long as the ledger)
        if there:
            reader = LedgerReader(path, n_rows=n_rows)
            self.n_steps = sum(1 for _ in reader)
            self._file.truncate(reader.sound)
            self._file.seek(reader.sound)
        else:
            self._file.write(header)

    def append(self, epoch: int, step: int, rows: npt.NDArray[np.int64]) -> None:
        """Record the rows of a step, after they reached the model.

        Raises
        ------
        ValueError
            If a row is not of the store, or there are more epochs or rows than the format holds.
        """
        if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= self.n_rows):
            raise ValueError(f"rows {rows.min()} to {rows.max()} reached the model, the store has {self.n_rows:,}")
        if epoch >= MAX_EPOCHS or len(rows) > MAX_ROWS_PER_STEP:
            raise ValueError(f"epoch {epoch} with {len(rows):,} rows a step doesn't fit into a ledger")
        self._file.write(encode_block(epoch, step, rows, self._width))
        self.n_steps += 1

    def flush(self) -> None:
        """Make everything recorded so far durable."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def cut_back_to(self, epoch: int, step: int) -> None:
        """Forget this step and all after it, so that a resumed run records them anew."""
        self._file.flush()
        reader, length = LedgerReader(self.path, n_rows=self.n_rows), _FILE.size
        self.n_steps = 0
        for block in reader:
            if (block.epoch, block.step) >= (epoch, step):
                break
            self.n_steps, length = self.n_steps + 1, reader.sound
        self._file.truncate(length)
        self._file.seek(length)
        self.flush()

    def close(self) -> None:
        """Make it durable and close it."""
        self.flush()
        self._file.close()


class LedgerReader:
    """Iterates over the blocks of a ledger in bounded memory.

    Parameters
    ----------
    path : Path
        A ledger.
    n_rows : int
        Rows of the store that it should be about.

    Attributes
    ----------
    sound : int
        Bytes that were read and found sound, up to the end of the latest block.
    torn : bool
        Whether what follows them is a torn block.

    Raises
    ------
    StorageError
        If the file is damaged, of another format, or about a store with another number of rows.
    """

    def __init__(self, path: Path, *, n_rows: int) -> None:
        self.path, self.width = path, width_for(n_rows)
        self.sound, self.torn = _FILE.size, False
        with open(path, "rb") as file:
            _refuse_other_header(path, file.read(_FILE.size), n_rows)

    def __iter__(self) -> Iterator[Block]:
        """Yield every sound block; a torn last one ends it, and is told by `torn`."""
        self.sound, self.torn = _FILE.size, False
        latest = 0
        with open(self.path, "rb", buffering=_READ_BYTES) as file:
            file.seek(self.sound)
            while (block := _read_block(file, self.width)) is not None:
                self.sound, latest = self.sound + _BLOCK.size + len(block.content), block.epoch
                yield block
            size = os.fstat(file.fileno()).st_size
            if size > self.sound:
                self._must_be_torn(file, size, latest)
                self.torn = True

    def _must_be_torn(self, file: BinaryIO, size: int, latest: int) -> None:
        """Refuse an unsound block that is not the last: one that is too long to be one, or that a sound one follows."""
        longest = _BLOCK.size + self.width * MAX_ROWS_PER_STEP
        file.seek(self.sound)
        rest = file.read(longest)
        if size - self.sound > longest or any(
            _is_block(rest, start, self.width, range(latest, latest + 3))
            for start in range(1, len(rest) - _BLOCK.size + 1)
        ):
            raise StorageError(
                f"{self.path} is damaged at byte {self.sound:,} of {size:,}: what stands there is not a block, and it is not "
                "the torn end of a killed run. Which rows reached the model can't be told from it any more. Remove the "
                "run's folder under HOME/DATASET/lens_classifier/MODEL/.work and train again."
            )


def width_for(n_rows: int) -> int:
    """Bytes of a logical number in a store of so many rows.

    Raises
    ------
    ValueError
        If there are more than 2**31.
    """
    if not 0 < n_rows <= 2**31:
        raise ValueError(f"a ledger is about 1 to 2**31 rows, not {n_rows:,}")
    return 3 if n_rows <= 2**24 else 4


def encode_block(epoch: int, step: int, rows: npt.NDArray[np.int64], width: int) -> bytes:
    """Write a block."""
    content = rows.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :width].tobytes()
    return _BLOCK.pack(step, epoch << _COUNT_BITS | len(rows), _crc(epoch, step, len(rows), content)) + content


def decode(content: bytes, width: int) -> npt.NDArray[np.int64]:
    """Read logical numbers of `width` bytes each."""
    if width == 4:
        return np.frombuffer(content, "<u4").astype(np.int64)
    parts = np.frombuffer(content, np.uint8).reshape(-1, 3).astype(np.int64)
    return parts[:, 0] | parts[:, 1] << 8 | parts[:, 2] << 16


def _file_header(n_rows: int) -> bytes:
    said = _FILE.pack(_MAGIC, FORMAT, width_for(n_rows), n_rows, 0)
    return said[:-4] + struct.pack("<I", zlib.crc32(said[:-4]))


def _refuse_other_header(path: Path, found: bytes, n_rows: int) -> None:
    if found == _file_header(n_rows):
        return
    if found[:4] == _FORMAT_1:
        raise StorageError(
            f"{path} is a ledger of format 1, this package reads format {FORMAT}. It was checked when its version was "
            "published, and the verdict stands there. To check it once more, use the package that wrote it, or materialize "
            "lens_classifier again."
        )
    why = "its header is damaged"
    if (
        len(found) == _FILE.size
        and found[:4] == _MAGIC
        and zlib.crc32(found[:-4]) == int.from_bytes(found[-4:], "little")
    ):
        _, number, width, rows, _ = _FILE.unpack(found)
        why = f"it has format {number} with {width} bytes a row, about a store of {rows:,} rows"
    raise StorageError(
        f"{path} is not a ledger (format {FORMAT}) about a store of {n_rows:,} rows: {why}. Remove the run's folder under "
        "HOME/DATASET/lens_classifier/MODEL/.work and train again."
    )


def _crc(epoch: int, step: int, count: int, content: bytes) -> int:
    return zlib.crc32(content, zlib.crc32(struct.pack("<II", step, epoch << _COUNT_BITS | count)))


def _read_block(file: BinaryIO, width: int) -> Block | None:
    header = file.read(_BLOCK.size)
    if len(header) < _BLOCK.size:
        return None
    step, both, crc = _BLOCK.unpack(header)
    content = file.read(width * (both & MAX_ROWS_PER_STEP))
    if len(content) != width * (both & MAX_ROWS_PER_STEP) or zlib.crc32(content, zlib.crc32(header[:8])) != crc:
        return None
    return Block(both >> _COUNT_BITS, step, content, width)


def _is_block(rest: bytes, start: int, width: int, epochs: range) -> bool:
    _, both, crc = _BLOCK.unpack_from(rest, start)
    end = start + _BLOCK.size + width * (both & MAX_ROWS_PER_STEP)
    if both >> _COUNT_BITS not in epochs or end > len(rest):
        return False
    found = zlib.crc32(rest[start + _BLOCK.size : end], zlib.crc32(rest[start : start + 8]))
    return found == int(crc)
