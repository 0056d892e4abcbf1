"""What is known of each epoch of a training, from a table of any names: read once, so that the diagnosis asks plain questions."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lens_pipeline.contracts.errors import EvaluationError, first_few

_NUMBER = r"(?P<at>\d*\.?\d+(?:e[-+]?\d+)?)(?P<percent>_?%)?"
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
# What a column holds: a field of `EpochRecord`, or tpr or fpr and the rate that it is taken at.
Meaning = str | tuple[str, float]
_OF_NAME: dict[str, Meaning] = {name: ours for ours, names in _NAMES.items() for name in names}
# An AUROC of a few per cent isn't met, so that one of 1.2 is no per cent but wrong.
_LEAST_AUROC_PERCENT = 10


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
    chance_ties : float
        Share of rows without a score of their own only because single precision holds few numbers for so many.
    top_negatives, top_positives : int or None
        Rows that tie at the highest score.
    negatives_above_lenses : int or None
        Negatives whose score is higher than that of every lens.
    may_be_repeats : bool
        Whether stamps that are listed more than once would explain what ties there are.
    repeated_rows : int
        Rows left out because they are the same stamp with the same score as another.
    left_out_rows : dict of int
        Rows left out because of their split, by the split: test, known_lens and withheld.
    not_finite : tuple of str
        Columns whose number is NaN or infinite; nothing else is known from them.
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
    chance_ties: float = 0.0
    top_negatives: int | None = None
    top_positives: int | None = None
    negatives_above_lenses: int | None = None
    may_be_repeats: bool = False
    repeated_rows: int = 0
    left_out_rows: Mapping[str, int] = field(default_factory=dict)
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
    its decimals how far it was rounded. Rows of one epoch that tell of other columns each are one, as where training and
    validation were logged apart.

    Raises
    ------
    EvaluationError
        If there is no row, or no column that a diagnosis could use; if two columns tell of the same, or an epoch stands there
        twice with the same columns; or if an AUROC is no share.
    """
    table = list(rows)
    meant = {str(name): _meaning(str(name)) for row in table for name in row}
    if not table or not set(meant.values()) - {"epoch", None}:
        raise EvaluationError(
            f"{len(table):,} rows with the columns {first_few([*meant]) if meant else 'none'}: nothing of them tells of a "
            "training. Wanted are an epoch and losses, val_auroc, TPR@1e-4, FPR@TPR50, n_neg or n_eval; docs/evaluation.md lists "
            "the names."
        )
    known = {name: meaning for name, meaning in meant.items() if meaning}
    told = _joined([{str(name): value for name, value in row.items() if str(name) in known} for row in table], known)
    _refuse_doubles(told, known)
    readings = [{name: found for name, value in row.items() if (found := _reading(value))} for row in told]
    scale = {name: _scale(of, [read[name].value for read in readings if name in read]) for name, of in known.items()}
    records = []
    for place, (row, read) in enumerate(zip(told, readings, strict=True)):
        not_finite = tuple(name for name, value in row.items() if _is_not_finite(value))
        scaled = {
            known[name]: Reading(found.value * scale[name], found.rounding * scale[name])
            for name, found in read.items()
        }
        records.append(_record(place, scaled, not_finite))
    _refuse_wrong(records)
    return sorted(records, key=lambda record: record.epoch)


def _record(place: int, row: Mapping[Meaning, Reading], not_finite: tuple[str, ...]) -> EpochRecord:
    plain: dict[str, Any] = {"epoch": place}
    rates: dict[str, dict[float, Reading]] = {"tpr": {}, "fpr": {}}
    for meaning, reading in row.items():
        if isinstance(meaning, tuple):
            rates[meaning[0]][meaning[1]] = reading
        else:
            whole = meaning.startswith("n_") or meaning == "epoch"
            plain[meaning] = round(reading.value) if whole else reading.value
    return EpochRecord(**plain, tpr_at=rates["tpr"], fpr_at=rates["fpr"], not_finite=not_finite)


def _meaning(name: str) -> Meaning | None:
    """Tell what a column holds: a field of `EpochRecord`, or a rate and where it is taken; None if nothing of use."""
    plain = _plain(name)
    for rate, pattern in (("tpr", _TPR), ("fpr", _FPR)):
        if found := pattern.fullmatch(plain):
            at = float(found["at"])
            return rate, at / 100 if found["percent"] or at >= 1 else at
    return _OF_NAME.get(plain)


def _scale(meaning: Meaning, values: Sequence[float]) -> float:
    """Return what makes fractions of a column's numbers: 0.01 where they are per cent, else 1."""
    if meaning == "auroc":
        return 0.01 if min(values, default=0) >= _LEAST_AUROC_PERCENT else 1.0
    return 0.01 if isinstance(meaning, tuple) and max(values, default=0) > 1 else 1.0


def _joined(rows: Sequence[Mapping[str, Any]], meant: Mapping[str, Meaning]) -> list[dict[str, Any]]:
    """Join rows of an epoch that no column tells of twice; what tells nothing is left out."""
    joined: list[dict[str, Any]] = []
    of_epoch: dict[float, dict[str, Any]] = {}
    for row in rows:
        said = {name: value for name, value in row.items() if _reading(value) or _is_not_finite(value)}
        epochs = [name for name in said if meant[name] == "epoch"]
        at = _reading(said[epochs[0]]) if epochs else None
        earlier = of_epoch.get(at.value) if at else None
        if earlier is not None and not (set(said) & set(earlier)) - set(epochs):
            earlier.update(said)
            continue
        joined.append(said)
        if at:
            of_epoch[at.value] = said
    return joined


def _refuse_doubles(rows: Sequence[Mapping[str, Any]], meant: Mapping[str, Meaning]) -> None:
    for row in rows:
        columns: dict[Meaning, list[str]] = {}
        for name, value in row.items():
            if _reading(value):
                columns.setdefault(meant[name], []).append(name)
        if doubles := [" and ".join(names) for names in columns.values() if len(names) > 1]:
            raise EvaluationError(
                f"columns that tell of the same: {first_few(doubles)}. Which one is meant isn't known. Leave one of them in the "
                "table; of AUROC, TPR and FPR that of unseen rows."
            )


def _refuse_wrong(records: Sequence[EpochRecord]) -> None:
    counted = Counter(record.epoch for record in records)
    if repeated := sorted(epoch for epoch, n in counted.items() if n > 1):
        raise EvaluationError(
            f"{len(repeated):,} of {len(counted):,} epochs stand in more than one row: {first_few(repeated)}. Which row counts "
            "isn't known. Leave one row of each epoch in the table, as of one training that was gone on with the later one."
        )
    if wrong := [record for record in records if record.auroc is not None and not 0 <= record.auroc <= 1]:
        shown = first_few([f"{record.auroc:g} at epoch {record.epoch}" for record in wrong])
        raise EvaluationError(
            f"{len(wrong):,} of {len(records):,} epochs have an AUROC that is no share: {shown}. It lies between 0 and 1, or "
            f"{_LEAST_AUROC_PERCENT} and 100 where the whole column is in per cent. Mend the column, or leave it out."
        )


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
