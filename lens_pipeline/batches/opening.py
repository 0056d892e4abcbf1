"""A store opened for reading in the mode that fits."""

from collections.abc import Sequence

import numpy as np
import torch

from lens_pipeline.batches.device_rows import DeviceRows
from lens_pipeline.batches.reader import Choice, Reader, available_memory, choose_reader
from lens_pipeline.stamps.row_sources import FileRows, MemoryRows, RowSource
from lens_pipeline.stamps.store import Logical, StampStore


def open_rows(
    store: StampStore, asked: Reader, *, rows: Sequence[Logical], ranks: int, device: torch.device, once: bool = False
) -> tuple[RowSource | DeviceRows, Choice]:
    """Open the source of some rows.

    Parameters
    ----------
    rows : sequence of int64 arrays
        Logical numbers of all rows that will be read, split by split: no row in two of them.
    ranks : int
        Processes of this host that read them.
    device : torch.device
        Where the model runs.
    once : bool
        Whether each row is read once only.

    Raises
    ------
    ConfigError
        If a mode was asked for that can't be had.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    choice = choose_reader(
        asked,
        n_bytes=sum(map(len, rows)) * store.row_bytes,
        available=available_memory(),
        ranks=ranks,
        free_on_device=free,
        once=once,
    )
    match choice.reader:
        case Reader.pread:
            return FileRows(store), choice
        case Reader.memory:
            return MemoryRows(store, np.concatenate(rows)), choice
        case Reader.device:
            return DeviceRows(store, np.concatenate(rows), device), choice
        case _:
            return store, choice
