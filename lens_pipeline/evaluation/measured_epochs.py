"""What is known of each epoch of a training from the scores themselves."""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_pipeline.contracts.errors import EvaluationError, first_few
from lens_pipeline.evaluation.epoch_columns import Reading
from lens_pipeline.evaluation.epoch_records import EpochRecord
from lens_pipeline.evaluation.likelihood_metrics import log_losses
from lens_pipeline.evaluation.score_health import ranking_of, score_health
from lens_pipeline.splits.assignment import KNOWN_LENS, SPLITS, TEST, TRAIN, WITHHELD

_FPRS, _TPRS = np.array([1e-1, 1e-2, 1e-3, 1e-4, 1e-5]), np.array([0.5, 0.7, 0.85])
# Of other pipelines too.
_KNOWN_SPLITS = (*SPLITS, KNOWN_LENS, WITHHELD, "val", "validation")
# Test is read through the frozen operating point alone and withheld rows may be of it; known lenses are labelled as controls.
_LEFT_OUT = (TEST, KNOWN_LENS, WITHHELD)
# A stamp is seldom listed more often. Single-precision scores of two classes meet by chance, but few do.
_MOST_REPEATS, _ONE_CLASS = 10, 0.9
# Distinct scores of a stretch over which scores are taken to be as dense everywhere, and most of such stretches.
_STRETCH, _STRETCHES = 100, 1000


def records_of_scores(table: pl.DataFrame, *, n_split: int | None = None) -> list[EpochRecord]:
    """Measure each epoch of a table of scores.

    Parameters
    ----------
    table : polars.DataFrame
        `label` (0 is no lens), `logit`; `epoch` where there are several; `split` where rows of `train` stand beside others,
        those of `test`, `known_lens` and `withheld` are left out; `pixel_hash` or `task_id` where stamps may be listed more
        than once: each counts once.
    n_split : int, optional
        Rows that the evaluated split has.

    Raises
    ------
    EvaluationError
        If there is no row, or an epoch has none but those of `train` and of splits that are left out; or if a score is not
        finite, or a split is null or has another name than ours, val or validation.
    """
    if table.is_empty():
        raise EvaluationError("the table of scores has no row: nothing can be measured. Give scores of evaluated rows.")
    _refuse_unknown_splits(table)
    if "epoch" not in table.columns:
        table = table.with_columns(epoch=pl.lit(0))
    return [_measured(int(epoch), rows, n_split) for (epoch,), rows in sorted(table.group_by("epoch"))]


def _measured(epoch: int, rows: pl.DataFrame, n_split: int | None) -> EpochRecord:
    left_out, training, listed = _by_use(rows)
    if listed.is_empty():
        only = rows["split"].unique(maintain_order=True).to_list()
        raise EvaluationError(
            f"epoch {epoch}: all {rows.height:,} rows are of the {'split' if len(only) == 1 else 'splits'} {first_few(only)}, "
            f"and none of {', '.join((TRAIN, *_LEFT_OUT))} tells a metric of unseen rows (docs/evaluation.md says why). Give "
            "scores of a validation split as well."
        )
    unseen = _each_stamp_once(listed)
    logit = unseen["logit"].cast(pl.Float64).to_numpy()
    is_lens = (unseen["label"] > 0).to_numpy()
    health = score_health(logit, is_lens)
    ranking = ranking_of(logit, is_lens, _FPRS, _TPRS)
    losses = _losses(logit, is_lens, health.are_probabilities)
    seen = _losses(
        training["logit"].cast(pl.Float64).to_numpy(), (training["label"] > 0).to_numpy(), health.are_probabilities
    )
    both = health.n_positives > 0 and health.n_negatives > 0
    return EpochRecord(
        epoch=epoch,
        train_loss=float(seen.mean()) if seen.size else None,
        val_loss=float(losses.mean()) if losses.size else None,
        val_loss_se=float(losses.std(ddof=1) / np.sqrt(losses.size)) if losses.size > 1 else None,
        auroc=float(ranking["auroc"][0]) if both else None,
        n_negatives=health.n_negatives,
        n_positives=health.n_positives,
        n_evaluated=listed.height,
        n_split=n_split,
        distinct_share=health.distinct_share,
        extreme_share=health.extreme_share,
        chance_ties=0.0 if health.are_probabilities else _chance_ties(logit),
        top_negatives=health.top_negatives,
        top_positives=health.top_positives,
        negatives_above_lenses=int((logit[~is_lens] > logit[is_lens].max()).sum()) if both else None,
        may_be_repeats="pixel_hash" not in unseen.columns and _may_be_repeats(logit, is_lens),
        repeated_rows=listed.height - unseen.height,
        left_out_rows=dict(left_out.group_by("split", maintain_order=True).len().iter_rows())
        if left_out.height
        else {},
        tpr_at={fpr: Reading(float(v)) for fpr, v in zip(_FPRS.tolist(), ranking["tpr"], strict=True)} if both else {},
        fpr_at={tpr: Reading(float(v)) for tpr, v in zip(_TPRS.tolist(), ranking["fpr"], strict=True)} if both else {},
    )


