"""Whether scores tie at the top, so that a rate has no threshold and prints as 0 while lenses still rank above controls."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lens_pipeline.evaluation.epoch_records import EpochRecord
from lens_pipeline.evaluation.findings import SATURATION, Finding, Verdict

# A rate that fell from this to exactly 0 did not fall little by little: ties did it, or negatives above every lens.
_WAS_FOUND = 0.05
_INTACT_TPR, _INTACT_LOSS_OF_AUROC, _INTACT_FPR = 0.5, 0.02, 0.05
_FEW_DISTINCT = 0.9
# A rate that allows fewer negatives falls to 0 by chance.
_RESOLVED_NEGATIVES = 5
_TIED_NEGATIVES, _TIED_FPR = 10, 1e-3


@dataclass(frozen=True)
class Cliff:
    """An epoch in which the TPR at a resolved FPR is exactly 0 though lenses still rank above controls.

    Attributes
    ----------
    best : float
        Highest TPR at that FPR before.
    """

    record: EpochRecord
    fpr: float
    best: float

    @property
    def allowed(self) -> int | None:
        """Negatives that the FPR allows; None where their number is not given."""
        return None if self.record.n_negatives is None else _allowed(self.fpr, self.record.n_negatives)

    @property
    def by_ties(self) -> bool | None:
        """Whether ties made it; None where what is known leaves that open."""
        record, allowed = self.record, self.allowed
        if allowed is not None and record.top_negatives is not None and record.negatives_above_lenses is not None:
            if record.top_negatives > allowed:
                return None if record.may_be_repeats else True
            return record.negatives_above_lenses <= allowed
        tied = record.tied_rows
        # One block of more negatives than are allowed leaves at least so many rows without a score of their own.
        if tied == 0 or (tied is not None and allowed is not None and tied < allowed):
            return False
        return True if _few_are_distinct(record) else None

    @property
    def words(self) -> str:
        """What fell, from what, and what stands."""
        others = [
            f"{reading.value:.1%} at FPR {other:g}"
            for other, reading in sorted(self.record.tpr_at.items())
            if reading.value > 0
        ]
        standing = f" while TPR is {', '.join(others)}" if others else ""
        return f"epoch {self.record.epoch}: TPR at FPR {self.fpr:g} is exactly 0 after {self.best:.1%}{standing}"


def cliffs(records: Sequence[EpochRecord]) -> list[Cliff]:
    """Return the first fall to exactly 0 at each FPR, the loosest first."""
    found = []
    for fpr in sorted({fpr for record in records for fpr in record.tpr_at}, reverse=True):
        best = 0.0
        for before, record in zip([None, *records], records, strict=False):
            reading = record.tpr_at.get(fpr)
            if reading is None or fpr * (record.n_negatives or np.inf) < _RESOLVED_NEGATIVES:
                continue
            if reading.value == 0 and best >= _WAS_FOUND and before is not None and _is_intact(record, before):
                found.append(Cliff(record, fpr, best))
                break
            best = max(best, reading.value)
    return found


def saturation(records: Sequence[EpochRecord]) -> Finding:
    """Ask for ties at the top: shown by the scores, or by a published table where nothing in it speaks against them."""
    fallen = cliffs(records)
    proof = [line for record in records for line in (*_flat_lines(record), *_tie_lines(record))]
    proof += [line for cliff in fallen if cliff.by_ties for line in _cliff_lines(cliff)]
    undecided = [line for cliff in fallen if cliff.by_ties is None for line in _cliff_lines(cliff)]
    if proof:
        return Finding(SATURATION, Verdict.found, (*proof, *undecided, *_counts_line(records)))
    if undecided:
        undecided.append(
            "ties at the top would do that, and so would as many negatives above every lens: how many scores are distinct "
            "tells them apart (distinct_logit_share, or the scores themselves)"
        )
    undecided += [line for record in records for line in _repeat_lines(record)]
    extreme = [f"epoch {r.epoch}: {r.extreme_share:.1%} of rows have a logit beyond 16.64, where a float32 sigmoid is 1 or 0"
               for r in records if r.extreme_share is not None and r.extreme_share > 1 - _FEW_DISTINCT]  # fmt: skip
    if undecided or extreme:
        return Finding(SATURATION, Verdict.suspected, (*undecided, *extreme[-1:]))
    if not any(record.tpr_at or record.fpr_at or record.distinct_share is not None for record in records):
        return Finding(
            SATURATION, Verdict.unknown, ("neither rates at thresholds nor shares of distinct scores are given",)
        )
    return Finding(
        SATURATION,
        Verdict.not_found,
        ("no rate fell to exactly 0 by ties with the ranking intact, and no tie block is told of",),
    )


def _few_are_distinct(record: EpochRecord) -> bool:
    """Whether more scores tie than so many rows would by chance."""
    return record.distinct_share is not None and record.distinct_share + record.chance_ties < _FEW_DISTINCT


def _allowed(fpr: float, n_negatives: int) -> int:
    return int(fpr * n_negatives * (1 + 1e-9))


def _flat_lines(record: EpochRecord) -> list[str]:
    """Tell of one FPR that serves different TPRs, unless so many scores are distinct that no tie block can do it."""
    rates = sorted((tpr, reading.value) for tpr, reading in record.fpr_at.items() if reading.value > 0)
    # Of few negatives none may happen to lie between two thresholds.
    least = _TIED_NEGATIVES / record.n_negatives if record.n_negatives else _TIED_FPR
    if len(rates) < 2 or rates[0][1] != rates[-1][1] or rates[0][1] < least:
        return []
    span = rates[-1][0] - rates[0][0]
    if record.tied_rows is not None and record.tied_rows < max(_TIED_NEGATIVES, span * (record.n_positives or 0)):
        return []
    tprs = ", ".join(f"{tpr:g}" for tpr, _ in rates)
    return [
        f"epoch {record.epoch}: the FPR is {rates[0][1]:.3g} at TPR {tprs} alike, so at least {span:.0%} of the lenses tie in "
        "one block with controls: such scores are all but binary"
    ]


def _tie_lines(record: EpochRecord) -> list[str]:
    """Tell of ties that repeated rows can't be."""
    if record.may_be_repeats:
        return []
    lines = []
    if _few_are_distinct(record):
        lines.append(f"epoch {record.epoch}: {record.distinct_share:.1%} of the scores are distinct")
    if record.top_negatives is not None and record.top_negatives > 1 and record.n_negatives:
        resolved = [
            _allowed(fpr, record.n_negatives)
            for fpr in record.tpr_at
            if fpr * record.n_negatives >= _RESOLVED_NEGATIVES
        ]
        if record.top_positives or record.top_negatives > min(resolved, default=record.n_negatives):
            share = record.top_negatives / record.n_negatives
            lines.append(
                f"epoch {record.epoch}: {record.top_negatives:,} of {record.n_negatives:,} negatives and "
                f"{record.top_positives:,} lenses share the highest score, so no rate below {share:.3g} has a threshold"
            )
    return lines


