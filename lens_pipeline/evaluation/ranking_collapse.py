"""Whether lenses no longer outrank controls: all of them, or those at the top, where the rates that matter are read."""

from collections.abc import Sequence

import numpy as np

from lens_pipeline.evaluation.epoch_records import EpochRecord
from lens_pipeline.evaluation.findings import COLLAPSE, Finding, Verdict
from lens_pipeline.evaluation.intervals import clopper_pearson
from lens_pipeline.evaluation.saturation import Cliff, cliffs

_LOSS_OF_AUROC, _HIGH_FPR, _NO_BETTER_THAN_CHANCE = 0.1, 0.2, 0.52
_GROWTH_OF_FPR, _GROWTH_OF_LOST_AREA = 10, 3
_STANDARD_ERRORS = 3
# Without the numbers of rows no error is known: a smaller change is taken for one.
_UNCOUNTED_FPR, _UNCOUNTED_LOSS_OF_AUROC = 0.01, 0.02
# Ties of fewer rows move an area by next to nothing.
_TIES_OF_AN_AREA = 0.01


def collapse(records: Sequence[EpochRecord], ties: Finding) -> Finding:
    """Ask whether the ranking got worse, whole or at its top.

    Parameters
    ----------
    records : sequence of EpochRecord
        Ascending; at least one.
    ties : Finding
        What was found of saturation: rates that ties made look worse are no evidence of a collapse.
    """
    areas = [record for record in records if record.auroc is not None]
    rates = [record for record in records if record.fpr_at]
    fallen = cliffs(records)
    shown = [_top_line(cliff) for cliff in fallen if cliff.by_ties is False]
    area_words, has_fallen = _area(areas)
    rate_words, is_high = _rate(rates)
    turned = _inverted(areas)
    shown += [area_words] * (has_fallen or bool(turned)) + turned
    shown += [rate_words] * (is_high and (has_fallen or not areas))
    open_to_ties = [_top_line(cliff) for cliff in fallen if cliff.by_ties is None]
    last = records[-1]
    for line, ties_excluded in (_grown_rate(rates), _grown_area(areas)):
        if line is not None:
            no_ties = ties.verdict is Verdict.not_found and bool(last.tpr_at)
            (shown if ties_excluded or no_ties else open_to_ties).append(line)
    if shown:
        return Finding(COLLAPSE, Verdict.found, tuple(dict.fromkeys(shown)))
    if open_to_ties and ties.verdict is not Verdict.found:
        return Finding(COLLAPSE, Verdict.suspected, (*open_to_ties, "unless scores tie, which isn't told"))
    if areas:
        return Finding(COLLAPSE, Verdict.not_found, (area_words,))
    if rates:
        return Finding(COLLAPSE, Verdict.not_found, (f"{rate_words}: lenses still rank above nearly all of them",))
    return Finding(COLLAPSE, Verdict.unknown, ("neither an AUROC nor an FPR at a TPR is given",))


def _top_line(cliff: Cliff) -> str:
    above, allowed = cliff.record.negatives_above_lenses, cliff.allowed
    if allowed is None:
        many = f"more negatives lie above every lens than FPR {cliff.fpr:g} allows"
    else:
        n = f"at least {allowed + 1:,}" if above is None else f"{above:,}"
        many = f"{n} negatives lie above every lens, more than the {allowed:,} that FPR {cliff.fpr:g} allows"
    return f"{cliff.words}: the top of the ranking collapsed: {many}"


def _area(areas: Sequence[EpochRecord]) -> tuple[str, bool]:
    """Say what became of the AUROC, and whether it is lost."""
    read = [(record.auroc, record.epoch) for record in areas if record.auroc is not None]
    if not read:
        return "", False
    best, last = max(read, key=lambda pair: pair[0]), read[-1]
    words = f"AUROC was {best[0]:.4g} at epoch {best[1]} and is {last[0]:.4g} at epoch {last[1]}"
    return words, best[0] - last[0] >= _LOSS_OF_AUROC or best[0] < _NO_BETTER_THAN_CHANCE