def _refuse_unknown_splits(table: pl.DataFrame) -> None:
    if "split" not in table.columns:
        return
    split = table["split"].cast(pl.String)
    unknown = split.filter(~split.is_in(_KNOWN_SPLITS).fill_null(False))
    if not unknown.is_empty():
        names = unknown.fill_null("null").unique(maintain_order=True).to_list()
        raise EvaluationError(
            f"{unknown.len():,} of {table.height:,} rows are of a split that isn't known: {first_few(names)}. Known are "
            f"{', '.join(_KNOWN_SPLITS)}; whether others were trained on, or are of test, can't be told. Rename them, or leave "
            "these rows out."
        )


def _by_use(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Rows that are left out, of train, and the others, which are the ones to measure."""
    if "split" not in rows.columns:
        return rows.clear(), rows.clear(), rows
    left_out, of_train = pl.col("split").is_in(_LEFT_OUT), pl.col("split") == TRAIN
    return rows.filter(left_out), rows.filter(of_train), rows.filter(~left_out & ~of_train)


def _each_stamp_once(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows without those that repeat another's stamp, class and score, by what identifies a stamp; a null identifies none."""
    key = next((name for name in ("pixel_hash", "task_id") if name in rows.columns), None)
    if key is None:
        return rows
    first = rows.select(pl.col(key).is_null() | pl.struct(key, "label", "logit").is_first_distinct())
    return rows.filter(first.to_series())


def _may_be_repeats(logit: npt.NDArray[np.float64], is_lens: npt.NDArray[np.bool_]) -> bool:
    """Whether scores stand a few times each, and hardly ever in both classes, as those of repeated stamps do."""
    _, sizes = np.unique(logit, return_counts=True)
    of_a_class = np.unique(logit[is_lens]).size + np.unique(logit[~is_lens]).size
    return bool(sizes.max() <= _MOST_REPEATS and sizes.size >= _ONE_CLASS * of_a_class)


def _chance_ties(logit: npt.NDArray[np.float64]) -> float:
    """Share of rows that tie by chance alone, as sound scores do where there are about as many rows as single-precision numbers.

    Of n rows dealt at random to m numbers m (1 - exp(-n / m)) numbers are taken. Where d are taken, more rows than
    n = -m log(1 - d / m) tie for another reason. 0 where scores have more digits than single precision.
    """
    with np.errstate(over="ignore"):
        single = logit.astype(np.float32)
    if not np.array_equal(logit, single):
        return 0.0
    # The bits of floats of one sign are ordered as they are, so that a difference counts the numbers in between.
    bits = single.view(np.int32).astype(np.int64)
    taken, rows = np.unique(np.where(bits < 0, -(bits & 0x7FFFFFFF), bits), return_counts=True)
    n_stretches = int(np.clip(taken.size // _STRETCH, 1, _STRETCHES))
    edges = np.linspace(0, taken.size, n_stretches + 1).astype(np.int64)
    there = np.diff(np.append(taken, taken[-1] + 1)[edges])
    distinct, listed = np.diff(edges), np.add.reduceat(rows, edges[:-1])
    expected = -there * np.log1p(-np.minimum(distinct / there, 1 - 0.5 / there))
    return float(np.clip(np.minimum(expected, listed) - distinct, 0, None).sum() / logit.size)


def _losses(scores: Any, is_lens: Any, are_probabilities: bool) -> Any:
    if not are_probabilities:
        return log_losses(scores, is_lens)
    p = np.clip(np.where(is_lens, scores, 1 - scores), 1e-12, 1.0)
    return -np.log(p)
