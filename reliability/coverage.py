"""How often intervals hold the truth: counted draw by draw, and gone on with where a count was stopped.

A count under way is kept in a folder for temporary files, under a name that holds the hash of the code that it is of.
"""

import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lens_pipeline.contracts.code import code_sha256
from lens_pipeline.storage.atomic import write_atomically
from reliability.subject import Case

DRAWS = 2000
# Share of the variance that the rows of a galaxy have in common.
ICC = 0.1
_SAVE_EVERY_S = 5.0

Interval = tuple[float | None, float | None]
Found = tuple[str, float, Interval]
# Bounds of the share of intervals that hold the truth, by how a metric's name begins: the first that fits counts.
Bounds = dict[str, tuple[float, float]]


class Kind(NamedTuple):
    """A kind of sets: how many rows, and how many of them are of one galaxy."""

    n: int
    copies: int

    def __str__(self) -> str:
        return f"n {self.n:,}" + (", clustered" if self.copies > 1 else "")

    def noise(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Draw standard normal values, of which those of a galaxy share `ICC` of their variance, and galaxies."""
        galaxy = np.arange(self.n) // self.copies
        if self.copies == 1:
            return rng.normal(size=self.n), galaxy
        common = np.sqrt(ICC) * rng.normal(size=galaxy[-1] + 1)[galaxy]
        return common + np.sqrt(1 - ICC) * rng.normal(size=self.n), galaxy


KINDS = tuple(Kind(n, copies) for n, together in ((50, 2), (500, 10), (50_000, 50)) for copies in (1, together))
Family = Callable[[np.random.Generator, Kind], Iterable[Found]]


@dataclass
class Coverage:
    """Of each metric how many intervals were given, how many of them held the truth, and how many were left out.

    Attributes
    ----------
    next_draw : int
        Draws that were counted.
    """

    next_draw: int = 0
    given: dict[str, int] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)

    def add(self, found: Iterable[Found]) -> None:
        """Count one draw: metric, its truth, its interval; an interval of which an end is None was left out."""
        for metric, truth, (low, high) in found:
            if low is None or high is None:
                self.left_out[metric] = self.left_out.get(metric, 0) + 1
            else:
                self.given[metric] = self.given.get(metric, 0) + 1
                self.held[metric] = self.held.get(metric, 0) + int(low <= truth <= high)
        self.next_draw += 1


def coverage_case(
    subject: str, number: int, kind: Kind, family: Family, bounds: Bounds, how: str = "", draws: int = DRAWS
) -> Case:
    """Count every draw of one case, and judge the metrics of which at least half of the draws have an interval.

    Parameters
    ----------
    subject : str
        Module in this folder.
    family : callable
        Makes a draw, of random numbers that are its own.
    bounds : dict
        What share of a metric's intervals may hold the truth.
    how : str
        What the draws have in common besides their kind.
    """
    count = _counted(subject, number, lambda draw: family(np.random.default_rng([number, draw]), kind), draws)
    where = f"{kind}{how}"
    shares = {metric: count.held[metric] / n for metric, n in count.given.items() if n >= draws // 2}
    wrong = [f"{metric} {share:.1%} of {count.given[metric]:,}" for metric, share in shares.items()
             if not _is_within(bounds, metric, share)]  # fmt: skip
    return Case(
        problem=f"{where}: {'; '.join(wrong)}" if wrong else None,
        n=draws,
        largest={f"{metric}, {where}": 100 * share for metric, share in shares.items()},
        counts={
            "intervals": sum(count.given.values()),
            "intervals left out with a reason": sum(count.left_out.values()),
        },
    )


def _is_within(bounds: Bounds, metric: str, share: float) -> bool:
    low, high = next(limits for begin, limits in bounds.items() if metric.startswith(begin))
    return low <= share <= high


def _counted(subject: str, number: int, draw: Callable[[int], Iterable[Found]], draws: int) -> Coverage:
    path = _folder() / f"{subject}-{number}-{_code(subject)}.json"
    count = Coverage(**json.loads(path.read_bytes())) if path.exists() else Coverage()
    saved = time.monotonic()
    while count.next_draw < draws:
        count.add(list(draw(count.next_draw)))
        if time.monotonic() - saved > _SAVE_EVERY_S:
            saved = time.monotonic()
            write_atomically(path, json.dumps(asdict(count)).encode())
    path.unlink(missing_ok=True)
    return count


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"lens_pipeline-coverage-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    return folder


def _code(subject: str) -> str:
    """Hash what a count is of: our evaluation, and the subject's own module."""
    own = Path(sys.modules[f"reliability.{subject}"].__file__ or "").read_bytes()
    evaluation = code_sha256(("evaluation",), ("numpy", "polars", "scipy"))
    return hashlib.sha256(own + evaluation.encode()).hexdigest()[:16]
