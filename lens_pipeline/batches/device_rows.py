"""Rows that were copied once onto the device that trains, and are picked there."""

from dataclasses import dataclass

import numpy as np
import torch

from lens_pipeline.stamps.row_sources import HeldRows
from lens_pipeline.stamps.segment_files import READ_ROWS, SegmentFiles
from lens_pipeline.stamps.store import Logical, StampStore


@dataclass(frozen=True)
class TensorRows:
    """Some rows as tensors: pixels float16 (n, band, y, x), median and MAD float32 (n, band)."""

    pixels: torch.Tensor
    median: torch.Tensor
    mad: torch.Tensor

    def head(self, n: int) -> "TensorRows":
        """Return the first n rows, as views."""
        return TensorRows(self.pixels[:n], self.median[:n], self.mad[:n])


class DeviceRows:
    """A `RowSource` whose rows lie, and go, on a device.

    Parameters
    ----------
    rows : (n,) int64 array
        Logical numbers of the rows to hold; no others can be taken.
    device : torch.device
        Of any type; on a CPU it is the same code.
    """

    def __init__(self, store: StampStore, rows: Logical, device: torch.device) -> None:
        self.contract, self.device = store.contract, device
        self._held = HeldRows(store, rows)
        n, bands = len(self._held.places), len(store.contract.bands)
        self._rows = TensorRows(
            pixels=torch.empty((n, *store.contract.stamp_shape), dtype=torch.float16, device=device),
            median=torch.empty((n, bands), dtype=torch.float32, device=device),
            mad=torch.empty((n, bands), dtype=torch.float32, device=device),
        )
        files, room = SegmentFiles(store, in_order=True), store.empty(READ_ROWS)
        slots = np.arange(READ_ROWS, dtype=np.int64)
        for start in range(0, n, READ_ROWS):
            places = self._held.places[start : start + READ_ROWS]
            read = room.head(len(places))
            for run in files.runs(places):
                files.read(run, read.pixels, slots)
            store.take_stats(places, read)
            # From memory that isn't pinned a copy has ended when it returns, so the room can be filled again.
            here = slice(start, start + len(places))
            self._rows.pixels[here] = torch.from_numpy(read.pixels).to(device)
            self._rows.median[here] = torch.from_numpy(read.median).to(device)
            self._rows.mad[here] = torch.from_numpy(read.mad).to(device)
        files.close()

    def take(self, logical: Logical, out: TensorRows) -> TensorRows:
        """Pick rows into tensors on the same device, in the current stream."""
        slots = torch.from_numpy(self._held.slots_of(logical)).to(self.device)
        for source, goal in (
            (self._rows.pixels, out.pixels),
            (self._rows.median, out.median),
            (self._rows.mad, out.mad),
        ):
            torch.index_select(source, 0, slots, out=goal)
        return out

    def expect(self, logical: Logical) -> None:
        """Rows on the device need no preparation."""
