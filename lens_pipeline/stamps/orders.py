"""In which order training rows come: what every way of ordering offers, and the plain shuffle.

An order is a function of (seed, epoch, place) without a state. Any place of any epoch is evaluated alone, so that seeking
costs nothing, and steps, ranks and workers don't appear here. Weighted orders are in `weighted.py`, pairs in `pairs.py`.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from lens_pipeline.stamps.permutation import Indices, Permutation

Rows = npt.NDArray[np.int32]
Times = npt.NDArray[np.uint16]


class Order(ABC):
    """One way of ordering rows.

    Attributes
    ----------
    name : str
        Its name in the settings.
    claim : str
        What a ledger proves under this order: "each row reached the model ...".
    rows : ndarray of int32, shape (n,)
        Logical numbers, each once, in an order of this part's own.
    n_places : int
        Places in an epoch, the same in every epoch.
    """

    name: ClassVar[str]
    claim: ClassVar[str]
    rows: Rows
    n_places: int

    @abstractmethod
    def at(self, epoch: int, places: Indices) -> Indices:
        """Return the logical number at each place, 0 to n_places - 1, of an epoch."""

    @abstractmethod
    def times(self, epoch: int) -> Times:
        """Count how often each of `rows` comes in an epoch, shape (n,)."""

    @abstractmethod
    def _identity(self) -> tuple[bytes | npt.NDArray, ...]:
        """Everything beside the rows that decides which order this is."""

    def sha256(self) -> str:
        """Hash of everything that decides what comes where."""
        digest = hashlib.sha256(self.name.encode())
        for part in (self.rows, *self._identity()):
            content = part if isinstance(part, bytes) else np.ascontiguousarray(part).data.cast("B")
            digest.update(len(content).to_bytes(8, "little") + b"\0")
            digest.update(content)
        return digest.hexdigest()


# Makes an order from rows (any order, each once) and a seed.
Ordering = Callable[[Indices, int], Order]


class Shuffled(Order):
    """Each row once an epoch, in a random order.

    Raises
    ------
    ValueError
        If a row stands twice, or there is none.
    """

    name = "shuffled"
    claim = "exactly once"

    def __init__(self, rows: Indices, seed: int) -> None:
        self.rows, self.seed, self.n_places = sorted_rows(rows), seed, len(rows)

    def at(self, epoch: int, places: Indices) -> Indices:
        """Return the logical number at each place of an epoch."""
        permutation = Permutation(self.n_places, f"lens_pipeline sampler 1:{self.seed}:{epoch}".encode())
        return self.rows[permutation(places)].astype(np.int64)

    def times(self, epoch: int) -> Times:
        """Count how often each of `rows` comes in an epoch: once."""
        return np.ones(len(self.rows), np.uint16)

    def _identity(self) -> tuple[bytes | npt.NDArray, ...]:
        return (str(self.seed).encode(),)


def sorted_rows(rows: Indices) -> Rows:
    """Return logical numbers ascending, in 4 bytes each.

    Raises
    ------
    ValueError
        If a row stands twice, there is none, or one is not a number of 0 to 2**31 - 1.
    """
    if len(rows) and (rows.min() < 0 or rows.max() >= 2**31):
        raise ValueError(f"logical numbers {rows.min()} to {rows.max()} were given; 0 to 2**31 - 1 are possible")
    ordered = rows.astype(np.int32)
    ordered.sort()
    distinct = int(np.count_nonzero(ordered[1:] != ordered[:-1])) + (len(ordered) > 0)
    if distinct != len(rows) or distinct == 0:
        raise ValueError(f"{len(rows):,} rows were given, {distinct:,} of them distinct; each must stand once")
    return ordered
