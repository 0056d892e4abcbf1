"""SIGKILL at every (rank, step, phase) of a small run in two ranks; gone on with, it must end with the same bits.

The run has what a state could be lost of: batch normalisation, dropout, AdamW's moments, a learning rate that changes in
every step, a mean of weights, a short last step, checkpoints within epochs that a thread writes, early stopping's counters.
Cases take turns among three kinds: the mean of the last epochs, a moving average, and the same in bfloat16. Of seven cases
six kill once, at a (rank, step, phase) of their own, and one kills twice, at two drawn points. The ranks are forked from a
process that has imported everything, train a network of three layers, and know nothing of torchrun; `launcher_kills` has
timm's networks under the real one.
"""

import atexit
import hashlib
import random
import signal
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from lens_pipeline.storage.home import Home
from lens_pipeline.storage.parquet import read_parquet
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.checkpoint import Checkpoint, newest_checkpoint
from lens_pipeline.training.checks import no_duplicated_fragments, validation_is_whole
from lens_pipeline.training.folder import TIMINGS, RunFolder
from lens_pipeline.training.models import ModelSpec
from lens_pipeline.training.run import collect
from lens_pipeline.training.spec import RunSpec
from lens_pipeline_tests.training.making import prepared, run_ranks, small_survey
from reliability.ambushes import OF_A_STEP, PHASES, RESUME, Ambush
from reliability.subject import Case, Subject

_RANKS, _EPOCHS, _STEPS, _INTERVAL = 2, 6, 10, 4
_POINTS = _RANKS * _EPOCHS * _STEPS * len(PHASES)
_DOUBLE = 200
# One case in so many kills twice. The others go through the points in strides of about the golden section, so that those that
# were taken are spread over the whole run, however many there are.
_BLOCK, _STRIDE = 1 + _POINTS // _DOUBLE, 743
_SETTINGS: dict[str, Any] = {
    "epochs": _EPOCHS,
    "patience": _EPOCHS,
    "dropout": 0.2,
    "checkpoint_every_steps": _INTERVAL,
    "report_every_steps": 3,
    "validation_batch_size": 32,
}
_KINDS: tuple[dict[str, Any], ...] = (
    {"swa_epochs": 3, "checkpoints_kept": 1},
    {"ema_decay": 0.9},
    {"ema_decay": 0.9, "precision": "bf16"},
)


def ambushes(number: int) -> list[Ambush]:
    """Where a case kills."""
    block, within = divmod(number, _BLOCK)
    if within < _BLOCK - 1:
        place = _STRIDE * (block * (_BLOCK - 1) + within) % _POINTS
        point, phase = divmod(place, len(PHASES))
        step, rank = divmod(point, _RANKS)
        return [Ambush(rank, step, PHASES[phase], _STEPS)]
    drawn = random.Random(number)
    first = drawn.randrange(_EPOCHS * _STEPS)
    # The second comes among the steps that are taken again, or later.
    second = drawn.randrange(max(0, first - 1), _EPOCHS * _STEPS)
    return [
        Ambush(drawn.randrange(_RANKS), first, drawn.choice(PHASES), _STEPS),
        Ambush(drawn.randrange(_RANKS), second, drawn.choice((*PHASES, RESUME)), _STEPS),
    ]


def kill(number: int) -> Case:
    """Kill a run at the points of a case, go on with it, and compare."""
    points = ambushes(number)
    kind = number % len(_KINDS)
    survey, undisturbed = _survey(), _undisturbed(kind)
    with tempfile.TemporaryDirectory() as name:
        folder = prepared(Path(name) / "run", survey, **_SETTINGS, **_KINDS[kind])
        killed, again = 0, []
        for ambush in points:
            codes = run_ranks(folder, sabotage=ambush, everywhere=train_small_network)
            if None in codes:
                return Case(f"{ambush}: a rank hung")
            standing, damaged = newest_checkpoint(folder.checkpoints, run=RunSpec.read(folder.specification).sha256())
            if damaged:
                return Case(f"{ambush}: a checkpoint was damaged: {damaged}")
            if codes[ambush.victim] == -signal.SIGKILL:
                killed += 1
                again += [ambush.step + 1 - _steps_of(standing)] if ambush.phase in OF_A_STEP else []
        codes = run_ranks(folder, everywhere=train_small_network)
        if codes != [0] * _RANKS:
            return Case(f"{points}: the run did not go on, its ranks ended with {codes}")
        found = _traits(folder, survey)
    other = [trait for trait in {**undisturbed, **found} if found.get(trait) != undisturbed.get(trait)]
    problem = f"{points}: {', '.join(other)} differ from those of a run that was left alone" if other else None
    return Case(
        problem,
        largest={"steps taken again": max(again)} if again else {},
        counts={"kills": killed, "points that a run doesn't reach": len(points) - killed},
    )


def _steps_of(checkpoint: Checkpoint | None) -> int:
    return 0 if checkpoint is None else int(checkpoint.name.removeprefix("step-"))


def small_network(spec: ModelSpec) -> nn.Module:
    """Build the least that has batch normalisation and dropout."""
    side = spec.stamp_size // 4
    return nn.Sequential(
        nn.Conv2d(spec.bands, 4, 4, stride=4, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(spec.dropout),
        nn.Linear(4 * side**2, spec.outputs),
    )


def train_small_network() -> None:
    """Let this process train a network whose steps take little time."""
    from lens_pipeline.training import loop

    loop.build_model = small_network


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
def _survey() -> tuple[Publication, Publication]:
    kept = tempfile.TemporaryDirectory()
    atexit.register(kept.cleanup)
    # 312 training rows in steps of 32: nine full steps and a short one.
    return small_survey(Home(Path(kept.name) / "home"), n_galaxies=312)


@cache
def _undisturbed(kind: int) -> dict[str, str]:
    """Hash what a run of a kind leaves behind that nobody disturbs."""
    with tempfile.TemporaryDirectory() as name:
        folder = prepared(Path(name) / "run", _survey(), **_SETTINGS, **_KINDS[kind])
        codes = run_ranks(folder, everywhere=train_small_network)
        if codes != [0] * _RANKS:
            raise RuntimeError(f"the run that nobody disturbs ended with {codes}")
        return _traits(folder, _survey())


SUBJECT = Subject(
    name="training_kills",
    question="a training killed at any rank, step and phase, once or twice, goes on and ends with the same weights, average, "
    "optimizer, history, validation logits and ledgers, bit for bit; no row is lost or repeated, and nothing hangs",
    unit="killed runs",
    goal=_POINTS + _DOUBLE,
    case=kill,
    n_cases=_POINTS + _DOUBLE,
    # A checkpoint is written while training goes on, and is durable before the next one is taken.
    bounds={"steps taken again": 2 * _INTERVAL},
)
