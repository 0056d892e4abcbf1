"""Counter-based random bits: a draw is a function of what it is for, so that no generator has a state to save."""

from typing import overload

import numpy as np
import numpy.typing as npt

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@overload
def mix(value: np.uint64, *, salt: int) -> np.uint64: ...
@overload
def mix(value: npt.NDArray[np.uint64], *, salt: int) -> npt.NDArray[np.uint64]: ...
def mix(value: np.uint64 | npt.NDArray[np.uint64], *, salt: int) -> np.uint64 | npt.NDArray[np.uint64]:
    """Scramble 64 bits: the finalizer of SplitMix64 (Steele, Lea & Flood 2014), twice, with a salt between.

    Parameters
    ----------
    salt : int
        0 or more: another salt gives an unrelated scramble.
    """
    with np.errstate(over="ignore"):
        scrambled = _finalize(value + _GOLDEN)
        return _finalize((scrambled ^ np.uint64(salt)) + _GOLDEN)


def seed_of(*parts: int) -> int:
    """Fold integers (seed, epoch, step, rank, ...) into one 63-bit seed; their order matters."""
    folded = np.uint64(0)
    for part in parts:
        folded = mix(folded ^ np.uint64(part), salt=part)
    return int(folded >> np.uint64(1))


def _finalize(z: np.uint64 | npt.NDArray[np.uint64]) -> np.uint64 | npt.NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
