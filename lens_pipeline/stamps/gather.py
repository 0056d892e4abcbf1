"""Many arrays of equal rows, gathered from as if they were one: each row is copied once, from where it lies to where it goes.

Between rows that lie apart the processor's own prefetching starts anew, which costs a third of the speed of copying in
order. So while a row is copied, the one after it is asked for: the first half of each page, every second cache line of it
(lines come in pairs); the second half the processor finds by itself. What is copied into must stand at a multiple of 64
bytes (`aligned`): at other addresses memcpy takes twice as long.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from lens_pipeline.stamps.kernels import compiled

_LINE_PAIR = 128
_PAGE, _ASKED_FOR = 4096, 2048
_ALIGNMENT = 64

Places = npt.NDArray[np.int64]


def _generate_copy(typing: Any, to: Any, source: Any, n_bytes: Any) -> Any:
    """memcpy(to, source, n_bytes), addresses as integers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        goal, start, length = arguments
        pointer = ir.IntType(8).as_pointer()
        memcpy: Any = cgutils.raw_memcpy
        memcpy(builder, builder.inttoptr(goal, pointer), builder.inttoptr(start, pointer), length, 1)
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64, types.int64), generate


def _generate_ask_for(typing: Any, address: Any) -> Any:
    """Ask for a cache line, into the second-level cache; an address that isn't mapped is ignored by the processor."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        declare: Any = cgutils.get_or_insert_function
        prefetch = declare(builder.module, kind, "llvm.prefetch.p0i8")
        # To read (0), into the second level (2), data (1).
        builder.call(prefetch, [builder.inttoptr(arguments[0], pointer), number(0), number(2), number(1)])
        return context.get_dummy_value()

    return types.void(types.uint64), generate


# Typed as they are called from compiled code.
_copy: Any = intrinsic(_generate_copy)
_ask_for: Any = intrinsic(_generate_ask_for)


@compiled
def _address(place: int, starts: Places, bases: npt.NDArray[np.uint64], row_bytes: int) -> np.uint64:
    array = np.searchsorted(starts, place, side="right") - 1
    address: np.uint64 = bases[array] + np.uint64((place - starts[array]) * row_bytes)
    return address


@compiled
def _copy_rows(
    places: Places, starts: Places, bases: npt.NDArray[np.uint64], row_bytes: int, to: npt.NDArray[np.uint8]
) -> int:
    """Copy the row at each place to its row of `to`; return the first place that is outside, before any copy, or -1."""
    n = len(places)
    for i in range(n):
        if places[i] < 0 or places[i] >= starts[-1]:
            return i
    address = _address(places[0], starts, bases, row_bytes) if n else np.uint64(0)
    goal = np.uint64(to.ctypes.data)
    for i in range(n):
        following = _address(places[i + 1], starts, bases, row_bytes) if i + 1 < n else address
        for page in range(0, row_bytes, _PAGE):
            n_bytes = min(_PAGE, row_bytes - page)
            for line in range(page, page + min(_ASKED_FOR, n_bytes), _LINE_PAIR):
                _ask_for(following + np.uint64(line))
            _copy(goal + np.uint64(page), address + np.uint64(page), n_bytes)
        goal += np.uint64(row_bytes)
        address = following
    return -1


class Joined:
    """Arrays whose rows are alike, gathered from by place, counted over all of them in their order.

    It holds the arrays, so that what its addresses point to stays mapped. Threads may share one.

    Parameters
    ----------
    arrays : sequence of (n_i, *row) arrays
        In C order; there may be none, and n_i may be 0.
    row_shape, dtype : tuple of int, dtype
        What all of them must have.

    Raises
    ------
    ValueError
        If one has another row shape, dtype or order.
    """

    def __init__(self, arrays: Sequence[npt.NDArray[Any]], row_shape: Sequence[int], dtype: npt.DTypeLike) -> None:
        self.arrays, self.row_shape, self.dtype = tuple(arrays), tuple(row_shape), np.dtype(dtype)
        for array in arrays:
            if array.shape[1:] != self.row_shape or array.dtype != self.dtype or not array.flags.c_contiguous:
                raise ValueError(
                    f"arrays of rows {self.row_shape} {self.dtype} in C order can be joined, this one is {array.shape} "
                    f"{array.dtype} with strides {array.strides}"
                )
        self.starts = np.cumsum([0, *(len(array) for array in arrays)], dtype=np.int64)
        self._bases = np.array([array.ctypes.data for array in arrays], dtype=np.uint64)
        self._row_bytes = int(self.dtype.itemsize * np.prod(self.row_shape, dtype=np.int64))

    def __len__(self) -> int:
        return int(self.starts[-1])

    def take(self, places: Places, out: npt.NDArray[Any]) -> None:
        """Copy the rows at some places, in the order given, repeats allowed.

        Parameters
        ----------
        places : (n,) int64 array
            Checked, all of them, before any is read.
        out : (n, *row) array
            Filled; C order, of the arrays' dtype. Made by `aligned` it is filled fastest.

        Raises
        ------
        IndexError
            If a place is outside.
        ValueError
            If `out` has another shape, dtype or order.
        """
        must_take(out, (len(places), *self.row_shape), self.dtype)
        wrong = _copy_rows(
            np.ascontiguousarray(places, dtype=np.int64), self.starts, self._bases, self._row_bytes,
            out.reshape(-1).view(np.uint8),
        )  # fmt: skip
        if wrong >= 0:
            raise IndexError(f"place {places[wrong]} was asked for, there are 0 to {len(self) - 1}")


def must_take(out: npt.NDArray[Any], shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
    """Refuse room that rows can't be written into byte by byte.

    Raises
    ------
    ValueError
        If it has another shape, dtype or order, or is read-only.
    """
    if out.shape != shape or out.dtype != dtype or not (out.flags.c_contiguous and out.flags.writeable):
        raise ValueError(
            f"rows {shape} {np.dtype(dtype)} in C order are to go into {out.shape} {out.dtype} with strides {out.strides}"
            f"{'' if out.flags.writeable else ', which is read-only'}"
        )


def aligned(shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Allocate an array that starts at a multiple of 64 bytes; numpy's own start 16 bytes behind one."""
    kind = np.dtype(dtype)
    n_bytes = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    room = np.empty(n_bytes + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    return room[start : start + n_bytes].view(kind).reshape(shape)
