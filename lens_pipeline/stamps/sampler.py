"""Which rows make up which training step: one permutation an epoch, the same for every number of ranks and workers.

The guarantee that no row is read twice an epoch rests here: a step is a slice of the epoch's permutation, and a rank's part
is a slice of the step.
"""

import hashlib

import numpy as np
import numpy.typing as npt

_ROUNDS = 8
_PLACES_TOGETHER = 16_384
# Odd multipliers of the splitmix64 finaliser (Steele, Lea & Flood 2014).
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)

Indices = npt.NDArray[np.int64]


class Permutation:
    """A pseudo-random permutation of 0..n-1, evaluated anywhere at once and holding no table.

    A Feistel network on the smallest power of two that holds n; values that fall outside are walked on along their cycle
    until they fall inside (Black & Rogaway 2002), so it is an exact permutation for every n.

    Parameters
    ----------
    n : int
        How many numbers are permuted, 1 to 2**40.
    key : bytes
        Another key is another permutation.
    """

    def __init__(self, n: int, key: bytes) -> None:
        if not 1 <= n <= 2**40:
            raise ValueError(f"a permutation of {n:,} numbers was asked for; 1 to 2**40 are possible")
        bits = max(2, (n - 1).bit_length())
        self.n = n
        self._low_bits = np.uint64(bits // 2)
        self._low_mask = np.uint64((1 << (bits // 2)) - 1)
        self._high_mask = np.uint64((1 << (bits - bits // 2)) - 1)
        digest = hashlib.blake2b(key, digest_size=64).digest()
        self._keys = np.frombuffer(digest, dtype="<u8").astype(np.uint64)[:_ROUNDS]

    def __call__(self, places: Indices) -> Indices:
        """Return where each place goes, shape as given."""
        values = self._encrypt(places.astype(np.uint64))
        outside = np.flatnonzero(values >= np.uint64(self.n))
        while outside.size:
            walked = self._encrypt(values[outside])
            values[outside] = walked
            outside = outside[walked >= np.uint64(self.n)]
        return values.astype(np.int64)

    def _encrypt(self, values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        low, high = values & self._low_mask, values >> self._low_bits
        for place, key in enumerate(self._keys):
            if place % 2:
                low = low ^ (_mix(high + key) & self._low_mask)
            else:
                high = high ^ (_mix(low + key) & self._high_mask)
        return (high << self._low_bits) | low


class GlobalSampler:
    """The order in which rows are trained on.

    Parameters
    ----------
    rows : ndarray of int64, shape (n,)
        Logical numbers of the rows; their order does not matter, each stands once.
    seed : int
        Another seed is another order.
    global_batch : int
        Rows of one step, over all ranks.

    Raises
    ------
    ValueError
        If a row stands twice, there is none, or the batch is smaller than 1.
    """

    def __init__(self, rows: Indices, *, seed: int, global_batch: int) -> None:
        ordered = np.sort(rows)
        distinct = int((np.diff(ordered) > 0).sum()) + (ordered.size > 0)
        if distinct != len(rows) or distinct == 0:
            raise ValueError(f"{len(rows):,} rows were given, {distinct:,} of them distinct; each must stand once")
        if global_batch < 1:
            raise ValueError(f"a global batch of {global_batch} was asked for; 1 or more are possible")
        self.rows = ordered
        self.seed, self.global_batch = seed, global_batch
        # One evaluation for several steps: alone, a small step would pay mostly for calling numpy.
        self._steps_together = max(1, _PLACES_TOGETHER // global_batch)
        self._latest: tuple[int, int, Indices] = (-1, -1, np.empty(0, np.int64))

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch; the last is short where the batch does not divide the rows, nothing is repeated."""
        return -(-len(self.rows) // self.global_batch)

    def step(self, epoch: int, step: int) -> Indices:
        """Return the logical numbers of one step over all ranks, in the one global order."""
        if not 0 <= step < self.steps_per_epoch:
            raise ValueError(f"an epoch has steps 0 to {self.steps_per_epoch - 1}, {step} was asked for")
        chunk, within = divmod(step, self._steps_together)
        latest = self._latest  # Read once: another thread may put its own here at any moment.
        if latest[:2] != (epoch, chunk):
            latest = (epoch, chunk, self._evaluate(epoch, chunk))
            self._latest = latest
        return latest[2][within * self.global_batch : (within + 1) * self.global_batch].copy()

    def rank_slice(self, epoch: int, step: int, rank: int, world: int) -> Indices:
        """Return one rank's part of a step: disjoint from the others', sizes differing by one at most."""
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of {world} ranks was asked for")
        return self.step(epoch, step)[rank::world]

    def _evaluate(self, epoch: int, chunk: int) -> Indices:
        start = chunk * self._steps_together * self.global_batch
        end = min(start + self._steps_together * self.global_batch, len(self.rows))
        found: Indices = self.rows[self._permutation(epoch)(np.arange(start, end, dtype=np.int64))]
        return found

    def _permutation(self, epoch: int) -> Permutation:
        return Permutation(len(self.rows), f"lens_pipeline sampler 1:{self.seed}:{epoch}".encode())


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    values = (values ^ (values >> np.uint64(30))) * _MIX_1
    values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return values ^ (values >> np.uint64(31))
