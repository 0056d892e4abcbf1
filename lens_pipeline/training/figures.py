"""Pictures of a training run for people, as PNG bytes. No torch."""

import io

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure


def loss_curves(history: pa.Table, *, best_epoch: int) -> bytes:
    """Draw training and validation loss, AUROC and learning rate by epoch; the best epoch is marked.

    Parameters
    ----------
    history : pa.Table
        HISTORY.
    """
    epoch = history["epoch"].to_numpy()
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.plot(epoch, history["train_loss"].to_numpy(), "o-", label="training, augmented")
    left.plot(epoch, history["val_loss"].to_numpy(), "s-", label="val_select")
    left.set_ylabel("negative log-likelihood")
    left.set_ylim(bottom=0)
    left.legend(frameon=False, fontsize=8)
    auroc = np.array([np.nan if value is None else value for value in history["val_auroc"].to_pylist()])
    middle.plot(epoch, auroc, "s-", color="tab:orange")
    middle.set_ylabel("AUROC on val_select")
    right.plot(epoch, history["learning_rate"].to_numpy(), "o-", color="tab:grey")
    right.set_ylabel("learning rate at the epoch's end")
    right.set_yscale("log")
    for axes in (left, middle, right):
        axes.axvline(best_epoch, color="tab:green", linestyle=":", linewidth=1)
        axes.set_xlabel("epoch (dotted: best)")
        axes.xaxis.get_major_locator().set_params(integer=True)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()
