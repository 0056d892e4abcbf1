"""A slice of the attacks that ``make fuzz`` runs at length, and proof that their judge can say no."""

from dataclasses import replace

import numpy as np
import pytest

from lens_pipeline.stamps.decode import Stamp, decode_blob
from lens_pipeline.stamps.encode import encode_stamp
from reliability import npz_bombs, npz_fuzz, npz_oracle
from reliability.npz_grammar import SMALL
from reliability.npz_oracle import BOUNDS, Attack, judge, pixels_of
from reliability.subject import Case

GOOD = Attack(encode_stamp(pixels_of(0, SMALL), SMALL), SMALL, pixels_of(0, SMALL), must_read=True)


def within_bounds(case: Case) -> bool:
    return all(case.largest[name] <= bound for name, bound in BOUNDS.items())


# Flipped bits of small blobs and of one of full size, two draws from the grammar, one of edited bytes.
@pytest.mark.parametrize("number", [0, 400, 2, 6, 3])
def test_damaged_blobs_end_as_the_right_pixels_or_as_a_reason(number: int) -> None:
    found = npz_fuzz.case(number)
    assert found.problem is None
    assert found.n == npz_fuzz.INPUTS
    assert within_bounds(found)


@pytest.mark.parametrize("number", range(1, len(npz_bombs.KINDS)), ids=[kind.__name__ for kind in npz_bombs.KINDS[1:]])
def test_a_bomb_costs_little(number: int) -> None:
    found = npz_bombs.case(number)
    assert found.problem is None
    assert within_bounds(found)


def test_the_blobs_whose_bits_are_flipped_are_twenty_and_good() -> None:
    found = judge(replace(original, must_read=True) for original in npz_fuzz.originals())
    assert (found.problem, found.counts) == (None, {"read": 20})


def test_every_bit_of_the_blobs_is_flipped_once() -> None:
    last = -(-npz_fuzz.n_bits() // npz_fuzz.INPUTS) - 1
    batches = [list(npz_fuzz._flipped(batch)) for batch in (0, 1, last)]
    assert [len(batch) for batch in batches] == [npz_fuzz.INPUTS, npz_fuzz.INPUTS, npz_fuzz.n_bits() % npz_fuzz.INPUTS]
    assert len({attack.blob for batch in batches for attack in batch}) == sum(map(len, batches))


def test_the_judge_knows_a_wrong_pixel_a_refusal_and_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judge([GOOD]).problem is None
    assert "has to be read" in str(judge([replace(GOOD, blob=GOOD.blob[:-1])]).problem)

    def one_bit_off(blob: bytes, contract: object) -> Stamp:
        pixels = GOOD.pixels.copy()
        pixels.view(np.uint32)[1, 2, 3] ^= 1
        return Stamp(pixels, pixels[:, 0, 0], pixels[:, 0, 0])

    monkeypatch.setattr(npz_oracle, "decode_blob", one_bit_off)
    assert "wrong pixels" in str(judge([GOOD]).problem)
    monkeypatch.setattr(
        npz_oracle, "decode_blob", lambda blob, contract: decode_blob(blob, contract) and 1 // (len(blob) - 9)
    )
    assert "raised ZeroDivisionError" in str(judge([replace(GOOD, blob=bytes(9))]).problem)


def test_the_judge_measures_time_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def wasteful(blob: bytes, contract: object) -> object:
        if len(blob) == 9:
            sum(np.ones(4 << 20).tolist())
        return decode_blob(blob, SMALL)

    monkeypatch.setattr(npz_oracle, "decode_blob", wasteful)
    for apart in (False, True):
        found = judge([replace(GOOD, blob=bytes(9), must_read=False)], apart=apart)
        assert all(found.largest[name] > bound for name, bound in BOUNDS.items())
