"""The figures of an evaluation as PNG bytes, drawn from published tables and scored rows.

Every axis names its unit; colours are those of Okabe & Ito (2008), and marks differ in shape too.
"""

import io
import math
from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lens_pipeline.evaluation.cells import ARC_SNR, CONTINUOUS, HELD_OUT, LENS_MODEL, PSF, SOURCE, THETA_E
from lens_pipeline.evaluation.ranking import RocCurve
from lens_pipeline.evaluation.wording import threshold_words

CONTROL_COLOUR, LENS_COLOUR = "#0072B2", "#D55E00"
_POINT_STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v"))
_AXIS_LABELS = {
    THETA_E: "Einstein radius (arcsec)",
    PSF: "seeing in r, FWHM (arcsec)",
    ARC_SNR: "signal-to-noise of the arc's brightest pixel in r",
    LENS_MODEL: "lens model",
    SOURCE: "source",
    HELD_OUT: "lenses and sources like it",
}
_GREY = "#555555"
DPI = 110


def roc_png(
    curve: RocCurve | None, points: pl.DataFrame, smallest_resolvable_fpr: float | None, n_galaxies_needed: int
) -> bytes:
    """Draw the ROC of test on a logarithmic FPR axis, what its controls can't resolve shaded.

    Parameters
    ----------
    curve : RocCurve or None
        None where a class is empty.
    points : polars.DataFrame
        Frozen thresholds on test: operating_point, fpr, fpr_low, fpr_high, recall, recall_low, recall_high; nulls allowed.
    smallest_resolvable_fpr : float or None
        Of the curve; None if it resolves no rate.
    n_galaxies_needed : int
        Galaxies with a false positive that make a rate resolved.
    """
    figure, axes = _figure(6.4, 4.0)
    if curve is None:
        return figure_png(_say(figure, axes, "a class is empty: there is no ROC"))
    n = int(curve.false_positives[-1])
    left = 0.4 / n
    limit = 1.0 if smallest_resolvable_fpr is None else smallest_resolvable_fpr
    axes.axvspan(left, limit, color="#000000", alpha=0.07, lw=0)
    words = f"false positives from fewer than\n{n_galaxies_needed} galaxies: not resolved"
    white = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5}
    axes.text(left * 1.1, 0.12, words, fontsize=7.5, color=_GREY, va="bottom", bbox=white)
    axes.step(np.maximum(curve.fpr, left), curve.tpr, where="post", color="black", lw=1.3)
    chance = np.geomspace(left, 1, 100)
    axes.plot(chance, chance, color=_GREY, lw=0.8, ls=":")
    for (colour, marker), point in zip(_styles(points.height), points.iter_rows(named=True), strict=True):
        if point["fpr"] is None or point["recall"] is None:
            continue
        axes.errorbar(
            max(point["fpr"], left * 1.4),
            point["recall"],
            xerr=_spread(max(point["fpr"], left * 1.4), point["fpr_low"], point["fpr_high"]),
            yerr=_spread(point["recall"], point["recall_low"], point["recall_high"]),
            fmt=marker,
            color=colour,
            ms=5,
            lw=1,
            label="threshold " + threshold_words(point["operating_point"]),
        )
    axes.set(xscale="log", xlim=(left, 1), ylim=(0, 1.02))
    axes.xaxis.set_major_formatter(_plain_ticks)
    axes.set(xlabel="false-positive rate on test (fraction of controls)", ylabel="true-positive rate (fraction)")
    if axes.get_legend_handles_labels()[0]:
        _legend_above(figure, axes)
    return figure_png(figure)


def histogram_png(rows: pl.DataFrame, points: pl.DataFrame) -> bytes:
    """Draw the logits of each class on test, with the frozen thresholds.

    Parameters
    ----------
    rows : polars.DataFrame
        `logit` and `is_lens`.
    points : polars.DataFrame
        `operating_point` and `threshold`.
    """
    figure, axes = _figure(6.4, 3.2)
    logits = rows["logit"].to_numpy()
    low, high = float(logits.min()), float(logits.max())
    edges = np.linspace(low, high if high > low else low + 1, 61).tolist()
    for is_lens, colour, name in ((False, CONTROL_COLOUR, "controls"), (True, LENS_COLOUR, "injected lenses")):
        mine = rows.filter(pl.col("is_lens") == is_lens)["logit"].to_numpy()
        hatch = "///" if is_lens else None
        label = f"{name} (n = {mine.size:,})"
        axes.hist(mine, edges, histtype="stepfilled", fc=colour, alpha=0.35, ec=colour, hatch=hatch, label=label)
    for i, point in enumerate(points.drop_nulls("threshold").iter_rows(named=True)):
        words = "threshold " + threshold_words(point["operating_point"])
        axes.axvline(point["threshold"], color=_GREY, lw=1, ls=("--", "-.", ":", "-")[i % 4], label=words)
    axes.set(xlabel="score: logit, the log-odds of a lens (no unit)", ylabel="stamps per bin")
    axes.set_yscale("symlog", linthresh=10)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(_plain_ticks)
    _legend_above(figure, axes)
    return figure_png(figure)


