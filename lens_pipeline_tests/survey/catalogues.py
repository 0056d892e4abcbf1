"""Catalogue rows in the Legacy Surveys' own columns, made from magnitudes, and files of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.table import Table

SOUTH, NORTH = 9010, 9011
_TRANSMISSION = {"g": 0.87, "r": 0.91, "z": 0.95, "w1": 0.99}
BRICK = {"BRICKID": 330368, "BRICKNAME": "0001p000", "RA": 0.125, "DEC": 0.0}


def flux(mag: float, band: str) -> float:
    """Flux in nanomaggy as a catalogue has it: dimmed by the dust between here and there."""
    return float(10 ** ((22.5 - mag) / 2.5) * _TRANSMISSION[band])


def row(
    *, g: float = 23.0, r: float = 21.0, z: float = 19.5, w1: float = 18.0, zfiber: float = 20.5, zfibertot: float = 20.4,
    **columns: Any,
) -> dict[str, Any]:  # fmt: skip
    """Make a row of the DR10 schema from extinction-corrected magnitudes; by default an LRG in both selections."""
    made: dict[str, Any] = {"RELEASE": SOUTH, "OBJID": 0, "TYPE": "DEV", "EBV": 0.05, "MASKBITS": 0} | BRICK
    for band, mag in (("g", g), ("r", r), ("z", z), ("w1", w1)):
        made |= {
            f"FLUX_{band.upper()}": flux(mag, band),
            f"FLUX_IVAR_{band.upper()}": 100.0,
            f"MW_TRANSMISSION_{band.upper()}": _TRANSMISSION[band],
        }
    for band in "GRZ":
        made |= {f"NOBS_{band}": 3, f"PSFSIZE_{band}": 1.3, f"PSFDEPTH_{band}": 400.0}
    made |= {"FIBERFLUX_Z": flux(zfiber, "z"), "FIBERTOTFLUX_Z": flux(zfibertot, "z"), "GAIA_PHOT_G_MEAN_MAG": 0.0}
    made |= {"SERSIC": 4.0, "SHAPE_R": 1.1, "SHAPE_E1": 0.1, "SHAPE_E2": -0.05}
    return made | columns


def write_fits(path: Path, rows: list[dict[str, Any]], *, lower: bool = False) -> Path:
    """Write rows as a Tractor (lower case) or sweep (upper case) FITS table, in the types of the survey."""
    columns = {}
    for name in rows[0]:
        values = np.array([made[name] for made in rows])
        if values.dtype == np.float64 and name not in ("RA", "DEC"):
            values = values.astype(np.float32)
        if values.dtype == np.int64:
            values = values.astype(np.int16 if name in ("RELEASE", "MASKBITS") or name.startswith("NOBS") else np.int32)
        columns[name.lower() if lower else name] = values
    Table(columns).write(path, overwrite=True)
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as parquet, as others would: without page checksums."""
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path
