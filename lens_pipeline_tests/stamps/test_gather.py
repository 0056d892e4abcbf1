"""One gather over many arrays is numpy's take over their concatenation, and touches nothing that was not asked for."""

import numpy as np
import pytest

from lens_pipeline.stamps.gather import Joined, aligned


def cut(rows: np.ndarray, lengths: list[int]) -> Joined:
    parts = np.split(rows, np.cumsum(lengths)[:-1])
    return Joined([np.ascontiguousarray(part) for part in parts], rows.shape[1:], rows.dtype)


# Rows of whole pages, of a page and a bit, of less than a cache line, and of one byte.
@pytest.mark.parametrize("row", [(3, 32, 64), (5, 21, 21), (3, 2), (1,)])
@pytest.mark.parametrize("dtype", [np.float16, np.uint8])
@pytest.mark.parametrize("lengths", [[30], [1, 0, 17, 11, 1], [0, 30, 0], [1] * 30])
def test_a_gather_is_numpys_take_however_the_rows_are_cut(
    row: tuple[int, ...], dtype: type[np.generic], lengths: list[int]
) -> None:
    random = np.random.default_rng(1)
    rows = random.integers(0, 100, (30, *row)).astype(dtype)
    joined = cut(rows, lengths)
    for n in (0, 1, 7, 64):
        places = random.integers(0, 30, n)
        out = aligned((n, *row), dtype)
        joined.take(places, out)
        assert out.tobytes() == rows[places].tobytes()


def test_only_the_rows_asked_for_are_written() -> None:
    rows = np.arange(40, dtype=np.float32).reshape(10, 4)
    room = np.full((8, 4), -1, np.float32)
    cut(rows, [4, 6]).take(np.array([9, 3]), room[2:4])
    assert room[[0, 1, 4, 5, 6, 7]].tolist() == [[-1] * 4] * 6
    assert room[2:4].tolist() == rows[[9, 3]].tolist()


@pytest.mark.parametrize("places", [[-1], [10], [3, 2**62], [3, -(2**63)], [0, 10, 1]])
def test_one_place_outside_refuses_all_of_them_before_any_is_copied(places: list[int]) -> None:
    joined = cut(np.ones((10, 4), np.float32), [4, 6])
    out = np.zeros((len(places), 4), np.float32)
    with pytest.raises(IndexError, match="there are 0 to 9"):
        joined.take(np.array(places), out)
    assert not out.any()


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((3, 4), np.float32),
        np.zeros((2, 5), np.float32),
        np.zeros((2, 4), np.float64),
        np.zeros((2, 8), np.float32)[:, ::2],
        np.broadcast_to(np.zeros((2, 4), np.float32), (2, 4)),
    ],
    ids=["rows", "row shape", "dtype", "order", "read-only"],
)
def test_room_that_the_rows_dont_fit_is_refused(out: np.ndarray) -> None:
    with pytest.raises(ValueError, match="rows"):
        cut(np.ones((10, 4), np.float32), [10]).take(np.array([1, 2]), out)


def test_arrays_of_different_rows_are_not_joined() -> None:
    for other in (np.zeros((2, 5), np.float32), np.zeros((2, 4), np.float64), np.zeros((2, 8), np.float32)[:, ::2]):
        with pytest.raises(ValueError, match="can be joined"):
            Joined([np.zeros((3, 4), np.float32), other], (4,), np.float32)
