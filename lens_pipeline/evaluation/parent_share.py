"""What a catalogue's cuts lose before any classifier looks: the share of lenses that are parents, and completeness times it.

The parent sample publishes, for an arc of each magnitude, the share of lens systems that still meet the cuts with the arc's light
in the catalogue's fluxes. An arc's magnitude in r is src_mag_r - 2.5 log10(magnification), before extinction and the PSF.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_pipeline.contracts.catalogue import PARENT_COMPLETENESS
from lens_pipeline.contracts.survey_tables import MAGNITUDES
from lens_pipeline.evaluation.intervals import Estimate
from lens_pipeline.storage.publication import Publication

Floats = npt.NDArray[np.float64]

# Colours as the injected sources' prior has them, and all of the arc's light taken for the galaxy's: the most that cuts lose.
SOURCE_COLOUR, BLENDED_SHARE = "star_forming", 1.0
_TABLE = PARENT_COMPLETENESS.name.partition("/")[2]
_NOTHING: dict[str, object] = dict.fromkeys(("parent_share", "total", "total_low", "total_high"))


@dataclass(frozen=True)
class ParentShare:
    """The share of lens systems that the cuts keep, against the arc's magnitude.

    Attributes
    ----------
    arc_mag_r : (n,) array
        Rising; empty where nothing is known.
    share, low, high : (n,) arrays
        With the ends of its 95 % interval.
    reason : str or None
        Why nothing is known.
    """

    arc_mag_r: Floats
    share: Floats
    low: Floats
    high: Floats
    reason: str | None = None

    @classmethod
    def of(cls, parent: Publication) -> "ParentShare":
        """Read what a parent sample says of its cuts."""
        if f"{_TABLE}.parquet" not in parent.manifest.files:
            return cls.unknown(f"source {parent.attributes.get('source')} has no cuts whose losses are known")
        table = pl.DataFrame(parent.read_table(_TABLE)).filter(
            (pl.col("source_colour") == SOURCE_COLOUR) & (pl.col("blended_share") == BLENDED_SHARE)
        )
        known = table.drop_nulls(["share_kept", "low", "high"]).sort("arc_mag_r")
        if known.is_empty():
            return cls.unknown("the parent sample has no galaxy to learn its cuts' losses from")
        mag, share, low, high = (known[name].to_numpy() for name in ("arc_mag_r", "share_kept", "low", "high"))
        return cls(mag, share, low, high)

    @classmethod
    def unknown(cls, reason: str) -> "ParentShare":
        """Return that of a sample about which nothing is known."""
        nothing = np.empty(0)
        return cls(nothing, nothing, nothing, nothing, reason)

    def of_rows(self, rows: pl.DataFrame) -> "RowShares":
        """Return the share of each injection's like. Beyond the magnitudes that were tried the nearest one's share is taken.

        Parameters
        ----------
        rows : polars.DataFrame
            Injections with `src_mag_r` and `magnification`.
        """
        if self.reason:
            return RowShares(self.reason, {}, ())
        known = {
            "src_mag_r": pl.col("src_mag_r").is_between(*MAGNITUDES),
            "magnification": pl.col("magnification").is_finite() & (pl.col("magnification") > 0),
        }
        mag = (pl.col("src_mag_r") - 2.5 * pl.col("magnification").log10()).alias("arc_mag_r")
        at = rows.select(pl.when(*known.values()).then(mag).fill_null(0.0))["arc_mag_r"].to_numpy()
        unknown = {name: ~rows.select(where.fill_null(False)).to_series().to_numpy() for name, where in known.items()}
        shares = tuple(np.interp(at, self.arc_mag_r, ends) for ends in (self.share, self.low, self.high))
        return RowShares(None, {name: where for name, where in unknown.items() if where.any()}, shares)


@dataclass(frozen=True)
class RowShares:
    """The share of lens systems like each injection that the cuts keep.

    Attributes
    ----------
    reason : str or None
        Why nothing is known.
    unknown : dict
        Column that an arc's magnitude needs, to the rows that lack it, shape (n,).
    shares : tuple of (n,) array
        Share, and the lower and upper ends of its interval.
    """

    reason: str | None
    unknown: dict[str, npt.NDArray[np.bool_]]
    shares: tuple[Floats, ...]

    def totals(
        self,
        cells: npt.NDArray[np.uint16],
        weights: Floats,
        recovered: npt.NDArray[np.bool_],
        found: Sequence[Estimate],
    ) -> list[dict[str, object]]:
        """Completeness among all lenses whose galaxy alone meets the cuts: sum of w x recovered x share / sum of w, cell by cell.

        The interval's ends are those of completeness times those of the recovered lenses' mean share, which is wider than it need
        be.

        Parameters
        ----------
        cells : (n,) uint16 array
            Number of each row's cell.
        weights, recovered : (n,) arrays
        found : sequence of Estimate
            Completeness of each cell.
        """
        n = len(found)
        if self.reason:
            return [_NOTHING | {"total_reason": self.reason}] * n
        lacking = {name: np.bincount(cells[where], minlength=n) for name, where in self.unknown.items()}
        sums = [
            (np.bincount(cells, w, n), *(np.bincount(cells, w * share, n) for share in self.shares))
            for w in (weights * recovered, weights)
        ]
        totals = []
        for cell, estimate in enumerate(found):
            short = next((name for name, count in lacking.items() if count[cell]), None)
            if short:
                reason: str | None = (
                    f"{short} is not known for {lacking[short][cell]:,} of {estimate.n:,} injections, so their arcs' magnitudes "
                    "aren't known"
                )
            else:
                reason = estimate.reason if estimate.value is None else None
            if reason or estimate.value is None:
                totals.append(_NOTHING | {"total_reason": reason})
                continue
            weight, *parts = sums[0] if sums[0][0][cell] > 0 else sums[1]
            share, low, high = (float(part[cell] / weight[cell]) for part in parts)
            totals.append(
                {
                    "parent_share": share,
                    "total": estimate.value * share,
                    "total_low": None if estimate.low is None else estimate.low * low,
                    "total_high": None if estimate.high is None else estimate.high * high,
                    "total_reason": estimate.reason,
                }
            )
        return totals
