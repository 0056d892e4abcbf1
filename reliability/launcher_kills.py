"""A real torchrun under its supervisor, disturbed once at a random moment, must end with the weights of an undisturbed run.

A case trains a small survey in two ranks and sends one signal to one process: a rank, torchrun, or the step that launched it.
Or it takes the run's folder over while ranks are at work, as a launcher on another machine would. A step that was ended is
launched again, one that was stopped goes on after a while; everything else is the supervisor's affair. The cases go through all
signals and targets in turn; the moment is drawn for each, one in five before the first step. How long a restart takes is a matter
of importing torch three times, so it is timed only where nobody else keeps the cores busy.
"""

import atexit
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training import checks
from lens_pipeline.training.folder import RunFolder, read_events
from lens_pipeline.training.processes import processes_of
from lens_pipeline.training.run import collect
from lens_pipeline_tests.training.making import prepared, run_ranks, small_survey
from reliability.subject import Case, Subject

TAKEN_OVER = ("folder", "taken over")
KINDS = [
    *((target, how) for how in ("SIGKILL", "SIGTERM", "SIGSTOP") for target in ("rank 0", "rank 1", "torchrun", "step")),
    TAKEN_OVER,
]  # fmt: skip
_SETTINGS: dict[str, Any] = {"epochs": 6, "patience": 6, "hang_seconds": 20.0}
_STEPS = 6 * 4
_EARLY_SHARE = 0.2
_LONGEST_SECONDS = 900.0
# A write that had begun may end; the next one asks first.
_UNDER_WAY_SECONDS = 1.0
_STOPPED_SECONDS = 2.0
# A case itself makes for a load of about one a core.
_CROWDED = 2.0

Files = dict[str, tuple[int, int]]


@dataclass
class Trial:
    """One run that is disturbed, and what was seen of it."""

    folder: RunFolder
    launches: list[float] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    largest: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    load: float = 0.0
    said: str = ""

    def launch(self) -> "subprocess.Popen[bytes]":
        """Start a step."""
        code = "import sys; from pathlib import Path; from lens_pipeline.training.run import launch; launch(Path(sys.argv[1]))"
        self.launches.append(time.time())
        with open(self.folder.path / "step.log", "wb") as log:
            return subprocess.Popen([sys.executable, "-c", code, str(self.folder.path)], stderr=log)

    def claimed(self) -> str | None:
        """Token of the attempt at work; takes note of the machine's load."""
        self.load = max(self.load, os.getloadavg()[0] / (os.cpu_count() or 1))
        claimed = self.folder.claimed()
        if claimed is not None:
            self.tokens.add(claimed[1])
        return claimed[1] if claimed else None

    def events(self) -> list[dict[str, Any]]:
        """All events so far."""
        return read_events(self.folder.history) if self.folder.history.exists() else []

    def alive(self) -> list[int]:
        """Every process of every attempt that was seen."""
        return [pid for token in self.tokens for pid in processes_of(token)]

    def finish(self, step: "subprocess.Popen[bytes]") -> int:
        """Wait for a step's end, and see that it left no process behind."""
        code = _until(step.poll, self.claimed, _LONGEST_SECONDS)
        if code is None:
            step.kill()
            self.problems.append(f"the step did not end within {_LONGEST_SECONDS:g} s")
            code = step.wait()
        ended = time.monotonic()
        if _until(lambda: not self.alive() or None, lambda: None, 10.0) is None:
            self.problems.append(f"{len(self.alive())} processes were alive 10 s after the step had ended")
        seconds = time.monotonic() - ended
        self.largest["seconds to the last process"] = max(seconds, self.largest.get("seconds to the last process", 0.0))
        self.said = (self.folder.path / "step.log").read_text(errors="replace")[-300:]
        return int(code)


def disturbed(number: int) -> Case:
    """Try one case."""
    with tempfile.TemporaryDirectory() as path:
        return disturb(Path(path), *KINDS[number % len(KINDS)], random.Random(number))


def disturb(path: Path, target: str, how: str, drawn: random.Random) -> Case:
    """Train in a folder, disturb it once, see it through and compare."""
    survey, expected = _undisturbed()
    trial = Trial(prepared(path / "run", survey, **_SETTINGS))
    step = trial.launch()
    try:
        if not _moment(trial, step, drawn):
            return Case(problem=f"the run ended before it was disturbed: {trial.said}", n=0)
        come = _take_over(trial, step) if (target, how) == TAKEN_OVER else _signal(trial, step, target, how)
        if not come:
            return Case(n=0, counts={"the target was not there": 1})
        if step.poll() is not None or trial.finish(step) != 0:
            if target not in ("step", "folder"):
                trial.problems.append(f"the step failed: {trial.said}")
            trial.finish(step)
            if trial.finish(trial.launch()) != 0:
                trial.problems.append(f"the run did not recover: {trial.said}")
    finally:
        step.kill()
        step.wait()
    if not trial.problems:
        _compare(trial, survey, expected)
    name = f"{how} of {target}" if how.startswith("SIG") else f"{target} {how}"
    problem = f"{name}: {'; '.join(trial.problems)}"[:600] if trial.problems else None
    restarts = sum(event["event"] == "restart" for event in trial.events())
    counts = {name: 1, "attempts after the first": restarts + len(trial.launches) - 1, **trial.counts}
    return Case(problem=problem, largest=trial.largest, counts=counts)


