"""Checkpoints: safetensors for tensors, JSON for the rest, no pickle. One exists when its JSON does and all hashes agree.

The random streams need no place here: every draw is a function of (seed, epoch, step, rank) or (seed, epoch, row).
"""

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.storage.atomic import sha256_of, write_atomically
from lens_pipeline.training.sealed import seal, unseal

FORMAT = 5
PARTS = ("model", "optimizer", "average")
_NAME = re.compile(r"step-\d{9}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Progress:
    """Where a run stands, beside its tensors.

    Attributes
    ----------
    epoch, step : int
        The next step to take.
    best_epoch, best_value, last_epoch : int, float, int or None
        State of the monitor (`lens_pipeline.training.stopping.Stopping`).
    best_checkpoint : str or None
        Name of the checkpoint of the best epoch.
    history : list of dict
        One row a finished epoch.
    partial : list of list of float
        Sums of the running epoch, a list a rank.
    ledgers : list of int
        Steps that each rank's ledger records, also those of ranks that are no more.
    world_sizes : list of int
        Numbers of ranks that the run had, one after the other.
    sampler : dict
        State of the order of rows (`lens_pipeline.stamps.sampler.SamplerState`).
    scaler : dict
        State of float16's gradient scaler; empty in another precision.
    ended : str or None
        Why the run is over; None while it isn't.
    """

    epoch: int = 0
    step: int = 0
    best_epoch: int | None = None
    best_value: float | None = None
    last_epoch: int | None = None
    best_checkpoint: str | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    partial: list[list[float]] = field(default_factory=list)
    ledgers: list[int] = field(default_factory=list)
    world_sizes: list[int] = field(default_factory=list)
    sampler: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    ended: str | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk.

    Attributes
    ----------
    about : dict
        What the model is: spec, preprocessing, class weights.
    sha256 : mapping of str to str
        Hash of each part: model, optimizer, and average where the run keeps a moving average.
    """

    folder: Path
    name: str
    run: str
    about: dict[str, Any]
    progress: Progress
    sha256: Mapping[str, str]

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts, sorted."""
        return tuple(sorted(self.sha256))

    def file(self, part: str) -> Path:
        """Return the safetensors of a part: model (weights and buffers), optimizer, or average."""
        return part_file(self.folder, self.name, part, self.sha256[part])

    @property
    def published_file(self) -> Path:
        """Weights and buffers that are validated and published: the moving average where the run keeps one."""
        return self.file("average" if "average" in self.parts else "model")


def checkpoint_name(global_step: int) -> str:
    """Name of the checkpoint after that many optimizer steps; names sort by step."""
    return f"step-{global_step:09d}"


def part_file(folder: Path, name: str, part: str, sha256: str) -> Path:
    """Return where a part of a checkpoint lies.

    Its hash is in the name: an epoch's last step has a checkpoint before and after it was judged, and the first of them stands
    until the JSON of the second does.
    """
    return folder / f"{name}.{part}-{sha256[:16]}.safetensors"


def write_checkpoint(
    folder: Path,
    name: str,
    *,
    run: str,
    about: dict[str, Any],
    progress: Progress,
    parts: Mapping[str, bytes],
    kept: int,
    allowed: Callable[[], None] = lambda: None,
) -> None:
    """Make a checkpoint durable, read it back, and only then remove those that are no longer needed.

    Parameters
    ----------
    run : str
        Hash of the run's identity.
    parts : mapping of str to bytes
        Serialized safetensors by part: model, optimizer, and average where there is one.
    kept : int
        Newest checkpoints that stay; the best stays beside them.
    allowed : callable
        Asked before each file is written, and before any is removed; raises where that may no longer be.
    """
    sha256 = {part: hashlib.sha256(content).hexdigest() for part, content in parts.items()}
    for part, content in parts.items():
        allowed()
        write_atomically(part_file(folder, name, part, sha256[part]), content)
    written = {
        "format": FORMAT,
        "run": run,
        "about": about,
        "progress": asdict(progress),
        "sha256": sha256,
    }
    allowed()
    write_atomically(folder / f"{name}.json", seal(written))
    written_back = read_checkpoint(folder, name, run=run)
    allowed()
    _remove(_files(folder, name) - {written_back.file(part) for part in parts})
    names = sorted((path.stem for path in folder.glob("step-*.json")), reverse=True)
    for old in names[kept:]:
        if old != progress.best_checkpoint:
            # The JSON goes first: without it there is no checkpoint, so that a kill in between leaves no half of one.
            _remove([folder / f"{old}.json", *_files(folder, old)])


def read_checkpoint(folder: Path, name: str, *, run: str) -> Checkpoint:
    """Open one checkpoint, every file verified.

    Raises
    ------
    TrainingError
        If it is incomplete, damaged, of another format, or of another run.
    """
    path = folder / f"{name}.json"
    try:
        loaded = unseal(path.read_bytes(), format=FORMAT)
        if loaded["run"] != run:
            raise TrainingError(f"{path} belongs to another run ({loaded['run'][:12]}, this is {run[:12]}).")
        progress = Progress(**{known.name: loaded["progress"][known.name] for known in fields(Progress)})
        if not {*PARTS[:2]} <= {*loaded["sha256"]} <= {*PARTS}:
            raise TrainingError(f"{path} names the parts {sorted(loaded['sha256'])}; known are {', '.join(PARTS)}.")
        if unfit := [part for part, digest in loaded["sha256"].items() if not _SHA256.fullmatch(digest)]:
            raise TrainingError(f"{path} states for {', '.join(unfit)} what is not a SHA-256.")
        checkpoint = Checkpoint(folder, name, run, loaded["about"], progress, loaded["sha256"])
        for part, digest in loaded["sha256"].items():
            if sha256_of(checkpoint.file(part)) != digest:
                raise TrainingError(
                    f"{checkpoint.file(part)} is damaged: its SHA-256 isn't the one that {path.name} states."
                )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(f"{path} is not a checkpoint that can be gone on from: {error or repr(error)}.") from error
    return checkpoint


def newest_checkpoint(folder: Path, *, run: str) -> tuple[Checkpoint | None, list[str]]:
    """Find the newest checkpoint that a run can go on from, or None where there is none.

    The best epoch's must be sound too: it is what is published in the end, and only training again gives it back.

    Returns
    -------
    checkpoint, damaged : Checkpoint or None, list of str
        What is wrong with each newer one that could not be used.
    """
    damaged: list[str] = []
    for path in sorted(folder.glob("step-*.json"), reverse=True):
        if not _NAME.fullmatch(path.stem):
            continue
        try:
            found = read_checkpoint(folder, path.stem, run=run)
            if (best := found.progress.best_checkpoint) not in (None, found.name):
                read_checkpoint(folder, best, run=run)
            return found, damaged
        except TrainingError as error:
            damaged.append(str(error))
    return None, damaged


def _files(folder: Path, name: str) -> set[Path]:
    """Safetensors of a checkpoint, also of one that was taken at the same step and is no more."""
    return {*folder.glob(f"{name}.*.safetensors")}


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
