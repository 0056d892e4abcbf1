"""What a row of a Legacy Surveys catalogue says of a galaxy, in the columns of the parent sample.

Belongs here: names, units and conventions of the catalogue's columns. A number that the catalogue leaves at 0 because it wasn't
measured is null.
"""

import numpy as np
import polars as pl
import pyarrow as pa

from lens_pipeline.contracts.catalogue import PARENT_SAMPLE
from lens_pipeline.contracts.dataset import NANOMAGGY_ZERO_POINT_AB
from lens_pipeline.survey.conditions import EXTINCTION_PER_EBV, SEEING_BOUNDS_ARCSEC
from lens_pipeline.survey.regions import Cells, Regions, brick_ids, brick_names

_BANDS = ("G", "R", "Z")
REQUIRED = (
    "RELEASE", "BRICKID", "OBJID", "RA", "DEC",
    *(f"{name}_{band}" for name in ("FLUX", "MW_TRANSMISSION") for band in _BANDS),
)  # fmt: skip
OPTIONAL = (
    "BRICK_PRIMARY", "TYPE", "EBV", "MASKBITS", "SERSIC", "SHAPE_R", "SHAPE_E1", "SHAPE_E2",
    *(f"{name}_{band}" for name in ("PSFSIZE", "PSFDEPTH", "NOBS") for band in _BANDS),
)  # fmt: skip
# How far EBV and a transmission may differ, as columns written with two digits do.
_EBV_APART_MAG, _EBV_APART = 0.02, 0.05
# DESI's TARGETID keeps OBJID in the lowest 22 bits, BRICKID in the next 20 and RELEASE above (desitarget.targets).
_OBJID_BITS, _BRICKID_BITS = 22, 20


def target_ids(rows: pl.DataFrame) -> np.ndarray:
    """DESI's TARGETID of rows: one number for a galaxy of a release, whichever file it stands in."""
    release, brick, number = (rows[name].cast(pl.Int64).to_numpy() for name in ("RELEASE", "BRICKID", "OBJID"))
    return np.asarray(((release << _BRICKID_BITS | brick) << _OBJID_BITS) | number)


def galaxy_ids(rows: pl.DataFrame) -> pl.Series:
    """Names of galaxies; OBJID alone names one of its brick only."""
    parts = (pl.col(name).cast(pl.String).fill_null("unknown") for name in ("RELEASE", "BRICKID", "OBJID"))
    return rows.select(pl.format("ls-{}-{}-{}", *parts).alias("galaxy_id"))["galaxy_id"]


def galaxy_rows(rows: pl.DataFrame, regions: Regions, cells: Cells) -> pa.Table:
    """Translate catalogue rows into rows of the parent sample.

    Parameters
    ----------
    rows : DataFrame
        The catalogue's columns under their upper-case names: all of REQUIRED, and of OPTIONAL those that there are.
    cells : (n,) array
        Each row's region.

    Returns
    -------
    pyarrow.Table
        Every column of PARENT_SAMPLE, null where the catalogue doesn't know.
    """
    columns = rows.select(
        galaxy_ids(rows).alias("galaxy_id"),
        pl.Series("region_id", _names(regions, cells), dtype=pl.String),
        pl.col("RA").alias("ra"),
        pl.col("DEC").alias("dec"),
        # Sweeps and Tractor catalogues hold no redshift.
        pl.lit(None, dtype=pl.Float64).alias("z_lens"),
        *(_magnitude(band, pl.lit(1.0)).alias(f"mag_{band.lower()}") for band in _BANDS),
        *(_magnitude(band, pl.col(f"MW_TRANSMISSION_{band}")).alias(f"mag_dered_{band.lower()}") for band in _BANDS),
        *(_measured(rows, f"PSFSIZE_{band}").alias(f"psf_fwhm_{band.lower()}") for band in _BANDS),
        *(_measured(rows, f"PSFDEPTH_{band}").alias(f"psfdepth_{band.lower()}") for band in _BANDS),
        *(_there(rows, f"NOBS_{band}", pl.Int64).alias(f"nobs_{band.lower()}") for band in _BANDS),
        _reddening(rows).alias("ebv"),
        pl.Series("brickname", brick_names(brick_ids(*_positions(rows))), dtype=pl.String),
        _there(rows, "TYPE", pl.String).alias("morphology"),
        _there(rows, "MASKBITS", pl.Int64).alias("maskbits"),
        *_shape(rows),
        pl.col("RELEASE").cast(pl.Int64).alias("release"),
        pl.Series("targetid", target_ids(rows), dtype=pl.Int64),
    )
    schema = PARENT_SAMPLE.schema
    return columns.select(schema.names).to_arrow().cast(schema)


