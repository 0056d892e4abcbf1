"""Long figures state what was reached: they go on where they stopped, and a failure is kept with the number of its case."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import reliability.__main__
import reliability.page
import reliability.soak
import reliability.subject
from reliability.subject import Case, Subject, take


@pytest.fixture(autouse=True)
def _own_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reliability.subject, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(reliability.page, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(reliability.page, "PAGE", tmp_path / "reliability.md")


def every_third_fails(number: int) -> Case:
    if number == 7:
        raise ValueError("seven")
    return Case(
        problem="a third" if number % 3 == 0 else None, n=10, largest={"ms": float(number)}, counts={"odd": number % 2}
    )


def subject(**changes: object) -> Subject:
    return Subject("thirds", "Nothing fails.", "tries", 1000, every_third_fails, **changes)  # type: ignore[arg-type]


def test_a_run_goes_on_where_the_last_one_stopped_and_counts_only_what_it_tried() -> None:
    seen: list[int] = []

    def remember(number: int) -> Case:
        seen.append(number)
        return Case()

    remembering = Subject("seen", "Each number comes once.", "cases", 100, remember)
    take(remembering, cases=3)
    assert take(remembering, cases=4).n == 7
    assert seen == list(range(7))


def test_failures_keep_the_number_of_their_case_and_an_exception_is_one_of_them() -> None:
    figure = take(subject(), cases=8)
    assert figure.n_failures == 4
    assert [failure["case"] for failure in figure.failures] == [0, 3, 6, 7]
    assert figure.failures[-1]["problem"] == "ValueError: seven"
    assert json.loads(figure.path.read_text())["n"] == figure.n == 71
    assert (figure.largest, figure.counts) == ({"ms": 6.0}, {"odd": 3})


def test_a_figure_beyond_its_bound_is_a_failure() -> None:
    figure = take(subject(bounds={"ms": 4.0}), cases=6)
    assert figure.failures[-1] == {"case": 5, "problem": "ms 5, 4 is the bound"}


def test_an_exhaustive_family_ends_and_says_so() -> None:
    figure = take(subject(n_cases=5), cases=100)
    assert (figure.next_case, figure.exhausted) == (5, True)


def test_the_page_shows_what_was_reached_and_every_failure() -> None:
    take(subject(n_cases=4))
    page = reliability.page.write_page().read_text()
    assert "| thirds | Nothing fails. | 40 tries (all there are) | 1,000 | 2 | ms 3 | odd 2 |" in page
    assert "- thirds 3: a third" in page


def test_many_figures_of_sizes_have_a_table_of_their_own_in_order_of_size() -> None:
    shares = {f"recall {m}, n {n}": 90.0 + m for m in range(5) for n in ("50", "500", "50,000")}
    shares.pop("recall 4, n 500")
    take(Subject("shares", "Intervals hold.", "sets", 1, lambda _: Case(largest=shares), n_cases=1))
    page = reliability.page.write_page().read_text()
    assert "| 14 figures from 90 to 94, [below](#shares) |" in page
    assert "|  | n 50 | n 500 | n 50,000 |\n" in page
    assert "| recall 4 | 94 | - | 94 |\n" in page


def test_work_that_is_told_to_stop_is_recorded_with_its_seconds(tmp_path: Path) -> None:
    told = """
import os, pathlib, signal, sys, time
import reliability.__main__ as program, reliability.subject as subject
subject.RESULTS = pathlib.Path(sys.argv[1])

def case(number):
    time.sleep(0.2)
    if number == 2:
        if os.fork() == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        os.wait()
        print("told", flush=True)
        time.sleep(60)
    return subject.Case()

with program.stopped_in_order():
    subject.take(subject.Subject("told", "It ends in order.", "cases", 9, case))
"""
    command = [sys.executable, "-c", told, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "told\n"
        assert not (tmp_path / "told.json").exists(), "a forked child's end isn't the run's"
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait() == 128 + signal.SIGTERM
    kept = json.loads((tmp_path / "told.json").read_text())
    assert (kept["next_case"], kept["n"]) == (2, 2)
    assert kept["seconds"] >= 0.6


def test_what_is_saved_on_the_way_says_its_seconds_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reliability.subject, "_SAVE_EVERY_S", 0.0)
    seen: list[float] = []

    def look(number: int) -> Case:
        time.sleep(0.1)
        if number:
            seen.append(json.loads((reliability.subject.RESULTS / "seen.json").read_text())["seconds"])
        return Case()

    take(Subject("seen", "Each save says it.", "cases", 100, look), cases=2)
    assert seen[0] >= 0.1


def test_a_dry_run_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELIABILITY_DRY", "1")
    monkeypatch.setattr(reliability.subject, "_SAVE_EVERY_S", 0.0)
    assert not take(subject(), cases=3).path.exists()


@pytest.fixture
def families(monkeypatch: pytest.MonkeyPatch) -> dict[str, Subject]:
    """Four families: one has reached its goal, one has no more cases, and two lack something."""
    made = {
        "reached": Subject("reached", "It holds.", "tries", 3, lambda number: Case()),
        "lacking": Subject("lacking", "It holds.", "tries", 100, lambda number: Case()),
        "ended": Subject("ended", "It holds.", "tries", 100, lambda number: Case(), n_cases=4),
        "failing": Subject("failing", "It fails.", "tries", 100, lambda number: Case("it failed")),
    }
    monkeypatch.setattr(reliability.soak, "subjects", lambda: list(made))
    for name, family in made.items():
        monkeypatch.setitem(sys.modules, f"reliability.{name}", type(sys)(f"reliability.{name}"))
        monkeypatch.setattr(sys.modules[f"reliability.{name}"], "SUBJECT", family, raising=False)
    take(made["reached"], cases=5)
    take(made["ended"])
    return made


def test_a_soak_takes_on_what_lacks_something_and_shares_the_time(families: dict[str, Subject]) -> None:
    shares: dict[str, float] = {}

    def run(name: str, seconds: float) -> None:
        shares[name] = round(seconds)
        take(families[name], cases=2)

    found = {figure.name: figure.n for figure in reliability.soak.soak(100.0, run)}
    assert found == {"lacking": 2, "failing": 2}
    # The first ended at once, so that the second has all that is left.
    assert shares == {"lacking": 50, "failing": 100}


def test_a_soak_that_found_a_failure_says_so_with_its_exit_status(
    families: dict[str, Subject], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["soak"])
    monkeypatch.setattr(reliability.soak, "in_a_process_of_its_own", lambda name, s: take(families[name], cases=1))
    assert reliability.soak.main() == 1
    assert "failing: 1 failures in 1 tries" in capsys.readouterr().out
    monkeypatch.setattr(reliability.soak, "subjects", lambda: ["reached"])
    assert reliability.soak.main() == 0
    assert capsys.readouterr().out == "every figure has reached its goal\n"


def test_a_subject_is_run_without_importing_the_others() -> None:
    told = """
import sys
sys.argv = ["reliability", "swapped_scores", "--only", "0"]
import reliability.__main__ as program
program.main()
print(sorted(name for name in sys.modules if name in ("reliability.npz_fuzz", "reliability.soak", "torch")))
"""
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["Case(problem=None, n=1, largest={}, counts={'two swapped: told': 1})", "[]"]


def test_a_subject_that_there_is_not_is_refused_with_those_that_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reliability.__main__, "subjects", lambda: ["races", "row_bits"])
    monkeypatch.setattr(sys, "argv", ["reliability", "coverage"])
    with pytest.raises(SystemExit):
        reliability.__main__.main()
    assert "no subject 'coverage'; there are races, row_bits" in capsys.readouterr().err
