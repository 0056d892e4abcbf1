"""How things are measured: both sides in one run, taking turns, in CPU time; the ratio and its spread are what is kept.

Belongs here: taking turns, and the result files. What is compared is said in one module a subject, each with a function
``run(quick) -> list[Result]``.
"""

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Result:
    """One ratio.

    Attributes
    ----------
    name : str
        What was measured; the result file's name.
    ratio : float
        Median over the rounds: how many times faster than the other side (or, where `unit` says so, a figure).
    low, high : float
        10th and 90th percentile over the rounds.
    against : str
        The other side.
    goal : float or None
        Least that is wanted.
    n : int
        Items a round.
    """

    name: str
    ratio: float
    low: float
    high: float
    against: str
    goal: float | None
    n: int
    rounds: int
    machine: str
    unit: str = "x"

    @property
    def reached(self) -> bool | None:
        """Whether the goal was met; None for a figure that is context and has no goal."""
        return None if self.goal is None else self.ratio >= self.goal

    def write(self) -> None:
        """Write results/NAME.json."""
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{self.name}.json").write_text(
            json.dumps({**asdict(self), "reached": self.reached}, indent=1) + "\n"
        )

    def line(self) -> str:
        """Return the result in one line."""
        figure = f"{self.name:24} {self.ratio:8.2f} {self.unit} ({self.low:.2f}-{self.high:.2f}) against {self.against}"
        if self.goal is None:
            return figure
        return f"{figure}; goal {self.goal:g} {'reached' if self.reached else 'NOT reached'}"


def compare(
    name: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    against: str,
    goal: float | None,
    n: int,
    rounds: int,
    clock: Callable[[], float] = time.process_time,
    tidy: Callable[[], object] = lambda: None,
) -> Result:
    """Measure both sides in turn, several rounds, after one round that isn't counted.

    Parameters
    ----------
    tidy : callable
        Takes away, after each side and on nobody's time, what that side has left.
    """
    ratios = []
    for turn in range(rounds + 1):
        first, second = (ours, theirs) if turn % 2 else (theirs, ours)
        took = {}
        for side in (first, second):
            took[side] = _time(side, clock)
            tidy()
        if turn:
            ratios.append(took[theirs] / took[ours])
    return summarise(name, ratios, against=against, goal=goal, n=n)


def summarise(name: str, values: list[float], *, against: str, goal: float | None, n: int, unit: str = "x") -> Result:
    """Reduce the rounds to a median and a spread."""
    low, middle, high = np.percentile(values, [10, 50, 90])
    return Result(
        name=name, ratio=round(float(middle), 3), low=round(float(low), 3), high=round(float(high), 3), against=against,
        goal=goal, n=n, rounds=len(values), machine=machine(), unit=unit,
    )  # fmt: skip


def machine() -> str:
    """Describe the machine by what matters for speed."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = named[0] if named else model
    return f"{model}, {os.cpu_count()} CPUs, python {platform.python_version()}, numpy {np.__version__}"


def _time(side: Callable[[], object], clock: Callable[[], float]) -> float:
    began = clock()
    side()
    return clock() - began