def _inverted(areas: Sequence[EpochRecord]) -> list[str]:
    """Say that the last AUROC is below 0.5 by more than its error."""
    if not areas or areas[-1].auroc is None:
        return []
    last, auroc, error = areas[-1].epoch, areas[-1].auroc, _area_error(areas[-1])
    margin = _NO_BETTER_THAN_CHANCE - 0.5 if error is None else _STANDARD_ERRORS * error
    if 0.5 - auroc <= margin:
        return []
    return [
        f"epoch {last}: AUROC {auroc:.4g} is below 0.5: the scores rank the classes the wrong way round, as with swapped labels "
        f"or a sign; turned round it would be {1 - auroc:.4g}"
    ]


def _rate(rates: Sequence[EpochRecord]) -> tuple[str, bool]:
    """Say how many controls lie as high as half of the lenses, and whether that became many."""
    if not rates:
        return "", False
    read = [record.fpr_at[min(record.fpr_at)].value for record in rates]
    last, tpr = rates[-1], min(rates[-1].fpr_at)
    words = f"epoch {last.epoch}: {read[-1]:.3g} of the controls lie at or above the threshold of TPR {tpr:g}"
    return words, read[-1] >= _HIGH_FPR and min(read) < _HIGH_FPR / 2


def _grown_rate(rates: Sequence[EpochRecord]) -> tuple[str | None, bool]:
    """Say what FPR at half of the lenses grew, if tenfold and beyond counting error; and whether ties can't do it."""
    if not rates:
        return None, False
    last, tpr = rates[-1], min(rates[-1].fpr_at)
    least = min((record for record in rates if tpr in record.fpr_at), key=lambda record: record.fpr_at[tpr].value)
    low, high = least.fpr_at[tpr].value, last.fpr_at[tpr].value
    if high < _GROWTH_OF_FPR * low or high == low:
        return None, False
    counts = [(record.negatives_at(tpr), record.n_negatives) for record in (least, last)]
    (few, n_then), (many, n_now) = counts
    if few is None or many is None or n_then is None or n_now is None:
        is_beyond, ties_excluded = high >= _UNCOUNTED_FPR, last.tied_rows == 0
    else:
        is_beyond = clopper_pearson(few[2], n_then)[1] < clopper_pearson(many[1], n_now)[0]
        ties_excluded = last.tied_rows is not None and last.tied_rows < many[1] - few[2]
    words = (
        f"FPR at TPR {tpr:g} was {low:.3g} at epoch {least.epoch} and is {high:.3g} at epoch {last.epoch}: so many more "
        "controls outrank half of the lenses"
    )
    return (words if is_beyond else None), ties_excluded


def _grown_area(areas: Sequence[EpochRecord]) -> tuple[str | None, bool]:
    """Say what the AUROC lost, if what it lacks of 1 grew threefold and beyond its error; and whether ties can't do it."""
    if not areas:
        return None, False
    best, last = max(areas, key=lambda record: record.auroc or 0.0), areas[-1]
    before, now = best.auroc or 0.0, last.auroc or 0.0
    errors = _area_error(best), _area_error(last)
    if None in errors:
        margin = _UNCOUNTED_LOSS_OF_AUROC
    else:
        margin = _STANDARD_ERRORS * float(np.hypot(errors[0] or 0.0, errors[1] or 0.0))
    has_grown = 1 - now >= _GROWTH_OF_LOST_AREA * (1 - before) and before - now > margin
    words = (
        f"AUROC was {before:.4g} at epoch {best.epoch} and is {now:.4g} at epoch {last.epoch}: what it lacks of 1 grew "
        f"{(1 - now) / (1 - before) if before < 1 else np.inf:.3g}-fold"
    )
    ties_excluded = last.distinct_share is not None and last.distinct_share >= 1 - _TIES_OF_AN_AREA
    return (words if has_grown else None), ties_excluded


def _area_error(record: EpochRecord) -> float | None:
    """Return the standard error of an AUROC (Hanley & McNeil 1982, Radiology 143, 29); None where rows are not counted.

    Two epochs share their rows, so the difference between them has an error that is smaller than from both of these.
    """
    a, m, n = record.auroc, record.n_positives, record.n_negatives
    if a is None or not m or not n:
        return None
    above_two, below_two = a / (2 - a), 2 * a**2 / (1 + a)
    variance = a * (1 - a) + (m - 1) * (above_two - a**2) + (n - 1) * (below_two - a**2)
    return float(np.sqrt(max(variance, 0.0) / (m * n)))
