"""A user's table of galaxies: what it knows of each, and where they are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from lens_pipeline.contracts.errors import ConfigError, ContractError, first_few
from lens_pipeline.survey.mirror import Galaxy

COLUMNS = ("galaxy_id", "region_id", "ra", "dec", "mag_g", "mag_r", "mag_z", "ebv")
PLACE = ("galaxy_id", "ra", "dec")

Known = dict[str, Any]


def read_galaxies(name: str, n_galaxies: int | None = None) -> list[Known]:
    """Read those of COLUMNS that a FITS, CSV or ECSV table has, names in either case; a masked value is None.

    Parameters
    ----------
    n_galaxies : int, optional
        How many rows there must be, one for each cutout.

    Raises
    ------
    ConfigError
        If there is no such file.
    ContractError
        If it can't be read, has another number of rows, or names a galaxy twice.
    """
    path = Path(name).expanduser().absolute()
    if not path.is_file():
        raise ConfigError(f"there is no file {path}. Name a catalogue, a FITS, CSV or ECSV table.")
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
    columns = {column: [_plain(value) for value in table[lower[column]]] for column in names}
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


def _plain(value: Any) -> Any:
    if np.ma.is_masked(value):
        return None
    return (
        value.strip() if isinstance(value, str) else str(value, "ascii") if isinstance(value, bytes) else value.item()
    )
