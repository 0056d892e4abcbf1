"""Millions of damaged blobs: every bit of 20 blobs flipped, zips by grammar with lies in them, edited bytes.

A case is a batch of 2,000 inputs. Of four cases two flip bits, as long as there are any left, one draws from the grammar
and one edits bytes.
"""

import random
from collections.abc import Iterator
from functools import lru_cache

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.stamps.encode import encode_stamp
from reliability.npz_grammar import LARGE, SMALL, draw_attack, draw_form, edit_bytes
from reliability.npz_oracle import BOUNDS, Attack, judge, pixels_of
from reliability.npz_writer import ALL_ONES, DEFLATED, STORED, Entry, Zip, npy, zip64
from reliability.subject import Case, Subject

INPUTS = 2000
_FIVE_BANDS = DatasetContract(bands=("u", "g", "r", "i", "z"), stamp_size=9)
_FORMS_BY_GRAMMAR = 11


def case(number: int) -> Case:
    """Try one batch."""
    turn, kind = divmod(number, 4)
    flips = 2 * turn + kind
    if kind < 2 and flips * INPUTS < n_bits():
        found = judge(_flipped(flips))
        return Case(found.problem, found.n, found.largest, {**found.counts, "bits flipped": found.n})
    draw = random.Random(number)
    if kind == 3:
        return judge(_edited(draw))
    return judge(draw_attack(draw) for _ in range(INPUTS))


@lru_cache(maxsize=1)
def originals() -> tuple[Attack, ...]:
    """Return the 20 blobs of which every bit is flipped: 16 of 8 x 8 or 9 x 9 pixels, then 4 of full size."""
    small, five, large = pixels_of(0, SMALL), pixels_of(1, _FIVE_BANDS), pixels_of(2, LARGE)
    made = [
        Attack(encode_stamp(small, SMALL), SMALL, small),
        Attack(as_numpy(SMALL, DEFLATED), SMALL, small),
        Attack(as_numpy(SMALL, STORED), SMALL, small),
        Attack(as_numpy(SMALL, DEFLATED, to_pipe=True), SMALL, small),
        Attack(encode_stamp(five, _FIVE_BANDS), _FIVE_BANDS, five),
    ]
    made += [
        Attack(draw_form(random.Random(seed), SMALL, small).write(), SMALL, small) for seed in range(_FORMS_BY_GRAMMAR)
    ]
    made += [
        Attack(encode_stamp(large, LARGE), LARGE, large),
        Attack(as_numpy(LARGE, DEFLATED), LARGE, large),
        Attack(as_numpy(LARGE, STORED), LARGE, large),
        Attack(as_numpy(LARGE, DEFLATED, to_pipe=True), LARGE, large),
    ]
    return tuple(made)


def as_numpy(contract: DatasetContract, method: int, *, to_pipe: bool = False) -> bytes:
    """Return what np.savez or np.savez_compressed writes, at a fixed time of day."""
    seed = {SMALL: 0, LARGE: 2}[contract]
    entries = []
    for name, band in zip(contract.members, pixels_of(seed, contract), strict=True):
        entry = Entry(f"{name}.npy".encode(), npy(band), method=method, descriptor="IQQ" if to_pipe else None)
        sizes = (0, 0) if to_pipe else (len(entry.content), len(entry.packed_bytes()))
        entry.local, entry.local_extra = {"size": ALL_ONES, "packed_size": ALL_ONES}, zip64(*sizes)
        entries.append(entry)
    return Zip(entries).write()


@lru_cache(maxsize=1)
def n_bits() -> int:
    """Bits of the 20 blobs."""
    return sum(8 * len(original.blob) for original in originals())


def _flipped(batch: int) -> Iterator[Attack]:
    first = batch * INPUTS
    for original in originals():
        bits = 8 * len(original.blob)
        for bit in range(max(first, 0), min(first + INPUTS, bits)):
            blob = bytearray(original.blob)
            blob[bit // 8] ^= 1 << bit % 8
            yield Attack(bytes(blob), original.contract, original.pixels)
        first -= bits
        if first + INPUTS <= 0:
            return


def _edited(draw: random.Random) -> Iterator[Attack]:
    for _ in range(INPUTS):
        original = draw.choice(originals()[:16]) if draw.random() < 0.97 else draw.choice(originals()[16:])
        yield Attack(edit_bytes(draw, original.blob), original.contract, original.pixels)


SUBJECT = Subject(
    name="npz_fuzz",
    question="any bytes end as the right pixels or as a reason, within 50 ms and 8 MiB",
    unit="inputs",
    goal=1_000_000,
    case=case,
    bounds=BOUNDS,
)
