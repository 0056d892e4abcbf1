"""Coverage is counted draw by draw: a stopped count ends as one that was not stopped, and an interval too narrow is told."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import reliability.coverage
import reliability.yield_coverage
from reliability.coverage import Family, Found, Kind, coverage_case
from reliability.subject import Case

SUBJECT = "yield_coverage"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(reliability.coverage, "_SAVE_EVERY_S", -1.0)


def draw(rng: np.random.Generator, kind: Kind, width: float = 1.96) -> Iterator[Found]:
    """Yield the interval of a mean of unit variance, and one that two of three draws can't give."""
    found = rng.normal()
    yield "mean", 0.0, (found - width, found + width)
    yield "rare", 0.0, (None, None) if rng.random() < 2 / 3 else (-9.0, 9.0)


def counted(family: Family) -> Case:
    return coverage_case(SUBJECT, 0, Kind(50, 1), family, {"mean": (0.91, 0.99), "": (1.0, 1.0)}, draws=300)


def test_a_count_that_was_stopped_goes_on_and_ends_as_one_that_was_not(tmp_path: Path) -> None:
    begun: list[int] = []

    def stopped(rng: np.random.Generator, kind: Kind) -> Iterator[Found]:
        begun.append(len(begun))
        found = list(draw(rng, kind))
        if len(begun) == 71:
            yield found[0]
            raise KeyboardInterrupt
        yield from found

    with pytest.raises(KeyboardInterrupt):
        counted(stopped)
    again = counted(stopped)
    assert len(begun) == 301
    assert again == counted(draw)
    assert not [*(tmp_path.glob("lens_pipeline-coverage-*/*"))]


def test_a_count_of_other_code_is_not_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []

    def stop(_: np.random.Generator, kind: Kind) -> Iterator[Found]:
        begun.append(kind.n)
        if len(begun) == 50:
            raise KeyboardInterrupt
        yield "mean", 0.0, (1.0, 2.0)

    with pytest.raises(KeyboardInterrupt):
        counted(stop)
    monkeypatch.setattr(reliability.coverage, "code_sha256", lambda *_: "other")
    assert counted(draw).problem is None


def test_what_was_held_given_and_left_out_is_counted_and_rare_intervals_are_not_judged() -> None:
    case = counted(draw)
    assert (case.problem, case.n) == (None, 300)
    assert sum(case.counts.values()) == 600
    assert 170 < case.counts["intervals left out with a reason"] < 230
    assert [*case.largest] == ["mean, n 50"]


def test_an_interval_that_is_too_narrow_is_told() -> None:
    case = counted(lambda rng, kind: draw(rng, kind, 1.4))
    assert str(case.problem).startswith("n 50: mean 8")


def test_a_metric_is_held_against_the_first_bounds_that_fit_its_name() -> None:
    bounds = {"me": (0.0, 0.5), "mean": (0.0, 1.0)}
    case = coverage_case(SUBJECT, 0, Kind(50, 1), draw, bounds, ", fitted", draws=100)
    assert str(case.problem).startswith("n 50, fitted: mean ")


def test_rows_of_a_galaxy_share_a_tenth_of_their_variance_and_others_nothing() -> None:
    rng = np.random.default_rng(0)
    noise, galaxy = Kind(200_000, 2).noise(rng)
    assert np.all(galaxy[::2] == galaxy[1::2])
    assert np.corrcoef(noise[::2], noise[1::2])[0, 1] == pytest.approx(0.1, abs=0.01)
    assert np.corrcoef(noise[1:-1:2], noise[2::2])[0, 1] == pytest.approx(0, abs=0.01)
    assert np.var(noise) == pytest.approx(1, abs=0.02)
    alone, galaxy = Kind(100_000, 1).noise(rng)
    assert np.array_equal(galaxy, np.arange(100_000))
    assert np.var(alone) == pytest.approx(1, abs=0.02)
