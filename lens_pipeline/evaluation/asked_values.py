"""What a selection function is asked at, as plain numbers in the unit of each axis, or as names."""

from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from lens_pipeline.contracts.errors import EvaluationError, first_few
from lens_pipeline.evaluation.axes import AXES


def asked_values(axis: str, unit: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return values without their unit, converted if they have one; numbers alone are in the axis's own.

    Parameters
    ----------
    unit : str
        Of the axis; empty where it has none.
    values : array_like, astropy Quantity or Column

    Raises
    ------
    EvaluationError
        If some are masked, have a unit that can't be converted, or are no real numbers (true and false are none) where the axis
        is one of numbers.
    """
    # Loaded where it is needed: the definitions are loaded by every command.
    from astropy import units
    from astropy.table import Column
    from astropy.utils.masked import Masked

    if isinstance(values, (np.ma.MaskedArray, Masked)):
        masked = int(np.sum(values.mask))
        if masked:
            raise EvaluationError(
                f"{masked:,} of {np.size(values.mask):,} values of {axis} are masked, so nothing is known of them. Next: leave "
                "them out, as in values[~values.mask]."
            )
        values = values.unmasked if isinstance(values, Masked) else values
    if isinstance(values, (list, tuple)) and any(isinstance(value, units.Quantity) for value in values):
        values = [asked_values(axis, unit, value) for value in values]
    given = getattr(values, "unit", None) if isinstance(values, (units.Quantity, Column)) else None
    if given is None:
        return _real(axis, unit, _each_as_it_is(values)) if AXES[axis].continuous else np.asarray(values)
    # Magnitudes of an axis are AB, and astropy tells mag from mag(AB).
    wanted = units.ABmag if unit == "mag" and given == units.ABmag else units.Unit(unit)
    try:
        if unit == "mag" and _grows_with_light(given):
            raise units.UnitConversionError("it grows with light, where a magnitude falls. Next: give magnitudes")
        return _real(axis, unit, np.asarray(units.Quantity(values, subok=True).to_value(wanted)))
    except (units.UnitsError, TypeError) as error:
        raise EvaluationError(
            f"{axis} is asked in {unit or 'numbers without a unit'}, and was given in {given}, which can't be converted: {error}"
        ) from error


def _each_as_it_is(values: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return an array; of a list each value stays what it is, where numpy would make text of numbers beside text."""
    if not isinstance(values, (list, tuple)):
        return np.asarray(values)
    # Arrays without an axis are the numbers that they hold.
    return np.array([value[()] if isinstance(value, np.ndarray) else value for value in values], dtype=object)


def _grows_with_light(given: Any) -> bool:
    """Whether a unit is of logarithms as dex and decibels are: astropy takes -2.5 of the one for 1 of a magnitude."""
    from astropy import units

    scale = getattr(given, "function_unit", given)
    return bool(scale.is_equivalent(units.dex) and scale.to(units.dex) > 0)


def _real(axis: str, unit: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return values as they are; what numpy would only in part take for numbers, as text or complex ones, is refused."""
    if values.dtype.kind in "iuf":
        return values
    listed = values.ravel().tolist()
    wrong = [value for value in listed if isinstance(value, bool) or not isinstance(value, (Real, Decimal))]
    if wrong:
        raise EvaluationError(
            f"{len(wrong):,} of {len(listed):,} values of {axis} are no real numbers: {first_few(map(repr, wrong))}. It is asked "
            f"in {unit or 'numbers without a unit'}. Next: give numbers, as float(value) of text or value.real of complex ones."
        )
    return values.astype(np.float64)
