"""Checkpoints written beside the training: the ranks go on while a thread serialises, hashes, writes and flushes."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.training.checkpoint import Progress, write_checkpoint
from lens_pipeline.training.folder import RunFolder
from lens_pipeline.training.forward import serialize

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Snapshot:
    """A moment of a run, on the CPU and no longer changing.

    Attributes
    ----------
    parts : mapping of str to mapping of str to torch.Tensor
        Tensors by name, by file: model, optimizer, and what else there is.
    """

    name: str
    progress: Progress
    parts: Mapping[str, Tensors]

    @classmethod
    def of(cls, name: str, progress: Progress, parts: Mapping[str, Tensors]) -> "Snapshot":
        """Copy everything, so that the next step can change it."""
        return cls(
            name,
            progress,
            {part: {key: value.detach().to("cpu", copy=True) for key, value in tensors.items()}
             for part, tensors in parts.items()},
        )  # fmt: skip


class CheckpointWriter:
    """Writes one checkpoint at a time, in the order in which they were taken.

    Parameters
    ----------
    run : str
        Hash of the run's identity.
    about : dict
        What the model is.
    kept : int
        Newest checkpoints that stay, beside the best.
    standing : str or None
        Name of the checkpoint that the run goes on from.
    on_written : callable
        Told the name and the seconds that writing took, in the thread that asks next.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        run: str,
        about: dict[str, Any],
        kept: int,
        standing: str | None,
        on_written: Callable[[Progress, str, float], None],
    ) -> None:
        self._folder, self._run, self._about, self._kept, self._on_written = folder, run, about, kept, on_written
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._latest: tuple[Snapshot, Future[float]] | None = None
        self._standing = standing

    def submit(self, snapshot: Snapshot) -> None:
        """Take one up, once the one before is durable.

        Raises
        ------
        TrainingError
            If the one before could not be written; see `wait`.
        """
        self.wait()
        self._latest = snapshot, self._pool.submit(self._write, snapshot)

    def wait(self) -> None:
        """Return when everything that was taken up is durable.

        Raises
        ------
        TrainingError
            If it could not be written; the checkpoint before it stands.
        """
        if self._latest is None:
            return
        (snapshot, written), self._latest = self._latest, None
        try:
            seconds = written.result()
        except OSError as error:
            stands = "No checkpoint stands" if self._standing is None else f"Checkpoint {self._standing} stands"
            # An epoch's last step has two of one name: before the epoch was judged, and after.
            stands += ", from before the epoch was judged" if self._standing == snapshot.name else ""
            raise TrainingError(
                f"checkpoint {snapshot.name} could not be written to {self._folder.checkpoints}: {error.strerror or error}. "
                f"{stands}. Make room, or look after the disk, and materialize lens_classifier again to go on from there."
            ) from error
        self._standing = snapshot.name
        self._on_written(snapshot.progress, snapshot.name, seconds)

    def _write(self, snapshot: Snapshot) -> float:
        started = time.perf_counter()
        write_checkpoint(
            self._folder.checkpoints,
            snapshot.name,
            run=self._run,
            about=self._about,
            progress=snapshot.progress,
            parts={part: serialize(dict(tensors)) for part, tensors in snapshot.parts.items()},
            kept=self._kept,
            allowed=self._folder.refuse_superseded,
        )
        return time.perf_counter() - started
