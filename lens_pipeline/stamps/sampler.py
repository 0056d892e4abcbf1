"""Which rows make up which training step: one global order, cut into steps, and a step into the parts of the ranks.

The guarantee that no row is read twice rests here: places of an order are counted through, a step is a slice of them, and
a rank's part is a block of the step. Ranks and workers have no say in what comes where.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.stamps.orders import Ordering, Rows, Shuffled
from lens_pipeline.stamps.permutation import Indices

_PLACES_TOGETHER = 16_384


@dataclass(frozen=True)
class SamplerState:
    """Where an order stands: all that a resumed run needs, whatever its ranks and workers.

    Attributes
    ----------
    seed : int
        Of the order.
    epoch, step : int
        The next step: so many epochs, and steps of this one, have been consumed.
    global_batch : int
        Rows of a step.
    order : str
        Hash of the order: its kind, rows, and weights or pairs.
    """

    seed: int
    epoch: int
    step: int
    global_batch: int
    order: str

    def to_json(self) -> dict[str, int | str]:
        """Return it as plain data; `GlobalSampler.resume` takes it back."""
        return asdict(self)


class GlobalSampler:
    """The steps of an order.

    Parameters
    ----------
    rows : ndarray of int64, shape (n,)
        Logical numbers of the rows, each once; the order in which they are given does not matter.
    seed : int
        Another seed is another order.
    global_batch : int
        Rows of one step, over all ranks.
    order : callable
        Makes the order of the rows; by default each comes once an epoch, shuffled.

    Raises
    ------
    ValueError
        If a row stands twice, there is none, or the batch is smaller than 1.
    """

    def __init__(self, rows: Indices, *, seed: int, global_batch: int, order: Ordering = Shuffled) -> None:
        if global_batch < 1:
            raise ValueError(f"a global batch of {global_batch} was asked for; 1 or more are possible")
        self.order = order(rows, seed)
        self.seed, self.global_batch = seed, global_batch
        # One evaluation for several steps: alone, a small step would pay mostly for calling numpy.
        self._steps_together = max(1, _PLACES_TOGETHER // global_batch)
        self._latest: tuple[int, int, Indices] = (-1, -1, np.empty(0, np.int64))
        self._order_sha256 = self.order.sha256()

    @property
    def rows(self) -> Rows:
        """Logical numbers of the rows, int32, each once."""
        return self.order.rows

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch; the last is short where the batch does not divide the places, nothing is added."""
        return -(-self.order.n_places // self.global_batch)

    def step(self, epoch: int, step: int) -> Indices:
        """Return the logical numbers of one step over all ranks, in the one global order."""
        if not 0 <= step < self.steps_per_epoch:
            raise ValueError(f"an epoch has steps 0 to {self.steps_per_epoch - 1}, {step} was asked for")
        chunk, within = divmod(step, self._steps_together)
        latest = self._latest  # Read once: another thread may put its own here at any moment.
        if latest[:2] != (epoch, chunk):
            first = chunk * self._steps_together
            latest = (epoch, chunk, self.steps(epoch, first, first + self._steps_together))
            self._latest = latest
        return latest[2][within * self.global_batch : (within + 1) * self.global_batch].copy()

    def rows_of(self, step: int) -> int:
        """Return the number of rows of a step over all ranks: only the last step of an epoch may be short."""
        return min(self.global_batch, self.order.n_places - step * self.global_batch)

    def steps(self, epoch: int, first: int, end: int) -> Indices:
        """Return the logical numbers of steps `first` to `end` - 1 of an epoch, one after the other."""
        places = np.arange(first * self.global_batch, min(end * self.global_batch, self.order.n_places), dtype=np.int64)
        return self.order.at(epoch, places)

    def rank_slice(self, epoch: int, step: int, rank: int, world: int) -> Indices:
        """Return one rank's part of a step: a block of it, the ranks' blocks one after the other, sizes as in array_split."""
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of {world} ranks was asked for")
        whole = self.step(epoch, step)
        size, longer = divmod(len(whole), world)
        start = rank * size + min(rank, longer)
        return whole[start : start + size + (rank < longer)]

    def state(self, epoch: int, step: int) -> SamplerState:
        """Return the state in which this is the next step."""
        return SamplerState(self.seed, epoch, step, self.global_batch, self._order_sha256)

    def resume(self, content: Mapping[str, Any]) -> SamplerState:
        """Take back a state that was kept as JSON.

        Raises
        ------
        TrainingError
            If it belongs to another seed, batch, or order of rows, or to a step that no epoch has.
        """
        epoch, step = (number if isinstance(number := content.get(name), int) else -1 for name in ("epoch", "step"))
        mine = self.state(epoch, step)
        other = sorted(name for name in {*mine.to_json(), *content} if content.get(name) != mine.to_json().get(name))
        if other or mine.epoch < 0 or not 0 <= mine.step <= self.steps_per_epoch:
            raise TrainingError(
                f"the order of rows can't go on from {dict(content)}: "
                + (f"{', '.join(other)} differ from this run's {mine.to_json()}" if other else "there is no such step")
                + ". The rows, their weights or pairs, the seed or batch_size are others than the checkpoint was made "
                "with. Remove the run's folder and train again."
            )
        return mine
