"""What a column of a table of epochs holds, how its numbers read, and in which unit they are."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
LEAST_AUROC_PERCENT = 10


@dataclass(frozen=True)
class Reading:
    """A number as it was printed, by how much printing may have moved it, and whether its percent sign is reckoned in."""

    value: float
    rounding: float = 0.0
    has_sign: bool = False


def meaning_of(name: str) -> Meaning | None:
    """Tell what a column holds: a field of `EpochRecord`, or a rate and where it is taken; None if nothing of use."""
    plain = _plain(name)
    for rate, pattern in (("tpr", _TPR), ("fpr", _FPR)):
        if found := pattern.fullmatch(plain):
            at = float(found["at"])
            return rate, at / 100 if found["percent"] or at >= 1 else at
    return _OF_NAME.get(plain)


def reading_of(value: Any) -> Reading | None:
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
    has_sign = text.endswith("%")
    scale = 0.01 if has_sign else 1.0
    return Reading(read * scale, rounding * scale, has_sign) if np.isfinite(read) else None


def is_not_finite(value: Any) -> bool:
    """Whether a number stands there, given as one or as text, that is NaN or infinite."""
    try:
        return not np.isfinite(float(str(value).strip().removesuffix("%")))
    except ValueError:
        return False


def scales_of(readings: Sequence[Mapping[str, Reading]], known: Mapping[str, Meaning]) -> dict[str, float]:
    """Return what makes fractions of each column's numbers without a percent sign.

    Raises
    ------
    EvaluationError
        If a column of rates never exceeds 1 where another one is in per cent: it may be either, and shows neither.
    """
    most: dict[str, float] = {}
    scales = {}
    for name, meaning in known.items():
        plain = [row[name].value for row in readings if name in row and not row[name].has_sign]
        scales[name] = _scale(meaning, plain)
        most[name] = max(plain, default=0.0)
    in_per_cent = [name for name, scale in scales.items() if scale != 1]
    unclear = [
        f"{name} (up to {most[name]:g})" for name, of in known.items() if isinstance(of, tuple) and 0 < most[name] <= 1
    ]
    if in_per_cent and unclear:
        never = "column of rates never exceeds" if len(unclear) == 1 else "columns of rates never exceed"
        raise EvaluationError(
            f"{len(unclear):,} {never} 1: {first_few(unclear)}, where numbers of {first_few(in_per_cent)} are in per cent. "
            "Whether these are shares or per cent can't be told, and a hundredfold lies between. Next: write a percent sign "
            "behind all numbers that are per cent, or give every rate as a fraction."
        )
    return scales


def scaled(
    row: Mapping[str, Reading], known: Mapping[str, Meaning], scales: Mapping[str, float]
) -> dict[Meaning, Reading]:
    """Return an epoch's numbers by what they mean, rates as fractions."""
    factors = {name: 1.0 if found.has_sign else scales[name] for name, found in row.items()}
    return {
        known[name]: Reading(found.value * factors[name], found.rounding * factors[name], found.has_sign)
        for name, found in row.items()
    }


def _scale(meaning: Meaning, values: Sequence[float]) -> float:
    """Return what makes fractions of a column's numbers: 0.01 where they are per cent, else 1."""
    if meaning == "auroc":
        return 0.01 if min(values, default=0) >= LEAST_AUROC_PERCENT else 1.0
    return 0.01 if isinstance(meaning, tuple) and max(values, default=0) > 1 else 1.0


def _plain(name: str) -> str:
    lowered = re.sub(r"[@=\s_<]+", "_", name.strip().lower().replace("@", "_at_"))
    return lowered.removeprefix("val_") if re.match(r"val_(tpr|fpr)", lowered) else lowered
