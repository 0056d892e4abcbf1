"""Every change to the disk that a publication makes goes wrong in turn, and readers never see a part.

A case is one scenario under one kind of fault: the N-th call that changes files fails, for N = 1, 2, 3 ... until the
publication gets through. A reader polls all the time; what it sees is what was current before, whole, or the new version,
whole. Then the same publication runs again undisturbed, and the home must be byte for byte as if nothing had happened.
"""

import atexit
import itertools
import shutil
import signal
import tempfile
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from lens_pipeline.storage.home import Home
from reliability.faults import FAULTS, Outcome, Server, serving
from reliability.publications import SCENARIOS, Scenario, is_red, look, tree
from reliability.subject import Case, Subject

CASES = [(scenario, fault) for scenario in SCENARIOS for fault in FAULTS]


class Reader:
    """Looks again and again, and keeps the first thing that it should not have seen."""

    def __init__(self, home: Home, asset: str, before: str, after: str) -> None:
        self._home, self._asset, self._before, self._after = home, asset, before, after
        self._saw_new = False
        self.looks = 0
        self.problem: str | None = None

    def look(self) -> str:
        """Look once and return what was seen."""
        try:
            seen = look(self._home, self._asset)
        except Exception as error:
            seen = f"{type(error).__name__}: {error}"
        self.looks += 1
        if seen not in (self._before, self._after):
            self.problem = self.problem or f"a reader saw {seen[:300]}"
        elif self._saw_new and seen != self._after:
            self.problem = self.problem or f"a reader saw the new version and then {seen[:300]}"
        self._saw_new = self._saw_new or seen == self._after
        return seen


def case(number: int) -> Case:
    return disturb(*_serving(), *CASES[number])


def disturb(server: Server, folder: Path, name: str, fault: str) -> Case:
    """Let each change of a scenario go wrong in turn, working in a folder."""
    scenario = SCENARIOS[name]
    with tempfile.TemporaryDirectory(dir=folder) as room:
        before_home, after_home, home = (Home(Path(room) / part) for part in ("before", "after", "home"))
        scenario.prepare(before_home)
        shutil.copytree(before_home.path, after_home.path)
        undisturbed = server.run(scenario.name, after_home.path)
        if undisturbed.error or undisturbed.signal:
            raise RuntimeError(f"undisturbed, it ends with {undisturbed}")
        before, after = look(before_home, scenario.asset), look(after_home, scenario.asset)
        expected = tree(after_home)
        problems: list[str] = []
        looks = 0
        for at in itertools.count(1):
            shutil.copytree(before_home.path, home.path)
            reader = Reader(home, scenario.asset, before, after)
            outcome = server.run(scenario.name, home.path, FAULTS[fault], at, meanwhile=reader.look)
            wrong = [
                *_judge(outcome, reader, home, scenario.asset, after),
                *_rerun(server, scenario, home, expected, after),
            ]
            problems += [f"operation {at}: {'; '.join(wrong)}"] if wrong else []
            looks += reader.looks
            shutil.rmtree(home.path)
            if not outcome.struck:
                break
    said = f"{scenario.name}, {fault}: {len(problems)} of {at}: {'; '.join(problems[:3])}" if problems else None
    return Case(problem=said, n=at, counts={"looks": looks})


def _judge(outcome: Outcome, reader: Reader, home: Home, asset: str, after: str) -> list[str]:
    seen = reader.look()
    wrong = [reader.problem] if reader.problem else []
    if (red := is_red(home, asset)) is not None:
        wrong.append(red)
    if outcome.signal not in (0, signal.SIGKILL):
        wrong.append(f"it ended by signal {outcome.signal}")
    if outcome.error and outcome.error[0] != "StorageError":
        wrong.append(f"it ended with {outcome.error}")
    if not outcome.signal and not outcome.error and seen != after:
        wrong.append(f"it says it published, and a reader sees {seen[:200]}")
    return wrong


def _rerun(server: Server, scenario: Scenario, home: Home, expected: dict[str, str], after: str) -> list[str]:
    again = server.run(scenario.name, home.path)
    if again.error or again.signal:
        return [f"a rerun ends with {again}"]
    seen, found = look(home, scenario.asset), tree(home)
    differing = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    wrong = [f"after a rerun a reader sees {seen[:200]}"] if seen != after else []
    return wrong + ([f"after a rerun there differ: {differing[:3]}"] if differing else [])


@cache
def _serving() -> tuple[Server, Path]:
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(serving())


SUBJECT = Subject(
    name="publishing",
    question="Whichever change to the disk fails, readers see what was current or the new version, each whole; a rerun "
    "ends byte for byte as if nothing had happened, and nothing is left over",
    unit="disturbed publications",
    goal=2_000,
    case=case,
    n_cases=len(CASES),
)
