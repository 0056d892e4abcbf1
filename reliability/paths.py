"""Names from data and settings that try to lead out of the home, wherever a name becomes a path.

A case is one name, given as dataset, asset, model, version, table, file, work folder, as a file in a manifest and as the
version in current.json. Each use ends in the pipeline's own error or stays within the home. What is opened to write, made,
renamed or removed elsewhere is heard from Python's audit events; a file outside must never be read in place of one inside.
"""

import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from lens_pipeline.contracts.errors import PipelineError
from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.manifest import FileEntry, Manifest
from lens_pipeline.storage.parquet import write_parquet
from lens_pipeline.storage.publication import Publication
from reliability.publications import DATASET, publish_scores
from reliability.subject import Case, Subject

OUTSIDE = "outside"
# fmt: off
_UPWARDS = (
    "..", "../..", "../../..", "../../../..", "../../../../..", "./..", "a/../..", "..//..", "%2e%2e",
    "..%2f..", "%252e%252e", "..\\..", "\uff0e\uff0e", "\u2025", "..\x00", "..\n", ".. ", " ..", "..;",
    "..%c0%af..",
)
_SLASHES = (
    "/", "\\", "//", "/./", "%2f", "%5c", "\u2215", "\uff0f", ":",
)
_TARGETS = (
    OUTSIDE, f"{OUTSIDE}/secret.parquet",
)
_ALONE = (
    "", ".", "/", "//", "~", "~root", "$HOME", "-rf", "*", "?", "[a]", "{a,b}", "a b", " ", "\n", "a\nb", "\r",
    "\t", "\x00", "a\x00b", "\x1b[2J", "\x7f", "e\u0301", "\u00e9", "\u202ecod", "\ufeff", "\udcff",
    "\U0001f52d", "CON", "con.parquet", "NUL", "aux.json", "COM1", "LPT1.txt", "C:\\x", "C:x",
    "\\\\server\\share", "//server/share", "file:///etc/passwd", "s3://bucket/key", "/dev/null", "/dev/zero",
    "/dev/stdin", "/proc/self/environ", "/proc/self/fd/0", "/etc/passwd", ".lock", ".work", ".staging-1-a",
    ".damaged", "current.json", "manifest.json", "verdict.json", "x" * 128, "x" * 129, "x" * 255, "x" * 4096,
    "../" * 1365, "a/" * 2048, "a.", "a..", "a...b", "..a", "a..b", ";ls", "$(id)", "`id`", "|id", "&", "'",
    '"', "<a>", "%s", "%n", "{0}", "null", "0", "-", "_",
)
# fmt: on
NAMES = (
    *_ALONE,
    *("".join(parts) for parts in itertools.product(_UPWARDS, _SLASHES, _TARGETS)),
    *(prefix + upward for prefix in ("/", "a/", "\\", "./") for upward in _UPWARDS),
)

_heard: list[str] = []
_listening_for: list[str] = []


def case(number: int) -> Case:
    _listen()
    return try_name(NAMES[number])


def try_name(name: str) -> Case:
    """Use a name wherever a name becomes a path, and say what got out."""
    with tempfile.TemporaryDirectory() as room:
        outside = Path(room) / OUTSIDE
        outside.mkdir()
        write_parquet(pa.table({"secret": [1]}), outside / "secret.parquet")
        before = _snapshot(outside)
        home = Home(Path(room) / "a" / "b" / "home")
        publication = publish_scores(home, 3)
        _listening_for[:], _heard[:] = [str(home.path)], []
        problems = [
            problem
            for what, use in _uses(home, publication, name, outside).items()
            if (problem := _try(what, use, home)) is not None
        ]
        _listening_for.clear()
        problems += [f"outside the home: {event}" for event in _heard]
        if _snapshot(outside) != before:
            problems.append("a file outside was changed")
    return Case(problem=f"{name!r}: {'; '.join(problems[:3])}"[:500] if problems else None)


def _uses(home: Home, publication: Publication, name: str, outside: Path) -> dict[str, Callable[[], Path | None]]:
    def stage(dataset: str, asset: str, model: str | None = None) -> None:
        with home.stage(dataset, asset, model=model) as staging:
            staging.write_bytes("x", b"x")
            home.conclude(staging.commit(), [])

    def write(table: bool) -> Path:
        with home.stage(DATASET, "scores") as staging:
            path = staging.write_table(name, pa.table({"x": [1]})) if table else staging.write_bytes(name, b"x")
            staging.commit()
            return path

    def current() -> None:
        path = publication.folder.parent / "current.json"
        kept = path.read_bytes()
        path.write_text(json.dumps({"version": name}))
        try:
            home.open(DATASET, "scores")
        finally:
            path.write_bytes(kept)

    def manifest() -> Path:
        secret = outside / "secret.parquet"
        entry = FileEntry(sha256_of(secret), secret.stat().st_size, 1, {"secret": "int64"})
        forged = Manifest(DATASET, "scores", "default", {name: entry}, {}, {})
        folder = publication.folder.parent / forged.version
        folder.mkdir()
        (folder / "manifest.json").write_bytes(forged.to_json())
        opened = home.open(DATASET, "scores", version=forged.version)
        return opened.path(name)

    return {
        "dataset": lambda: stage(name, "scores"),
        "asset": lambda: stage(DATASET, name),
        "model": lambda: stage(DATASET, "scores", name),
        "version": lambda: home.open(DATASET, "scores", version=name).folder,
        "version looked for": lambda: print(end="".join(home.datasets_with("scores", name))[:0]),
        "table": lambda: write(True),
        "file": lambda: write(False),
        "work folder": lambda: home.work_folder(DATASET, "scores", name),
        "current": current,
        "manifest": manifest,
    }


def _try(what: str, use: Callable[[], Path | None], home: Home) -> str | None:
    try:
        path = use()
    except PipelineError as error:
        return None if "\x1b" not in str(error) else f"as {what} its control characters are printed"
    except Exception as error:
        return f"as {what}: {type(error).__name__}: {error}"
    if path is not None and not path.resolve().is_relative_to(home.path.resolve()):
        return f"as {what} it gives {path}"
    return None


def _snapshot(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.rglob("*")}


@cache
def _listen() -> None:
    """Begin to hear what is changed; there is no way back, so only a process of its own does it."""
    sys.addaudithook(_hear)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if not _listening_for:
        return
    changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")
    writes = (
        event == "open"
        and isinstance(arguments[2], int)
        and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    )
    if (changes or writes) and isinstance(arguments[0], (str, bytes, os.PathLike)):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        # rmtree names its folder's entries relative to it.
        if os.path.isabs(os.fsdecode(arguments[0])) and not path.startswith(_listening_for[0]):
            _heard.append(f"{event} {path}")


SUBJECT = Subject(
    name="paths",
    question="No name from data or settings makes the pipeline write outside its home, or read a file there as its own",
    unit="names",
    goal=500,
    case=case,
    n_cases=len(NAMES),
)
