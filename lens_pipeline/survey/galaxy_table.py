"""A user's table of galaxies: what it knows of each, and where they are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from lens_pipeline.contracts.catalogue import PARENT_SAMPLE
from lens_pipeline.contracts.errors import ConfigError, ContractError, first_few, no_file
from lens_pipeline.contracts.tables import Column
from lens_pipeline.survey.mirror import Galaxy

_NAMES = ("galaxy_id", "region_id")
MEASURED = (
    "ra", "dec", "z_lens", "mag_g", "mag_r", "mag_z", "ebv", "reff_arcsec", "axis_ratio", "phi_rad", "sersic_n"
)  # fmt: skip
COLUMNS = (*_NAMES, *MEASURED)
PLACE = ("galaxy_id", "ra", "dec")
_ANGLES = "Angles are decimal degrees, as 150.0 rather than 10:00:00; phi_rad radians (degrees times pi / 180)."

Known = dict[str, Any]


def read_galaxies(name: str, n_galaxies: int | None = None, unread: list[str] | None = None) -> list[Known]:
    """Read those of COLUMNS that a FITS, CSV or ECSV table has, names in either case; a masked value or NaN is None.

    Parameters
    ----------
    n_galaxies : int, optional
        How many rows there must be, one for each cutout.
    unread : list of str, optional
        Takes the names of the table's other columns.

    Raises
    ------
    ConfigError
        If there is no such file.
    ContractError
        If it can't be read, has another number of rows, names a galaxy twice, or holds what isn't a number where one must be, or
        one outside the range that PARENT_SAMPLE declares.
    """
    path = Path(name).expanduser().absolute()
    if not path.is_file():
        raise ConfigError(f"{no_file(path)}. Name a catalogue, a FITS, CSV or ECSV table.")
    try:
        table = Table.read(path)
    except (OSError, ValueError, TypeError) as error:
        raise ContractError(f"{path} can't be read as a FITS, CSV or ECSV table: {error}.") from error
    lower = {column.lower(): column for column in table.colnames}
    if n_galaxies is not None and len(table) != n_galaxies:
        raise ContractError(
            f"{path} has {len(table)} rows and the cubes hold {n_galaxies} galaxies. A row must stand for each galaxy, in the "
            f"cubes' order."
        )
    names = [column for column in COLUMNS if column in lower]
    if unread is not None:
        unread += [own for own in table.colnames if own.lower() not in COLUMNS]
    columns = {column: [_plain(value) for value in table[lower[column]]] for column in names}
    for column in names:
        if column in _NAMES:
            columns[column] = [None if value is None else str(value) for value in columns[column]]
        else:
            columns[column] = _numbers(columns[column], column, f"{path}, column {lower[column]}")
    _refuse_half_a_shape(columns, path)
    ids = columns.get("galaxy_id", [])
    if len(set(ids)) < len(ids):
        twice = sorted({str(i) for i in ids if ids.count(i) > 1})
        raise ContractError(f"{path} names galaxies more than once: {first_few(twice)}. A galaxy_id names one cutout.")
    return [{column: columns[column][i] for column in names} for i in range(len(table))]


def places_of(rows: Sequence[Known], where: str) -> list[Galaxy]:
    """Return name and place of each galaxy of a table.

    Raises
    ------
    ContractError
        If there is no row, or galaxy_id, ra or dec is missing in any.
    """
    if not rows:
        raise ContractError(f"{where} has no row, so there is no galaxy to cut.")
    for name in PLACE:
        if lacking := [number for number, row in enumerate(rows) if row.get(name) is None]:
            raise ContractError(
                f"{where} has no {name} in {len(lacking):,} of {len(rows):,} rows; first (place in the table): "
                f"{first_few(lacking)}. A cutout needs {', '.join(PLACE)}."
            )
    return [place_of(row) for row in rows]


def place_of(row: Known) -> Galaxy:
    """Return name and place of a galaxy; NaN where it isn't known."""
    ra, dec = (np.nan if row.get(name) is None else float(row[name]) for name in ("ra", "dec"))
    return Galaxy(str(row["galaxy_id"]), ra, dec)


def _numbers(values: list[Any], column: str, where: str) -> list[float | None]:
    numbers, wrong = [], []
    for value in values:
        try:
            number = np.nan if value is None else float(value)
        except (TypeError, ValueError):
            wrong.append(value)
            continue
        numbers.append(number if np.isfinite(number) else None)
    if wrong:
        raise ContractError(
            f"{where}: {len(wrong):,} of {len(values):,} values aren't numbers: {first_few(map(repr, wrong))}. {_ANGLES}"
        )
    _refuse_out_of_range(numbers, PARENT_SAMPLE.column(column), where)
    return numbers


def _refuse_out_of_range(numbers: list[float | None], column: Column, where: str) -> None:
    low = -np.inf if column.minimum is None else column.minimum
    high = np.inf if column.maximum is None else column.maximum
    beyond = [
        f"{value:g} ({row})" for row, value in enumerate(numbers) if value is not None and not low <= value <= high
    ]
    if beyond:
        raise ContractError(
            f"{where}: {len(beyond):,} of {len(numbers):,} values are outside {f'{low:g} to {high:g} {column.unit}'.strip()}; "
            f"first (place in the table): {first_few(beyond)}. It is the {column.meaning}. {_ANGLES} Mend these rows, and leave "
            f"a value that isn't known empty."
        )


def _refuse_half_a_shape(columns: dict[str, list[Any]], path: Path) -> None:
    if ("axis_ratio" in columns) != ("phi_rad" in columns) or any(
        (q is None) != (phi is None)
        for q, phi in zip(columns.get("axis_ratio", ()), columns.get("phi_rad", ()), strict=True)
    ):
        raise ContractError(
            f"{path} gives axis_ratio without phi_rad, or phi_rad without axis_ratio, in some rows. The mass follows the light "
            f"only where both are known: give both or neither."
        )


def _plain(value: Any) -> Any:
    if np.ma.is_masked(value):
        return None
    return (
        value.strip() if isinstance(value, str) else str(value, "ascii") if isinstance(value, bytes) else value.item()
    )
