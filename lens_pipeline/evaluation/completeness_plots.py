"""Figures of completeness against two axes at once, and of false positives on the sky, as PNG bytes."""

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from lens_pipeline.evaluation.axes import AXES
from lens_pipeline.evaluation.counting import OK
from lens_pipeline.evaluation.plots import DPI, figure_png, tidy
from lens_pipeline.evaluation.wording import threshold_words


def pairs_of(grids: pl.DataFrame) -> list[pl.DataFrame]:
    """Grids of two axes that are cut into bins, which a surface can be drawn of."""
    pairs = grids.filter(pl.col("axis_3").is_null() & pl.col("low_1").is_not_null() & pl.col("low_2").is_not_null())
    return pairs.partition_by("grid", maintain_order=True)


def surface_png(cells: pl.DataFrame) -> bytes:
    """Draw completeness on a grid of two continuous axes: each cell with its value and n, in brackets where few know.

    Parameters
    ----------
    cells : polars.DataFrame
        COMPLETENESS_GRID of one grid and one threshold.
    """
    figure = Figure(figsize=(6.4, 4.2), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    tidy(axes)
    inner = cells.drop_nulls(["low_1", "low_2"])
    if inner.is_empty():
        axes.set_axis_off()
        axes.text(
            0.5, 0.5, str(cells["reason"].drop_nulls().first() or "no cell"), ha="center", transform=axes.transAxes
        )
        return figure_png(figure)
    edges = [sorted({*inner[f"low_{i}"], *inner[f"high_{i}"]}) for i in (1, 2)]
    values = np.full((len(edges[1]) - 1, len(edges[0]) - 1), np.nan)
    for row in inner.iter_rows(named=True):
        x, y = edges[0].index(row["low_1"]), edges[1].index(row["low_2"])
        values[y, x] = np.nan if row["completeness"] is None else row["completeness"]
        n = f"{row['n']:,}" if row["status"] == OK else f"({row['n']:,})"
        words = n if row["completeness"] is None else f"{row['completeness']:.2f}\n{n}"
        ink = "white" if (row["completeness"] or 0) < 0.6 and row["completeness"] is not None else "black"
        axes.text(x + 0.5, y + 0.5, words, ha="center", va="center", fontsize=6.5, color=ink)
    mesh = axes.pcolormesh(values, vmin=0, vmax=1, cmap="viridis")
    for axis, side in ((axes.xaxis, edges[0]), (axes.yaxis, edges[1])):
        axis.set_ticks(range(len(side)), [f"{edge:g}" for edge in side])
    axes.set(xlabel=AXES[cells["axis_1"][0]].label, ylabel=AXES[cells["axis_2"][0]].label)
    words = threshold_words(cells["operating_point"][0])
    figure.colorbar(mesh, ax=axes, label=f"completeness (fraction), threshold {words}")
    return figure_png(figure)


def sky_map_png(regions: pl.DataFrame) -> bytes:
    """Draw the false-positive rate of each region on the sky; the size of a mark grows with its negatives.

    Parameters
    ----------
    regions : polars.DataFrame
        REGIONS of one threshold.
    """
    figure = Figure(figsize=(6.4, 3.4), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    tidy(axes)
    placed = regions.drop_nulls(["ra", "dec", "fpr"])
    if placed.is_empty():
        axes.set_axis_off()
        why = f"none of {regions.height:,} regions has a place on the sky and a negative"
        axes.text(0.5, 0.5, why, ha="center", transform=axes.transAxes)
        return figure_png(figure)
    size = 12 + 60 * (placed["n_negatives"] / placed["n_negatives"].max()).to_numpy()
    marks = axes.scatter(placed["ra"], placed["dec"], c=placed["fpr"], s=size, cmap="viridis", ec="#555555", lw=0.4)
    axes.invert_xaxis()
    axes.set(xlabel="right ascension (degrees)", ylabel="declination (degrees)")
    words = threshold_words(placed["operating_point"][0])
    figure.colorbar(marks, ax=axes, label=f"false-positive rate, threshold {words}")
    return figure_png(figure)
