"""The row ledger: each rank writes down which rows reached the model, and a check proves each came exactly once an epoch.

A file is a run of blocks, one a step: a header (epoch, step, count, CRC-32 of all that follows) and the logical numbers as
little-endian int32. A torn last block, left by a kill, is cut off when the file is opened again.
"""

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.contracts.errors import FIRST_FEW

CHECK = "no_duplicated_fragments"
_HEADER = struct.Struct("<4sIIII")
_MAGIC = b"LPL1"


@dataclass(frozen=True)
class Block:
    """Rows of one step that one rank fed to the model."""

    epoch: int
    step: int
    rows: npt.NDArray[np.int32]


class Ledger:
    """One rank's append-only record.

    Parameters
    ----------
    path : Path
        File to append to; what a kill left torn is cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        sound = _sound_length(path) if path.exists() else 0
        self._file = open(path, "r+b" if path.exists() else "w+b")  # noqa: SIM115 (open as long as the ledger)
        self._file.truncate(sound)
        self._file.seek(sound)

    def append(self, epoch: int, step: int, rows: npt.NDArray[np.int64]) -> None:
        """Record the rows of a step, after they reached the model."""
        content = np.ascontiguousarray(rows, dtype="<i4").tobytes()
        self._file.write(_HEADER.pack(_MAGIC, epoch, step, len(rows), _crc(epoch, step, content)) + content)

    def flush(self) -> None:
        """Make everything recorded so far durable."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def cut_back_to(self, epoch: int, step: int) -> None:
        """Forget this step and all after it, so that a resumed run records them anew."""
        self._file.flush()
        length = 0
        for block in read_ledger(self.path):
            if (block.epoch, block.step) >= (epoch, step):
                break
            length += _HEADER.size + 4 * len(block.rows)
        self._file.truncate(length)
        self._file.seek(length)
        self.flush()

    def close(self) -> None:
        """Make it durable and close it."""
        self.flush()
        self._file.close()


def read_ledger(path: Path) -> Iterator[Block]:
    """Iterate over the sound blocks of a ledger; a torn or damaged block ends it."""
    content = memoryview(path.read_bytes())
    place = 0
    while (block := _block_at(content, place)) is not None:
        yield block
        place += _HEADER.size + 4 * len(block.rows)


def verify_ledger(
    ledgers: Sequence[Path],
    rows: npt.NDArray[np.int64],
    *,
    epochs: int,
    task_ids: Sequence[str],
) -> Check:
    """Check that each training row reached the model exactly once an epoch, over all ranks.

    Parameters
    ----------
    ledgers : sequence of Path
        One file a rank.
    rows : ndarray of int64, shape (n,)
        Logical numbers of the training rows.
    epochs : int
        Epochs that were trained in full.
    task_ids : sequence of str
        Key of each logical number, to name rows by.
    """
    size = int(max(len(task_ids), rows.max(initial=0) + 1))
    expected = np.zeros(size, dtype=np.int64)
    expected[rows] = 1
    wrong: list[str] = []
    n_wrong, n_read = 0, 0
    blocks = [block for path in ledgers for block in read_ledger(path)]
    torn = [path.name for path in ledgers if _sound_length(path) != path.stat().st_size]
    for epoch in range(max(epochs, 1 + max((block.epoch for block in blocks), default=-1))):
        fed = [block.rows for block in blocks if block.epoch == epoch]
        counts = np.bincount(np.concatenate(fed), minlength=size) if fed else np.zeros(size, dtype=np.int64)
        n_read += int(counts.sum())
        off = np.flatnonzero(counts[:size] != expected) if epoch < epochs else np.flatnonzero(counts)
        n_wrong += off.size + max(0, len(counts) - size)
        for row in off[: FIRST_FEW - len(wrong)]:
            wrong.append(f"{task_ids[row]} came {counts[row]} times in epoch {epoch}, not {expected[row]}")
    if n_wrong or torn:
        return red(
            CHECK,
            f"{n_wrong:,} of {len(rows):,} rows x {epochs} epochs did not reach the model exactly once"
            + (f"; torn ledgers: {', '.join(torn)}" if torn else ""),
            wrong=wrong,
            count=n_wrong + len(torn),
            why="ranks or workers read overlapping or incomplete parts, or a resumed run repeated or lost steps",
            next_step="remove the unfinished training under HOME/DATASET/lens_classifier/MODEL/.work and train again",
            rows_read=n_read,
        )
    return green(
        CHECK,
        f"each of {len(rows):,} training rows reached the model exactly once in each of {epochs} epochs, "
        f"over {len(ledgers)} ranks",
        rows_read=n_read,
        ranks=len(ledgers),
    )


def _crc(epoch: int, step: int, content: bytes | memoryview) -> int:
    return zlib.crc32(content, zlib.crc32(struct.pack("<II", epoch, step)))


def _block_at(content: memoryview, place: int) -> Block | None:
    if place + _HEADER.size > len(content):
        return None
    magic, epoch, step, count, crc = _HEADER.unpack_from(content, place)
    start = place + _HEADER.size
    rows = content[start : start + 4 * count]
    if magic != _MAGIC or len(rows) != 4 * count or _crc(epoch, step, rows) != crc:
        return None
    return Block(epoch, step, np.frombuffer(rows, dtype="<i4"))


def _sound_length(path: Path) -> int:
    return sum(_HEADER.size + 4 * len(block.rows) for block in read_ledger(path))
