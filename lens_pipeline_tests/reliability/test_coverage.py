"""Coverage is counted draw by draw: a stopped count ends as one that was not stopped, and an interval too narrow is told."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import reliability.coverage
import reliability.yield_coverage
from reliability.coverage import Found, coverage_case

SUBJECT = "yield_coverage"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(reliability.coverage, "_SAVE_EVERY_S", -1.0)


def draw(number: int, width: float = 1.96) -> Iterator[Found]:
    """Yield the interval of a mean of unit variance, and one that every third draw can't give."""
    found = np.random.default_rng(number).normal()
    yield "mean", 0.0, (found - width, found + width)
    yield "rare", 0.0, (None, None) if number % 3 else (-9.0, 9.0)


def right(metric: str, share: float) -> bool:
    return 0.93 <= share <= 0.99


def test_a_count_that_was_stopped_goes_on_and_ends_as_one_that_was_not(tmp_path: Path) -> None:
    drawn: list[int] = []

    def stopped(number: int) -> Iterator[Found]:
        if number == 70 and drawn.count(70) == 0:
            drawn.append(number)
            yield from list(draw(number))[:1]
            raise KeyboardInterrupt
        drawn.append(number)
        yield from draw(number)

    with pytest.raises(KeyboardInterrupt):
        coverage_case(SUBJECT, 0, "here", stopped, right, draws=300)
    again = coverage_case(SUBJECT, 0, "here", stopped, right, draws=300)
    assert again == coverage_case(SUBJECT, 1, "here", draw, right, draws=300)
    assert sorted(drawn) == [*range(71), *range(70, 300)]
    assert not [*(tmp_path.glob("lens_pipeline-coverage-*/*"))]


def test_a_count_of_other_code_is_not_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(number: int) -> Iterator[Found]:
        if number == 50:
            raise KeyboardInterrupt
        yield "mean", 0.0, (1.0, 2.0)

    with pytest.raises(KeyboardInterrupt):
        coverage_case(SUBJECT, 0, "here", stop, right, draws=300)
    monkeypatch.setattr(reliability.coverage, "code_sha256", lambda *_: "other")
    assert coverage_case(SUBJECT, 0, "here", draw, right, draws=300).problem is None


def test_what_was_held_given_and_left_out_is_counted_and_rare_intervals_are_not_judged() -> None:
    case = coverage_case(SUBJECT, 0, "here", draw, right, draws=300)
    assert (case.problem, case.n) == (None, 300)
    assert case.counts == {"intervals": 400, "intervals left out with a reason": 200}
    assert [*case.largest] == ["mean, here"]


def test_an_interval_that_is_too_narrow_is_told() -> None:
    case = coverage_case(SUBJECT, 0, "here", lambda number: draw(number, 1.6), right, draws=300)
    assert str(case.problem).startswith("here: mean 91.3%")
