"""Where jobs are done: by processes of this machine, or by Ray's workers. We write no scheduler.

Belongs here: handing jobs out and taking answers in. A *task* is a module with a function ``worker(settings)`` that returns a
function from a job to its answer. Settings, jobs and answers are JSON, and what is big goes through files that the job names;
so whoever does a job, and in which order, shows in no byte.
"""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from enum import StrEnum
from functools import lru_cache
from selectors import EVENT_READ, DefaultSelector
from typing import Any

from lens_pipeline.contracts.errors import ConfigError, PipelineError
from lens_pipeline.stamps.work import available_cpus

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")

# A job has a `name`, for people.
Job = dict[str, Any]
Answer = dict[str, Any]


class Engine(StrEnum):
    """What does jobs."""

    processes = "processes"
    ray = "ray"


def do_jobs(
    task: str, settings: dict[str, Any], jobs: Iterator[Job], *, workers: int, engine: Engine = Engine.processes
) -> Iterator[tuple[Job, Answer]]:
    """Do jobs side by side and yield each with its answer, as they end; jobs are taken only when somebody is free.

    Parameters
    ----------
    task : str
        Name of the task's module.
    workers : int
        Most jobs at a time; 0 for one a core. A single one of the engine `processes` is done in this process.

    Raises
    ------
    ConfigError
        If the engine isn't installed.
    PipelineError
        If a job failed; what its worker said is in the step's log.
    """
    if engine is Engine.ray:
        return _in_ray(task, settings, jobs, workers)
    if (workers or available_cpus()) == 1:
        return _here(task, settings, jobs)
    return _in_processes(task, settings, jobs, workers or available_cpus())


def load(task: str, settings: dict[str, Any]) -> Callable[[Job], Answer]:
    """Return the function that does a task's jobs."""
    worker: Callable[[Job], Answer] = importlib.import_module(task).worker(settings)
    return worker


def _here(task: str, settings: dict[str, Any], jobs: Iterator[Job]) -> Iterator[tuple[Job, Answer]]:
    work: Callable[[Job], Answer] | None = None
    for job in jobs:
        work = work or load(task, settings)
        yield job, work(job)


class _Process:
    """A worker process and its two pipes; see `process.py` for the other end."""

    def __init__(self, task: str, settings: dict[str, Any]) -> None:
        self.job: Job = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lens_pipeline.survey.process", task],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **_ONE_THREAD},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self.output = self._process.stdin, self._process.stdout
        self._say(settings)

    def __enter__(self) -> "_Process":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._input, self.output):
            try:
                pipe.close()
            except BrokenPipeError:
                continue

    def begin(self, job: Job) -> None:
        """Hand a job over."""
        self.job = job
        self._say(job)

    def end(self) -> Answer:
        """Return the answer, which is there or on its way."""
        answer = self.output.readline()
        if not answer:
            raise PipelineError(
                f"a worker process ended with code {self._process.wait()} while it made {self.job['name']}; its traceback is "
                "in this step's log. Nothing was published, and what was finished is kept for the next run. If it was killed "
                "for memory, set fewer workers, or smaller fragments."
            )
        return dict(json.loads(answer))

    def _say(self, what: dict[str, Any]) -> None:
        try:
            self._input.write(json.dumps(what, allow_nan=False) + "\n")
            self._input.flush()
        except BrokenPipeError:
            # The process is gone; the missing answer will say so with its exit code.
            return


def _in_processes(
    task: str, settings: dict[str, Any], jobs: Iterator[Job], workers: int
) -> Iterator[tuple[Job, Answer]]:
    with ExitStack() as stack, DefaultSelector() as busy:
        idle: list[_Process] = []
        for job in jobs:
            if not idle and not busy.get_map():
                # All at once, with the first job: they load side by side.
                idle = [stack.enter_context(_Process(task, settings)) for _ in range(workers)]
            process = idle.pop()
            process.begin(job)
            busy.register(process.output, EVENT_READ, process)
            if not idle:
                yield from _ended(busy, idle)
        while busy.get_map():
            yield from _ended(busy, idle)


def _ended(busy: DefaultSelector, idle: list[_Process]) -> Iterator[tuple[Job, Answer]]:
    for key, _ in busy.select():
        busy.unregister(key.fileobj)
        idle.append(key.data)
        yield key.data.job, key.data.end()


def _in_ray(task: str, settings: dict[str, Any], jobs: Iterator[Job], workers: int) -> Iterator[tuple[Job, Answer]]:
    """Map jobs by Ray, at ``RAY_ADDRESS`` or else on this machine; its nodes must see the home's folder under the same path."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "stamps.engine is ray, and the package ray isn't installed here: uv pip install 'lens_pipeline[ray]', or set "
            "stamps.engine: processes, which gives the same bytes."
        )
    ray = importlib.import_module("ray")
    ray.init(ignore_reinit_error=True)
    at_a_time = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    remote, shared = ray.remote(_do), ray.put(json.dumps(settings))
    running: dict[Any, Job] = {}

    def ended() -> Iterator[tuple[Job, Answer]]:
        done, _ = ray.wait(list(running), num_returns=1)
        for reference in done:
            job = running.pop(reference)
            try:
                answer = json.loads(ray.get(reference))
            except Exception as error:
                raise PipelineError(
                    f"a worker of Ray failed at {job['name']}: {error}. Nothing was published, and what was finished is kept "
                    "for the next run."
                ) from error
            yield job, answer

    for job in jobs:
        running[remote.remote(task, shared, json.dumps(job, allow_nan=False))] = job
        if len(running) == at_a_time:
            yield from ended()
    while running:
        yield from ended()


def _do(task: str, settings: str, job: str) -> str:
    """Do a job where Ray put it."""
    return json.dumps(_loaded(task, settings)(json.loads(job)))


@lru_cache(maxsize=1)
def _loaded(task: str, settings: str) -> Callable[[Job], Answer]:
    return load(task, json.loads(settings))
