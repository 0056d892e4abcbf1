"""What is known of each epoch of a training, from a table of any names: read once, so that the diagnosis asks plain questions."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from lens_pipeline.contracts.errors import EvaluationError, first_few
from lens_pipeline.evaluation.likelihood_metrics import log_losses
from lens_pipeline.evaluation.score_health import ranking_of, score_health

_NUMBER = r"(?P<at>\d*\.?\d+(?:e[-+]?\d+)?)%?"
_TPR = re.compile(rf"tpr_?(?:at)?_?(?:fpr)?_?{_NUMBER}$")
_FPR = re.compile(rf"fpr_?(?:at)?_?(?:tpr)?_?{_NUMBER}$")
_NAMES = {
    "epoch": ("epoch",),
    "train_loss": ("train_loss", "loss", "training_loss"),
    "val_loss": ("val_loss", "validation_loss", "val_nll"),
    "val_loss_se": ("val_loss_se",),
    "auroc": ("val_auroc", "auroc", "auc", "val_auc", "roc_auc"),
    "n_negatives": ("n_neg", "n_negatives", "n_controls"),
    "n_positives": ("n_pos", "n_positives", "n_lenses"),
    "n_evaluated": ("n_eval", "n_evaluated", "validation_rows", "eval_rows"),
    "n_split": ("n_val", "n_split", "split_rows"),
    "distinct_share": ("distinct_logit_share", "distinct_share"),
    "extreme_share": ("extreme_logit_share", "extreme_share"),
}
_OF_NAME = {name: ours for ours, names in _NAMES.items() for name in names}
_FPRS, _TPRS = np.array([1e-1, 1e-2, 1e-3, 1e-4, 1e-5]), np.array([0.5, 0.7, 0.85])


@dataclass(frozen=True)
class Reading:
    """A number as it was printed, and by how much printing may have moved it."""

    value: float
    rounding: float = 0.0


@dataclass(frozen=True)
class EpochRecord:
    """What is known of one epoch; None and empty where nothing is.

    Attributes
    ----------
    tpr_at, fpr_at : dict of Reading
        TPR by FPR, and FPR by TPR, as they were printed.
    n_evaluated, n_split : int or None
        Rows that were evaluated, and rows of the split.
    top_negatives, top_positives : int or None
        Rows that tie at the highest score.
    not_finite : tuple of str
        Columns, as `records_of_table` names them, whose number is NaN or infinite; nothing else is known from them.
    """

    epoch: int
    train_loss: float | None = None
    val_loss: float | None = None
    val_loss_se: float | None = None
    auroc: float | None = None
    n_negatives: int | None = None
    n_positives: int | None = None
    n_evaluated: int | None = None
    n_split: int | None = None
    distinct_share: float | None = None
    extreme_share: float | None = None
    top_negatives: int | None = None
    top_positives: int | None = None
    tpr_at: Mapping[float, Reading] = field(default_factory=dict)
    fpr_at: Mapping[float, Reading] = field(default_factory=dict)
    not_finite: tuple[str, ...] = ()

    @property
    def rows(self) -> int | None:
        """Rows that were evaluated, if it is said or both classes are counted."""
        if self.n_evaluated is not None or self.n_negatives is None or self.n_positives is None:
            return self.n_evaluated
        return self.n_negatives + self.n_positives

    def negatives_at(self, tpr: float) -> tuple[int, int, int] | None:
        """Negatives at or above the threshold of a TPR, as printed and the least and most that rounding leaves open."""
        reading = self.fpr_at.get(tpr)
        if reading is None or self.n_negatives is None:
            return None
        ends = [(reading.value + side * reading.rounding) * self.n_negatives for side in (-1, 0, 1)]
        return round(ends[1]), max(0, int(np.ceil(ends[0]))), int(np.floor(ends[2]))


def records_of_table(rows: Iterable[Mapping[str, Any]]) -> list[EpochRecord]:
    """Read epochs from rows of a table, ascending.

    Names are ours (`tpr_at_fpr_1e-04`, `val_loss` ...) or common ones (`TPR@1e-4`, `FPR@TPR50`, `n_neg` ...), in any case. Rates
    are fractions, numbers with a percent sign, or per cent where a column has one above 1. A number given as text tells by
    its decimals how far it was rounded.

    Raises
    ------
    EvaluationError
        If there is no row, or no column that a diagnosis could use.
    """
    table = [{_plain(str(name)): value for name, value in row.items()} for row in rows]
    names = list(dict.fromkeys(name for row in table for name in row))
    known = [name for name in names if _is_known(name)]
    if not table or set(known) <= {"epoch"}:
        raise EvaluationError(
            f"{len(table):,} rows with the columns {first_few(names) if names else 'none'}: nothing of them tells of a training. "
            "Wanted are an epoch and losses, val_auroc, TPR@1e-4, FPR@TPR50, n_neg or n_eval; docs/evaluation.md lists the names."
        )
    in_percent = {name for name in known if any((_reading(row.get(name)) or Reading(0)).value > 1 for row in table)}
    records = [_record(place, row, in_percent) for place, row in enumerate(table)]
    return sorted(records, key=lambda record: record.epoch)


def records_of_scores(table: pl.DataFrame, *, n_split: int | None = None) -> list[EpochRecord]:
    """Measure each epoch of a table of scores.

    Parameters
    ----------
    table : polars.DataFrame
        `label` (0 is no lens), `logit`; `epoch` where there are several; `split` where rows of `train` stand beside others.
    n_split : int, optional
        Rows that the evaluated split has.

    Raises
    ------
    EvaluationError
        If there is no row, or an epoch has none but those of `train`; or if a score is not finite.
    """
    if table.is_empty():
        raise EvaluationError("the table of scores has no row: nothing can be measured. Give scores of evaluated rows.")
    if "epoch" not in table.columns:
        table = table.with_columns(epoch=pl.lit(0))
    return [_measured(int(epoch), rows, n_split) for (epoch,), rows in sorted(table.group_by("epoch"))]


def _measured(epoch: int, rows: pl.DataFrame, n_split: int | None) -> EpochRecord:
    training = rows.filter(pl.col("split") == "train") if "split" in rows.columns else rows.clear()
    unseen = rows.filter(pl.col("split") != "train") if "split" in rows.columns else rows
    if unseen.is_empty():
        raise EvaluationError(
            f"epoch {epoch}: all {rows.height:,} rows are of the split train, and what was trained on tells no metric of "
            "unseen rows. Give scores of a validation split as well."
        )
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
        n_split=n_split,
        distinct_share=health.distinct_share,
        extreme_share=health.extreme_share,
        top_negatives=health.top_negatives,
        top_positives=health.top_positives,
        tpr_at={fpr: Reading(float(v)) for fpr, v in zip(_FPRS.tolist(), ranking["tpr"], strict=True)} if both else {},
        fpr_at={tpr: Reading(float(v)) for tpr, v in zip(_TPRS.tolist(), ranking["fpr"], strict=True)} if both else {},
    )


def _losses(scores: Any, is_lens: Any, are_probabilities: bool) -> Any:
    if not are_probabilities:
        return log_losses(scores, is_lens)
    p = np.clip(np.where(is_lens, scores, 1 - scores), 1e-12, 1.0)
    return -np.log(p)


def _record(place: int, row: Mapping[str, Any], in_percent: set[str]) -> EpochRecord:
    plain: dict[str, Any] = {"epoch": place}
    tpr_at: dict[float, Reading] = {}
    fpr_at: dict[float, Reading] = {}
    not_finite = tuple(name for name, value in row.items() if _is_known(name) and _is_not_finite(value))
    for name, value in row.items():
        reading = _reading(value)
        if reading is None:
            continue
        if name in _OF_NAME:
            ours = _OF_NAME[name]
            plain[ours] = round(reading.value) if ours.startswith("n_") or ours == "epoch" else reading.value
            continue
        for at, pattern in ((tpr_at, _TPR), (fpr_at, _FPR)):
            found = pattern.fullmatch(name)
            if found:
                rate = float(found["at"])
                scale = 0.01 if name in in_percent else 1.0
                at[rate / 100 if rate >= 1 else rate] = Reading(reading.value * scale, reading.rounding * scale)
    return EpochRecord(**plain, tpr_at=tpr_at, fpr_at=fpr_at, not_finite=not_finite)


def _is_known(name: str) -> bool:
    return bool(name in _OF_NAME or _TPR.fullmatch(name) or _FPR.fullmatch(name))


def _is_not_finite(value: Any) -> bool:
    """Whether a number stands there, given as one or as text, that is NaN or infinite."""
    try:
        return not np.isfinite(float(str(value).strip().removesuffix("%")))
    except ValueError:
        return False


def _plain(name: str) -> str:
    lowered = re.sub(r"[@=\s_<]+", "_", name.strip().lower().replace("@", "_at_"))
    return lowered.removeprefix("val_") if re.match(r"val_(tpr|fpr)", lowered) else lowered


def _reading(value: Any) -> Reading | None:
    """Read a number, given as one or as text, with or without a percent sign; None where there is none."""
    if value is None or value == "" or isinstance(value, bool):
        return None
    if not isinstance(value, str):
        return Reading(float(value)) if isinstance(value, int | float) and np.isfinite(value) else None
    text = value.strip().replace(",", "")
    number = text.removesuffix("%").strip()
    try:
        read = float(number)
    except ValueError:
        return None
    decimals = len(number.partition(".")[2]) if "e" not in number.lower() else None
    rounding = 0.0 if decimals is None else 0.5 * 10.0**-decimals
    scale = 0.01 if text.endswith("%") else 1.0
    return Reading(read * scale, rounding * scale) if np.isfinite(read) else None
