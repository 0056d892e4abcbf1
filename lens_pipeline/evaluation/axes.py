"""What completeness can be told against: quantities, names and two-sided questions, computed from the store's columns.

Belongs here: names, units, meanings and how a value is computed. How an axis is cut into cells is in `cells`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from lens_pipeline.contracts.survey_tables import MAGNITUDES
from lens_pipeline.evaluation.detectability import DETECTABILITY_COLUMNS, is_detectable

ALL = "all"
THETA_E, PSF, DEPTH = "theta_e_arcsec", "psf_fwhm_used_r", "depth_mag_r"
THETA_E_OVER_FWHM = "theta_e_over_fwhm"
ARC_SNR, ARC_SNR_MATCHED = "arc_snr", "arc_snr_matched"
SOURCE_MAG, SOURCE_SIZE, SOURCE_COLOUR = "src_mag_r", "src_reff_arcsec", "src_colour_g_r"
LENS_MODEL = "lens_model"
SOURCE, HELD_OUT, DETECTABLE = "source_id", "is_held_out", "is_detectable"


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes
    ----------
    label : str
        For figures and tables, with the unit in words.
    unit : str
        Of its values and edges, as astropy spells it; empty where there is none.
    value : polars.Expr
        Its value, null or not finite where it isn't known.
    needs : tuple of str
        Columns that `value` is computed from.
    sides : tuple of str or None
        Of a two-sided axis: what is said where the value is true, and where it isn't.
    continuous : bool
        Whether it is cut into bins.
    """

    name: str
    label: str
    unit: str
    value: pl.Expr
    needs: tuple[str, ...]
    sides: tuple[str, str] | None = None
    continuous: bool = True


def _plain(name: str, label: str, unit: str = "") -> Axis:
    return Axis(name, label, unit, pl.col(name).cast(pl.Float64), (name,))


def _two_sided(name: str, label: str, value: pl.Expr, needs: tuple[str, ...], sides: tuple[str, str]) -> Axis:
    return Axis(name, label, "", value, needs, sides, continuous=False)


# The 5-sigma magnitude of a point source, 22.5 - 2.5 log10(5 / sqrt(psfdepth)), not dereddened.
_DEPTH = 22.5 - 2.5 * (5 / pl.col("psfdepth_r").sqrt()).log10()
_HELD_OUT = pl.col(HELD_OUT).cast(pl.Float64).fill_null(0.0) == 1

AXES: dict[str, Axis] = {
    axis.name: axis
    for axis in (
        _plain(THETA_E, "Einstein radius (arcsec)", "arcsec"),
        Axis(
            THETA_E_OVER_FWHM,
            "Einstein radius over seeing (FWHM in r)",
            "",
            pl.col(THETA_E) / pl.col(PSF).cast(pl.Float64),
            (THETA_E, PSF),
        ),
        _plain(PSF, "seeing in r, FWHM (arcsec)", "arcsec"),
        Axis(DEPTH, "depth in r, 5-sigma point source (AB mag)", "mag", _DEPTH, ("psfdepth_r",)),
        _plain(ARC_SNR, "signal-to-noise of the arc's brightest pixel in r"),
        _plain(ARC_SNR_MATCHED, "matched-filter signal-to-noise of the arc in r"),
        _plain(SOURCE_MAG, "source magnitude in r, unlensed (AB mag)", "mag"),
        _plain(SOURCE_SIZE, "half-light radius of the source (arcsec)", "arcsec"),
        Axis(
            SOURCE_COLOUR,
            "source colour g - r (AB mag)",
            "mag",
            (pl.col("src_mag_g") - pl.col("src_mag_r")).cast(pl.Float64),
            ("src_mag_g", "src_mag_r"),
        ),
        Axis(LENS_MODEL, "lens model", "", pl.col(LENS_MODEL), (LENS_MODEL,), continuous=False),
        _two_sided(
            DETECTABLE,
            "criteria of Collett (2015)",
            is_detectable(),
            DETECTABILITY_COLUMNS,
            ("meets all criteria", "fails one"),
        ),
        _two_sided(SOURCE, "source", pl.col(SOURCE).is_not_null(), (SOURCE,), ("real galaxy", "Sersic profile")),
        _two_sided(
            HELD_OUT,
            "lenses and sources like it",
            _HELD_OUT,
            (HELD_OUT,),
            ("held out of training", "seen in training"),
        ),
    )
}
CONTINUOUS = tuple(axis.name for axis in AXES.values() if axis.continuous)
# Those that most is asked of, which are drawn wherever there is little room.
HEADLINE = (THETA_E, PSF, ARC_SNR)
# Counted only where both sides have injections: a survey without such rows isn't undefined on them.
WHERE_DIVIDED = (SOURCE, HELD_OUT)
ALWAYS = (ALL, *(name for name in AXES if name not in WHERE_DIVIDED))
COLUMNS = tuple(sorted({column for axis in AXES.values() for column in axis.needs}))


def with_axes(rows: pl.DataFrame, names: Iterable[str] = tuple(AXES)) -> pl.DataFrame:
    """Compute axes; columns of the same name are replaced.

    A value is null where a column that it needs is missing, and where it or what it is computed from isn't a finite number: a
    depth of 0 has no magnitude. So it is where seeing isn't above 0, and where a source's magnitude is beyond `MAGNITUDES`, as
    99 and -99 are, which surveys write for unknown.
    """
    missing = [pl.lit(None, pl.Float64).alias(name) for name in COLUMNS if name not in rows.columns]
    measured = [_measured(name) for name in COLUMNS if name in rows.columns and rows.schema[name].is_float()]
    axes = [AXES[name] for name in names]
    values = [(_finite(axis.value) if axis.continuous else axis.value).alias(axis.name) for axis in axes]
    return rows.with_columns(*missing, *measured).with_columns(*values)


def _measured(column: str) -> pl.Expr:
    value = pl.col(column)
    if column.startswith("src_mag_"):
        return pl.when(value.is_between(*MAGNITUDES)).then(value)
    return _finite(value) if column != PSF else pl.when(value.is_finite() & (value > 0)).then(value)


def _finite(value: pl.Expr) -> pl.Expr:
    return pl.when(value.is_finite()).then(value)


def is_known(name: str, columns: Iterable[str]) -> bool:
    """Whether a table with these columns knows an axis."""
    return name == ALL or set(AXES[name].needs) <= set(columns)


def axes_of(rows: pl.DataFrame) -> tuple[str, ...]:
    """Axes that injections are counted along: `ALWAYS`, and those of `WHERE_DIVIDED` that divide them.

    Parameters
    ----------
    rows : polars.DataFrame
        With their axes.
    """
    return (*ALWAYS, *(name for name in WHERE_DIVIDED if rows[name].n_unique() > 1))


def axes_in(completeness: pl.DataFrame) -> list[str]:
    """Axes of a table COMPLETENESS but `ALL`, in its order."""
    return [axis for axis in completeness["axis"].unique(maintain_order=True) if axis != ALL]
