"""Pictures of a parent sample from catalogues: where its galaxies are and how densely, their colours, what its cuts lose.

Belongs here: figures from the published tables, streamed: a sample of millions isn't read into memory.
"""

from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lens_pipeline.storage.parquet import iterate_parquet
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.config import RegionKind
from lens_pipeline.survey.gallery import figure_png
from lens_pipeline.survey.regions import SKY_DEG2, brick_area_deg2, brick_ids

_ROWS = 131_072
_MAG_EDGES, _COLOUR_EDGES = np.linspace(15, 24, 61), np.linspace(-0.5, 3.5, 61)
_LINES = {0.5: "--", 1.0: "-"}


def parents_png(parent: Publication) -> bytes:
    """Draw galaxies per square degree on the sky, r - z and g - r against magnitude, and the share of lenses that is kept.

    Parameters
    ----------
    parent : Publication
        A parent sample of the source legacy_catalogue.
    """
    regions, red, blue = _counted(parent)
    figure = Figure(figsize=(11, 6.4), dpi=100, layout="constrained")
    sky, kept, low, high = figure.subplots(2, 2).ravel()
    _draw_sky(figure, sky, regions, parent)
    _draw_kept(kept, pl.DataFrame(parent.read_table("completeness")))
    _draw_colours(low, red, "z", "r - z")
    _draw_colours(high, blue, "r", "g - r")
    return figure_png(figure)


def _counted(parent: Publication) -> tuple[pl.DataFrame, NDArray[np.float64], NDArray[np.float64]]:
    """Galaxies of each region, and histograms of (z, r - z) and (r, g - r), corrected for extinction."""
    parts = []
    red = np.zeros((len(_MAG_EDGES) - 1, len(_COLOUR_EDGES) - 1))
    blue = red.copy()
    for rows in _batches(parent):
        parts.append(rows.group_by("region_id").agg(pl.len().alias("n"), pl.col("ra").median(), pl.col("dec").median()))
        for total, magnitude, left, right in ((red, "z", "r", "z"), (blue, "r", "g", "r")):
            seen = rows.select(
                pl.col(f"mag_dered_{magnitude}").alias("mag"),
                (pl.col(f"mag_dered_{left}") - pl.col(f"mag_dered_{right}")).alias("colour"),
            ).drop_nulls()
            total += np.histogram2d(seen["mag"].to_numpy(), seen["colour"].to_numpy(), (_MAG_EDGES, _COLOUR_EDGES))[0]
    together = pl.concat(parts).group_by("region_id", maintain_order=True)
    return together.agg(pl.col("n").sum(), pl.col("ra").first(), pl.col("dec").first()), red, blue


def _batches(parent: Publication) -> Iterator[pl.DataFrame]:
    names = ["region_id", "ra", "dec", "mag_dered_g", "mag_dered_r", "mag_dered_z"]
    for batch in iterate_parquet(parent.path(f"{parent.asset}.parquet"), names, rows=_ROWS):
        yield pl.DataFrame(batch)


def _draw_sky(figure: Figure, axes: Axes, regions: pl.DataFrame, parent: Publication) -> None:
    ra, dec = regions["ra"].to_numpy(), regions["dec"].to_numpy()
    region: dict[str, Any] = parent.attributes["region"]
    if region["kind"] == RegionKind.brick.value:
        area = brick_area_deg2(brick_ids(ra, dec))
    else:
        area = np.full(len(ra), SKY_DEG2 / (12 * region["nside"] ** 2))
    dots = axes.scatter(ra, dec, c=regions["n"].to_numpy() / area, s=14, linewidths=0, cmap="viridis")
    figure.colorbar(dots, ax=axes, label="parents per deg$^2$ of the region, border included", pad=0.01)
    n = int(regions["n"].sum())
    axes.set(xlabel="RA [deg]", ylabel="Dec [deg]", title=f"{n:,} galaxies in {regions.height:,} regions")
    axes.invert_xaxis()
    axes.grid(alpha=0.3)


def _draw_kept(axes: Axes, completeness: pl.DataFrame) -> None:
    for number, (name, rows) in enumerate(completeness.group_by("source_colour", maintain_order=True)):
        for (blended,), part in rows.group_by("blended_share", maintain_order=True):
            known = part.drop_nulls("share_kept")
            mag, colour = known["arc_mag_r"].to_numpy(), f"C{number}"
            label = f"{name[0]}, {float(str(blended)):.0%} blended"
            axes.plot(
                mag, known["share_kept"].to_numpy(), _LINES[float(str(blended))], color=colour, lw=1.4, label=label
            )
            axes.fill_between(mag, known["low"].to_numpy(), known["high"].to_numpy(), color=colour, alpha=0.12, lw=0)
    n = int(completeness["n"].max() or 0)  # type: ignore[arg-type]
    axes.set(xlabel="arc magnitude in r, lensed, corrected for extinction", ylabel="share of lenses that the cuts keep",
             ylim=(0, 1.02), title=f"lenses kept, of {n:,} galaxies (95 % intervals)")  # fmt: skip
    axes.grid(alpha=0.3)
    axes.legend(fontsize=6.5, ncols=1, loc="lower right")


def _draw_colours(axes: Axes, counts: NDArray[np.float64], magnitude: str, colour: str) -> None:
    shown = np.ma.masked_equal(counts.T, 0)
    axes.pcolormesh(_MAG_EDGES, _COLOUR_EDGES, shown, cmap="magma_r", norm=matplotlib.colors.LogNorm(vmin=0.8))
    axes.set(xlabel=f"{magnitude} [AB mag, corrected for extinction]", ylabel=f"{colour} [mag]",
             title=f"{int(counts.sum()):,} galaxies within these axes")  # fmt: skip
    axes.grid(alpha=0.3)
