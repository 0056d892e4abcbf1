"""What a selection function is asked at, as plain numbers in the unit of each axis, or as names."""

from typing import Any

import numpy as np
import numpy.typing as npt

from lens_pipeline.contracts.errors import EvaluationError


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
        If some are masked, or have a unit that can't be converted.
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
        values = units.Quantity(values)
    given = getattr(values, "unit", None) if isinstance(values, (units.Quantity, Column)) else None
    if given is None:
        return np.asarray(values)
    # Magnitudes of an axis are AB, and astropy tells mag from mag(AB).
    wanted = units.ABmag if unit == "mag" and given == units.ABmag else units.Unit(unit)
    try:
        return np.asarray(units.Quantity(values, subok=True).to_value(wanted))
    except (units.UnitsError, TypeError) as error:
        raise EvaluationError(
            f"{axis} is asked in {unit or 'numbers without a unit'}, and was given in {given}, which can't be converted: {error}"
        ) from error
