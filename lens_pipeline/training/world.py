"""The ranks of a run as plain integers, and the few things that they tell one another."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.gpus import device_for

_TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class World:
    """One rank among the others."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.sum(torch.zeros(1))

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over ranks, on the CPU again."""
        there = values.to(self.device)
        dist.all_reduce(there)
        return there.cpu()

    def gather(self, values: Sequence[float]) -> list[list[float]]:
        """Give each rank's numbers to every rank, in the order of the ranks."""
        table = torch.zeros(self.size, len(values), dtype=torch.float64)
        table[self.rank] = torch.tensor(values, dtype=torch.float64)
        gathered: list[list[float]] = self.sum(table).tolist()
        return gathered

    def spread(self, tensors: Sequence[torch.Tensor]) -> None:
        """Overwrite tensors with those of rank 0."""
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


@contextmanager
def joined(config: TrainingConfig, meeting_folder: Path) -> Iterator[World]:
    """Join the other ranks that torchrun started, through a file: no port is opened beyond the loopback.

    Raises
    ------
    TrainingError
        If torchrun started another number of ranks than the configuration says.
    ConfigError
        If the device isn't there, or can't do what is asked of it.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if size != config.world_size:
        raise TrainingError(
            f"{size} ranks were started, world_size is {config.world_size}: use --nproc-per-node={config.world_size}."
        )
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = device_for(config.device, local, wanted=config.world_size, precision=config.precision)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if size != int(os.environ.get("LOCAL_WORLD_SIZE", "1")):
        where = "env://"
    else:
        where = f"file://{_meeting_file(meeting_folder)}"
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(variable, "lo")
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", init_method=where, rank=rank, world_size=size, timeout=_TIMEOUT
    )
    try:
        yield World(rank, size, device)
    finally:
        dist.destroy_process_group()


def _meeting_file(folder: Path) -> Path:
    # All ranks of one start are children of one torchrun; its id and start time name the file, so that every start has
    # a fresh one and a file that a killed start left behind is never met at.
    parent = os.getppid()
    started = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]
    return folder.absolute() / f".meeting-{parent}-{started}"
