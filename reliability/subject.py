"""How long figures are taken: a subject is a numbered family of cases, and a case is a pure function of its number.

So a run can be stopped and resumed anywhere, any failing case can be run again alone, and the number that is reported is
the number that was reached. Belongs here: counting and keeping. What is tried is said in one module a subject.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lens_pipeline.storage.atomic import write_atomically

RESULTS = Path(__file__).parent / "results"
_SAVE_EVERY_S = 5.0
_KEPT_FAILURES = 20


@dataclass(frozen=True)
class Case:
    """What one case came to.

    Attributes
    ----------
    problem : str or None
        A sentence that says what went wrong; None if all was well.
    n : int
        Units that the case tried (inputs, publications, races ...).
    largest : dict
        Figures of which the largest over all cases is kept (``{"ms": 3.1}``).
    counts : dict
        Figures that are added up over all cases (``{"quarantined": 12}``).
    """

    problem: str | None = None
    n: int = 1
    largest: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """A numbered family of cases, 0, 1, 2 ...

    Attributes
    ----------
    name : str
        Name of the module in this folder and of the result file.
    question : str
        What is claimed, in one sentence that a case could refute.
    unit : str
        What is counted, in the plural.
    goal : int
        Units that are wanted.
    case : callable
        Tries one case; an exception is a failure like any other.
    n_cases : int, optional
        For an exhaustive family: there are no more cases than these.
    bounds : dict
        Largest value that each figure of `Case.largest` may reach.
    """

    name: str
    question: str
    unit: str
    goal: int
    case: Callable[[int], Case]
    n_cases: int | None = None
    bounds: dict[str, float] = field(default_factory=dict)


@dataclass
class Figure:
    """What was reached so far, as it stands in results/NAME.json."""

    name: str
    question: str
    unit: str
    goal: int
    next_case: int = 0
    n: int = 0
    seconds: float = 0.0
    n_failures: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    largest: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    bounds: dict[str, float] = field(default_factory=dict)
    exhausted: bool = False

    @property
    def path(self) -> Path:
        """Result file."""
        return RESULTS / f"{self.name}.json"

    @property
    def is_reached(self) -> bool:
        """Whether there is no more to do: as many units as are wanted, or as there are."""
        return self.exhausted or self.n >= self.goal

    @classmethod
    def of(cls, subject: Subject) -> "Figure":
        """Go on from the result file, or begin."""
        figure = cls(subject.name, subject.question, subject.unit, subject.goal, bounds=subject.bounds)
        if figure.path.exists():
            kept = json.loads(figure.path.read_text())
            for name in ("next_case", "n", "seconds", "n_failures", "failures", "largest", "counts", "exhausted"):
                setattr(figure, name, kept[name])
        return figure

    def add(self, number: int, case: Case) -> None:
        """Count a case that ended."""
        over = [
            f"{name} {value:.3g}, {self.bounds[name]:.3g} is the bound"
            for name, value in case.largest.items()
            if value > self.bounds.get(name, float("inf"))
        ]
        problem = "; ".join(filter(None, [case.problem, *over]))
        if problem:
            self.n_failures += 1
            if len(self.failures) < _KEPT_FAILURES:
                self.failures.append({"case": number, "problem": problem})
        self.next_case, self.n = number + 1, self.n + case.n
        for name, value in case.largest.items():
            self.largest[name] = max(value, self.largest.get(name, value))
        for name, count in case.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count

    def save(self) -> None:
        """Write the result file."""
        RESULTS.mkdir(exist_ok=True)
        write_atomically(self.path, (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode())

    def line(self) -> str:
        """Return the figure in one line."""
        worst = "".join(f", largest {name} {value:.3g}" for name, value in sorted(self.largest.items()))
        return f"{self.name}: {self.n_failures:,} failures in {self.n:,} {self.unit} (goal {self.goal:,}){worst}"


def take(subject: Subject, *, cases: int | None = None, seconds: float | None = None) -> Figure:
    """Run cases from where the last run stopped, and keep what was reached.

    Parameters
    ----------
    cases : int, optional
        Most cases to run now.
    seconds : float, optional
        Stop beginning new cases after so long.
    """
    figure = Figure.of(subject)
    before, began = figure.seconds, time.monotonic()
    saved = began
    end = subject.n_cases if subject.n_cases is not None else float("inf")
    last = end if cases is None else min(end, figure.next_case + cases)

    def keep() -> None:
        figure.seconds = round(before + time.monotonic() - began, 1)
        if not os.environ.get("RELIABILITY_DRY"):
            figure.save()

    try:
        while figure.next_case < last and (seconds is None or time.monotonic() - began < seconds):
            number = figure.next_case
            figure.add(number, _try(subject, number))
            if time.monotonic() - saved > _SAVE_EVERY_S:
                saved = time.monotonic()
                keep()
    finally:
        figure.exhausted = figure.next_case >= end
        keep()
    return figure


def _try(subject: Subject, number: int) -> Case:
    try:
        return subject.case(number)
    except Exception as error:
        return Case(problem=f"{type(error).__name__}: {error}"[:500])
