"""Published target selections of luminous red galaxies, by name: pure functions of a catalogue's columns.

Belongs here: the cuts of each, with their source and the columns that they need. A published selection isn't changed; another
version is another name. Magnitudes are AB and corrected for Galactic extinction by the catalogue's own MW_TRANSMISSION, and a
flux that isn't positive stands for a magnitude of 40, as in DESI's code (desitarget clips fluxes at 1e-7 nanomaggy).
"""

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from lens_pipeline.contracts.dataset import NANOMAGGY_ZERO_POINT_AB
from lens_pipeline.contracts.errors import ConfigError

_FAINTEST_FLUX = 1e-7


@dataclass(frozen=True)
class Cut:
    """One condition that a row must meet.

    Attributes
    ----------
    meaning : str
        The condition as it was published.
    south, north : pl.Expr
        True where a row meets it, of the magnitudes g, r, z, w1, zfiber and of the catalogue's own columns; for rows of
        DECam imaging, and of BASS and MzLS imaging.
    columns : tuple of str
        The catalogue's columns that it needs.
    """

    name: str
    meaning: str
    south: pl.Expr
    north: pl.Expr
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Selection:
    """A named, published selection.

    Attributes
    ----------
    source : str
        Where it was published.
    lacks : str
        What of the publication is left out; empty where nothing is.
    """

    name: str
    source: str
    cuts: tuple[Cut, ...]
    lacks: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the catalogue must have, the one that tells north from south included."""
        return tuple(dict.fromkeys(["RELEASE", *(name for cut in self.cuts for name in cut.columns)]))

    def passed(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Judge every row by every cut.

        Parameters
        ----------
        rows : DataFrame
            The catalogue's columns under their upper-case names, fluxes in nanomaggy.

        Returns
        -------
        DataFrame
            One boolean column a cut. A cut that a null or NaN decides is not met; where the extinction isn't known, the cut
            `extinction_known` says so, and those on magnitudes aren't judged: they are met.
        """
        bands = [band for band, needed in _FLUXES.items() if set(needed) <= set(self.columns)]
        seen = rows.with_columns(*(magnitude(band).alias(band) for band in bands))
        north = seen.select(is_north().any()).item()
        return seen.select(
            (pl.when(is_north()).then(cut.north).otherwise(cut.south) if north else cut.south)
            .fill_null(False)
            .alias(cut.name)
            for cut in self.cuts
        )

    def keeps(self, rows: pl.DataFrame) -> pl.Series:
        """Whether each row meets every cut."""
        return self.passed(rows).select(pl.all_horizontal(pl.all()).alias("kept"))["kept"]


def selection_named(name: str) -> Selection:
    """Return a selection.

    Raises
    ------
    ConfigError
        If none has this name; the message lists those there are.
    """
    if name not in SELECTIONS:
        raise ConfigError(
            f"parent_sample.selection: there is no selection {name!r}. There are: {', '.join(SELECTIONS)}."
        )
    return SELECTIONS[name]


def is_north() -> pl.Expr:
    """Whether a row was imaged by BASS and MzLS.

    Odd release numbers from 8001 on are theirs, even ones DECam's: 8000, 9010 and 10000 against 8001 and 9011 (desitarget's
    data model).
    """
    return (pl.col("RELEASE") >= 8000) & (pl.col("RELEASE") % 2 == 1)


_FLUXES = {
    "g": ("FLUX_G", "MW_TRANSMISSION_G"),
    "r": ("FLUX_R", "MW_TRANSMISSION_R"),
    "z": ("FLUX_Z", "MW_TRANSMISSION_Z"),
    "w1": ("FLUX_W1", "MW_TRANSMISSION_W1"),
    "zfiber": ("FIBERFLUX_Z", "MW_TRANSMISSION_Z"),
    "zfibertot": ("FIBERTOTFLUX_Z", "MW_TRANSMISSION_Z"),
}


