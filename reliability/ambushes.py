"""Where a rank of a training is killed: in a phase of a step, by a trap that is laid in it before it trains."""

import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lens_pipeline_tests.training.making import pid_of

# fetch: while a step's rows are gathered; forward, backward, update: after each of them; record: after the ledger has the rows;
# flush: after ledgers are durable, before a checkpoint; write: before a file of one gets its name; read_back: when it is
# durable; prune: before a file of an older one goes; evaluate: between batches of validation.
PHASES = ("fetch", "forward", "backward", "update", "record", "flush", "write", "read_back", "prune", "evaluate")
# Those that end a step that is known; the others come at some place from a step on.
OF_A_STEP = ("forward", "backward", "update", "record")
# While a started run makes ready to go on: its ledgers were cut back.
RESUME = "resume"
# Rank 0 alone is in these; where another rank is the victim, rank 0 kills it when it gets there.
_OF_THE_FIRST = ("write", "read_back", "prune")
# How many places there are at which to be killed in a phase of which not every step has its own. Files of a checkpoint: model,
# optimizer, average and JSON, of two checkpoints.
_PLACES = {"flush": 2, "write": 8, "prune": 4, "evaluate": 2}
_CHECKPOINT = re.compile(r"step-(\d+)\..*(?:json|safetensors)")


@dataclass(frozen=True)
class Ambush:
    """Kills a rank in a phase of a step; in a phase that not every step has, at one of its next places from that step on.

    Attributes
    ----------
    victim : int
        Rank that is killed.
    step : int
        Over all epochs.
    steps_per_epoch : int
    """

    victim: int
    step: int
    phase: str
    steps_per_epoch: int

    @property
    def rank(self) -> int:
        """Rank in which the trap is laid."""
        return 0 if self.phase in _OF_THE_FIRST else self.victim

    def arm(self) -> None:
        """Lay it in this process."""
        from lens_pipeline.batches import loader
        from lens_pipeline.stamps.ledger import Ledger
        from lens_pipeline.training import checkpoint, loop, step

        now = -1
        passed = 0

        def follow(trainer: Any, epoch: int, batch: Any) -> None:
            nonlocal now
            now = epoch * self.steps_per_epoch + batch.step
            take(trainer, epoch, batch)

        def always(*_: Any) -> bool:
            return True

        def here(*_: Any) -> bool:
            return now == self.step

        def gathers(source: Any, job: Any, buffer: Any) -> bool:
            return job.drawn is not None and (job.drawn[1], job.step) == divmod(self.step, self.steps_per_epoch)

        def next_place(*_: Any) -> bool:
            nonlocal passed
            if now < self.step:
                return False
            passed += 1
            return passed == 1 + self.step % _PLACES.get(self.phase, 1)

        def named(source: Any, target: Any, *_: Any) -> bool:
            # The thread that writes may still be at a checkpoint from before the step.
            return (taken := _checkpoint_of(target)) is not None and taken > self.step and next_place()

        def removed(path: Any, *_: Any) -> bool:
            return _checkpoint_of(path) is not None and next_place()

        take, loop.Trainer.step = loop.Trainer.step, follow  # type: ignore[method-assign]
        before, after = partial(self._strike, after=False), partial(self._strike, after=True)
        match self.phase:
            case "fetch":
                after(loader, "_fill", gathers)
            case "forward":
                after(step.TrainingStep, "_forward", here)
            case "backward":
                before(step.TrainingStep, "_update", here)
            case "update":
                after(step.TrainingStep, "_update", here)
            case "record":
                after(Ledger, "append", here)
            case "flush":
                after(Ledger, "flush", next_place)
            case "write":
                before(os, "replace", named)
            case "read_back":
                before(checkpoint, "read_checkpoint", next_place)
            case "prune":
                before(Path, "unlink", removed)
            case "evaluate":
                after(loop.Trainer, "_between_validation_batches", next_place)
            case "resume":
                after(Ledger, "cut_back_to", always)

    def _strike(self, owner: Any, name: str, due: Callable[..., bool], *, after: bool) -> None:
        """Kill the victim before or after a call of a function that is due."""
        function = getattr(owner, name)

        def ambushed(*given: Any, **named: Any) -> Any:
            is_due = due(*given)
            if is_due and not after:
                self._kill()
            result = function(*given, **named)
            if is_due and after:
                self._kill()
            return result

        setattr(owner, name, ambushed)

    def _kill(self) -> None:
        os.kill(os.getpid() if self.victim == self.rank else pid_of(self.victim), signal.SIGKILL)


def _checkpoint_of(path: Any) -> int | None:
    """Give the steps before the checkpoint that a file is of; None for another file."""
    found = _CHECKPOINT.fullmatch(Path(path).name)
    return int(found[1]) if found else None
