"""Rows spread over files by a hash, so that each file is worked on alone: what sorts or compares all rows holds one in memory.

Belongs here: the spreading. What the rows are, and what is done with a bucket, is said where they are used.
"""

import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

HASH_BYTES = 16
BUCKET_ROWS = 32_768
_MOST_BUCKETS = 512

Hashes = NDArray[np.uint64]


def n_buckets_for(n_rows: int) -> int:
    """Power of two of buckets, so that an evenly filled one has at most `BUCKET_ROWS` (more beyond 16 million rows)."""
    wanted = -(-n_rows // BUCKET_ROWS)
    return min(1 << max(0, wanted - 1).bit_length(), _MOST_BUCKETS)


def bucket_of(first: Hashes, n_buckets: int) -> NDArray[np.int64]:
    """Bucket of each row by the top bits of the first 8 bytes of its hash, so that buckets are in the order of the hash."""
    bits = n_buckets.bit_length() - 1
    return (first >> np.uint64(64 - bits)).astype(np.int64) if bits else np.zeros(len(first), np.int64)


def as_words(hashes: pa.Array | pa.ChunkedArray) -> Hashes:
    """(n, 2) native uint64 of a column of 16-byte hashes without nulls; sorts as the bytes do."""
    if isinstance(hashes, pa.ChunkedArray):
        hashes = hashes.combine_chunks()
    if not len(hashes):
        return np.zeros((0, 2), np.uint64)
    at = hashes.offset * HASH_BYTES
    words = np.frombuffer(hashes.buffers()[1], dtype=">u8", count=2 * len(hashes), offset=at)
    return words.reshape(-1, 2).astype(np.uint64)


def as_column(hashes: NDArray[np.uint8] | Hashes, valid: NDArray[np.bool_] | None = None) -> pa.Array:
    """Column of 16-byte hashes of (n, 16) bytes or (n, 2) native words, null where not valid."""
    raw = hashes if hashes.dtype == np.uint8 else hashes.astype(">u8")
    content = pa.py_buffer(np.ascontiguousarray(raw).tobytes())
    bits = None if valid is None else pa.array(valid).buffers()[1]
    return pa.Array.from_buffers(pa.binary(HASH_BYTES), len(hashes), [bits, content])


class Buckets:
    """So many files of rows, written piecemeal by any number of threads; a context manager while it is written."""

    def __init__(self, folder: Path, name: str, n_buckets: int) -> None:
        self.n = n_buckets
        self._paths = [folder / f"{name}-{bucket:04d}.arrow" for bucket in range(n_buckets)]
        self._writers: dict[int, tuple[pa.OSFile, pa.RecordBatchStreamWriter]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        for path in self._paths:
            path.unlink(missing_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file, writer in self._writers.values():
            if error is None:
                writer.close()
            file.close()
        self._writers.clear()

    def spread(self, rows: pa.Table, bucket: NDArray[np.int64]) -> None:
        """Add rows, each to its bucket."""
        order = np.argsort(bucket, kind="stable")
        sorted_rows = rows.take(pa.array(order)).combine_chunks()
        ends = np.cumsum(np.bincount(bucket, minlength=self.n))
        with self._lock:
            for number in np.unique(bucket).tolist():
                start = int(ends[number - 1]) if number else 0
                self._writer(number, rows.schema).write_table(sorted_rows.slice(start, int(ends[number]) - start))

    def read(self, bucket: int) -> pa.Table | None:
        """Read one bucket's rows, in the order they were added; None if there is none."""
        path = self._paths[bucket]
        if not path.exists():
            return None
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
            return reader.read_all().combine_chunks()

    def remove(self, bucket: int) -> None:
        """Remove a bucket that is done with."""
        self._paths[bucket].unlink(missing_ok=True)

    def path(self, bucket: int) -> Path:
        """File of a bucket; it is there if the bucket has rows."""
        return self._paths[bucket]

    def _writer(self, bucket: int, schema: pa.Schema) -> pa.RecordBatchStreamWriter:
        if bucket not in self._writers:
            file = pa.OSFile(str(self._paths[bucket]), "wb")
            self._writers[bucket] = (file, pa.ipc.new_stream(file, schema))
        return self._writers[bucket][1]
