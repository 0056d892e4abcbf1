"""Making a store, stopped at its Nth file operation by SIGKILL, a full disk or a failing one, and then made again.

A case runs a real process that makes a small store of many units, and stops it right before operation N; the rerun must give
the very bytes that an undisturbed run gives, must not decode a unit again that the journal calls done, and must leave nothing
behind. The cases go through operations 0 to 319 in strides, so that few of them reach every pass; a store as small as this has
some 250, and a case beyond the last one is counted as such.
"""

import errno
import multiprocessing
import os
import signal
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.stamps import work
from lens_pipeline.stamps.journal import Journal
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline_tests.stamps.making import Row, make_rows, make_store, publish_stamps
from reliability.subject import Case, Subject

_OPERATIONS = (
    "pwrite", "write", "fdatasync", "fsync", "link", "rename", "replace", "open", "posix_fallocate", "ftruncate", "unlink",
    "mkdir", "rmdir",
)  # fmt: skip
_MANNERS = ("kill", "ENOSPC", "EIO")
_N_ROWS = 36
# The stride is prime to the number of operations, so that each comes once.
_MOST, _STRIDE = 320, 83


def stopped(number: int) -> Case:
    """Try one operation and manner."""
    return stop_at(number // len(_MANNERS) * _STRIDE % _MOST, _MANNERS[number % len(_MANNERS)])


def stop_at(operation: int, manner: str) -> Case:
    """Stop right before an operation by ``kill``, ``ENOSPC`` or ``EIO``, make the store again and compare."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        stamps = publish_stamps(home, _files(), row_group_size=6)
        ended = _run(home, stamps, operation, manner)
        if ended == _DONE:
            return Case(n=0, counts={"beyond the last operation": 1})
        shelf = home.shelf("tried", "stamp_store")
        n_done = _journalled(shelf)
        _fine_units()
        store, result = make_store(home, stamps)
        problems = []
        if _content(store) != _undisturbed():
            problems.append("other bytes than undisturbed")
        if result.decoding.n_resumed < n_done or result.decoding.n_resumed + result.decoding.n_decoded != _N_ROWS:
            problems.append(f"{n_done} rows were done, {result.decoding.n_resumed} were taken over")
        left = [path.name for path in shelf.iterdir() if path.name not in (store.version, ".work", ".lock")]
        if left or any((shelf / ".work").iterdir()):
            problems.append(f"left behind: {left} {list((shelf / '.work').iterdir())}")
    problem = f"operation {operation}, {manner}: {'; '.join(problems)}" if problems else None
    return Case(problem=problem, counts={manner: 1, "rows taken over": result.decoding.n_resumed})


def _files() -> list[list[Row]]:
    rows = make_rows(_N_ROWS)
    rows[5]["stamp_npz"] = b"no stamp"
    return [rows[:12], rows[12:]]


@cache
def _undisturbed() -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        _fine_units()
        store, _ = make_store(home, publish_stamps(home, _files(), row_group_size=6))
        return _content(store)


def _content(store: Publication) -> dict[str, str]:
    return {"version": store.version, **{name: entry.sha256 for name, entry in store.manifest.files.items()}}


def _journalled(shelf: Path) -> int:
    """Rows that the journal of an interrupted run calls done; none if that run had ended."""
    journals = list(shelf.glob(".work/[!.]*/journal"))
    if not journals:
        return 0
    with Journal(journals[0]) as journal:
        return sum(entry["n_decoded"] for entry in journal)


_DONE, _FAILED = 0, 3


def _run(home: Home, stamps: Publication, operation: int, manner: str) -> int | None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["reliability.ingest_kills", "lens_pipeline.stamps.kernels"])
    process = context.Process(target=_child, args=(home.path, stamps.folder, operation, manner))
    process.start()
    process.join(60)
    assert process.exitcode in (_DONE, _FAILED, -signal.SIGKILL), process.exitcode
    return process.exitcode


def _child(home: Path, stamps: Path, operation: int, manner: str) -> None:
    _fine_units()
    publication = Publication.open(stamps)
    _arm(operation, manner)
    try:
        make_store(Home(home), publication)
    except (OSError, StorageError):
        raise SystemExit(_FAILED) from None


def _fine_units() -> None:
    work.UNIT_ROWS = 6
    work._SYNC_EVERY_S = 0.0


def _arm(operation: int, manner: str) -> None:
    """Have the operation that comes as number `operation` fail; a failing disk goes on failing."""
    count = [0]

    def armed(call: Any) -> Any:
        def counted(*arguments: Any, **options: Any) -> Any:
            count[0] += 1
            if count[0] == operation + 1 and manner == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if count[0] == operation + 1:
                raise OSError(getattr(errno, manner), os.strerror(getattr(errno, manner)))
            return call(*arguments, **options)

        return counted

    for name in _OPERATIONS:
        setattr(os, name, armed(getattr(os, name)))


SUBJECT = Subject(
    name="ingest_kills",
    question="a store made again after a SIGKILL, a full or a failing disk is byte-identical, and no finished unit is redone",
    unit="interrupted runs",
    goal=700,
    case=stopped,
    n_cases=_MOST * len(_MANNERS),
)
