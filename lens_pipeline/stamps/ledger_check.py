"""Proof from the ledgers of all ranks that each row reached the model as often as its order says, and in the step it says.

Two claims are held against one reading of the files. Counts: independent of the sampler's arithmetic, every row's number of
arrivals in an epoch is that of the order (exactly once, unless rows are weighted). Steps: the rows of a step, over ranks, are
those that the order puts there. Memory holds the order's rows, one number a row of the store, and a few steps.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.contracts.errors import FIRST_FEW, StorageError, first_few
from lens_pipeline.stamps.ledger import Block, LedgerReader, decode, width_for
from lens_pipeline.stamps.sampler import GlobalSampler

CHECK = "no_duplicated_fragments"
_ROWS_TOGETHER = 1 << 17

Names = Callable[[Sequence[int]], Sequence[str]]
Integers = npt.NDArray[np.int64]


def verify_ledger(ledgers: Sequence[Path], sampler: GlobalSampler, *, epochs: int, n_rows: int, names: Names) -> Check:
    """Check that the rows that reached the model are those of the order, in number and in step, over all ranks.

    Parameters
    ----------
    ledgers : sequence of Path
        In the order of the ranks; a rank may have several.
    sampler : GlobalSampler
        The order and its steps.
    epochs : int
        Epochs that were trained in full.
    n_rows : int
        Rows of the store.
    names : callable
        Key of each of some logical numbers; asked only for those that are named.

    Raises
    ------
    StorageError
        If a ledger is of another format or another store; damage is a red check instead.
    """
    audit = _Audit(sampler, epochs, n_rows)
    readers = [LedgerReader(path, n_rows=n_rows) for path in ledgers]
    damage: list[str] = []
    for stretch in _stretches(_merged(readers, damage), sampler, width_for(n_rows)):
        audit.add(stretch)
    audit.close()
    torn = [reader.path.name for reader in readers if reader.torn]
    damage += [f"{first_few(torn)} torn at the end"] if torn else []
    n, claim = len(sampler.rows), sampler.order.claim
    if audit.n_wrong or audit.steps or damage:
        rows = names([row for row, _ in audit.rows]) if audit.rows else []
        wrong = [*damage, *(said.format(key) for key, (_, said) in zip(rows, audit.rows, strict=True)), *audit.steps]
        about = "; ".join([*damage, *audit.steps[:1]])
        return red(
            CHECK,
            f"{audit.n_wrong:,} of {n:,} rows x {epochs} epochs did not reach the model {claim}, in the step that the "
            f"order puts them into" + (f": {about}" if about else ""),
            wrong=wrong,
            count=max(1, audit.n_wrong + len(damage)),
            why="ranks or workers read overlapping or incomplete parts, or a resumed run repeated or lost steps",
            next_step="remove the unfinished training under HOME/DATASET/lens_classifier/MODEL/.work and train again",
            rows_read=audit.n_read,
        )
    return green(
        CHECK,
        f"each of {n:,} training rows reached the model {claim}, in the step that the {sampler.order.name} order puts it "
        f"into, in each of {epochs} epochs, over {len(ledgers)} ledgers of ranks",
        rows_read=audit.n_read,
        ranks=len(ledgers),
    )


@dataclass(frozen=True)
class _Stretch:
    """Consecutive steps of one epoch: rows of all of them, and how many each step has."""

    epoch: int
    first: int
    lengths: list[int]
    rows: Integers


@dataclass
class _Audit:
    """What was found so far; epochs are closed one after the other."""

    sampler: GlobalSampler
    epochs: int
    n_rows: int
    n_read: int = 0
    n_wrong: int = 0
    rows: list[tuple[int, str]] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    epoch: int = -1
    next_step: int = 0

    def __post_init__(self) -> None:
        self._balance = np.zeros(self.n_rows, np.int32)
        self._elsewhere: list[Integers] = []
        self._open()

    def add(self, stretch: _Stretch) -> None:
        """Count a stretch of steps, and hold it against the order."""
        self.n_read += len(stretch.rows)
        last = stretch.first + len(stretch.lengths) - 1
        if stretch.epoch < self.epoch or stretch.epoch >= self.epochs:
            self.n_wrong += len(stretch.rows)
            went_on = (
                f"epoch {self.epoch} had begun" if stretch.epoch < self.epoch else f"{self.epochs} epochs were trained"
            )
            self._tell(f"steps {stretch.first} to {last} of epoch {stretch.epoch} are recorded though {went_on}")
            return
        while self.epoch < stretch.epoch:
            self._close()
            self._open()
        if stretch.first < self.next_step:
            self._tell(
                f"steps {stretch.first} to {last} of epoch {self.epoch} are recorded again after step {self.next_step - 1}"
            )
        self._miss(stretch.first)
        self.next_step = max(self.next_step, last + 1)
        rows = self._inside(stretch)
        np.add.at(self._balance, rows, 1)
        wanted = self.sampler.steps(self.epoch, stretch.first, last + 1)
        if not np.array_equal(stretch.rows, wanted):
            self._compare(stretch, wanted)

    def close(self) -> None:
        """Close the last epoch and those that no ledger knows."""
        while self.epoch < self.epochs:
            self._close()
            self._open()

    def _open(self) -> None:
        self.epoch, self.next_step = self.epoch + 1, 0
        if self.epoch < self.epochs:
            times = self.sampler.order.times(self.epoch)
            for start in range(0, len(times), _ROWS_TOGETHER):
                here = slice(start, start + _ROWS_TOGETHER)
                self._balance[self.sampler.rows[here]] -= times[here]

    def _close(self) -> None:
        """Find the rows that came too often or too seldom, then those that came in another step."""
        self._miss(self.sampler.steps_per_epoch)
        off = np.flatnonzero(self._balance)
        self.n_wrong += len(off)
        if len(off) and len(self.rows) < FIRST_FEW:
            times = self.sampler.order.times(self.epoch)
            for row in off[: FIRST_FEW - len(self.rows)].tolist():
                wanted = int(times[self.sampler.rows == row].sum())
                came = wanted + int(self._balance[row])
                self.rows.append((row, f"{{}} came {came} times in epoch {self.epoch}, not {wanted}"))
        elsewhere = np.concatenate([np.empty(0, np.int64), *self._elsewhere])
        elsewhere = np.unique(elsewhere[self._balance[elsewhere] == 0])
        self.n_wrong += len(elsewhere)
        for row in elsewhere[: max(0, FIRST_FEW - len(self.rows))].tolist():
            self.rows.append((row, f"{{}} reached the model in another step of epoch {self.epoch} than its own"))
        self._balance[:] = 0
        self._elsewhere = []

    def _miss(self, step: int) -> None:
        if step > self.next_step:
            self._tell(f"steps {self.next_step} to {step - 1} of epoch {self.epoch} are in no ledger")

    def _inside(self, stretch: _Stretch) -> Integers:
        outside = int(np.count_nonzero(stretch.rows >= self.n_rows))
        if not outside:
            return stretch.rows
        self.n_wrong += outside
        self._tell(f"{outside:,} rows of epoch {self.epoch} are not in the store of {self.n_rows:,} rows")
        return stretch.rows[stretch.rows < self.n_rows]

    def _compare(self, stretch: _Stretch, wanted: Integers) -> None:
        """Name the steps of a stretch that hold other rows than theirs; in which order a step holds them is no matter."""
        came = 0
        for number, n in enumerate(stretch.lengths):
            step = stretch.first + number
            rows = np.sort(stretch.rows[came : came + n])
            came += n
            own = np.sort(wanted[number * self.sampler.global_batch : (number + 1) * self.sampler.global_batch])
            if np.array_equal(rows, own):
                continue
            foreign = Counter(rows.tolist())
            foreign.subtract(own.tolist())
            more = [row for row, times in foreign.items() if times > 0 and row < self.n_rows]
            self._elsewhere.append(np.array(more, np.int64))
            if len(self.steps) < FIRST_FEW:
                self._tell(self._difference(step, rows, own, foreign))

    def _difference(self, step: int, rows: Integers, own: Integers, foreign: "Counter[int]") -> str:
        for epoch in range(self.epochs if step < self.sampler.steps_per_epoch else 0):
            if np.array_equal(rows, np.sort(self.sampler.step(epoch, step))):
                return f"step {step} of epoch {self.epoch} holds the rows of epoch {epoch}"
        lacking = -sum(times for times in foreign.values() if times < 0)
        more = sum(times for times in foreign.values() if times > 0)
        twice = len(rows) - len(np.unique(rows))
        return (
            f"step {step} of epoch {self.epoch} lacks {lacking:,} of its {len(own):,} rows and holds {more:,} others"
            + (f", {twice:,} of them repeats" if twice else "")
        )

    def _tell(self, said: str) -> None:
        if len(self.steps) < FIRST_FEW:
            self.steps.append(said)


def _merged(readers: Sequence[LedgerReader], damage: list[str]) -> Iterator[list[Block]]:
    """Yield the blocks of each step in the order of the ranks, all files being read once, side by side."""
    streams = [_until_damage(reader, damage) for reader in readers]
    heads = [next(stream, None) for stream in streams]
    while any(head is not None for head in heads):
        epoch, step = min((head.epoch, head.step) for head in heads if head is not None)
        found = []
        for place, head in enumerate(heads):
            if head is not None and head.epoch == epoch and head.step == step:
                found.append(head)
                heads[place] = next(streams[place], None)
        yield found


def _until_damage(reader: LedgerReader, damage: list[str]) -> Iterator[Block]:
    try:
        yield from reader
    except StorageError as error:
        damage.append(f"{reader.path.name}: {error}")


def _stretches(steps: Iterator[list[Block]], sampler: GlobalSampler, width: int) -> Iterator[_Stretch]:
    """Put consecutive steps together until they are enough rows to be worth a call of numpy."""
    together = max(1, _ROWS_TOGETHER // sampler.global_batch)
    waiting: list[list[Block]] = []
    for blocks in steps:
        latest = waiting[-1][0] if waiting else None
        follows = latest is not None and (blocks[0].epoch, blocks[0].step) == (latest.epoch, latest.step + 1)
        if waiting and (not follows or len(waiting) >= together):
            yield _stretch(waiting, width)
            waiting = []
        waiting.append(blocks)
    if waiting:
        yield _stretch(waiting, width)


def _stretch(steps: list[list[Block]], width: int) -> _Stretch:
    lengths = [sum(len(block.content) for block in blocks) // width for blocks in steps]
    rows = decode(b"".join(block.content for blocks in steps for block in blocks), width)
    return _Stretch(steps[0][0].epoch, steps[0][0].step, lengths, rows)