def completeness_png(table: pl.DataFrame, axis: str) -> bytes:
    """Draw completeness along one axis with 95 % intervals and n; cells with few effective injections are hollow.

    Parameters
    ----------
    table : polars.DataFrame
        COMPLETENESS, with a cell of this axis that can be drawn (`why_not_drawn`).
    """
    figure, axes = _figure(6.4, 3.4)
    mine = _drawable(table, axis)
    names = mine["operating_point"].unique(maintain_order=True).to_list()
    cells = mine["cell"].unique(maintain_order=True).to_list()
    for i, (name, (colour, marker)) in enumerate(zip(names, _styles(len(names)), strict=True)):
        rows = mine.filter(pl.col("operating_point") == name)
        shift = (i - (len(names) - 1) / 2) * 0.12
        _curve(axes, rows, _places(rows, axis, cells, shift), colour, marker, "threshold " + threshold_words(name))
    _number_cells(axes, mine.filter(pl.col("operating_point") == names[0]), axis, cells)
    if axis not in CONTINUOUS:
        axes.set_xticks(range(len(cells)), cells)
        axes.set_xlim(-0.6, len(cells) - 0.4)
    elif _is_wide(mine):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(_plain_ticks)
    axes.set(xlabel=_AXIS_LABELS[axis], ylabel="completeness (fraction)", ylim=(0, 1.15), yticks=np.linspace(0, 1, 6))
    _legend_above(figure, axes)
    return figure_png(figure)


def why_not_drawn(table: pl.DataFrame, axis: str) -> str | None:
    """Say why no cell of an axis of COMPLETENESS can be drawn, as where the axis is null throughout; None where one can."""
    if not _drawable(table, axis).is_empty():
        return None
    why = table.filter(pl.col("axis") == axis)["reason"].drop_nulls()
    return str(why[0]) if why.len() else f"{axis} was not counted"


def history_png(histories: Sequence[pl.DataFrame]) -> bytes:
    """Draw loss on train and val_select, and AUROC on val_select, epoch by epoch.

    Parameters
    ----------
    histories : sequence of polars.DataFrame
        HISTORY of each model that made the scores.
    """
    figure = Figure(figsize=(6.4, 2.7), dpi=DPI, layout="constrained")
    losses, areas = figure.subplots(1, 2)
    labels = {"train_loss": "train (augmented)", "val_loss": "val_select"}
    for history in histories:
        epochs = history["epoch"].to_numpy() + 1
        losses.plot(
            epochs, history["train_loss"], "o-", color=CONTROL_COLOUR, ms=3, lw=1, label=labels.pop("train_loss", None)
        )
        losses.plot(
            epochs, history["val_loss"], "s--", color=LENS_COLOUR, ms=3, lw=1, label=labels.pop("val_loss", None)
        )
        area = history["val_auroc"].cast(pl.Float64).fill_null(np.nan)
        areas.plot(epochs, area, "s--", color=LENS_COLOUR, ms=3, lw=1)
    losses.set(xlabel="epoch", ylabel="loss (nats per stamp)")
    losses.legend(fontsize=7.5, frameon=False)
    areas.set(xlabel="epoch", ylabel="AUROC on val_select (fraction)")
    for axes in (losses, areas):
        tidy(axes)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure_png(figure)


def _drawable(table: pl.DataFrame, axis: str) -> pl.DataFrame:
    mine = table.filter((pl.col("axis") == axis) & pl.col("completeness").is_not_null())
    return mine.filter(pl.col("low").is_not_null()) if axis in CONTINUOUS else mine


def _curve(axes: Axes, rows: pl.DataFrame, places: list[float], colour: str, marker: str, label: str) -> None:
    for solid in (True, False):
        chosen = ((rows["status"] == "ok") == solid).to_numpy()
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
    if not (rows["status"] == "ok").any():
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
        axes.text(place, height, f"{n:,}", ha="center", va="center", fontsize=7, color=_GREY)
    axes.text(-0.01, 1.08 / 1.15, "n", transform=axes.transAxes, ha="right", va="center", fontsize=7, color=_GREY)
    if axis in CONTINUOUS:
        for edge in {*rows["low"].to_list(), *rows["high"].to_list()}:
            axes.axvline(edge, color="#000000", alpha=0.08, lw=0.7, zorder=0)


def _is_wide(rows: pl.DataFrame) -> bool:
    """Whether an axis spans so much that only a logarithm shows it."""
    low, high = rows["low"].min(), rows["high"].max()
    return isinstance(low, float) and isinstance(high, float) and low > 0 and high / low > 20


def _spread(value: float, low: float | None, high: float | None) -> list[list[float]] | None:
    if low is None or high is None:
        return None
    return [[max(value - low, 0.0)], [max(high - value, 0.0)]]


def _styles(n: int) -> list[tuple[str, str]]:
    return (list(_POINT_STYLES) * math.ceil(n / len(_POINT_STYLES)))[:n]


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    tidy(axes)
    return figure, axes


def tidy(axes: Axes) -> None:
    """Give axes the look that all figures share."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)


def _legend_above(figure: Figure, axes: Axes) -> None:
    """Put the legend where no data lie."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper left", fontsize=7.5, frameon=False, ncols=2 if len(labels) > 3 else 3
    )


def _plain_ticks(value: float, _place: float) -> str:
    return f"{value:g}"


def _say(figure: Figure, axes: Axes, words: str) -> Figure:
    axes.set_axis_off()
    axes.text(0.5, 0.5, words, ha="center", va="center", fontsize=9, color=_GREY, wrap=True, transform=axes.transAxes)
    return figure


def figure_png(figure: Figure) -> bytes:
    """Return the bytes of a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
