"""What is known of each epoch of a training, from a table of any names: read once, so that the diagnosis asks plain questions."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lens_pipeline.contracts.errors import EvaluationError, first_few
from lens_pipeline.evaluation.epoch_columns import (
    LEAST_AUROC_PERCENT,
    Meaning,
    Reading,
    is_not_finite,
    meaning_of,
    reading_of,
    scaled,
    scales_of,
)


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
    are fractions, numbers with a percent sign, or per cent where a column has one above 1 without a sign. A number given as text
    tells by its decimals how far it was rounded. Rows of one epoch that tell of other columns each are one, as where training and
    validation were logged apart.

    Raises
    ------
    EvaluationError
        If there is no row, or no column that a diagnosis could use; if two columns tell of the same, or an epoch stands there
        twice with the same columns; if an AUROC is no share, or a column of rates may be shares as well as per cent; or if no
        ranking has an epoch's AUROC and FPR.
    """
    table = list(rows)
    meant = {str(name): meaning_of(str(name)) for row in table for name in row}
    if not table or not set(meant.values()) - {"epoch", None}:
        raise EvaluationError(
            f"{len(table):,} rows with the columns {first_few([*meant]) if meant else 'none'}: nothing of them tells of a "
            "training. Wanted are an epoch and losses, val_auroc, TPR@1e-4, FPR@TPR50, n_neg or n_eval; docs/evaluation.md lists "
            "the names."
        )
    known = {name: meaning for name, meaning in meant.items() if meaning}
    told = _joined([{str(name): value for name, value in row.items() if str(name) in known} for row in table], known)
    _refuse_doubles(told, known)
    readings = [{name: found for name, value in row.items() if (found := reading_of(value))} for row in told]
    scales = scales_of(readings, known)
    records = []
    contradicted = []
    for place, (row, read) in enumerate(zip(told, readings, strict=True)):
        not_finite = tuple(name for name, value in row.items() if is_not_finite(value))
        records.append(_record(place, scaled(read, known, scales), not_finite))
        # As text a number tells how far it was rounded.
        as_text = {name: found for name in read if (found := reading_of(str(row[name])))}
        if words := _contradiction(scaled(as_text, known, scales)):
            contradicted.append(f"epoch {records[-1].epoch}: {words}")
    _refuse_wrong(records)
    if contradicted:
        raise EvaluationError(
            f"{len(contradicted):,} of {len(records):,} epochs have an FPR that their AUROC contradicts: "
            f"{first_few(contradicted)}. A number without a percent sign in a column that never exceeds 1 is read as a share. "
            "Next: write a percent sign behind the FPRs if they are per cent, else mend or leave out what is wrong."
        )
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


def _contradiction(row: Mapping[Meaning, Reading]) -> str:
    """Say which FPR no ranking of that AUROC has, beyond rounding; empty where there is none.

    The greatest area of a ROC curve whose FPR is f where TPR first reaches t is 1 - f (1 - t) / 2: lenses up to t stand above
    all negatives, and the others tie with the share f of them. Without ties it is 1 - f (1 - t).
    """
    auroc = row.get("auroc")
    for meaning, fpr in row.items():
        if auroc is None or not isinstance(meaning, tuple) or meaning[0] != "fpr":
            continue
        greatest = 1 - max(0.0, fpr.value - fpr.rounding) * (1 - meaning[1]) / 2
        if auroc.value - auroc.rounding > greatest:
            at = f"FPR {fpr.value:g} at TPR {meaning[1]:g}"
            return f"{at}, with which an AUROC is at most {greatest:.4g}, and it is {auroc.value:.4g}"
    return ""


def _joined(rows: Sequence[Mapping[str, Any]], meant: Mapping[str, Meaning]) -> list[dict[str, Any]]:
    """Join rows of an epoch that no column tells of twice; what tells nothing is left out."""
    joined: list[dict[str, Any]] = []
    of_epoch: dict[float, dict[str, Any]] = {}
    for row in rows:
        said = {name: value for name, value in row.items() if reading_of(value) or is_not_finite(value)}
        epochs = [name for name in said if meant[name] == "epoch"]
        at = reading_of(said[epochs[0]]) if epochs else None
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
            if reading_of(value):
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
            f"{LEAST_AUROC_PERCENT} and 100 where the whole column is in per cent. Mend the column, or leave it out."
        )
