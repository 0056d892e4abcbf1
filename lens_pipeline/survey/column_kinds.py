"""What kind of value each column of a Legacy Surveys catalogue holds, whichever width a file gives it.

Belongs here: which Arrow types pass for a kind, and the cast to one type of that kind. Others write these catalogues too: pandas
makes whole numbers with a null among them floating ones.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Kind:
    """One kind of column.

    Attributes
    ----------
    words : str
        What a message calls it.
    fits : callable
        Whether a column of this Arrow type passes for one.
    becomes : DataType or None
        The type that it is cast to; None leaves the file's.
    """

    words: str
    fits: Callable[[pa.DataType], bool]
    becomes: pa.DataType | None = None


def _is_number(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_integer(dtype) or pa.types.is_floating(dtype))


_NUMBER = Kind("numbers", _is_number)
_WHOLE = Kind("whole numbers", _is_number, pa.int64())
_TEXT = Kind("text", lambda dtype: pa.types.is_string(dtype) or pa.types.is_large_string(dtype), pa.string())
_FLAG = Kind("true or false", lambda dtype: pa.types.is_boolean(dtype) or pa.types.is_integer(dtype), pa.bool_())
_KINDS = {
    **dict.fromkeys(("RELEASE", "BRICKID", "OBJID", "MASKBITS", "NOBS_G", "NOBS_R", "NOBS_Z"), _WHOLE),
    "TYPE": _TEXT,
    "BRICK_PRIMARY": _FLAG,
}


def wrong_kind(name: str, dtype: pa.DataType) -> str | None:
    """Say what a column is and should be, or None where it is of its kind.

    A column of nulls alone, which has no type, passes for any.
    """
    kind = _KINDS.get(name, _NUMBER)
    return None if pa.types.is_null(dtype) or kind.fits(dtype) else f"{name} is {dtype}, wanted {kind.words}"


def as_its_kind(name: str, values: pa.Array) -> pa.Array:
    """Cast a column to its kind's one type; a NaN among whole numbers is null.

    Raises
    ------
    pyarrow.ArrowInvalid
        If a value isn't of the kind: 1.5 among whole numbers, 2 among flags.
    """
    kind = _KINDS.get(name)
    if kind is None or kind.becomes is None or values.type == kind.becomes:
        return values
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), None, values)
    if kind is _FLAG and not pa.types.is_null(values.type):
        largest, least = pc.max(values).as_py(), pc.min(values).as_py()
        if largest is not None and not 0 <= least <= largest <= 1:
            raise pa.ArrowInvalid(f"values from {least} to {largest}, wanted 0 and 1")
    return values.cast(kind.becomes)
