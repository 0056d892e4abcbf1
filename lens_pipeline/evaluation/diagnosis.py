"""Why a training's metrics fell: saturation ties, a ranking collapse, overfitting, or an evaluation of a part of the rows.

Each cause is asked for on its own and answered with the numbers that it rests on; a ranking that only ties make look worse is
no collapse. Nothing here reads files: see `epoch_records` and `measured_epochs`.
"""

from collections.abc import Sequence

from lens_pipeline.evaluation.epoch_records import EpochRecord
from lens_pipeline.evaluation.findings import OVERFITTING, PREFIX, Finding, Verdict
from lens_pipeline.evaluation.ranking_collapse import collapse
from lens_pipeline.evaluation.saturation import saturation

_OVERFIT_RISE = 0.05
_ROUND_BATCHES = 50


def diagnose(records: Sequence[EpochRecord]) -> list[Finding]:
    """Ask for each of the four causes.

    Parameters
    ----------
    records : sequence of EpochRecord
        Ascending; at least one.
    """
    ties = saturation(records)
    return [ties, collapse(records, ties), _overfitting(records), _prefix(records)]


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
