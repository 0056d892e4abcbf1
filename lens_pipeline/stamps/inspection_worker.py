"""The process that first opens a parquet file of somebody else: it may crash, swell or hang, and nothing else does.

Belongs here: everything that is done to bytes nobody has vouched for, and the limits that are put on this process while it
does so. Started by `inspection.py`; reads requests as JSON lines, answers each with one JSON line, ends when its input ends.
"""

import base64
import contextlib
import ctypes
import json
import os
import resource
import signal
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lens_pipeline.contracts.catalogue import STAMPS
from lens_pipeline.storage.atomic import sha256_of

# As many rows as any stage holds at a time, so that what fits here fits there.
_SMALL_ROWS = 65_536
_BLOB_ROWS = 256
_BUFFER = 1 << 20
_MOST_FOOTER_BYTES = 64 << 20
_MOST_COLUMNS = 4_096
# Of a value in a column that is declared: those of all rows are held at once somewhere.
_MOST_TEXT_BYTES = 4_096
_SWOLLEN_BYTES = 128 << 20
_PR_SET_PDEATHSIG = 1
_MAGIC = b"PAR1"


class RefusedError(Exception):
    """A file that no stage may read, and why."""


def main() -> None:
    """Answer requests until the input ends; a file that needs too much kills this process and no other."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    limits = json.loads(sys.stdin.readline())
    if os.getppid() != limits["parent"]:
        return
    _warm_up()
    baseline = _virtual_bytes()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if baseline:
        resource.setrlimit(resource.RLIMIT_AS, (baseline + limits["memory"],) * 2)
    for line in sys.stdin:
        request = json.loads(line)
        _allow_cpu(request["cpu_s"])
        answer = _answer(request)
        pa.default_memory_pool().release_unused()
        # What a broken file left behind must not count against the next one's limit.
        answer["ends"] = _virtual_bytes() > baseline + min(_SWOLLEN_BYTES, limits["memory"] // 2)
        print(json.dumps(answer), flush=True)
        if answer["ends"]:
            return


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return inspect(
            Path(request["path"]),
            request["blob"],
            footer_only=request["footer_only"],
            is_leased=request["is_leased"],
        )
    except RefusedError as error:
        return {"refused": str(error)}
    except (MemoryError, pa.ArrowMemoryError):
        return {"refused": "", "memory": True}
    except Exception as error:
        # Whatever a broken file can raise is a refusal: this process exists to find that out.
        return {"refused": f"{type(error).__name__}: {error}"[:2000]}


def inspect(path: Path, blob: str, *, footer_only: bool, is_leased: bool) -> dict[str, Any]:
    """Judge a file's footer, and unless only that was asked for, stream every value of every column and hash the whole file.

    Parameters
    ----------
    is_leased : bool
        Whether a cache guards the file, which then keeps its bytes, while its time says when it was last used.

    Raises
    ------
    RefusedError
        If the footer or a value can't be right.
    """
    before = path.lstat()
    if not stat.S_ISREG(before.st_mode):
        raise RefusedError("it is no regular file")
    footer_bytes = _footer_bytes(path, before.st_size)
    with pq.ParquetFile(
        path,
        buffer_size=_BUFFER,
        pre_buffer=False,
        thrift_string_size_limit=_MOST_FOOTER_BYTES,
        thrift_container_size_limit=1 << 20,
    ) as file:
        _judge_footer(file.metadata, before.st_size - footer_bytes - 8)
        schema: pa.Schema = file.schema_arrow
        groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        if not footer_only:
            small = [name for name in schema.names if name != blob]
            for columns, rows in ((small, _SMALL_ROWS), ([blob] if blob in schema.names else [], _BLOB_ROWS)):
                if columns:
                    batches = file.iter_batches(batch_size=rows, columns=columns, use_threads=False)
                    _judge_values(batches, file.metadata.num_rows)
    sha256 = None if footer_only else sha256_of(path)
    after = path.lstat()
    compared = slice(3 if is_leased else 4)
    if _identity(after)[compared] != _identity(before)[compared]:
        raise RefusedError("it changed while it was being read. Wait until its writer is done and run again")
    return {
        "schema": base64.b64encode(schema.serialize()).decode(),
        "row_groups": groups,
        "sha256": sha256,
        "identity": _identity(after),
    }


def _footer_bytes(path: Path, size: int) -> int:
    if size < 12:
        raise RefusedError(f"{size} bytes can't be a parquet file")
    with open(path, "rb") as file:
        head = file.read(4)
        file.seek(size - 8)
        tail = file.read(8)
    if head != _MAGIC or tail[4:] != _MAGIC:
        raise RefusedError("it doesn't begin and end as a parquet file does: it is cut off, or something else")
    n_bytes = int.from_bytes(tail[:4], "little")
    if n_bytes > min(size - 12, _MOST_FOOTER_BYTES):
        raise RefusedError(f"it says that its footer is {n_bytes:,} bytes, in a file of {size:,}")
    return n_bytes


def _judge_footer(footer: pq.FileMetaData, data_end: int) -> None:
    """Refuse a footer that promises what its file can't hold, before any page is read."""
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    lengths = [group.num_rows for group in groups]
    # A row has a key of its own and a stamp, so it takes a byte at the very least, however well it is compressed.
    if not 0 <= footer.num_rows <= data_end or min(lengths, default=0) < 0:
        raise RefusedError(f"its footer promises {footer.num_rows:,} rows in {data_end:,} bytes")
    if sum(lengths) != footer.num_rows:
        raise RefusedError(f"its footer promises {footer.num_rows:,} rows, its row groups {sum(lengths):,}")
    if not 0 < footer.num_columns <= _MOST_COLUMNS:
        raise RefusedError(f"it has {footer.num_columns:,} columns; 1 to {_MOST_COLUMNS:,} are read")
    flat = [footer.schema.column(i).max_repetition_level == 0 for i in range(footer.num_columns)]
    for group, rows in zip(groups, lengths, strict=True):
        for number in range(group.num_columns):
            chunk = group.column(number)
            first = chunk.data_page_offset
            if chunk.has_dictionary_page and chunk.dictionary_page_offset:
                first = min(first, chunk.dictionary_page_offset)
            if first < 4 or chunk.total_compressed_size < 0 or first + chunk.total_compressed_size > data_end:
                raise RefusedError(f"its footer places {chunk.path_in_schema!r} outside the file")
            if flat[number] and chunk.num_values != rows:
                raise RefusedError(f"{chunk.path_in_schema!r} has {chunk.num_values:,} values for {rows:,} rows")
            if chunk.file_path:
                raise RefusedError(f"{chunk.path_in_schema!r} points into another file")


