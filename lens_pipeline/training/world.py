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
from lens_pipeline.training.config import Device, TrainingConfig

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
        If torchrun started another number of ranks than the configuration says, or the device isn't there.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if size != config.world_size:
        raise TrainingError(
            f"{size} ranks were started, world_size is {config.world_size}: use --nproc-per-node={config.world_size}."
        )
    device = _device(config, int(os.environ.get("LOCAL_RANK", "0")))
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


def _device(config: TrainingConfig, local_rank: int) -> torch.device:
    if config.device is Device.cpu:
        return torch.device("cpu")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found <= local_rank:
        raise TrainingError(
            f"device is cuda and {config.world_size} ranks want a GPU each; torch finds {found} on this machine. "
            "Set device: cpu, or a world_size of at most that number."
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def _meeting_file(folder: Path) -> Path:
    # All ranks of one start are children of one torchrun; its id and start time name the file, so that every start has
    # a fresh one and a file that a killed start left behind is never met at.
    parent = os.getppid()
    started = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]
    return folder.absolute() / f".meeting-{parent}-{started}"
