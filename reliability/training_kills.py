"""SIGKILL at every (rank, step, phase) of a small run in two ranks; gone on with, it must end with the same bits.

The run has what a state could be lost of: batch normalisation, dropout, AdamW's moments, a learning rate that changes in
every step, a moving average of the weights, a short last step, checkpoints within epochs that a thread writes, early stopping's
counters. Cases 0 to 1,199 kill once, at (rank, step, phase) of their number; cases from 1,200 on kill a run twice, at two
drawn points. The ranks are forked from a process that has imported everything, and train without torchrun (`launcher_kills`
has it).
"""

import atexit
import hashlib
import os
import random
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lens_pipeline.storage.home import Home
from lens_pipeline.storage.parquet import read_parquet
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.checkpoint import newest_checkpoint
from lens_pipeline.training.checks import no_duplicated_fragments, validation_is_whole
from lens_pipeline.training.folder import TIMINGS, RunFolder
from lens_pipeline.training.run import collect
from lens_pipeline.training.spec import RunSpec
from lens_pipeline_tests.training.making import prepared, run_ranks, small_survey
from reliability.subject import Case, Subject

# fetch: while a step's rows are gathered; forward, backward, update: after each of them; record: after the ledger has the rows;
# flush: after ledgers are durable, before a checkpoint; write: before each file of one gets its name; read_back: when it is
# durable; prune: before an older one goes; evaluate: between batches of validation.
PHASES = ("fetch", "forward", "backward", "update", "record", "flush", "write", "read_back", "prune", "evaluate")
_RANKS, _EPOCHS, _STEPS = 2, 6, 10
_POINTS = _RANKS * _EPOCHS * _STEPS * len(PHASES)
_SETTINGS: dict[str, Any] = {
    "epochs": _EPOCHS,
    "patience": _EPOCHS,
    "dropout": 0.2,
    "ema_decay": 0.9,
    "checkpoint_every_steps": 4,
    "report_every_steps": 3,
    "validation_batch_size": 32,
}


@dataclass(frozen=True)
class Ambush:
    """Kills a rank in a phase of a step; in a phase that not every step has, of the first step after it that does.

    Attributes
    ----------
    step : int
        Over all epochs.
    """

    rank: int
    step: int
    phase: str

    def arm(self) -> None:
        """Lay it in this process."""
        from lens_pipeline.batches import loader
        from lens_pipeline.stamps.ledger import Ledger
        from lens_pipeline.storage import atomic
        from lens_pipeline.training import checkpoint, loop, step

        now = -1

        def follow(trainer: Any, epoch: int, batch: Any) -> None:
            nonlocal now
            now = epoch * _STEPS + batch.step
            take(trainer, epoch, batch)

        def strike(after: bool, function: Callable[..., Any], due: Callable[..., bool]) -> Callable[..., Any]:
            def ambushed(*given: Any, **named: Any) -> Any:
                if not after and due(*given):
                    os.kill(os.getpid(), signal.SIGKILL)
                result = function(*given, **named)
                if after and due(*given):
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return ambushed

        def here(*_: Any) -> bool:
            return now == self.step

        def from_here(*_: Any) -> bool:
            return now >= self.step

        def gathers(source: Any, job: Any, buffer: Any) -> bool:
            return job.drawn is not None and (job.drawn[1], job.step) == divmod(self.step, _STEPS)

        def of_a_checkpoint(source: Any, target: Any, *_: Any) -> bool:
            return from_here() and Path(target).parent.name == "checkpoints"

        take, loop.Trainer.step = loop.Trainer.step, follow  # type: ignore[method-assign]
        trainer, taken = loop.Trainer, step.TrainingStep
        match self.phase:
            case "fetch":
                loader._fill = strike(True, loader._fill, gathers)
            case "forward":
                taken._forward = strike(True, taken._forward, here)  # type: ignore[method-assign]
            case "backward":
                taken._update = strike(False, taken._update, here)  # type: ignore[method-assign]
            case "update":
                taken._update = strike(True, taken._update, here)  # type: ignore[method-assign]
            case "record":
                Ledger.append = strike(True, Ledger.append, here)  # type: ignore[method-assign]
            case "flush":
                Ledger.flush = strike(True, Ledger.flush, from_here)  # type: ignore[method-assign]
            case "write":
                atomic.os.replace = strike(False, os.replace, of_a_checkpoint)  # type: ignore[attr-defined]
            case "read_back":
                checkpoint.read_checkpoint = strike(False, checkpoint.read_checkpoint, from_here)
            case "prune":
                checkpoint._remove = strike(False, checkpoint._remove, from_here)
            case "evaluate":
                trainer._between_validation_batches = strike(  # type: ignore[method-assign]
                    True, trainer._between_validation_batches, from_here
                )


