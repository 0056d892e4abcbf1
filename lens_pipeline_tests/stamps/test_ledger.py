"""The file: what a rank appends is read back, a kill's torn end is cut off, and damage is never taken for the end."""

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.stamps.ledger import Ledger, LedgerReader, decode, encode_block

N_ROWS = 300


def written(path: Path, *, steps: int = 6, rows: int = 5) -> Path:
    ledger = Ledger(path, n_rows=N_ROWS)
    for step in range(steps):
        ledger.append(0, step, (np.arange(rows) + step) % N_ROWS)
    ledger.close()
    return path


def blocks(path: Path, n_rows: int = N_ROWS) -> list[tuple[int, int, list[int]]]:
    return [(block.epoch, block.step, block.rows.tolist()) for block in LedgerReader(path, n_rows=n_rows)]


@pytest.mark.parametrize(("n_rows", "width"), [(2**24, 3), (2**24 + 1, 4), (2**31, 4)])
def test_every_logical_number_of_the_largest_stores_is_read_back(tmp_path: Path, n_rows: int, width: int) -> None:
    path = tmp_path / "a.ledger"
    rows = np.array([0, 1, 255, 256, 65_535, 65_536, n_rows - 1])
    ledger = Ledger(path, n_rows=n_rows)
    ledger.append(32_767, 2**32 - 1, rows)
    ledger.append(3, 0, rows[:0])
    ledger.close()
    assert blocks(path, n_rows) == [(32_767, 2**32 - 1, rows.tolist()), (3, 0, [])]
    assert path.stat().st_size == 16 + 2 * 12 + width * 7


@given(rows=st.lists(st.integers(0, 2**24 - 1), max_size=50), width=st.sampled_from([3, 4]))
@settings(max_examples=50, deadline=None)
def test_numbers_are_the_same_after_being_written_in_fewer_bytes(rows: list[int], width: int) -> None:
    assert decode(encode_block(0, 0, np.array(rows, np.int64), width)[12:], width).tolist() == rows


def test_a_row_and_epoch_take_at_most_four_bytes_from_twelve_rows_a_step_on(tmp_path: Path) -> None:
    path = tmp_path / "a.ledger"
    ledger = Ledger(path, n_rows=10_600_000)
    for step in range(1000):
        ledger.append(0, step, np.arange(12))
    ledger.close()
    assert path.stat().st_size - 16 == 4 * 12 * 1000


@pytest.mark.parametrize(
    ("epoch", "rows", "said"),
    [(0, [300], "the store has 300"), (0, [-1], "rows -1 to -1"), (32_768, [1], "doesn't fit")],
)
def test_what_the_format_cannot_hold_is_refused(tmp_path: Path, epoch: int, rows: list[int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Ledger(tmp_path / "a.ledger", n_rows=N_ROWS).append(epoch, 0, np.array(rows))


def test_a_block_torn_at_any_byte_is_told_and_cut_off_on_reopening(tmp_path: Path) -> None:
    path = written(tmp_path / "a.ledger")
    whole = path.read_bytes()
    last = len(whole) - (12 + 3 * 5)
    for length in range(last + 1, len(whole)):
        path.write_bytes(whole[:length])
        reader = LedgerReader(path, n_rows=N_ROWS)
        assert len(list(reader)) == 5
        assert reader.torn
        Ledger(path, n_rows=N_ROWS).close()
        assert path.read_bytes() == whole[:last]


def test_a_file_that_ends_in_zeros_after_a_power_cut_is_torn_and_not_a_block(tmp_path: Path) -> None:
    path = written(tmp_path / "a.ledger")
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(4096))
    Ledger(path, n_rows=N_ROWS).close()
    assert path.read_bytes() == whole


def test_every_flipped_bit_before_the_last_block_is_damage_and_never_an_end(tmp_path: Path) -> None:
    path = written(tmp_path / "a.ledger")
    whole = path.read_bytes()
    for bit in range(8 * (len(whole) - (12 + 3 * 5))):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(StorageError, match=r"is damaged at byte|is not a ledger|is a ledger of format 1"):
            blocks(path)
        with pytest.raises(StorageError):
            Ledger(path, n_rows=N_ROWS)
        assert path.read_bytes() == damaged


def test_a_hole_that_is_longer_than_any_block_is_damage(tmp_path: Path) -> None:
    path = written(tmp_path / "a.ledger")
    with open(path, "ab") as file:
        file.write(bytes(600_000))
    with pytest.raises(StorageError, match="is damaged at byte 178 of 600,178"):
        blocks(path)


def test_a_ledger_of_format_1_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "old.ledger"
    path.write_bytes(struct.pack("<4sIIII", b"LPL1", 0, 0, 1, 0) + bytes(4))
    with pytest.raises(StorageError, match=r"format 1, this package reads format 2.*materialize lens_classifier again"):
        LedgerReader(path, n_rows=N_ROWS)


def test_a_ledger_about_another_store_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.ledger")
    with pytest.raises(
        StorageError, match=r"of 301 rows: it has format 2 with 3 bytes a row, about a store of 300 rows"
    ):
        Ledger(path, n_rows=301)


def test_cutting_back_keeps_what_came_before_and_says_how_much(tmp_path: Path) -> None:
    path = written(tmp_path / "a.ledger")
    whole = blocks(path)
    ledger = Ledger(path, n_rows=N_ROWS)
    assert ledger.n_steps == 6
    ledger.cut_back_to(0, 4)
    assert ledger.n_steps == 4
    ledger.append(0, 4, np.array([7]))
    assert ledger.n_steps == 5
    ledger.close()
    assert blocks(path) == [*whole[:4], (0, 4, [7])]
    ledger = Ledger(path, n_rows=N_ROWS)
    ledger.cut_back_to(0, 0)
    assert ledger.n_steps == 0
    assert blocks(path) == []


def test_reading_and_cutting_back_hold_a_few_blocks_however_long_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "a.ledger", steps=1_000, rows=116)
    with open(path, "ab") as file:
        file.write(path.read_bytes()[16:] * 20)
    size = path.stat().st_size
    ledger = Ledger(path, n_rows=N_ROWS)
    tracemalloc.start()
    ledger.cut_back_to(1, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000 < size / 2
