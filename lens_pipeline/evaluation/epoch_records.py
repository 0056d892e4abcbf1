"""What is known of each epoch of a training, from a table of any names: read once, so that the diagnosis asks plain questions."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lens_pipeline.contracts.errors import EvaluationError, first_few

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
    negatives_above_lenses : int or None
        Negatives whose score is higher than that of every lens.
    may_be_repeats : bool
        Whether stamps that are listed more than once would explain what ties there are.
    repeated_rows : int
        Rows left out because they are the same stamp with the same score as another.
    test_rows : int
        Rows left out because they are of the split test.
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
    negatives_above_lenses: int | None = None
    may_be_repeats: bool = False
    repeated_rows: int = 0
    test_rows: int = 0
    tpr_at: Mapping[float, Reading] = field(default_factory=dict)
    fpr_at: Mapping[float, Reading] = field(default_factory=dict)
    not_finite: tuple[str, ...] = ()

    @property
    def rows(self) -> int | None:
        """Rows that were evaluated, if it is said or both classes are counted."""
        if self.n_evaluated is not None or self.n_negatives is None or self.n_positives is None:
            return self.n_evaluated
        return self.n_negatives + self.n_positives

    @property
    def tied_rows(self) -> float | None:
        """Rows that have no score of their own, less one for each tie block; infinite where only their share is known.

        None where nothing is known of ties.
        """
        if self.distinct_share is None:
            return None
        if self.distinct_share == 1:
            return 0.0
        return np.inf if self.rows is None else (1 - self.distinct_share) * self.rows

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
