"""Rendering stamps, stopped at any moment by SIGKILL of the step or of one of its workers, and then run again.

A case starts the real step in a process of its own, alone or with two workers, and kills at a random moment after a random number
of fragments was done. The rerun must give the very bytes of an undisturbed run, must take over every fragment
that the journal calls done, and must leave nothing behind. Workers of a killed step may still be at it while the rerun begins.
"""

import contextlib
import multiprocessing
import os
import random
import signal
import tempfile
import time
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil

from lens_pipeline.contracts.errors import PipelineError
from lens_pipeline.stamps.journal import Journal
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.config import InjectionConfig, ParentSampleConfig, StampsConfig
from lens_pipeline.survey.manifest import build_manifest
from lens_pipeline.survey.parent_sample import build_parent_sample
from lens_pipeline.survey.stamps import StampsResult, build_stamps
from reliability.subject import Case, Subject

_DATASET = "tried"
_PARENTS = ParentSampleConfig(n_galaxies=16, n_bricks=4, stamp_size=32)
_INJECTIONS = InjectionConfig(injections_per_galaxy=2, fake_blob_share=0.2, null_flux_share=0.3)
_STAMPS: dict[str, Any] = {"rows_per_fragment": 6, "noiseless_arcs": True}
# What is killed, and the processes that the step has beside itself.
_MANNERS = (("step", 1), ("step", 2), ("worker", 2))
_DONE, _FAILED = 0, 3
# Of a machine that has other things to do.
_PATIENCE_S = 900.0
# Fragments that are waited for, at most, and seconds from then on: about as many as there are, and as one takes.
_MOST_FRAGMENTS, _MOST_S = 16, 0.06


def case(number: int) -> Case:
    what, workers = _MANNERS[number % len(_MANNERS)]
    rng = random.Random(number)
    fragments, then_s = rng.randint(0, _MOST_FRAGMENTS), rng.uniform(0, _MOST_S)
    with tempfile.TemporaryDirectory() as folder:
        home, inputs = _home(Path(folder))
        shelf = home.shelf(_DATASET, "stamps")
        process = _begin(home, workers)
        try:
            _wait_for(shelf, fragments, process)
            time.sleep(then_s)
            _kill(process, what)
            process.join(_PATIENCE_S)
        finally:
            process.kill()
        if process.exitcode == _DONE:
            return Case(n=0, counts={"ended before it was killed": 1})
        problems = [] if process.exitcode in (_FAILED, -signal.SIGKILL) else [f"ended with {process.exitcode}"]
        n_done = _journalled(shelf)
        stamps, result = _make(home, inputs, workers=1)
        if _content(stamps) != _undisturbed():
            problems.append("other bytes than undisturbed")
        if stamps.verify():
            problems.append("bytes other than published")
        if result.n_taken_over != n_done:
            problems.append(f"{n_done} rows were done, {result.n_taken_over} were taken over")
        left = [path.name for path in shelf.iterdir() if path.name not in (stamps.version, ".work", ".lock")]
        if left or any((shelf / ".work").iterdir()):
            problems.append(f"left behind: {left} {[path.name for path in (shelf / '.work').iterdir()]}")
    problem = (
        f"{what} of {workers}, {fragments} fragments and {then_s:.3f} s on: {'; '.join(problems)}" if problems else None
    )
    return Case(problem, counts={f"{what} killed, of {workers}": 1, "rows taken over": n_done})


def _home(folder: Path) -> tuple[Home, list[Publication]]:
    home = Home(folder)
    with home.stage(_DATASET, "parent_sample") as staging:
        build_parent_sample(_PARENTS, staging)
        parent = staging.commit()
    with home.stage(_DATASET, "injection_manifest", inputs=[parent]) as staging:
        build_manifest(_INJECTIONS, parent, staging)
        manifest = staging.commit()
    return home, [parent, manifest]


def _make(home: Home, inputs: list[Publication], workers: int) -> tuple[Publication, StampsResult]:
    config = StampsConfig(workers=workers, **_STAMPS)
    with home.stage(_DATASET, "stamps", inputs=inputs) as staging:
        result = build_stamps(config, inputs[0], inputs[1], staging)
        return staging.commit(), result


@cache
def _undisturbed() -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        stamps, _ = _make(*_home(Path(folder)), workers=1)
        return _content(stamps)


def _content(stamps: Publication) -> dict[str, str]:
    return {"version": stamps.version, **{name: entry.sha256 for name, entry in stamps.manifest.files.items()}}


def _journalled(shelf: Path) -> int:
    """Rows that the journal of an interrupted run calls done."""
    journals = _journals(shelf)
    if not journals:
        return 0
    with Journal(journals[0]) as journal:
        return sum(entry["files"]["path"]["rows"] for entry in journal)


def _begin(home: Home, workers: int) -> BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["reliability.stamps_kills", "lens_pipeline.survey.fragment_worker"])
    process = context.Process(target=_child, args=(home.path, workers))
    process.start()
    return process


def _child(home: Path, workers: int) -> None:
    there = Home(home)
    inputs = [there.open(_DATASET, asset, version=there.versions(_DATASET, asset)[-1].version) for asset in _INPUTS]
    try:
        _make(there, inputs, workers)
    except PipelineError:
        raise SystemExit(_FAILED) from None


_INPUTS = ("parent_sample", "injection_manifest")


def _wait_for(shelf: Path, fragments: int, process: BaseProcess) -> None:
    """Wait until the journal has so many lines, or the step is over."""
    end = time.monotonic() + _PATIENCE_S
    while process.is_alive() and _n_lines(shelf) < fragments:
        assert time.monotonic() < end, "the step never came so far"
        time.sleep(0.001)


def _n_lines(shelf: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return sum(path.read_bytes().count(b"\n") for path in _journals(shelf))
    return 0


def _journals(shelf: Path) -> list[Path]:
    return list(shelf.glob(".work/[!.]*/journal"))


def _kill(process: BaseProcess, what: str) -> None:
    assert process.pid is not None
    with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
        workers = psutil.Process(process.pid).children()
        # A step whose workers are gone, or not there yet, is killed itself.
        victim = workers[0].pid if what == "worker" and workers else process.pid
        os.kill(victim, signal.SIGKILL)


SUBJECT = Subject(
    name="stamps_kills",
    question="stamps rendered again after a SIGKILL of the step or of a worker are byte-identical, and what was done is kept",
    unit="killed runs",
    goal=300,
    case=case,
)
