"""What a catalogue's cuts lose before any classifier looks: the share of lenses that are parents, and completeness times it.

The parent sample publishes, for an arc of each magnitude, the share of lens systems that still meet the cuts with the arc's light
in the catalogue's fluxes. An arc's magnitude in r is src_mag_r - 2.5 log10(magnification), before extinction and the PSF.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_pipeline.contracts.catalogue import PARENT_COMPLETENESS
from lens_pipeline.evaluation.intervals import Estimate
from lens_pipeline.storage.publication import Publication

Floats = npt.NDArray[np.float64]

# Colours as the injected sources' prior has them, and all of the arc's light taken for the galaxy's: the most that cuts lose.
SOURCE_COLOUR, BLENDED_SHARE = "star_forming", 1.0
_TABLE = PARENT_COMPLETENESS.name.partition("/")[2]


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

    def total(self, rows: pl.DataFrame, recovered: npt.NDArray[np.bool_], found: Estimate) -> dict[str, object]:
        """Completeness among all lenses whose galaxy alone meets the cuts: sum of w x recovered x share / sum of w.

        The interval's ends are those of completeness times those of the recovered lenses' mean share, which is wider than it need
        be. Beyond the magnitudes that were tried the nearest one's share is taken.

        Parameters
        ----------
        rows : polars.DataFrame
            Injections of a cell with `weight`, `src_mag_r` and `magnification`.
        recovered : (n,) bool array
        found : Estimate
            Their completeness.
        """
        nothing: dict[str, object] = dict.fromkeys(("parent_share", "total", "total_low", "total_high"))
        if reason := self.reason or self._unknown_in(rows) or (found.reason if found.value is None else None):
            return nothing | {"total_reason": reason}
        mag = (pl.col("src_mag_r") - 2.5 * pl.col("magnification").log10()).alias("arc_mag_r")
        at = rows.select(mag)["arc_mag_r"].to_numpy()
        weight = rows["weight"].to_numpy() * recovered
        weight = weight if weight.sum() > 0 else rows["weight"].to_numpy()
        share, low, high = (
            float(np.average(np.interp(at, self.arc_mag_r, ends), weights=weight))
            for ends in (self.share, self.low, self.high)
        )
        ends = {
            "total_low": None if found.low is None else found.low * low,
            "total_high": None if found.high is None else found.high * high,
        }
        return {"parent_share": share, "total": (found.value or 0.0) * share, **ends, "total_reason": found.reason}

    def _unknown_in(self, rows: pl.DataFrame) -> str | None:
        for name in ("src_mag_r", "magnification"):
            if n := rows[name].null_count():
                return f"{name} is null for {n:,} of {rows.height:,} injections, so their arcs' magnitudes aren't known"
        return None
