"""The power fails at every moment of a publication, and what was not flushed to the disk is lost.

A case is one scenario under one kind of loss (nothing unflushed is kept; all names but no bytes; all names, and bytes turned
to zeros; then any part, by a seed), at every moment in turn. Readers then see what was current before, whole, or the new
version, whole; once the publication had ended, the new version. The publication runs again from what is left, and ends as if
nothing had happened.
"""

import atexit
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lens_pipeline.storage.home import Home
from reliability.disk_model import Change, Disk, Loss, read_log
from reliability.faults import Server, serving
from reliability.publications import SCENARIOS, is_red, look, tree
from reliability.subject import Case, Subject

# Not the store: its work folder has a file that is written through a map, whose flushes the library doesn't see.
_NAMES = [name for name, scenario in SCENARIOS.items() if scenario.asset != "stamp_store"]
_LOSSES = ("everything", "bytes", "bytes to zeros")


@dataclass(frozen=True)
class Recorded:
    """A publication that ran undisturbed, and every change that it made."""

    before_home: Home
    before: str
    after: str
    tree_after: dict[str, str]
    root: Path
    changes: list[Change]


def case(number: int) -> Case:
    turn, which = divmod(number, len(_NAMES))
    name = _NAMES[which]
    scenario, recorded = SCENARIOS[name], _recorded(name)
    problems: list[str] = []
    for moment in range(len(recorded.changes) + 1):
        loss = Loss(_LOSSES[turn]) if turn < len(_LOSSES) else Loss("any", number * 10_000 + moment)
        problem = _fail_at(recorded, moment, loss, scenario.name)
        if problem:
            problems.append(f"after change {moment}: {problem}")
    n = len(recorded.changes) + 1
    said = f"{name}, {loss.kind} lost: {len(problems)} of {n}: {'; '.join(problems[:3])}" if problems else None
    return Case(problem=said, n=n)


def _fail_at(recorded: Recorded, moment: int, loss: Loss, name: str) -> str | None:
    scenario = SCENARIOS[name]
    disk = Disk(recorded.before_home.path)
    disk.root = recorded.root
    for change in recorded.changes[:moment]:
        disk.apply(change)
    left = Home(recorded.root.with_name("left"))
    _write(disk.after(loss), left.path)
    try:
        seen = look(left, scenario.asset)
        allowed = (recorded.after,) if moment == len(recorded.changes) else (recorded.before, recorded.after)
        if seen not in allowed:
            return f"a reader sees {seen}"
        if (red := is_red(left, scenario.asset)) is not None:
            return red
        scenario.publish(left)
        if look(left, scenario.asset) != recorded.after:
            return f"after a rerun a reader sees {look(left, scenario.asset)}"
        found = tree(left)
        differing = sorted(
            path for path in {*found, *recorded.tree_after} if found.get(path) != recorded.tree_after.get(path)
        )
        return f"after a rerun there differ: {differing[:3]}" if differing else None
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    finally:
        shutil.rmtree(left.path)


def _write(found: dict[str, bytes | None], folder: Path) -> None:
    folder.mkdir()
    for path, content in found.items():
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)


@cache
def _recorded(name: str) -> Recorded:
    """Run a scenario once and record it; the whole log, replayed, must give the tree that is there, or a change escaped it."""
    server, folder = _serving()
    scenario = SCENARIOS[name]
    before_home, home = Home(folder / name / "before"), Home(folder / name / "home")
    before_home.path.parent.mkdir()
    scenario.prepare(before_home)
    shutil.copytree(before_home.path, home.path)
    log = folder / name / "log"
    outcome = server.run(name, home.path, log=log)
    if outcome.error or outcome.signal:
        raise RuntimeError(f"undisturbed, {name} ends with {outcome}")
    changes = list(read_log(log))
    disk = Disk(before_home.path)
    disk.root = home.path
    for change in changes:
        disk.apply(change)
    replayed = disk.after(Loss("nothing"))
    there = {
        path.relative_to(home.path).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in home.path.rglob("*")
    }
    if replayed != there:
        differing = sorted(path for path in {*replayed, *there} if replayed.get(path, 0) != there.get(path, 0))
        raise RuntimeError(f"changes escaped the library: {differing[:5]}")
    return Recorded(
        before_home, look(before_home, scenario.asset), look(home, scenario.asset), tree(home), home.path, changes
    )


@cache
def _serving() -> tuple[Server, Path]:
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(serving())


SUBJECT = Subject(
    name="power_loss",
    question="Whenever the power fails and whatever was not flushed is lost, readers see what was current or the new version, "
    "each whole; what was concluded stays; a rerun ends as if nothing had happened",
    unit="crash states",
    goal=10_000,
    case=case,
)
