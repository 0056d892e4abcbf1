"""Orders in which rows of some groups come more often than those of others: repeated by count, or drawn by chance."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lens_pipeline.stamps.orders import Order, Rows, Times, sorted_rows
from lens_pipeline.stamps.permutation import Draws, Indices, Permutation

LEAST_WEIGHT, LARGEST_WEIGHT = 0.01, 100.0
_DRAWS_TOGETHER = 1_000_000


class Repeated(Order):
    """Each row of a group of weight w comes floor(w) times an epoch, and a share w - floor(w) of the group once more.

    The share is a whole number of rows (at least one), the same in every epoch: a window on the group, whose rows are
    passed through in strides that the seed draws, and which moves on by its own length from epoch to epoch. So which rows
    come once more is known for any (seed, epoch) alone; over any number of epochs two rows of a group differ by one at
    most; and a row of a weight below 1 sits out some epochs, as often as any other of its group. Logical numbers are in the
    order of a hash, so the rows of a stride have nothing else in common.

    Parameters
    ----------
    group : ndarray of int, shape (n,)
        Group of each row, 0 to k - 1.
    weights : sequence of float, length k
        0.01 to 100.

    Raises
    ------
    ValueError
        If a row stands twice, there is none, or a weight is out of range.
    """

    name = "repeated"
    claim = "exactly as often as its weight gives it"

    def __init__(self, rows: Indices, seed: int, *, group: npt.NDArray, weights: Sequence[float]) -> None:
        self.seed = seed
        self.rows, sizes, self.weights = _by_group(rows, group, weights)
        self._sizes, self._row_starts = sizes, _starts(sizes)
        self._whole = np.floor(self.weights).astype(np.int64)
        share = self.weights - self._whole
        self._extra = np.where(share > 0, np.maximum(1, np.rint(share * sizes)), 0).astype(np.int64)
        counts = self._whole * sizes + self._extra
        self._place_starts, self.n_places = _starts(counts), int(counts.sum())
        drawn = Draws(f"lens_pipeline repeated 1:{seed}".encode()).bits(np.arange(2 * len(sizes))).reshape(2, -1)
        self._first = (drawn[0] % sizes.astype(np.uint64)).astype(np.int64)
        self._stride = np.array([_coprime(int(bits), int(n)) for bits, n in zip(drawn[1], sizes, strict=True)])

    def at(self, epoch: int, places: Indices) -> Indices:
        """Return the logical number at each place of an epoch."""
        shuffle = Permutation(self.n_places, f"lens_pipeline repeated places 1:{self.seed}:{epoch}".encode())
        spread = shuffle(places)
        group = np.searchsorted(self._place_starts, spread, side="right") - 1
        within, sizes = spread - self._place_starts[group], self._sizes[group]
        extra = within - self._whole[group] * sizes
        member = within % sizes
        more = np.flatnonzero(extra >= 0)
        member[more] = self._once_more(epoch, group[more], extra[more])
        return self.rows[self._row_starts[group] + member].astype(np.int64)

    def times(self, epoch: int) -> Times:
        """Count how often each of `rows` comes in an epoch."""
        found = np.repeat(self._whole.astype(np.uint16), self._sizes)
        for group, n in enumerate(self._extra.tolist()):
            member = self._once_more(epoch, np.full(n, group), np.arange(n))
            found[self._row_starts[group] + member] += 1
        return found

    def _once_more(self, epoch: int, group: Indices, extra: Indices) -> Indices:
        """Return which member of its group stands at a place of the epoch's window."""
        turn = epoch * self._extra[group] + extra
        members: Indices = (turn % self._sizes[group] * self._stride[group] + self._first[group]) % self._sizes[group]
        return members

    def _identity(self) -> tuple[bytes | npt.NDArray, ...]:
        return str(self.seed).encode(), self._sizes, self.weights


class WithReplacement(Order):
    """As many draws an epoch as there are rows, each row with a probability proportional to its group's weight.

    Every draw is a function of (seed, epoch, place) alone. Rows come several times or not at all, as chance has it, so a
    ledger proves less here: that the rows came as the draws say, not that every row came.

    Parameters
    ----------
    group : ndarray of int, shape (n,)
        Group of each row, 0 to k - 1.
    weights : sequence of float, length k
        0.01 to 100.

    Raises
    ------
    ValueError
        If a row stands twice, there is none, or a weight is out of range.
    """

    name = "with_replacement"
    claim = "exactly as often as it was drawn (drawn with replacement: not every row comes)"

    def __init__(self, rows: Indices, seed: int, *, group: npt.NDArray, weights: Sequence[float]) -> None:
        self.seed, self.n_places = seed, len(rows)
        self.rows, self._sizes, self.weights = _by_group(rows, group, weights)
        self._row_starts = _starts(self._sizes)
        self._edges = np.concatenate([[0.0], np.cumsum(self.weights * self._sizes)])

    def at(self, epoch: int, places: Indices) -> Indices:
        """Return the logical number at each place of an epoch."""
        return self.rows[self._members(epoch, places)].astype(np.int64)

    def times(self, epoch: int) -> Times:
        """Count how often each of `rows` comes in an epoch, by drawing it again."""
        found = np.zeros(len(self.rows), np.uint16)
        for start in range(0, self.n_places, _DRAWS_TOGETHER):
            np.add.at(found, self._members(epoch, np.arange(start, min(start + _DRAWS_TOGETHER, self.n_places))), 1)
        return found

    def _members(self, epoch: int, places: Indices) -> Indices:
        drawn = Draws(f"lens_pipeline with_replacement 1:{self.seed}:{epoch}".encode()).uniform(places)
        drawn *= self._edges[-1]
        # Rounding may lift the last draw onto the last edge.
        group = np.minimum(np.searchsorted(self._edges, drawn, side="right") - 1, len(self._sizes) - 1)
        member = ((drawn - self._edges[group]) / self.weights[group]).astype(np.int64)
        members: Indices = self._row_starts[group] + np.minimum(member, self._sizes[group] - 1)
        return members

    def _identity(self) -> tuple[bytes | npt.NDArray, ...]:
        return str(self.seed).encode(), self._sizes, self.weights


def _by_group(
    rows: Indices, group: npt.NDArray, weights: Sequence[float]
) -> tuple[Rows, Indices, npt.NDArray[np.float64]]:
    """Return rows sorted by (group, row), and size and weight of each group that has any."""
    sorted_rows(rows)
    if len(group) != len(rows) or int(group.min()) < 0 or int(group.max()) >= len(weights):
        raise ValueError(f"{len(group):,} groups of {len(weights)} kinds were given for {len(rows):,} rows")
    if not all(LEAST_WEIGHT <= weight <= LARGEST_WEIGHT for weight in weights):
        raise ValueError(f"weights {list(weights)} were given; {LEAST_WEIGHT:g} to {LARGEST_WEIGHT:g} are possible")
    # In place: a store of full size has 85 MB of these.
    keys = group.astype(np.int64)
    keys <<= 32
    keys |= rows
    keys.sort()
    sizes = np.bincount(group, minlength=len(weights))
    there = sizes > 0
    keys &= 0xFFFFFFFF
    return keys.astype(np.int32), sizes[there], np.asarray(weights, np.float64)[there]


def _coprime(start: int, n: int) -> int:
    """Return the first number from start on, modulo n, whose multiples pass through all of 0..n-1."""
    return next(found for found in (1 + (start + step) % n for step in range(n)) if math.gcd(found, n) == 1)


def _starts(counts: Indices) -> Indices:
    starts: Indices = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    return starts