def magnitude(band: str) -> pl.Expr:
    """AB magnitude corrected for Galactic extinction; 40 for a flux that isn't positive, null for one that isn't finite."""
    flux, transmission = _FLUXES[band]
    corrected = pl.col(flux).cast(pl.Float64) / pl.col(transmission)
    seen = NANOMAGGY_ZERO_POINT_AB - 2.5 * corrected.clip(lower_bound=_FAINTEST_FLUX).log10()
    return pl.when(corrected.is_finite()).then(seen)


def _number(column: str) -> pl.Expr:
    # polars takes NaN for larger than any number.
    return pl.col(column).cast(pl.Float64).fill_nan(None)


def _positive(*columns: str) -> pl.Expr:
    return pl.all_horizontal(*(_number(name) > 0 for name in columns))


_TRANSMISSION = tuple(f"MW_TRANSMISSION_{band}" for band in ("G", "R", "Z", "W1"))
_EXTINCTION_IS_KNOWN = pl.all_horizontal(
    *(_number(name).is_between(0, 1, closed="right") for name in _TRANSMISSION)
).fill_null(False)


def where_extinction_is_known(cut: pl.Expr) -> pl.Expr:
    """Judge by magnitudes where there are any; other rows fail `extinction_known`, which is said once."""
    return pl.when(_EXTINCTION_IS_KNOWN).then(cut).otherwise(True)


def _colour(
    name: str,
    meaning: str,
    cut: Callable[..., pl.Expr],
    south: tuple[float, ...],
    north: tuple[float, ...],
    *bands: str,
) -> Cut:
    """One cut with the numbers of the south and those of the north; `meaning` is filled with the southern ones."""
    magnitudes = [pl.col(band) for band in bands]
    columns = tuple(dict.fromkeys(column for band in bands for column in _FLUXES[band]))
    in_south, in_north = (where_extinction_is_known(cut(*magnitudes, *numbers)) for numbers in (south, north))
    return Cut(name, meaning.format(*south), in_south, in_north, columns)


def _quality(name: str, meaning: str, keeps: pl.Expr, *columns: str) -> Cut:
    return Cut(name, meaning, keeps, keeps, columns)


def _not_a_star(south: float, north: float) -> Cut:
    return _colour(
        "non_stellar", "z - W1 > 0.8 (r - z) - {}", lambda r, z, w1, a: z - w1 > 0.8 * (r - z) - a, (south,), (north,),
        "r", "z", "w1",
    )  # fmt: skip


def _unmasked(*bits: int) -> Cut:
    clear = pl.col("MASKBITS") & sum(1 << bit for bit in bits) == 0
    return _quality("unmasked", f"MASKBITS {', '.join(map(str, bits))} not set", clear, "MASKBITS")


_KNOWN = _quality(
    "extinction_known", "MW_TRANSMISSION above 0 and at most 1 in g, r, z and W1", _EXTINCTION_IS_KNOWN, *_TRANSMISSION
)
_POSITIVE = _quality(
    "positive_flux", "FLUX > 0 in r, z and W1", _positive("FLUX_R", "FLUX_Z", "FLUX_W1"), "FLUX_R", "FLUX_Z", "FLUX_W1"
)
_MEASURED = ("FLUX_IVAR_R", "FLUX_IVAR_Z", "FLUX_IVAR_W1", "FIBERFLUX_Z")
_OBSERVED = _quality(
    "observed", "NOBS > 0 in g, r and z", _positive("NOBS_G", "NOBS_R", "NOBS_Z"), "NOBS_G", "NOBS_R", "NOBS_Z"
)