def _moment(trial: Trial, step: "subprocess.Popen[bytes]", drawn: random.Random) -> bool:
    """Wait for the moment of the disturbance; false if the run ended before."""
    early, place, delay = drawn.random() < _EARLY_SHARE, drawn.randrange(_STEPS), drawn.random()

    def reached() -> bool | None:
        if step.poll() is not None:
            return False
        if early:
            return trial.claimed() is not None or None
        return sum(event["event"] == "step" for event in trial.events()) > place or None

    come = bool(_until(reached, trial.claimed, _LONGEST_SECONDS))
    time.sleep(delay * (5.0 if early else 0.1))
    return come


def _signal(trial: Trial, step: "subprocess.Popen[bytes]", target: str, how: str) -> bool:
    """Send the signal; a stopped step goes on after a while. False if the target isn't there."""
    number = getattr(signal, how)
    if target == "step":
        trial.claimed()
        step.send_signal(number)
        if how == "SIGSTOP":
            time.sleep(_STOPPED_SECONDS)
            step.send_signal(signal.SIGCONT)
        return True
    rank = None if target == "torchrun" else int(target.removeprefix("rank "))

    def sent() -> bool | None:
        token = trial.claimed()
        for pid in [pid for pid, of in processes_of(token).items() if of == rank] if token else []:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
            return True
        return None if step.poll() is None else False

    return bool(_until(sent, lambda: None, _LONGEST_SECONDS))


def _take_over(trial: Trial, step: "subprocess.Popen[bytes]") -> bool:
    """Claim the folder beside the launcher at work, and see that its ranks write nothing more and its step says why."""
    if trial.claimed() is None:
        return False
    token = trial.folder.claim(trial.folder.next_attempt())
    before = _files(trial.folder)
    time.sleep(_UNDER_WAY_SECONDS)
    then = _files(trial.folder)
    trial.counts["files of which a write was under way"] = _changed(before, then)
    code = trial.finish(step)
    if written := _changed(then, _files(trial.folder)):
        trial.problems.append(f"{written} files were written by an attempt that had been replaced")
    if code == 0 or "has taken over" not in trial.said:
        trial.problems.append(f"the launcher that was replaced ended with {code}: {trial.said}")
    trial.folder.release(token)
    return True


def _compare(trial: Trial, survey: tuple[Publication, Publication], expected: dict[str, str]) -> None:
    made = _collect(trial.folder, survey)
    if different := [name for name, digest in _digests(made).items() if expected.get(name) != digest]:
        trial.problems.append(f"other bytes than undisturbed: {different}")
    for check in (checks.no_duplicated_fragments, checks.validation_is_whole):
        if not (found := check(made, *survey)).passed:
            trial.problems.append(found.message())
    _restarts(trial)


def _restarts(trial: Trial) -> None:
    """See that attempts wrote one after another, and how long each took to its first step."""
    events = trial.events()
    written = [event["attempt"] for event in events]
    if written != sorted(written):
        trial.problems.append("an attempt wrote into the history after the next one had begun")
    began = [event["time"] for event in events if event["event"] == "restart"] + trial.launches[1:]
    seconds = [
        first - start
        for start, first in ((start, _first_step(events, start)) for start in began)
        if first is not None and not any(start < other < first for other in began)
    ]
    if trial.load > _CROWDED:
        trial.counts["restarts not timed, others kept the cores busy"] = len(seconds)
    elif seconds:
        trial.largest["seconds from a restart to its first step"] = max(seconds)


def _first_step(events: list[dict[str, Any]], after: float) -> float | None:
    return next((event["time"] for event in events if event["event"] == "step" and event["time"] > after), None)


def _files(folder: RunFolder) -> Files:
    """Size and time of change of every file that ranks share; what an attempt keeps for itself is no other's concern."""
    shared = [
        folder.history,
        *folder.ledgers().values(),
        *folder.checkpoints.iterdir(),
        *folder.validation(0).parent.iterdir(),
    ]
    found = {}
    for path in shared:
        try:
            about = path.stat()
        except FileNotFoundError:
            continue
        found[path.name] = (about.st_size, about.st_mtime_ns)
    return found


def _changed(before: Files, after: Files) -> int:
    return sum(before.get(name) != after.get(name) for name in {*before, *after})


def _until(condition: Callable[[], Any], meanwhile: Callable[[], object], seconds: float) -> Any:
    """Return the condition's value once it isn't None, or None after so long."""
    deadline = time.monotonic() + seconds
    while (value := condition()) is None and time.monotonic() < deadline:
        meanwhile()
        time.sleep(0.01)
    return value


@cache
def _undisturbed() -> tuple[tuple[Publication, Publication], dict[str, str]]:
    kept = _kept()
    survey = small_survey(Home(kept / "survey"), n_galaxies=116)
    folder = prepared(kept / "run", survey, **_SETTINGS)
    assert run_ranks(folder) == [0, 0]
    return survey, _digests(_collect(folder, survey))


def _kept() -> Path:
    """Make a folder that is there as long as this process."""
    path = Path(tempfile.mkdtemp(prefix="launcher_kills-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def _collect(folder: RunFolder, survey: tuple[Publication, Publication]) -> Publication:
    with Home(folder.path / "published").stage("tried", "lens_classifier", inputs=list(survey)) as staging:
        collect(folder.path, staging)
        return staging.commit()


def _digests(made: Publication) -> dict[str, str]:
    return {name: entry.sha256 for name, entry in made.manifest.files.items()}


SUBJECT = Subject(
    name="launcher_kills",
    question="a run under the real torchrun whose rank, agent or step is killed, ended or stopped at any moment, or whose "
    "folder is taken over, ends with the bytes of an undisturbed run; no process is left, no replaced attempt writes",
    unit="disturbed runs",
    goal=200,
    case=disturbed,
    bounds={"seconds from a restart to its first step": 60.0, "seconds to the last process": 10.0},
)
