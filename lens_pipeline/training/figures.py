"""What is counted while an epoch runs: sums that a checkpoint carries, and the figures of steps that a GPU still owes.

A step leaves its loss and gradient norm where they were computed. They are read some steps later, all at once, so that the
processor never waits for a GPU within a step.
"""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass

import torch

from lens_pipeline.batches.loader import Batch, Logical


@dataclass
class EpochSums:
    """Running sums of one rank's epoch; `as_list` and the constructor take them through a checkpoint.

    Attributes
    ----------
    loss, rows : float
        Sum of the rows' losses, and how many there were.
    norm, clipped, skipped, steps : float
        Sum of the gradient norms, steps whose gradient was clipped, or was not finite and not taken, and steps in all.
    seconds, waited, own : float
        Wall time of the steps; of it, time in which the model waited for rows; and time until the gradients of this rank
        alone were on their way: waiting for rows and the forward pass.
    """

    loss: float = 0.0
    rows: float = 0.0
    norm: float = 0.0
    clipped: float = 0.0
    skipped: float = 0.0
    steps: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0
    own: float = 0.0

    def as_list(self) -> list[float]:
        """Return the sums in order."""
        return list(astuple(self))


@dataclass(frozen=True)
class StepFigures:
    """What a step left behind, perhaps on a GPU that hasn't computed it yet.

    Attributes
    ----------
    loss, norm : torch.Tensor
        Scalars: sum of the losses of this rank's rows, and norm of the whole step's gradient before it was clipped.
    """

    epoch: int
    step: int
    logical: Logical
    rate: float
    loss: torch.Tensor
    norm: torch.Tensor


class Owed:
    """Figures of steps that were not read yet."""

    def __init__(self) -> None:
        self._steps: list[StepFigures] = []

    def add(self, figures: StepFigures) -> None:
        """Take up a step's figures, unread."""
        self._steps.append(figures)

    def read(self) -> Iterator[tuple[StepFigures, float, float]]:
        """Wait for all of them; yield each step with its loss and norm, in order, and owe nothing."""
        steps, self._steps = self._steps, []
        if steps:
            numbers = torch.stack([torch.stack((one.loss.float(), one.norm.float())) for one in steps]).tolist()
            for one, (loss, norm) in zip(steps, numbers, strict=True):
                yield one, loss, norm


class Stopwatch:
    """Adds to a sum of seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time within."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - started


class EpochClock:
    """Wall times of the steps of one epoch, on top of what it had taken before a resume.

    Parameters
    ----------
    sums : EpochSums
        Where `read` leaves the times.
    own : Stopwatch
        Runs while this rank computes alone.
    """

    def __init__(self, sums: EpochSums, own: Stopwatch) -> None:
        self._sums, self._own, self._waited = sums, own, Stopwatch()
        self._started = time.perf_counter()
        self._earlier = sums.seconds, sums.waited, sums.own - own.seconds
        self._steps_before = sums.steps

    def waiting(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Pass batches on, and count the time that each was waited for."""
        while True:
            with self._waited.running():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def read(self) -> None:
        """Bring the sums up to now."""
        seconds, waited, own = self._earlier
        self._sums.seconds = seconds + self.seconds
        self._sums.waited = waited + self._waited.seconds
        self._sums.own = own + self._own.seconds + self._waited.seconds

    @property
    def seconds(self) -> float:
        """Since the epoch was begun, or gone on with, by this process."""
        return time.perf_counter() - self._started

    @property
    def steps(self) -> float:
        """Steps since then that have been read."""
        return self._sums.steps - self._steps_before

    @property
    def waited_share(self) -> float:
        """Share of the time since then in which the model waited for rows."""
        return self._waited.seconds / max(self.seconds, 1e-9)


def memory_mb(device: torch.device) -> float:
    """Return the most memory that was in use so far, MB: the GPU's, or this process's on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