def _repeat_lines(record: EpochRecord) -> list[str]:
    if not record.may_be_repeats or not _few_are_distinct(record):
        return []
    return [
        f"epoch {record.epoch}: {record.distinct_share:.1%} of the scores are distinct, and scores stand a few times each in one "
        "class: ties, or stamps that are listed more than once. A column pixel_hash tells them apart"
    ]


def _is_intact(record: EpochRecord, before: EpochRecord) -> bool:
    """Whether lenses still rank above controls in an epoch in which a rate is 0."""
    if any(reading.value >= _INTACT_TPR for reading in record.tpr_at.values()):
        return True
    if record.auroc is not None and before.auroc is not None:
        return record.auroc >= before.auroc - _INTACT_LOSS_OF_AUROC
    return any(tpr >= _INTACT_TPR and reading.value <= _INTACT_FPR for tpr, reading in record.fpr_at.items())


def _cliff_lines(cliff: Cliff) -> list[str]:
    record, allowed = cliff.record, cliff.allowed
    lines = [f"{cliff.words}: the ranking stands"]
    tpr = min(record.fpr_at, default=0.0)
    counted = record.negatives_at(tpr)
    if counted is not None and allowed is not None:
        verb = "more than" if min(counted[:2]) > allowed else "which is not surely more than"
        lines.append(
            f"epoch {record.epoch}: {_about(counted)} of {record.n_negatives:,} negatives lie at or above the threshold of TPR "
            f"{tpr:g}, {verb} the {allowed:,} that FPR {cliff.fpr:g} allows"
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
