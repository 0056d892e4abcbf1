"""Eight processes stage, commit and conclude on one shelf at the same moment, and what is left is whole.

Kinds of race, in turn: eight contents on an empty shelf; eight contents over a current version; one content by all eight;
one content by all eight over a damaged version of it; eight contents of which half are concluded red; one content that half
conclude green and half red.
"""

import atexit
import multiprocessing
import tempfile
from functools import cache
from multiprocessing.pool import Pool
from multiprocessing.synchronize import Barrier
from pathlib import Path

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.storage.home import Home
from reliability.publications import DATASET, GREEN, NOTHING, RED, look, publish_scores
from reliability.subject import Case, Subject

WRITERS = 8
_ASSET = "scores"
_WAIT_S = 60.0
# Versions that stand on the shelf before the race.
_BEFORE = {"over": 1}
_KINDS = ("first", "over", "same", "same_over_damaged", "half_red", "same_half_red")

_start: Barrier


def case(number: int) -> Case:
    return race(_KINDS[number % len(_KINDS)], WRITERS)


def race(kind: str, writers: int) -> Case:
    """Run one race of a kind."""
    with tempfile.TemporaryDirectory() as name:
        home = Home(Path(name))
        if kind == "over":
            publish_scores(home, 20)
        if kind == "same_over_damaged":
            (publish_scores(home, 40).folder / "pixels.bin").write_bytes(b"ruined")
        same = kind.startswith("same")
        orders = [
            (name, 40 if same else 40 + writer, not kind.endswith("half_red") or writer % 2 == 0)
            for writer in range(writers)
        ]
        running = _pool(writers).map_async(_publish, orders, chunksize=1)
        problems: list[str] = []
        looks = 0
        while not running.ready():
            looks += 1
            problems += _torn(home, kind)
        ended = running.get(_WAIT_S)
        problems += [error for _, error in ended if error]
        problems += _whole(home, [version for version, _ in ended if version], kind, same)
    return Case(problem=f"{kind}: {'; '.join(problems[:3])}" if problems else None, counts={"looks": looks, kind: 1})


def _publish(order: tuple[str, int, bool]) -> tuple[str | None, str | None]:
    folder, n_rows, passes = order
    _start.wait(_WAIT_S)
    try:
        return publish_scores(Home(Path(folder)), n_rows, GREEN if passes else RED).version, None
    except Exception as error:
        return None, f"a writer ended with {type(error).__name__}: {error}"


def _torn(home: Home, kind: str) -> list[str]:
    """Say what a reader sees meanwhile that it should not; the version that was ruined on purpose may be seen ruined."""
    try:
        look(home, _ASSET)
    except Exception as error:
        # It may also be moved aside between two looks at it.
        ruined = kind == "same_over_damaged" and isinstance(error, (AssertionError, StorageError, FileNotFoundError))
        return [] if ruined else [f"a reader saw {type(error).__name__}: {error}"]
    return []


def _whole(home: Home, versions: list[str], kind: str, same: bool) -> list[str]:
    wrong = []
    there = {publication.version: publication for publication in home.versions(DATASET, _ASSET)}
    for version in versions:
        if version not in there or there[version].verify() or there[version].verdict is None:
            wrong.append(f"{version} was published and is not there whole")
    if len(there) != (1 if same else _BEFORE.get(kind, 0) + len(versions)):
        wrong.append(f"{len(versions)} writers left {len(there)} versions")
    seen = look(home, _ASSET)
    green = {version for version, publication in there.items() if (publication.verdict or {}).get("passed")}
    current = seen.split()[0]
    # Of one content concluded both ways the last word counts; else some writer was green.
    if (seen == NOTHING and green) or (seen != NOTHING and current not in green):
        wrong.append(f"current is {seen}, green are {sorted(green)}")
    shelf = home.shelf(DATASET, _ASSET)
    left = [path.name for path in shelf.rglob(".*") if path.name != ".lock" and not path.name.startswith(".damaged-")]
    left += [path.name for path in shelf.rglob(".lock") if path.parent != shelf]
    return [*wrong, f"left over: {left[:3]}"] if left else wrong


def _ready(start: Barrier) -> None:
    global _start
    _start = start
    with tempfile.TemporaryDirectory() as name:  # What is imported late is imported before the race.
        publish_scores(Home(Path(name)), 1)


@cache
def _pool(writers: int) -> Pool:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["reliability.races"])
    pool = context.Pool(writers, _ready, (context.Barrier(writers),))
    atexit.register(pool.terminate)
    return pool


SUBJECT = Subject(
    name="races",
    question=f"{WRITERS} processes that publish on one shelf at once all succeed, their versions are whole, what is current "
    "is green and one of theirs, readers see nothing torn meanwhile, and nothing is left over",
    unit="races",
    goal=1_000,
    case=case,
)
