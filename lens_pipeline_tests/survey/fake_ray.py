"""A stand-in for the package ray, whose workers are threads: its names and what they promise, nothing of how it works."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import Any

_pool: ThreadPoolExecutor | None = None


class Reference:
    def __init__(self, future: "Future[Any]") -> None:
        self.future = future


def init(*, ignore_reinit_error: bool = False) -> None:
    global _pool
    assert _pool is None or ignore_reinit_error
    _pool = _pool or ThreadPoolExecutor(3)


def cluster_resources() -> dict[str, float]:
    return {"CPU": 3.0}


def put(value: Any) -> Reference:
    future: Future[Any] = Future()
    future.set_result(value)
    return Reference(future)


def get(reference: Reference) -> Any:
    return reference.future.result()


def wait(references: Sequence[Reference], *, num_returns: int) -> tuple[list[Reference], list[Reference]]:
    assert num_returns == 1
    wait_for([reference.future for reference in references], return_when=FIRST_COMPLETED)
    first = next(reference for reference in references if reference.future.done())
    return [first], [reference for reference in references if reference is not first]


class Remote:
    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def remote(self, *arguments: Any) -> Reference:
        assert _pool is not None
        given = [get(argument) if isinstance(argument, Reference) else argument for argument in arguments]
        return Reference(_pool.submit(self._function, *given))


def remote(function: Callable[..., Any]) -> Remote:
    return Remote(function)