def _positions(rows: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return rows["RA"].to_numpy(), rows["DEC"].to_numpy()


def _names(regions: Regions, cells: Cells) -> list[str]:
    unique, place = np.unique(cells, return_inverse=True)
    names = regions.names(unique)
    return [names[i] for i in place.tolist()]


def _magnitude(band: str, transmission: pl.Expr) -> pl.Expr:
    flux = pl.col(f"FLUX_{band}").cast(pl.Float64) / transmission
    return pl.when((flux > 0) & flux.is_finite()).then(NANOMAGGY_ZERO_POINT_AB - 2.5 * flux.log10())


def _there(rows: pl.DataFrame, name: str, dtype: type[pl.DataType] = pl.Float64) -> pl.Expr:
    """Take a column, or nulls where the catalogue has none."""
    return pl.col(name).cast(dtype) if name in rows.columns else pl.lit(None, dtype=dtype)


def _measured(rows: pl.DataFrame, name: str) -> pl.Expr:
    value = _there(rows, name)
    return pl.when((value > 0) & value.is_finite()).then(value)


def _reddening(rows: pl.DataFrame) -> pl.Expr:
    """E(B-V) as the catalogue says it, or else what its transmission in g comes of: T = 10^(-0.4 A), A = 3.214 E(B-V).

    g has the largest coefficient, so that the number loses least by the column's digits.
    """
    return pl.coalesce(_there(rows, "EBV").fill_nan(None), _reddening_in("G"))


def _reddening_in(band: str) -> pl.Expr:
    """E(B-V) that a band's transmission comes of."""
    extinction = -2.5 * pl.col(f"MW_TRANSMISSION_{band}").cast(pl.Float64).log10()
    # A transmission of 1 is a reddening of 0, not of -0.
    return extinction.abs() / EXTINCTION_PER_EBV[band.lower()]


def unlike_dust(rows: pl.DataFrame) -> pl.Series:
    """Whether a row's E(B-V) is one that PARENT_SAMPLE has no place for, or isn't what its transmissions come of.

    The survey computes MW_TRANSMISSION of EBV with EXTINCTION_PER_EBV: the shared rows of DR8 agree to 1e-7 mag.
    """
    ebv, declared = _reddening(rows), PARENT_SAMPLE.column("ebv")
    apart = [(ebv - _reddening_in(band)).abs() > _EBV_APART_MAG + _EBV_APART * ebv for band in _BANDS]
    unlike = pl.any_horizontal(~ebv.is_between(declared.minimum, declared.maximum), *apart)
    return rows.select(unlike.fill_null(False).alias("unlike"))["unlike"]


def unlike_seeing(rows: pl.DataFrame) -> pl.Series:
    """Whether PSFSIZE in any band is a number that no seeing on the ground has; 0 stands for one that wasn't measured."""
    low, high = SEEING_BOUNDS_ARCSEC
    sizes = [_there(rows, f"PSFSIZE_{band}").fill_nan(None) for band in _BANDS]
    return rows.select(
        pl.any_horizontal(*((size != 0) & ~size.is_between(low, high) for size in sizes))
        .fill_null(False)
        .alias("unlike")
    )["unlike"]


def _shape(rows: pl.DataFrame) -> list[pl.Expr]:
    """Half-light radius, axis ratio, position angle and Sersic index (legacysurvey.org, DR10 catalogues).

    e = hypot(E1, E2) = (1 - q) / (1 + q); the angle atan2(E2, E1) / 2 is from north through east, and a stamp's x points west.
    """
    radius, e1, e2 = _measured(rows, "SHAPE_R"), _there(rows, "SHAPE_E1"), _there(rows, "SHAPE_E2")
    ellipticity = (e1**2 + e2**2).sqrt()
    extended = radius.is_not_null() & (ellipticity < 1)
    angle = (pl.arctan2(e2, e1) / 2 + np.pi / 2) % np.pi
    return [
        radius.alias("reff_arcsec"),
        pl.when(extended).then((1 - ellipticity) / (1 + ellipticity)).alias("axis_ratio"),
        pl.when(extended).then(angle).alias("phi_rad"),
        _measured(rows, "SERSIC").alias("sersic_n"),
    ]
