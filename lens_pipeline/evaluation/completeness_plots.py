"""Figures of completeness against one axis and against two at once, and of false positives on the sky."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lens_pipeline.evaluation.axes import AXES, CONTINUOUS
from lens_pipeline.evaluation.counting import OK
from lens_pipeline.evaluation.figures import (
    GREY,
    legend_above,
    new_figure,
    plain_ticks,
    say,
    styles,
    tell,
    tell_at,
)
from lens_pipeline.evaluation.wording import count, number, threshold_words


def completeness_figure(table: pl.DataFrame, axis: str) -> Figure:
    """Draw completeness along one axis with 95 % intervals and n; cells with few effective injections are hollow.

    Parameters
    ----------
    table : polars.DataFrame
        COMPLETENESS, with a cell of this axis that can be drawn (`why_not_drawn`).
    """
    figure, axes = new_figure(6.4, 3.4)
    mine = _drawable(table, axis)
    names = mine["operating_point"].unique(maintain_order=True).to_list()
    cells = mine["cell"].unique(maintain_order=True).to_list()
    for i, (name, (colour, marker)) in enumerate(zip(names, styles(len(names)), strict=True)):
        rows = mine.filter(pl.col("operating_point") == name)
        shift = (i - (len(names) - 1) / 2) * 0.12
        _curve(axes, rows, _places(rows, axis, cells, shift), colour, marker, "threshold " + threshold_words(name))
    _number_cells(axes, mine.filter(pl.col("operating_point") == names[0]), axis, cells)
    if axis not in CONTINUOUS:
        axes.set_xticks(range(len(cells)), cells)
        axes.set_xlim(-0.6, len(cells) - 0.4)
    elif _is_wide(mine):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(plain_ticks)
    axes.set(xlabel=AXES[axis].label, ylabel="completeness (fraction)", ylim=(0, 1.15), yticks=np.linspace(0, 1, 6))
    legend_above(figure, axes)
    return figure


def why_not_drawn(table: pl.DataFrame, axis: str) -> str | None:
    """Say why no cell of an axis of COMPLETENESS can be drawn, as where the axis is null throughout; None where one can."""
    if not _drawable(table, axis).is_empty():
        return None
    why = table.filter(pl.col("axis") == axis)["reason"].drop_nulls()
    return str(why[0]) if why.len() else f"{axis} was not counted"


def pairs_of(grids: pl.DataFrame) -> list[pl.DataFrame]:
    """Grids of two axes that are cut into bins, which a surface can be drawn of."""
    pairs = grids.filter(pl.col("axis_3").is_null() & pl.col("low_1").is_not_null() & pl.col("low_2").is_not_null())
    return pairs.partition_by("grid", maintain_order=True)


def surface_figure(cells: pl.DataFrame) -> Figure:
    """Draw completeness on a grid of two continuous axes: each cell with its value and n, in brackets where few know.

    Parameters
    ----------
    cells : polars.DataFrame
        COMPLETENESS_GRID of one grid and one threshold.
    """
    figure, axes = new_figure(6.4, 4.2)
    inner = cells.drop_nulls(["low_1", "low_2"])
    if inner.is_empty():
        return say(figure, axes, str(cells["reason"].drop_nulls().first() or "no cell"))
    edges = [sorted({*inner[f"low_{i}"], *inner[f"high_{i}"]}) for i in (1, 2)]
    values = np.full((len(edges[1]) - 1, len(edges[0]) - 1), np.nan)
    for row in inner.iter_rows(named=True):
        x, y = edges[0].index(row["low_1"]), edges[1].index(row["low_2"])
        values[y, x] = np.nan if row["completeness"] is None else row["completeness"]
        n = f"{row['n']:,}" if row["status"] == OK else f"({row['n']:,})"
        words = n if row["completeness"] is None else f"{row['completeness']:.2f}\n{n}"
        ink = "white" if (row["completeness"] or 0) < 0.6 and row["completeness"] is not None else "black"
        axes.text(x + 0.5, y + 0.5, words, ha="center", va="center", fontsize=6.5, color=ink)
        tell(axes.add_patch(Rectangle((x, y), 1, 1, color="black", alpha=0.0, lw=0, zorder=9)), _words(row))
    mesh = axes.pcolormesh(values, vmin=0, vmax=1, cmap="viridis")
    for axis, side in ((axes.xaxis, edges[0]), (axes.yaxis, edges[1])):
        axis.set_ticks(range(len(side)), [f"{edge:g}" for edge in side])
    axes.set(xlabel=AXES[cells["axis_1"][0]].label, ylabel=AXES[cells["axis_2"][0]].label)
    _colour_bar(figure, axes, mesh, "completeness (fraction)", cells["operating_point"][0])
    return figure


def sky_map_figure(regions: pl.DataFrame) -> Figure:
    """Draw the false-positive rate of each region on the sky; the size of a mark grows with its negatives.

    Parameters
    ----------
    regions : polars.DataFrame
        REGIONS of one threshold.
    """
    figure, axes = new_figure(6.4, 3.4)
    placed = regions.drop_nulls(["ra", "dec", "fpr"]).sort("fpr")
    if placed.is_empty():
        return say(figure, axes, f"none of {regions.height:,} regions has a place on the sky and a negative")
    size = 12 + 60 * (placed["n_negatives"] / placed["n_negatives"].max()).to_numpy()
    marks = axes.scatter(placed["ra"], placed["dec"], c=placed["fpr"], s=size, cmap="viridis", ec=GREY, lw=0.4)
    for row in placed.iter_rows(named=True):
        rate = number(row["fpr"], row["fpr_low"], row["fpr_high"])
        false = f"{row['n_false_positives']:,} of {count(row['n_negatives'], 'control')}"
        tell_at(axes, row["ra"], row["dec"], f"{row['region_id']}: FPR {rate}, {false}")
    axes.invert_xaxis()
    axes.set(xlabel="right ascension (degrees)", ylabel="declination (degrees)")
    _colour_bar(figure, axes, marks, "false-positive rate (fraction)", placed["operating_point"][0])
    return figure


def _words(row: dict[str, object]) -> str:
    """Say what a cell of COMPLETENESS or COMPLETENESS_GRID counted."""
    ends = [row[name] for name in ("completeness", "completeness_low", "completeness_high")]
    found = number(*ends)  # type: ignore[arg-type]
    why = f" ({row['reason']})" if row["reason"] else ""
    return f"{row['cell']}: completeness {found}, {row['n_recovered']:,} of {row['n']:,} injections{why}"


def _drawable(table: pl.DataFrame, axis: str) -> pl.DataFrame:
    mine = table.filter((pl.col("axis") == axis) & pl.col("completeness").is_not_null())
    return mine.filter(pl.col("low").is_not_null()) if axis in CONTINUOUS else mine


def _curve(axes: Axes, rows: pl.DataFrame, places: list[float], colour: str, marker: str, label: str) -> None:
    for solid in (True, False):
        chosen = ((rows["status"] == OK) == solid).to_numpy()
        if not chosen.any():
            continue
        part = rows.filter(pl.Series(chosen))
        value = part["completeness"].to_numpy()
        low = part["completeness_low"].fill_null(pl.Series(value)).to_numpy()
        high = part["completeness_high"].fill_null(pl.Series(value)).to_numpy()
        axes.errorbar(
            np.asarray(places)[chosen],
            value,
            yerr=np.stack([np.maximum(value - low, 0), np.maximum(high - value, 0)]),
            fmt=marker,
            color=colour,
            mfc=colour if solid else "white",
            ms=5,
            lw=1,
            capsize=2,
            label=label if solid else None,
        )
    for place, row in zip(places, rows.iter_rows(named=True), strict=True):
        tell_at(axes, place, row["completeness"], f"{label}, {_words(row)}")
    if not (rows["status"] == OK).any():
        axes.plot([], [], marker, color=colour, mfc="white", ms=5, label=label)


def _places(rows: pl.DataFrame, axis: str, cells: list[str], shift: float) -> list[float]:
    if axis not in CONTINUOUS:
        return [cells.index(cell) + shift for cell in rows["cell"]]
    centres = []
    for low, high in rows.select("low", "high").iter_rows():
        share = 0.5 + shift
        log = _is_wide(rows)
        centres.append(low * (high / low) ** share if log else low + (high - low) * share)
    return centres


def _number_cells(axes: Axes, rows: pl.DataFrame, axis: str, cells: list[str]) -> None:
    for i, (place, n) in enumerate(zip(_places(rows, axis, cells, 0.0), rows["n"], strict=True)):
        height = 1.05 + 0.06 * (i % 2)  # neighbours on two lines: narrow cells would print over each other
        axes.text(place, height, f"{n:,}", ha="center", va="center", fontsize=7, color=GREY)
    axes.text(-0.01, 1.08 / 1.15, "n", transform=axes.transAxes, ha="right", va="center", fontsize=7, color=GREY)
    if axis in CONTINUOUS:
        for edge in {*rows["low"].to_list(), *rows["high"].to_list()}:
            axes.axvline(edge, color="#000000", alpha=0.08, lw=0.7, zorder=0)


def _is_wide(rows: pl.DataFrame) -> bool:
    """Whether an axis spans so much that only a logarithm shows it."""
    low, high = rows["low"].min(), rows["high"].max()
    return isinstance(low, float) and isinstance(high, float) and low > 0 and high / low > 20


def _colour_bar(figure: Figure, axes: Axes, drawn: object, label: str, operating_point: str) -> None:
    axes.set_title("threshold " + threshold_words(operating_point), fontsize=8, loc="left")
    bar = figure.colorbar(drawn, ax=axes)  # type: ignore[arg-type]
    bar.ax.tick_params(labelsize=8)
    bar.set_label(label, fontsize=8)
