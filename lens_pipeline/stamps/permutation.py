"""Random-looking functions that can be evaluated anywhere alone: a permutation without a table, and keyed draws."""

import hashlib

import numpy as np
import numpy.typing as npt

_ROUNDS = 8
# Odd multipliers of the splitmix64 finaliser (Steele, Lea & Flood 2014).
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)

Indices = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint64]


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
        self._keys = _words(key)[:_ROUNDS]

    def __call__(self, places: Indices) -> Indices:
        """Return where each place goes, shape as given."""
        values = self._encrypt(places.astype(np.uint64))
        outside = np.flatnonzero(values >= np.uint64(self.n))
        while outside.size:
            walked = self._encrypt(values[outside])
            values[outside] = walked
            outside = outside[walked >= np.uint64(self.n)]
        return values.astype(np.int64)

    def _encrypt(self, values: Bits) -> Bits:
        low, high = values & self._low_mask, values >> self._low_bits
        for place, key in enumerate(self._keys):
            if place % 2:
                low = low ^ (_mix(high + key) & self._low_mask)
            else:
                high = high ^ (_mix(low + key) & self._high_mask)
        return (high << self._low_bits) | low


class Draws:
    """64 random bits for each number of a counter, any of them drawn alone.

    Parameters
    ----------
    key : bytes
        Another key is another sequence.
    """

    def __init__(self, key: bytes) -> None:
        self._first, self._second = _words(key)[:2]

    def bits(self, counter: Indices) -> Bits:
        """Return the bits of each number, shape as given."""
        return _mix(_mix(counter.astype(np.uint64) + self._first) + self._second)

    def uniform(self, counter: Indices) -> npt.NDArray[np.float64]:
        """Return a number in [0, 1), a multiple of 2**-53, for each number of the counter."""
        return (self.bits(counter) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _words(key: bytes) -> Bits:
    return np.frombuffer(hashlib.blake2b(key, digest_size=64).digest(), dtype="<u8").astype(np.uint64)


def _mix(values: Bits) -> Bits:
    values = (values ^ (values >> np.uint64(30))) * _MIX_1
    values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return values ^ (values >> np.uint64(31))
