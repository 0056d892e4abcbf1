"""What the parent sample loses: lens systems that fail the colour and magnitude cuts with the arc in the catalogue's fluxes.

Belongs here: adding an arc's light to catalogue rows and judging them again. A classifier's completeness counts lenses among the
parents; of all lens systems whose galaxy would be a parent it finds that completeness times the share told here, at the same arc
magnitude. Galaxies that only become parents by an arc's light aren't counted: their lenses are found beyond that share.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
from scipy.stats import binomtest

from lens_pipeline.contracts.catalogue import PARENT_COMPLETENESS
from lens_pipeline.contracts.dataset import NANOMAGGY_ZERO_POINT_AB

ARC_MAGS_R = tuple(18.0 + 0.5 * step for step in range(17))
# Tractor fits what it detects: an arc near the galaxy is taken into the galaxy's model in part or as a whole. W1, at 6 arcsec
# FWHM, is fitted at the optical positions, and an undetected arc's light falls to the galaxy.
BLENDED_SHARES = (0.5, 1.0)
_CONFIDENCE = 0.95

Keeps = Callable[[pl.DataFrame], pl.Series]


@dataclass(frozen=True)
class ArcColour:
    """Colours of an arc, AB mag, corrected for extinction; they are assumed, and span what sources are like.

    Attributes
    ----------
    meaning : str
        What kind of source has them.
    """

    name: str
    meaning: str
    g_r: float
    r_z: float
    z_w1: float


ARC_COLOURS = (
    ArcColour("flat", "constant flux density over frequency: a young, dust-free burst", 0.0, 0.0, 0.0),
    ArcColour(
        "star_forming", "g - r and r - z as the injected sources' prior has them, z - W1 assumed", 0.2, 0.35, 0.8
    ),
    ArcColour("red", "an old or dusty source", 0.9, 0.9, 1.5),
)


def parent_completeness(keeps: Keeps, hosts: pl.DataFrame) -> pa.Table:
    """Give each host an arc of every kind and brightness, and count which systems still meet every cut.

    Parameters
    ----------
    keeps : function of a DataFrame
        Whether each catalogue row meets the cuts.
    hosts : DataFrame
        Catalogue rows that meet them.

    Returns
    -------
    pyarrow.Table
        Under the contract PARENT_COMPLETENESS, the interval over hosts: each counts once in a row. The arc's light is added to
        the total fluxes only; that of the fibre, 1.5 arcsec wide on the galaxy, is left as it was, as most of an arc is outside.
    """
    return pa.Table.from_pylist(list(_rows(keeps, hosts)), schema=PARENT_COMPLETENESS.schema)


def with_arc(hosts: pl.DataFrame, colour: ArcColour, arc_mag_r: float, blended_share: float) -> pl.DataFrame:
    """Add the blended part of an arc's light to the catalogue's fluxes, dimmed by the dust in front of each host."""
    r = arc_mag_r
    mags = {"G": r + colour.g_r, "R": r, "Z": r - colour.r_z, "W1": r - colour.r_z - colour.z_w1}
    added = {band: blended_share * 10 ** ((NANOMAGGY_ZERO_POINT_AB - mag) / 2.5) for band, mag in mags.items()}
    return hosts.with_columns(
        (pl.col(f"FLUX_{band}").cast(pl.Float64) + flux * pl.col(f"MW_TRANSMISSION_{band}")).alias(f"FLUX_{band}")
        for band, flux in added.items()
    )


def _rows(keeps: Keeps, hosts: pl.DataFrame) -> Iterator[dict[str, object]]:
    for colour in ARC_COLOURS:
        for blended_share in BLENDED_SHARES:
            for arc_mag_r in ARC_MAGS_R:
                kept = int(keeps(with_arc(hosts, colour, arc_mag_r, blended_share)).sum()) if hosts.height else 0
                yield {
                    "source_colour": colour.name,
                    "blended_share": blended_share,
                    "arc_mag_r": arc_mag_r,
                    "n": hosts.height,
                    "n_kept": kept,
                    **_share(kept, hosts.height),
                }


def _share(kept: int, n: int) -> dict[str, float | None]:
    if not n:
        return {"share_kept": None, "low": None, "high": None}
    interval = binomtest(kept, n).proportion_ci(_CONFIDENCE, method="wilson")
    return {"share_kept": kept / n, "low": float(interval.low), "high": float(interval.high)}
