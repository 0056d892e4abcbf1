"""How a store is read: the modes, and the rule that chooses one. Every mode gives the same bytes. No torch here."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil

from lens_pipeline.contracts.errors import ConfigError

# Shares of what is free. The rest is for the model, whose needs aren't known yet, and for other processes.
_OF_HOST, _OF_DEVICE = 0.8, 0.4
_CGROUP = Path("/sys/fs/cgroup")


class Reader(StrEnum):
    """Where the rows of a batch are taken from."""

    auto = "auto"
    mapped = "mapped"
    pread = "pread"
    memory = "memory"
    device = "device"


@dataclass(frozen=True)
class Choice:
    """The mode in use, and why, in a sentence."""

    reader: Reader
    why: str


def choose_reader(
    asked: Reader,
    *,
    n_bytes: int,
    available: int,
    ranks: int = 1,
    free_on_device: int | None = None,
    once: bool = False,
) -> Choice:
    """Choose how to read.

    Left to the rule (`auto`): rows that are read again and again and fit 40 % of the device's free memory are put there;
    else rows that fit 80 % of the host's available memory are read through a memory map, whose pages all ranks share; else
    from the files.

    Parameters
    ----------
    n_bytes : int
        Bytes of the rows that will be read.
    available : int
        Bytes of host memory that can be had (`available_memory`).
    ranks : int
        Processes of this host that read the same rows.
    free_on_device : int, optional
        Free bytes of the GPU; None where the model runs on a CPU.
    once : bool
        Whether each row is read once only: holding it gains nothing.

    Raises
    ------
    ConfigError
        If a mode was asked for that can't be had; `auto` never is refused.
    """
    rows, host = f"the rows take {_gb(n_bytes)}", f"{_gb(available)} of host memory are available"
    if asked is Reader.device:
        if free_on_device is None:
            raise ConfigError(
                "reader is device, and device is cpu: there is no GPU to hold the rows. Set reader: auto."
            )
        if n_bytes > _OF_HOST * free_on_device:
            raise ConfigError(
                f"reader is device, {rows}, and {_gb(free_on_device)} are free on the GPU, of which 80 % may be used. "
                "Set reader: auto."
            )
    if asked is Reader.memory and n_bytes * ranks > _OF_HOST * available:
        raise ConfigError(
            f"reader is memory, {rows} in each of {ranks} ranks, and {host}, of which 80 % may be used. Set reader: auto."
        )
    if asked is not Reader.auto:
        return Choice(asked, f"{asked.value}, as it was set: {rows}, {host}.")
    if not once and free_on_device is not None and n_bytes <= _OF_DEVICE * free_on_device:
        return Choice(
            Reader.device, f"device: {rows}, which fit 40 % of the {_gb(free_on_device)} that are free on the GPU."
        )
    if n_bytes <= _OF_HOST * available:
        return Choice(Reader.mapped, f"mapped: {rows}, {host}, and they fit 80 % of that.")
    return Choice(Reader.pread, f"pread: {rows}, {host}, and they don't fit 80 % of that.")


def available_memory(cgroup: Path = _CGROUP) -> int:
    """Return how many bytes of host memory can be had: what the machine has available, or what a container's limit leaves."""
    available = int(psutil.virtual_memory().available)
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
        cached = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return available
    if limit == "max":
        return available
    # Cached pages of files can be had back.
    return max(0, min(available, int(limit) - used + int(cached.get("file", 0))))


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:,.3g} GB"