def _judge_values(batches: Iterable[pa.RecordBatch], promised: int) -> None:
    """Read all values; refuse text that isn't UTF-8 or too long, offsets that point nowhere, and lost rows."""
    declared = {column.name for column in STAMPS.columns}
    n_rows = 0
    for batch in batches:
        batch.validate(full=True)
        n_rows += batch.num_rows
        for field, values in zip(batch.schema, batch.columns, strict=True):
            if field.name in declared and (pa.types.is_string(field.type) or pa.types.is_large_string(field.type)):
                longest = pc.max(pc.binary_length(values)).as_py() or 0
                if longest > _MOST_TEXT_BYTES:
                    raise RefusedError(
                        f"a text in {field.name!r} is {longest:,} bytes long; up to {_MOST_TEXT_BYTES:,} are read"
                    )
    if n_rows != promised:
        raise RefusedError(f"its footer promises {promised:,} rows, {n_rows:,} are there")


def _identity(status: os.stat_result) -> list[int]:
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]


def _warm_up() -> None:
    """Have everything loaded and started that reading any file will need, so that the memory limit is for the file alone."""
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    for codec in ("snappy", "zstd", "gzip", "brotli", "lz4"):
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"text": ["a"], "number": [1.0]}), sink, compression=codec)
        with pq.ParquetFile(pa.BufferReader(sink.getvalue())) as file:
            for batch in file.iter_batches():
                batch.validate(full=True)


def _virtual_bytes() -> int:
    """Address space of this process; 0 where the system doesn't tell, and then no limit is set."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return 0


def _allow_cpu(seconds: int) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = int(usage.ru_utime + usage.ru_stime) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (used + seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))


if __name__ == "__main__":
    main()
