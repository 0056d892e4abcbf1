"""Figures of the realism report, drawn from its tables and its sample of stamps."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lens_pipeline.survey.gallery import colour, figure_png
from lens_pipeline.survey.realism_measures import Sample
from lens_pipeline.survey.stamp_pairs import Row

# Colours of Okabe & Ito (2008); datasets differ by the line, so that the figure needs no colour to be read.
_COLOURS = ("#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00")
_COLUMNS = 8
_TICKS = (-4, 0, 4, 10, 100, 1000)
_SMALL = 1e3


def curves_png(curves: Sequence[Row], lines: Sequence[Row], ours: str) -> bytes:
    """Draw noise power, pixel histogram and noise per pixel, by band: ours solid, the other dataset dashed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 3.3), dpi=100, layout="constrained")
    power, histogram, noise = figure.subplots(1, 3)
    bands = list(dict.fromkeys(row["band"] for row in curves))
    for of in dict.fromkeys(row["of"] for row in curves):
        for band, tint in zip(bands, _COLOURS * len(bands), strict=False):
            style: dict[str, Any] = {"color": tint, "linestyle": "-" if of == ours else "--", "linewidth": 1.3}
            for axes, name in ((power, "noise_power"), (histogram, "pixel_histogram")):
                mine = [row for row in curves if (row["curve"], row["band"], row["of"]) == (name, band, of)]
                edges = [*(row["low_x"] for row in mine), *(row["high_x"] for row in mine[-1:])]
                per = 1.0 if name == "noise_power" else np.diff(edges)
                value = np.array([row["value"] for row in mine]) / per
                label = f"{band}, {of}" if axes is power else None
                axes.stairs(value, edges, label=label, baseline=None, **style)
                if all(row["low"] is not None for row in mine):
                    low, high = (np.array([row[end] for row in mine]) / per for end in ("low", "high"))
                    axes.fill_between(
                        edges, [*low, *low[-1:]], [*high, *high[-1:]], step="post", color=tint, alpha=0.2, lw=0
                    )
    power.set(xlabel="cycles a pixel", ylabel="noise power over its mean", yscale="log")
    if curves:
        power.legend(frameon=False, fontsize=7)
    histogram.set(xlabel="pixel [sigma above the sky]", ylabel="share of pixels per sigma", yscale="log")
    histogram.set_xscale("symlog", linthresh=4)
    histogram.set_xticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
    shown = [row for row in lines if row["metric"] == "noise_sigma" and row["value"] is not None]
    for place, row in enumerate(shown):
        tint = _COLOURS[bands.index(row["band"]) % len(_COLOURS)]
        width = 0.0 if row["low"] is None else (row["high"] - row["low"]) / 2
        value, width = _SMALL * row["value"], _SMALL * width
        noise.errorbar(value, place, xerr=width, fmt="o" if row["of"] == ours else "s", color=tint, ms=5, capsize=2)
    noise.set_yticks(range(len(shown)), [f"{row['band']}, {row['of']}" for row in shown], fontsize=7)
    noise.invert_yaxis()
    noise.set(xlabel="noise per pixel [0.001 of the flux unit]")
    noise.set_xlim(left=0)
    for axes in (power, histogram, noise):
        axes.spines[["top", "right"]].set_visible(False)
    return figure_png(figure)


def stamps_png(samples: Sequence[Sample]) -> bytes:
    """Draw controls of each dataset side by side, all on one colour scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 1.45 * len(samples)), dpi=100, layout="constrained")
    for axes_row, sample in zip(figure.subplots(len(samples), _COLUMNS, squeeze=False), samples, strict=True):
        axes_row[0].set_ylabel(sample.name, fontsize=8)
        for place, axes in enumerate(axes_row):
            axes.set_xticks([])
            axes.set_yticks([])
            if place < len(sample.pixels):
                axes.imshow(colour(sample.pixels[place]), origin="lower", interpolation="nearest")
    return figure_png(figure)
