"""Reliability diagrams, drawn from published tables."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lens_pipeline.evaluation.figures import CONTROL_COLOUR, DPI, GREY, LENS_COLOUR, tell_at, tidy
from lens_pipeline.evaluation.wording import number

_STYLES = ((CONTROL_COLOUR, "o", "white"), (LENS_COLOUR, "s", LENS_COLOUR))


def reliability_figure(before: pl.DataFrame, after: pl.DataFrame) -> Figure:
    """Draw the diagrams of val_calibrate and of test side by side, the score as it is and calibrated.

    Parameters
    ----------
    before, after : polars.DataFrame
        CALIBRATION_RELIABILITY and TEST_RELIABILITY; empty where a class was missing.
    """
    figure = Figure(figsize=(6.4, 3.5), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, table, title in ((left, before, "val_calibrate, cross-validated"), (right, after, "test, frozen")):
        _diagram(axes, table, title)
    left.set_ylabel("share of lenses, at even odds", fontsize=9)
    handles, labels = max((axes.get_legend_handles_labels() for axes in (left, right)), key=lambda pair: len(pair[1]))
    if handles:
        figure.legend(handles, labels, loc="outside upper left", fontsize=7.5, frameon=False, ncols=2)
    return figure


def _diagram(axes: Axes, table: pl.DataFrame, title: str) -> None:
    tidy(axes)
    axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls="--")
    axes.set_title(title, fontsize=8)
    if table.is_empty():
        axes.text(0.5, 0.5, "too few galaxies of a class", ha="center", fontsize=8, color=GREY)
    for (colour, marker, face), method in zip(_STYLES, table["method"].unique(maintain_order=True), strict=False):
        rows = table.filter(pl.col("method") == method)
        p, observed = rows["p_mean"].to_numpy(), rows["observed"].to_numpy()
        spread = [np.abs(rows[end].fill_null(rows["observed"]).to_numpy() - observed) for end in ("low", "high")]
        n = f"n = {rows['n'].sum():,}"
        axes.errorbar(p, observed, yerr=spread, fmt=marker, color=colour, mfc=face, ms=4, lw=1, capsize=2, label=method)
        axes.set_title(f"{title}, {n}", fontsize=8)
        for row in rows.iter_rows(named=True):
            share = number(row["observed"], row["low"], row["high"])
            told = f"{method}: stated {row['p_mean']:.3f}, share of lenses {share}, {row['n']:,} rows"
            tell_at(axes, row["p_mean"], row["observed"], told)
    axes.set(xlabel="stated probability, at even odds", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.xaxis.label.set_fontsize(9)
