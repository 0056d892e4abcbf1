"""Which of many numbers came before, in a stream that is too long for a set of Python's integers."""

import numpy as np
from numpy.typing import NDArray


class SeenIds:
    """Which of many numbers came before: sorted runs of 8 bytes a number, merged so that there are few of them."""

    def __init__(self) -> None:
        self._runs: list[NDArray[np.int64]] = []

    def first_time(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each number comes for the first time, in this call too; all of them are remembered."""
        first = np.zeros(len(ids), dtype=bool)
        first[np.unique(ids, return_index=True)[1]] = True
        for run in self._runs:
            place = np.searchsorted(run, ids).clip(max=len(run) - 1)
            first &= run[place] != ids
        new = np.sort(ids[first])
        while self._runs and len(self._runs[-1]) <= 2 * len(new):
            new = np.sort(np.concatenate([self._runs.pop(), new]))
        if len(new):
            self._runs.append(new)
        return first
