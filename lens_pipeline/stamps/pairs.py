"""The order in which an injection and its paired control stand next to each other."""

import numpy as np
import numpy.typing as npt

from lens_pipeline.stamps.orders import Order, Rows, Times, sorted_rows
from lens_pipeline.stamps.permutation import Draws, Indices, Permutation


class Paired(Order):
    """Each row once an epoch; an injection and its control stand together, at places 2u and 2u + 1.

    Where several injections share a control, it goes with one of them, drawn anew each epoch; the others are singles, as
    are rows whose mate isn't there. Places are taken two by two: either a pair or two singles (a last place over is a
    single's). Pairs are spread evenly among the twos (Bresenham 1965), and pairs and singles are each permuted by a
    network of their own, so that any place is found without the others.

    A pair starts at an even place always. So it is torn only where a cut falls on an odd place: never between two
    steps of an even global batch, and never between ranks where every rank's part of a step is even. In the short last
    step of an epoch parts may be odd: there it is at most one pair for each cut between two ranks.

    Parameters
    ----------
    control : ndarray of int, shape (n,)
        Logical number of each row's control; -1 for a control and for a row whose control is not among the rows.

    Raises
    ------
    ValueError
        If a row stands twice, there is none, a control is not among the rows, or has a control itself.
    """

    name = "paired"
    claim = "exactly once"

    def __init__(self, rows: Indices, seed: int, *, control: npt.NDArray) -> None:
        ordered = sorted_rows(rows)
        self.seed, self.n_places = seed, len(rows)
        injected = control >= 0
        # Sorted by (control, injection): the injections of a control stand together.
        keys = control[injected].astype(np.int64)
        keys <<= 32
        keys |= rows[injected]
        keys.sort()
        mates = (keys >> 32).astype(np.int32)
        keys &= 0xFFFFFFFF
        injections = keys.astype(np.int32)
        starts = np.flatnonzero(np.diff(mates, prepend=-1))
        controls = mates[starts]
        _refuse_foreign(controls, ordered, injections)
        mated = np.zeros(int(ordered[-1]) + 1, bool)
        mated[controls] = mated[injections] = True
        alone = ordered[~mated[ordered]]
        # One array, of which the others are parts.
        self.rows = np.concatenate([alone, controls, injections])
        self._n_alone, self._n_pairs = len(alone), len(controls)
        self._controls = self.rows[self._n_alone : self._n_alone + self._n_pairs]
        self._injections = self.rows[self._n_alone + self._n_pairs :]
        self._starts = starts.astype(np.int32)
        counts = np.diff(starts, append=len(injections)).astype(np.int32)
        # The injections beside the first of each control: places in `_injections`, and which control is theirs.
        spare = np.ones(len(injections), bool)
        spare[starts] = False
        self._spare = np.flatnonzero(spare).astype(np.int32)
        self._spare_of = np.repeat(np.arange(self._n_pairs, dtype=np.int32), counts)[spare]
        # Where no control has more than one injection, nothing is drawn.
        self._counts = counts if len(self._spare) else None

    def at(self, epoch: int, places: Indices) -> Indices:
        """Return the logical number at each place of an epoch."""
        two, half = places >> 1, places & 1
        n_twos = self.n_places // 2
        before = two * self._n_pairs // max(n_twos, 1)
        paired = ((two + 1) * self._n_pairs // max(n_twos, 1) > before) & (two < n_twos)
        found = np.empty(len(places), np.int64)
        if paired.any():
            found[paired] = self._mates(epoch, before[paired], half[paired])
        if not paired.all():
            alone = ~paired
            found[alone] = self._singles(epoch, 2 * (two[alone] - before[alone]) + half[alone])
        return found

    def times(self, epoch: int) -> Times:
        """Count how often each of `rows` comes in an epoch: once."""
        return np.ones(len(self.rows), np.uint16)

    def _mates(self, epoch: int, number: Indices, half: Indices) -> Indices:
        """Return the injection (half 0) or the control (half 1) of the epoch's pairs of these numbers."""
        pair = Permutation(self._n_pairs, f"lens_pipeline pairs 1:{self.seed}:{epoch}".encode())(number)
        injection = self._injections[self._starts[pair] + self._partner(epoch, pair)]
        return np.where(half == 0, injection, self._controls[pair]).astype(np.int64)

    def _singles(self, epoch: int, number: Indices) -> Indices:
        n_singles = self._n_alone + len(self._spare)
        single = Permutation(n_singles, f"lens_pipeline singles 1:{self.seed}:{epoch}".encode())(number)
        if not len(self._spare):
            return self.rows[single].astype(np.int64)
        found = self.rows[np.minimum(single, self._n_alone)].astype(np.int64)
        spare = np.flatnonzero(single >= self._n_alone)
        place = self._spare[single[spare] - self._n_alone]
        pair = self._spare_of[single[spare] - self._n_alone].astype(np.int64)
        # An injection that is in the pair this epoch leaves its place to the first of its control.
        first = self._starts[pair]
        swapped = place - first == self._partner(epoch, pair)
        found[spare] = self._injections[np.where(swapped, first, place)]
        return found

    def _partner(self, epoch: int, pair: Indices) -> Indices:
        """Draw which of its injections each control goes with: 0 is the first."""
        if self._counts is None:
            return np.zeros(len(pair), np.int64)
        bits = Draws(f"lens_pipeline partner 1:{self.seed}:{epoch}".encode()).bits(pair)
        return (bits % self._counts[pair].astype(np.uint64)).astype(np.int64)

    def _identity(self) -> tuple[bytes | npt.NDArray, ...]:
        return str(self.seed).encode(), str((self._n_alone, self._n_pairs)).encode(), self._starts


def _refuse_foreign(controls: Rows, rows: Rows, injections: Rows) -> None:
    here = np.zeros(max(int(rows[-1]), int(controls.max(initial=0))) + 1, bool)
    here[rows] = True
    foreign = int(np.count_nonzero(~here[controls]))
    here[injections] = False
    chained = int(np.count_nonzero(~here[controls])) - foreign
    if foreign or chained:
        raise ValueError(
            f"of {len(controls):,} controls {foreign:,} are not among the rows and {chained:,} have a control themselves"
        )