_DR8_COLOURS = (
    _KNOWN,
    _POSITIVE,
    _not_a_star(0.6, 0.65),
    _colour(
        "low_z", "(g - W1 > {} and g - r > {}) or r - W1 > {}",
        lambda g, r, w1, a, b, c: ((g - w1 > a) & (g - r > b)) | (r - w1 > c), (2.6, 1.4, 1.8), (2.67, 1.45, 1.85),
        "g", "r", "w1",
    ),
    _colour(
        "sliding_1", "r - z > (z - {}) {}", lambda r, z, a, b: r - z > (z - a) * b, (16.83, 0.45), (16.69, 0.45), "r", "z"
    ),
    _colour(
        "sliding_2", "r - z > (z - {}) {}", lambda r, z, a, b: r - z > (z - a) * b, (13.80, 0.19), (13.68, 0.19), "r", "z"
    ),
    _colour("red", "r - z > {}", lambda r, z, a: r - z > a, (0.7,), (0.7,), "r", "z"),
)  # fmt: skip
_DR8_QUALITY = (
    _colour("faint_limit", "z_fiber < {}", lambda zfiber, a: zfiber < a, (21.5,), (21.5,), "zfiber"),
    _quality(
        "measured", "FLUX_IVAR > 0 in r and z, FIBERFLUX_Z > 0, and FLUX_W1 above 4 times its error",
        _positive(*_MEASURED) & (_number("FLUX_W1") * _number("FLUX_IVAR_W1").sqrt() > 4), *_MEASURED, "FLUX_W1",
    ),
    _OBSERVED,
    _unmasked(1, 5, 6, 7, 11, 12, 13),
)  # fmt: skip

_DR9_COLOURS = (
    _KNOWN,
    _POSITIVE,
    _not_a_star(0.6, 0.6),
    _colour(
        "low_z", "g - W1 > {} or r - W1 > {}", lambda g, r, w1, a, b: (g - w1 > a) | (r - w1 > b), (2.9, 1.8), (2.97, 1.8),
        "g", "r", "w1",
    ),
    _colour(
        "sliding", "(r - W1 > (W1 - {}) {} and r - W1 > W1 - {}) or r - W1 > {}",
        lambda r, w1, a, b, c, d: ((r - w1 > (w1 - a) * b) & (r - w1 > w1 - c)) | (r - w1 > d),
        (17.14, 1.8, 16.33, 3.3), (17.13, 1.83, 16.31, 3.4), "r", "w1",
    ),
)  # fmt: skip
_DR9_QUALITY = (
    _colour("faint_limit", "z_fiber < {}", lambda zfiber, a: zfiber < a, (21.60,), (21.61,), "zfiber"),
    _quality(
        "no_bright_star", "Gaia G > 18, or no Gaia source",
        (_number("GAIA_PHOT_G_MEAN_MAG") == 0) | (_number("GAIA_PHOT_G_MEAN_MAG") > 18), "GAIA_PHOT_G_MEAN_MAG",
    ),
    _colour("no_bright_fibre", "z_fibertot > {}", lambda zfibertot, a: zfibertot > a, (17.5,), (17.5,), "zfibertot"),
    _quality("measured", "FLUX_IVAR > 0 in r, z and W1, and FIBERFLUX_Z > 0", _positive(*_MEASURED), *_MEASURED),
    _OBSERVED,
    _unmasked(1, 12, 13),
)  # fmt: skip

_DR8_SOURCE = (
    "DESI's preliminary cuts on DR8: Zhou et al. 2020 (RNAAS 4, 181; arXiv:2010.11282), equations 1 and 2, with the quality "
    "cuts of desitarget 0.37 to 0.42 (2020)"
)
_DR9_SOURCE = "DESI's main survey on DR9: Zhou et al. 2023 (AJ 165, 58; arXiv:2208.08515), section 2"
_COLOURS_LACK = (
    "the fibre magnitude, observation counts, inverse variances and mask bits: for tables without these columns"
)

SELECTIONS = {
    selection.name: selection
    for selection in (
        Selection("lrg_dr8_2020", _DR8_SOURCE, (*_DR8_COLOURS, *_DR8_QUALITY)),
        Selection("lrg_dr8_2020_colours", _DR8_SOURCE, _DR8_COLOURS, _COLOURS_LACK),
        Selection("lrg_dr9_main", _DR9_SOURCE, (*_DR9_COLOURS, *_DR9_QUALITY)),
        Selection("lrg_dr9_main_colours", _DR9_SOURCE, _DR9_COLOURS, f"stars in Gaia, {_COLOURS_LACK}"),
    )
}