def ambushes(number: int) -> list[Ambush]:
    """Where a case kills."""
    if number < _POINTS:
        point, phase = divmod(number, len(PHASES))
        step, rank = divmod(point, _RANKS)
        return [Ambush(rank, step, PHASES[phase])]
    drawn = random.Random(number)
    return [Ambush(drawn.randrange(_RANKS), drawn.randrange(_EPOCHS * _STEPS), drawn.choice(PHASES)) for _ in range(2)]


def kill(number: int) -> Case:
    """Kill a run at the points of a case, go on with it, and compare."""
    survey, undisturbed = _undisturbed()
    with tempfile.TemporaryDirectory() as name:
        folder = prepared(Path(name) / "run", survey, **_SETTINGS)
        killed = 0
        for ambush in ambushes(number):
            codes = run_ranks(folder, sabotage=ambush)
            killed += codes[ambush.rank] == -signal.SIGKILL
            if None in codes:
                return Case(f"{ambush}: a rank hung", counts={"kills": killed})
        codes = run_ranks(folder)
        if codes != [0] * _RANKS:
            return Case(f"{ambushes(number)}: the run did not go on, its ranks ended with {codes}")
        found = _traits(folder, survey)
        other = [trait for trait in undisturbed if found.get(trait) != undisturbed[trait]]
        problem = (
            f"{ambushes(number)}: {', '.join(other)} differ from those of a run that was left alone" if other else None
        )
        return Case(
            problem, counts={"kills": killed, "points that a run doesn't reach": len(ambushes(number)) - killed}
        )


def _traits(folder: RunFolder, survey: tuple[Publication, Publication]) -> dict[str, str]:
    """Hash everything that a run leaves behind, and prove its ledgers."""
    last, _ = newest_checkpoint(folder.checkpoints, run=RunSpec.read(folder.specification).sha256())
    assert last is not None
    history = [{k: v for k, v in row.items() if k not in TIMINGS} for row in last.progress.history]
    content = {part: last.file(part).read_bytes() for part in last.parts}
    content |= {"history": repr(history).encode(), "ended": repr(last.progress.ended).encode()}
    content |= {f"ledger of rank {rank}": path.read_bytes() for rank, path in folder.ledgers().items()}
    for epoch in range(_EPOCHS):
        content[f"validation {epoch}"] = repr(read_parquet(folder.validation(epoch)).to_pydict()).encode()
    with Home(folder.path / "home").stage("tried", "lens_classifier", inputs=[*survey]) as staging:
        collect(folder.path, staging)
        made = staging.commit()
    checks = [check(made, *survey) for check in (no_duplicated_fragments, validation_is_whole)]
    content["checks"] = "; ".join(check.message() for check in checks if not check.passed).encode()
    return {name: hashlib.sha256(value).hexdigest() for name, value in content.items()}


@cache
def _undisturbed() -> tuple[tuple[Publication, Publication], dict[str, str]]:
    kept = tempfile.TemporaryDirectory()
    atexit.register(kept.cleanup)
    # 312 training rows in steps of 32: nine full steps and a short one.
    survey = small_survey(Home(Path(kept.name) / "home"), n_galaxies=312)
    folder = prepared(Path(kept.name) / "run", survey, **_SETTINGS)
    codes = run_ranks(folder)
    if codes != [0] * _RANKS:
        raise RuntimeError(f"the run that nobody disturbs ended with {codes}")
    return survey, _traits(folder, survey)


SUBJECT = Subject(
    name="training_kills",
    question="a training killed at any rank, step and phase, once or twice, goes on and ends with the same weights, average, "
    "optimizer, history, validation logits and ledgers, bit for bit; no row is lost or repeated, and nothing hangs",
    unit="killed runs",
    goal=1_400,
    case=kill,
    n_cases=_POINTS + 200,
)
