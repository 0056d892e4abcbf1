"""The figures of one evaluation's scores: the ROC, the scores of each class, and how the training went."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lens_pipeline.evaluation.figures import (
    CONTROL_COLOUR,
    DPI,
    GREY,
    LENS_COLOUR,
    legend_above,
    new_figure,
    plain_ticks,
    say,
    styles,
    tell,
    tell_at,
    tidy,
)
from lens_pipeline.evaluation.wording import number, threshold_words


def roc_figure(
    curve: pl.DataFrame, points: pl.DataFrame, smallest_resolvable_fpr: float | None, n_galaxies_needed: int
) -> Figure:
    """Draw the ROC of test on a logarithmic FPR axis with its 95 % band, what its controls can't resolve shaded.

    Parameters
    ----------
    curve : polars.DataFrame
        ROC; empty where a class is.
    points : polars.DataFrame
        Frozen thresholds on test: operating_point, fpr, fpr_low, fpr_high, recall, recall_low, recall_high; nulls allowed.
    smallest_resolvable_fpr : float or None
        Of the curve; None if it resolves no rate.
    n_galaxies_needed : int
        Galaxies with a false positive that make a rate resolved.
    """
    figure, axes = new_figure(6.4, 4.0)
    if curve.is_empty():
        return say(figure, axes, "a class is empty: there is no ROC")
    left = 0.4 / curve["n_negatives"][0]
    limit = 1.0 if smallest_resolvable_fpr is None else smallest_resolvable_fpr
    axes.axvspan(left, limit, color="#000000", alpha=0.07, lw=0)
    words = f"false positives from fewer than\n{n_galaxies_needed} galaxies: not resolved"
    white = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5}
    axes.text(left * 1.1, 0.03, words, fontsize=7.5, color=GREY, va="bottom", bbox=white)
    fpr = np.maximum(curve["fpr"].to_numpy(), left)
    banded = curve.drop_nulls(["low", "high"])
    if banded.height:
        band = (banded["low"], banded["high"])
        axes.fill_between(banded["fpr"], *band, color="black", alpha=0.18, lw=0, label="95 % interval")
    axes.step(fpr, curve["tpr"], where="post", color="black", lw=1.3)
    chance = np.geomspace(left, 1, 100)
    axes.plot(chance, chance, color=GREY, lw=0.8, ls=":", label="chance")
    for at, row in zip(fpr, curve.iter_rows(named=True), strict=True):
        told = f"{row['reason']}" if row["low"] is None else "95 % interval"
        found = number(row["tpr"], row["low"], row["high"])
        tell_at(axes, at, row["tpr"], f"FPR {row['fpr']:.3g}: TPR {found}, {told}")
    # One that has no place here has no completeness either: so each looks the same in both figures.
    placed = points.drop_nulls(["fpr", "recall"])
    for (colour, marker), point in zip(styles(placed.height), placed.iter_rows(named=True), strict=True):
        _frozen(axes, point, left * 1.4, colour, marker)
    axes.set(xscale="log", xlim=(left, 1), ylim=(0, 1.02))
    axes.xaxis.set_major_formatter(plain_ticks)
    axes.set(xlabel="false-positive rate on test (fraction of controls)", ylabel="true-positive rate (fraction)")
    legend_above(figure, axes)
    return figure


def histogram_figure(rows: pl.DataFrame, points: pl.DataFrame) -> Figure:
    """Draw the logits of each class on test, with the frozen thresholds.

    Parameters
    ----------
    rows : polars.DataFrame
        `logit` and `is_lens`.
    points : polars.DataFrame
        `operating_point` and `threshold`.
    """
    figure, axes = new_figure(6.4, 3.2)
    logits = rows["logit"].to_numpy()
    low, high = float(logits.min()), float(logits.max())
    edges = np.linspace(low, high if high > low else low + 1, 61)
    heights = []
    for is_lens, colour, name in ((False, CONTROL_COLOUR, "controls"), (True, LENS_COLOUR, "injected lenses")):
        mine = rows.filter(pl.col("is_lens") == is_lens)["logit"].to_numpy()
        # Not the figure's alpha: a browser would lay it over fill, edge and hatch together, and lose the latter two.
        fill = (colour, 0.35)
        hatch = "///" if is_lens else None
        label = f"{name} (n = {mine.size:,})"
        counted, _, _ = axes.hist(
            mine, edges.tolist(), histtype="stepfilled", fc=fill, ec=colour, lw=0.7, hatch=hatch, label=label
        )
        heights.append(np.asarray(counted).astype(int))
    for i, point in enumerate(points.drop_nulls("threshold").iter_rows(named=True)):
        words = "threshold " + threshold_words(point["operating_point"])
        axes.axvline(point["threshold"], color=GREY, lw=1, ls=("--", "-.", ":", "-")[i % 4], label=words)
    axes.set(xlabel="score: logit, the log-odds of a lens (no unit)", ylabel="stamps per bin")
    axes.set_yscale("symlog", linthresh=10)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(plain_ticks)
    for start, end, controls, lenses in zip(edges[:-1], edges[1:], *heights, strict=True):
        words = f"logit {start:.2f} to {end:.2f}: {controls:,} controls, {lenses:,} injected lenses"
        tell(axes.axvspan(start, end, color="black", alpha=0.0, lw=0), words)
    legend_above(figure, axes)
    return figure


def history_figure(histories: Sequence[pl.DataFrame]) -> Figure:
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
        for name, colour, style in (("train_loss", CONTROL_COLOUR, "o-"), ("val_loss", LENS_COLOUR, "s--")):
            losses.plot(epochs, history[name], style, color=colour, ms=3, lw=1, label=labels.pop(name, None))
            _tell_epochs(losses, epochs.tolist(), history[name], f"{name.replace('_', ' ')}, nats per stamp")
        area = history["val_auroc"].cast(pl.Float64).fill_null(np.nan)
        areas.plot(epochs, area, "s--", color=LENS_COLOUR, ms=3, lw=1)
        _tell_epochs(areas, epochs.tolist(), history["val_auroc"], "AUROC on val_select")
    losses.set(xlabel="epoch", ylabel="loss (nats per stamp)")
    losses.legend(fontsize=7.5, frameon=False)
    areas.set(xlabel="epoch", ylabel="AUROC on val_select (fraction)")
    for axes in (losses, areas):
        tidy(axes)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _frozen(axes: Axes, point: dict[str, float], least: float, colour: str, marker: str) -> None:
    """Mark the rates that a frozen threshold reaches, with their intervals."""
    at = max(point["fpr"], least)
    words = "threshold " + threshold_words(str(point["operating_point"]))
    axes.errorbar(
        at,
        point["recall"],
        xerr=_spread(at, point["fpr_low"], point["fpr_high"]),
        yerr=_spread(point["recall"], point["recall_low"], point["recall_high"]),
        fmt=marker,
        color=colour,
        ms=5,
        lw=1,
        label=words,
    )
    rates = [number(point[name], point[f"{name}_low"], point[f"{name}_high"]) for name in ("fpr", "recall")]
    tell_at(axes, at, point["recall"], f"{words}: FPR {rates[0]}, lenses found {rates[1]}")


def _tell_epochs(axes: Axes, epochs: list[int], values: pl.Series, what: str) -> None:
    for epoch, value in zip(epochs, values, strict=True):
        if value is not None:
            tell_at(axes, epoch, value, f"epoch {epoch}: {value:.4g}, {what}")


def _spread(value: float, low: float | None, high: float | None) -> list[list[float]] | None:
    if low is None or high is None:
        return None
    return [[max(value - low, 0.0)], [max(high - value, 0.0)]]
