"""Does the model know its training rows by heart: their loss against that of rows that had no say in training, on equal terms.

Belongs here: the probe on published scores. Unlike the two losses of a training's history, both of its sides are scored by the
same weights, in eval mode, without augmentation, dropout, smoothing or weights, and at the same balance of the classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.evaluation.scored_rows import CALIBRATE, distinct_rows, galaxy_numbers
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.metrics import log_losses
from lens_pipeline.training.rows import read_rows

MEMORISATION = "training_rows_score_like_unseen_ones"
SIGMAS = 3.0
# A training loss under this share of the unseen rows' is far from them; training_did_not_overfit asks the same.
SHARE = 0.5
# Most rows of a side that are looked at: those of the lowest logical numbers, which follow a hash of the keys, and so are a
# random sample, the same each time.
CANARIES = 200_000
_SEEN, _UNSEEN = "seen", "unseen"


@dataclass(frozen=True)
class BalancedLoss:
    """Mean over classes of each class's mean negative log-likelihood, in nats.

    Attributes
    ----------
    standard_error : float or None
        Over galaxies; None where there are fewer than two.
    n_rows, n_galaxies : int
        What it rests on.
    """

    value: float
    standard_error: float | None
    n_rows: int
    n_galaxies: int


def balanced_loss(
    losses: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], galaxies: npt.NDArray[np.int64]
) -> BalancedLoss:
    """Mean loss at equal shares of the classes that there are, with its standard error over galaxies.

    A row weighs 1 / (classes x rows of its class). The variance is m / (m - 1) sum r_i^2 over m galaxies, r_i being the sum over
    a galaxy of weight x (loss - mean of its class) (Cochran 1977, Sampling Techniques, 9A).

    Parameters
    ----------
    losses, labels, galaxies : (n,) arrays
        Of each row, n > 0; galaxies by any number.
    """
    _, class_of, n_of_class = np.unique(labels, return_inverse=True, return_counts=True)
    weights = 1 / (len(n_of_class) * n_of_class[class_of])
    means = np.bincount(class_of, weights=losses) / n_of_class
    _, galaxy_of = np.unique(galaxies, return_inverse=True)
    residuals = np.bincount(galaxy_of, weights=weights * (losses - means[class_of]))
    m = len(residuals)
    return BalancedLoss(
        value=float(means.mean()),
        standard_error=float(np.sqrt(m / (m - 1) * np.sum(residuals**2))) if m > 1 else None,
        n_rows=len(losses),
        n_galaxies=m,
    )


def training_rows_score_like_unseen_ones(
    scores: Publication, classifiers: Sequence[Publication], store: Publication, splits: Publication
) -> Check:
    """Check that rows which the model was trained on don't have a far lower loss than rows of val_calibrate.

    Of several models a row counts as trained on where at least half of them were. The very same pixels of a control count once.
    Of either side at most `CANARIES` rows are looked at.

    Parameters
    ----------
    scores : Publication
        Made by these classifiers from this store and these splits.
    """
    rows = distinct_rows(_scored(scores, classifiers, store, splits))
    sides = {name: rows.filter(pl.col("side") == name) for name in (_SEEN, _UNSEEN)}
    labels = {name: set(side["label"].unique().to_list()) for name, side in sides.items()}
    if labels[_SEEN] != labels[_UNSEEN] or not labels[_SEEN]:
        held = " and ".join(f"{len(labels[name])} classes among {name} rows" for name in sides)
        return green(MEMORISATION, f"not judged: there are {held}", blocking=False)
    seen, unseen = (
        balanced_loss(side["loss"].to_numpy(), side["label"].to_numpy(), galaxy_numbers(side))
        for side in sides.values()
    )
    gap = unseen.value - seen.value
    error = _joint_error(seen, unseen)
    figures: dict[str, Any] = {
        "loss_on_training_rows": seen.value,
        "loss_on_val_calibrate": unseen.value,
        "gap": gap,
        "gap_standard_error": error,
        "n_training_rows": seen.n_rows,
        "n_val_calibrate_rows": unseen.n_rows,
    }
    words = (
        f"at equal shares of the classes the loss is {seen.value:.4f} on {seen.n_rows:,} rows that were trained on and "
        f"{unseen.value:.4f} on {unseen.n_rows:,} rows of {CALIBRATE}, {gap:+.4f}"
        + (f" (standard error over galaxies {error:.4f})" if error is not None else "")
    )
    if error is None:
        return green(
            MEMORISATION,
            f"not judged: {words}; a side has one galaxy, so its spread is unknown",
            blocking=False,
            **figures,
        )
    if gap > SIGMAS * error and seen.value < SHARE * unseen.value:
        return red(
            MEMORISATION,
            words,
            wrong=[classifier.model for classifier in classifiers],
            why="the model knows rows by heart that it was trained on: what it scores there says nothing of new galaxies, and "
            "what it learned last was these rows, not arcs",
            next_step="stop earlier (patience), raise weight_decay or dropout, choose a smaller model, or add galaxies, then "
            "dagster asset materialize --select 'lens_classifier*' -m lens_pipeline.definitions -c PRESET",
            blocking=False,
            **figures,
        )
    return green(MEMORISATION, words, blocking=False, **figures)


def _scored(
    scores: Publication, classifiers: Sequence[Publication], store: Publication, splits: Publication
) -> pl.DataFrame:
    """Return some scored rows of either side: label, loss, galaxy_id, pixel_hash, is_lens and side."""
    contract = DatasetContract.model_validate(scores.attributes["dataset_contract"])
    heads = [f"logit_{name}" for name in contract.class_names]
    there = scores.entry(f"{scores.asset}.parquet").schema or {}
    heads = heads if set(heads) <= set(there) else ["logit"]
    times_seen = np.zeros(store.attributes["n_stored"], np.int16)
    for classifier in classifiers:
        config = TrainingConfig.model_validate(classifier.attributes["config"])
        times_seen[read_rows(splits, store, config).train] += 1
    seen = pl.DataFrame({"logical": np.arange(len(times_seen)), "is_seen": 2 * times_seen >= len(classifiers)})
    side = pl.when("is_seen").then(pl.lit(_SEEN)).when(pl.col("split") == CALIBRATE).then(pl.lit(_UNSEEN))
    canaries = (
        pl.DataFrame(scores.read_table(columns=["logical", "split", "label", *heads]))
        .join(seen, on="logical", maintain_order="left")
        .with_columns(pl.col("label").cast(pl.Int64), side=side, is_lens=pl.col("label") > 0)
        .filter(pl.col("side").is_not_null())
        .sort("logical")
        .group_by("side", maintain_order=True)
        .head(CANARIES)
    )
    losses = log_losses(canaries.select(heads).to_numpy().astype(np.float64), canaries["label"].to_numpy())
    index = pl.DataFrame(store.read_table(columns=["logical", "galaxy_id", "pixel_hash"]))
    return (
        canaries.with_columns(loss=pl.Series(losses))
        .join(index, on="logical", maintain_order="left")
        .select("side", "label", "is_lens", "galaxy_id", "pixel_hash", "loss")
    )


def _joint_error(*losses: BalancedLoss) -> float | None:
    errors = [loss.standard_error for loss in losses]
    known = [error for error in errors if error is not None]
    return float(np.linalg.norm(known)) if len(known) == len(errors) else None
