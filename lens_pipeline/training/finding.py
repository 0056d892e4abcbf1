"""Which work folder a training belongs into: its own, or that of the same training with another number of ranks."""

from dataclasses import dataclass
from pathlib import Path

from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.training.checkpoint import Progress, newest_checkpoint
from lens_pipeline.training.folder import RunFolder
from lens_pipeline.training.spec import RunSpec


@dataclass(frozen=True)
class Found:
    """Where to train.

    Attributes
    ----------
    folder : Path
        May not be there yet.
    words : str or None
        What a person should know before it begins: that a run with other ranks goes on, or that one with other settings
        was left unfinished and doesn't.
    """

    folder: Path
    words: str | None = None


def find_run(runs: Path, spec: RunSpec) -> Found:
    """Find the folder for a run among those of its dataset and model.

    Parameters
    ----------
    runs : Path
        Folder of run folders.
    """
    own = runs / spec.name
    if RunFolder(own).specification.exists():
        return Found(own)
    unfinished = sorted(_unfinished(runs), key=lambda one: (len(spec.differences(one[1])), -one[2].epoch, -one[2].step))
    if not unfinished:
        return Found(own)
    folder, other, progress = unfinished[0]
    stands = f"an unfinished run stands at epoch {progress.epoch}, step {progress.step} in {folder}"
    if not (changed := spec.differences(other)):
        ranks = f"{other.config.world_size} -> {spec.config.world_size}"
        return Found(folder, f"{stands}; it goes on from there with other ranks (world_size {ranks})")
    others = f" {len(unfinished) - 1} more are beside it." if len(unfinished) > 1 else ""
    return Found(
        own,
        f"{stands}, and is not gone on with, since this training is another: {'; '.join(changed)}. Set that back to go on with "
        f"it; otherwise its folder can be removed.{others}",
    )


def _unfinished(runs: Path) -> list[tuple[Path, RunSpec, Progress]]:
    found = []
    for path in sorted(runs.glob("*/run.json")):
        folder = RunFolder(path.parent)
        try:
            spec = RunSpec.read(path)
        except TrainingError:
            # Of an earlier format of this package, or damaged: no training can go on from it.
            continue
        newest, _ = newest_checkpoint(folder.checkpoints, run=spec.sha256())
        if newest is not None and newest.progress.ended is None:
            found.append((folder.path, spec, newest.progress))
    return found
