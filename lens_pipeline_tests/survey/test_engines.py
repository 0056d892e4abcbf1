import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from lens_pipeline.contracts.errors import ConfigError, PipelineError
from lens_pipeline.survey import engines
from lens_pipeline.survey.engines import Engine, do_jobs

from . import fake_ray

TASK = "lens_pipeline_tests.survey.counting"


def jobs(n: int, **more: Any) -> Iterator[dict[str, Any]]:
    return ({"name": f"job {number}", "number": number, **more} for number in range(n))


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", fake_ray)


@pytest.mark.parametrize(("engine", "workers"), [("processes", 1), ("processes", 2), ("ray", 2), ("ray", 0)])
def test_every_job_is_answered_once(ray: None, engine: str, workers: int) -> None:
    done = list(do_jobs(TASK, {}, jobs(23), workers=workers, engine=Engine(engine)))
    assert sorted(job["number"] for job, _ in done) == list(range(23))
    assert all(answer["square"] == job["number"] ** 2 for job, answer in done)


def test_processes_share_the_jobs_and_are_gone_when_these_are_done() -> None:
    done = list(do_jobs(TASK, {}, jobs(6, sleep=0.2), workers=2))
    processes = {answer["process"] for _, answer in done}
    assert len(processes) == 2
    assert os.getpid() not in processes
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_jobs_larger_than_a_pipe_get_through() -> None:
    done = list(do_jobs(TASK, {}, jobs(5, padding="x" * 1_000_000), workers=2))
    assert [answer["padding"] for _, answer in done] == [1_000_000] * 5


def test_a_job_is_taken_only_when_somebody_is_free_to_do_it() -> None:
    taken = []

    def watched() -> Iterator[dict[str, Any]]:
        for job in jobs(20):
            taken.append(job["number"])
            yield job

    for n_ended, _ in enumerate(do_jobs(TASK, {}, watched(), workers=2), start=1):
        assert len(taken) <= n_ended + 2


def test_no_process_is_started_for_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.Popen", None)
    assert list(do_jobs(TASK, {}, iter([]), workers=2)) == []


def test_a_process_that_dies_is_a_clear_error() -> None:
    with pytest.raises(
        PipelineError, match=r"a worker process ended with code 1 while it made job 3; .*kept for the next"
    ):
        list(do_jobs(TASK, {"fails_at": 3}, jobs(9), workers=2))


def test_a_task_of_ray_that_fails_is_a_clear_error(ray: None) -> None:
    with pytest.raises(PipelineError, match=r"a worker of Ray failed at job 3: told to"):
        list(do_jobs(TASK, {"fails_at": 3}, jobs(9), workers=2, engine=Engine.ray))


def test_ray_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"uv pip install 'lens_pipeline\[ray\]'"):
        list(do_jobs(TASK, {}, jobs(2), workers=2, engine=Engine.ray))


def test_a_process_ends_with_its_input_in_the_midst_of_a_job() -> None:
    with engines._Process(TASK, {}) as process:
        process.begin({"name": "a long job", "number": 1, "sleep": 200})
        process._input.close()
        assert process._process.wait(timeout=60) == 0
