"""Why a training's metrics fell: saturation ties, a ranking collapse, overfitting, or an evaluation of a part of the rows.

Each cause is asked for on its own and answered with the numbers that it rests on. Nothing here reads files: see `epoch_records`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from lens_pipeline.evaluation.epoch_records import EpochRecord

SATURATION, COLLAPSE, OVERFITTING, PREFIX = (
    "saturation ties",
    "ranking collapse",
    "overfitting",
    "prefix evaluation",
)
# A rate that fell from this to exactly 0 did not fall by ranking: a ranking that gets worse keeps some lenses on top.
_WAS_FOUND = 0.05
_INTACT_TPR, _INTACT_LOSS_OF_AUROC, _INTACT_FPR = 0.5, 0.02, 0.05
_COLLAPSED_LOSS_OF_AUROC, _COLLAPSED_FPR = 0.1, 0.2
_FEW_DISTINCT = 0.9
# A rate that allows fewer negatives falls to 0 by chance.
_RESOLVED_NEGATIVES = 5
_TIED_NEGATIVES, _TIED_FPR = 10, 1e-3
_OVERFIT_RISE = 0.05
_ROUND_BATCHES = 50


class Verdict(StrEnum):
    """Answer to whether a cause is at work."""

    found = "found"
    suspected = "suspected"
    not_found = "not found"
    unknown = "can't be told"


@dataclass(frozen=True)
class Finding:
    """One cause, the answer, and the sentences that it rests on."""

    cause: str
    verdict: Verdict
    evidence: tuple[str, ...]


def diagnose(records: Sequence[EpochRecord]) -> list[Finding]:
    """Ask for each of the four causes.

    Parameters
    ----------
    records : sequence of EpochRecord
        Ascending; at least one.
    """
    return [_saturation(records), _collapse(records), _overfitting(records), _prefix(records)]


def _saturation(records: Sequence[EpochRecord]) -> Finding:
    """Ask for ties at the top: a rate drops to exactly 0 while the ranking stands, or one tie block serves different TPRs."""
    proof = [line for record in records for line in _tie_lines(record)]
    for fpr in sorted({fpr for record in records for fpr in record.tpr_at}, reverse=True):
        best = 0.0
        for before, record in zip([None, *records], records, strict=False):
            reading = record.tpr_at.get(fpr)
            if reading is None or fpr * (record.n_negatives or np.inf) < _RESOLVED_NEGATIVES:
                continue
            if reading.value == 0 and best >= _WAS_FOUND and before is not None and _is_intact(record, before):
                proof += _cliff_lines(record, fpr, best)
                break
            best = max(best, reading.value)
    known = any(record.tpr_at or record.fpr_at or record.distinct_share is not None for record in records)
    if proof:
        return Finding(SATURATION, Verdict.found, (*proof, *_counts_line(records)))
    extreme = [f"epoch {r.epoch}: {r.extreme_share:.1%} of rows have a logit beyond 16.64, where a float32 sigmoid is 1 or 0"
               for r in records if r.extreme_share is not None and r.extreme_share > 1 - _FEW_DISTINCT]  # fmt: skip
    if extreme:
        return Finding(SATURATION, Verdict.suspected, (extreme[-1],))
    if not known:
        return Finding(
            SATURATION, Verdict.unknown, ("neither rates at thresholds nor shares of distinct scores are given",)
        )
    return Finding(
        SATURATION,
        Verdict.not_found,
        ("no rate fell to exactly 0 with the ranking intact, and no tie block is told of",),
    )


def _tie_lines(record: EpochRecord) -> list[str]:
    lines = []
    rates = sorted((tpr, reading.value) for tpr, reading in record.fpr_at.items() if reading.value > 0)
    # Of few negatives none may happen to lie between two thresholds.
    least = _TIED_NEGATIVES / record.n_negatives if record.n_negatives else _TIED_FPR
    many = bool(rates) and rates[0][1] >= least
    if len(rates) > 1 and rates[0][1] == rates[-1][1] and many:
        tprs = ", ".join(f"{tpr:g}" for tpr, _ in rates)
        lines.append(
            f"epoch {record.epoch}: the FPR is {rates[0][1]:.3g} at TPR {tprs} alike, so at least "
            f"{rates[-1][0] - rates[0][0]:.0%} of the lenses tie in one block with controls: such scores are all but binary"
        )
    if record.distinct_share is not None and record.distinct_share < _FEW_DISTINCT:
        lines.append(f"epoch {record.epoch}: {record.distinct_share:.1%} of the scores are distinct")
    if record.top_negatives is not None and record.top_negatives > 1 and record.n_negatives:
        share = record.top_negatives / record.n_negatives
        lines.append(
            f"epoch {record.epoch}: {record.top_negatives:,} of {record.n_negatives:,} negatives and {record.top_positives:,} "
            f"lenses share the highest score, so no rate below {share:.3g} has a threshold"
        )
    return lines


def _is_intact(record: EpochRecord, before: EpochRecord) -> bool:
    """Whether lenses still rank above controls in an epoch in which a rate is 0."""
    if any(reading.value >= _INTACT_TPR for reading in record.tpr_at.values()):
        return True
    if record.auroc is not None and before.auroc is not None:
        return record.auroc >= before.auroc - _INTACT_LOSS_OF_AUROC
    return any(tpr >= _INTACT_TPR and reading.value <= _INTACT_FPR for tpr, reading in record.fpr_at.items())


def _cliff_lines(record: EpochRecord, fpr: float, best: float) -> list[str]:
    others = [
        f"{reading.value:.1%} at FPR {other:g}" for other, reading in sorted(record.tpr_at.items()) if reading.value > 0
    ]
    standing = f" while TPR is {', '.join(others)}" if others else ""
    lines = [f"epoch {record.epoch}: TPR at FPR {fpr:g} is exactly 0 after {best:.1%}{standing}: the ranking stands"]
    tpr = min(record.fpr_at, default=0.0)
    counted = record.negatives_at(tpr)
    if counted is not None and record.n_negatives is not None:
        allowed = int(fpr * record.n_negatives * (1 + 1e-9))
        verb = "more than" if min(counted[:2]) > allowed else "which is not surely more than"
        lines.append(
            f"epoch {record.epoch}: {_about(counted)} of {record.n_negatives:,} negatives lie at or above the threshold of TPR "
            f"{tpr:g}, {verb} the {allowed:,} that FPR {fpr:g} allows"
        )
    return lines


def _counts_line(records: Sequence[EpochRecord]) -> list[str]:
    """Say how many negatives lie as high as half of the lenses, epoch after epoch, where the table tells."""
    tprs = [min(record.fpr_at) for record in records if record.fpr_at]
    if not tprs:
        return []
    counted = [(record.epoch, found) for record in records if (found := record.negatives_at(min(tprs))) is not None]
    told = ", ".join(f"{_about(found)} at epoch {epoch}" for epoch, found in counted)
    return [f"negatives at or above the threshold of TPR {min(tprs):g}: {told}"] if len(counted) > 1 else []


def _about(counted: tuple[int, int, int]) -> str:
    k, least, most = counted
    return f"{k:,}" if least >= most else f"about {k:,} ({least:,} to {most:,} by rounding)"


def _collapse(records: Sequence[EpochRecord]) -> Finding:
    """Ask whether lenses no longer outrank controls: the area falls, or half of the lenses lie among many controls."""
    areas = [(record.epoch, record.auroc) for record in records if record.auroc is not None]
    lines = []
    if areas:
        best, last = max(areas, key=lambda pair: pair[1]), areas[-1]
        words = f"AUROC was {best[1]:.4g} at epoch {best[0]} and is {last[1]:.4g} at epoch {last[0]}"
        if (
            best[1] - last[1] >= _COLLAPSED_LOSS_OF_AUROC
            or max(area for _, area in areas) < 0.5 + _INTACT_LOSS_OF_AUROC
        ):
            lines.append(words)
        else:
            return Finding(COLLAPSE, Verdict.not_found, (words,))
    rates = [
        (record.epoch, min(record.fpr_at), record.fpr_at[min(record.fpr_at)].value)
        for record in records
        if record.fpr_at
    ]
    if rates:
        epoch, tpr, fpr = rates[-1]
        words = f"epoch {epoch}: {fpr:.3g} of the controls lie at or above the threshold of TPR {tpr:g}"
        if fpr >= _COLLAPSED_FPR and min(rate for *_, rate in rates) < _COLLAPSED_FPR / 2:
            lines.append(words)
        elif not lines:
            return Finding(COLLAPSE, Verdict.not_found, (f"{words}: lenses still rank above nearly all of them",))
    if not areas and not rates:
        return Finding(COLLAPSE, Verdict.unknown, ("neither an AUROC nor an FPR at a TPR is given",))
    return Finding(COLLAPSE, Verdict.found, tuple(lines))


def _overfitting(records: Sequence[EpochRecord]) -> Finding:
    """Ask whether the loss on unseen rows rises from its least while that on training rows falls on."""
    both = [
        (record.epoch, record.train_loss, record.val_loss, record.val_loss_se or 0.0)
        for record in records
        if record.train_loss is not None and record.val_loss is not None
    ]
    if not both:
        return Finding(OVERFITTING, Verdict.unknown, ("losses on training rows and on unseen rows are not both given",))
    epoch, train, val, error = both[-1]
    if len(both) == 1:
        words = f"epoch {epoch}: the loss is {train:.3g} on training rows and {val:.3g} on unseen ones"
        apart = val - train > max(3 * error, train)
        return Finding(OVERFITTING, Verdict.suspected if apart else Verdict.not_found, (words,))
    best, train_then, least, _ = min(both, key=lambda one: one[2])
    words = (
        f"from epoch {best} to {epoch} the loss on unseen rows goes from {least:.4g} to {val:.4g}, that on training rows "
        f"from {train_then:.4g} to {train:.4g}"
    )
    rises = val - least > max(_OVERFIT_RISE * abs(least), 2 * 2**0.5 * error)
    return Finding(OVERFITTING, Verdict.found if rises and train < train_then else Verdict.not_found, (words,))


def _prefix(records: Sequence[EpochRecord]) -> Finding:
    """Ask whether not every row of the split was evaluated."""
    last = records[-1]
    rows = last.rows
    if rows is None:
        return Finding(PREFIX, Verdict.unknown, ("how many rows were evaluated is not given",))
    if last.n_split is not None:
        words = f"epoch {last.epoch}: {rows:,} of the split's {last.n_split:,} rows were evaluated"
        return Finding(PREFIX, Verdict.found if rows < last.n_split else Verdict.not_found, (words,))
    whole = [(rows // size, size) for size in (1024, 512, 256, 128, 64, 32) if rows % size == 0]
    of_round_number = [
        f"{n:,} batches of {size}" for n, size in whole if n >= _ROUND_BATCHES and n % _ROUND_BATCHES == 0
    ]
    if of_round_number:
        words = (
            f"epoch {last.epoch}: {rows:,} rows were evaluated, {' or '.join(of_round_number[:3])} to the row: a split "
            "seldom ends so, a limit on batches does. How many rows the split has is not given"
        )
        return Finding(PREFIX, Verdict.suspected, (words,))
    words = f"epoch {last.epoch}: {rows:,} rows were evaluated, no whole number of round batches"
    return Finding(PREFIX, Verdict.not_found, (words,))
