"""How a training went, as PNG bytes: losses, areas, learning rate, gradients, speed and waiting, epoch by epoch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lens_pipeline.evaluation.figures import CONTROL_COLOUR, DPI, LENS_COLOUR, figure_png, tidy

Epochs = Sequence[Mapping[str, Any]]


def training_png(epochs: Epochs) -> bytes:
    """Draw six panels; what an epoch doesn't tell of is left out, and a panel without anything says so.

    Parameters
    ----------
    epochs : sequence of mappings
        Epochs, ascending: HISTORY with the wall-time figures of ``epoch`` events beside it.
    """
    figure = Figure(figsize=(9.6, 5.0), dpi=DPI, layout="constrained")
    axes = figure.subplots(2, 3)
    x = np.array([epoch["epoch"] for epoch in epochs]) + 1
    losses = _lines(
        axes[0, 0], x, epochs, "loss (nats per stamp)", train_loss="train (augmented)", val_loss="val_select"
    )
    error = _values(epochs, "val_loss_se")
    if losses and np.isfinite(error).any():
        middle = _values(epochs, "val_loss")
        axes[0, 0].fill_between(x, middle - error, middle + error, color=LENS_COLOUR, alpha=0.2, lw=0)
    _lines(axes[0, 1], x, epochs, "area on val_select", val_partial_auc="partial", val_auroc="whole ROC")
    _lines(axes[0, 2], x, epochs, "learning rate at the end", learning_rate="", log=True)
    _lines(axes[1, 0], x, epochs, "gradient norm, before clipping", gradient_norm="")
    _lines(axes[1, 1], x, epochs, "stamps per second", stamps_per_second="")
    _lines(
        axes[1, 2],
        x,
        epochs,
        "share of steps or their time",
        data_wait_share="waiting for data",
        clipped_share="clipped",
    )
    for panel in axes.flat:
        panel.set_xlabel("epoch")
        tidy(panel)
    return figure_png(figure)


def _lines(
    axes: Axes, x: npt.NDArray[np.int64], epochs: Epochs, label: str, *, log: bool = False, **names: str
) -> bool:
    shown = False
    for (name, words), style in zip(names.items(), _styles(len(names)), strict=True):
        values = _values(epochs, name)
        if not np.isfinite(values).any():
            continue
        axes.plot(x, values, style[1], color=style[0], ms=3, lw=1, label=words)
        shown = True
    axes.set_ylabel(label)
    if not shown:
        axes.text(0.5, 0.5, f"{label}:\nnot recorded", ha="center", va="center", fontsize=8, transform=axes.transAxes)
        axes.set_axis_off()
        return False
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if log:
        axes.set_yscale("log")
    if any(names.values()):
        axes.legend(fontsize=7.5, frameon=False)
    return True


def _styles(n: int) -> list[tuple[str, str]]:
    both = [(CONTROL_COLOUR, "o-"), (LENS_COLOUR, "s--")]
    return both if n == 2 else both[:1]


def _values(epochs: Epochs, name: str) -> npt.NDArray[np.float64]:
    return np.array([np.nan if epoch.get(name) is None else float(epoch[name]) for epoch in epochs])
