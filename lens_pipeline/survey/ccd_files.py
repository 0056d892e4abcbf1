"""The files of single exposures as legacypipe lays them out: the table of CCDs, planes and calibrations.

Belongs here: finding and reading. What the numbers mean is in `ccd.py`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Table
from numpy.typing import NDArray

from lens_pipeline.contracts.errors import ContractError, first_few

_WANTED = ("image_filename", "ccdname", "expnum", "camera", "filter", "exptime", "ccdzpt", "ccdraoff", "ccddecoff")


def ccd_rows(path: Path) -> list[dict[str, Any]]:
    """Read a table of CCDs, names in lower case, None where a value is masked.

    Raises
    ------
    ContractError
        If a column that the calibration needs is missing.
    """
    table = Table.read(path)
    table.rename_columns(table.colnames, [name.lower() for name in table.colnames])
    if missing := [name for name in _WANTED if name not in table.colnames]:
        raise ContractError(
            f"{path} lacks {first_few(missing)}: counts can't be calibrated to nanomaggy without. Take the survey's own "
            f"table of CCDs."
        )
    return [{name: _plain(row[name]) for name in table.colnames} for row in table]


def _plain(value: Any) -> Any:
    if np.ma.is_masked(value):
        return None
    return value.strip() if isinstance(value, str) else value


def known_number(row: Mapping[str, Any], name: str) -> float | None:
    """Return a positive number of a row, None where it has none."""
    value = row.get(name)
    return float(value) if value is not None and np.isfinite(value) and value > 0 else None


def beside(image: Path, kind: str) -> Path:
    """Name the plane that belongs to an image: ``oow``, its weight, or ``ood``, its data quality."""
    return image.with_name(image.name.replace("ooi", kind))


def read_plane(path: Path, row: Mapping[str, Any]) -> tuple[NDArray[Any], fits.Header]:
    """Read the plane of one CCD: the HDU of that name, or the only one that holds an image.

    Raises
    ------
    ContractError
        If the file is missing or damaged, or doesn't hold the CCD.
    """
    try:
        with fits.open(path, memmap=False) as hdus:
            planes = {hdu.name: hdu for hdu in hdus if hdu.header.get("NAXIS") == 2}
            hdu = planes.get(str(row["ccdname"]).upper()) or (planes.popitem()[1] if len(planes) == 1 else None)
            if hdu is None:
                raise ContractError(f"{path} has no image of the CCD {row['ccdname']}; it has {first_few(planes)}.")
            return np.asarray(hdu.data).astype(hdu.data.dtype.newbyteorder("=")), hdu.header.copy()
    except FileNotFoundError:
        raise ContractError(
            f"there is no {path}: a CCD needs its image (ooi), weight (oow) and data quality (ood). Fetch it, or leave the "
            f"CCD out of the table."
        ) from None
    except (OSError, TypeError, ValueError) as error:
        raise ContractError(f"{path} can't be read as FITS: {error}. Fetch it again.") from error


def calibration_file(folder: Path, row: Mapping[str, Any], kind: str) -> Path | None:
    """Find a CCD's calibration file: legacypipe's layout by exposure, or its later one by image name."""
    camera, exposure, ccd = row["camera"], f"{int(row['expnum']):08d}", row["ccdname"]
    by_exposure = folder / "calib" / camera / kind / exposure[:5] / exposure / f"{camera}-{exposure}-{ccd}.fits"
    image = Path(str(row["image_filename"]))
    stem = image.name.split(".")[0]
    later = {"psfex": "psfex-single", "splinesky": "sky-single"}[kind]
    by_image = folder / "calib" / later / image.parent / stem / f"{stem}-{ccd}-{kind}.fits"
    return next((path for path in (by_exposure, by_image) if path.is_file()), None)


def files_of(folder: Path, row: Mapping[str, Any]) -> tuple[Path, ...]:
    """Return those files of a CCD that are there: its image, weight and data quality, and its calibrations."""
    image = folder / "images" / str(row["image_filename"])
    calibrations = (calibration_file(folder, row, kind) for kind in ("splinesky", "psfex"))
    return tuple(
        path for path in (image, beside(image, "oow"), beside(image, "ood"), *calibrations) if path and path.is_file()
    )
