"""Why a training's metrics fell: saturation ties, a ranking collapse, overfitting, or an evaluation of a part of the rows.

Each cause is asked for on its own and answered with the numbers that it rests on; a ranking that only ties make look worse is
no collapse. Nothing here reads files: see `epoch_records` and `measured_epochs`.
"""

from collections.abc import Sequence

from lens_pipeline.contracts.errors import FIRST_FEW, first_few
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
    """Ask whether not every row of the split was evaluated, at any epoch."""
    counted = [(record.epoch, record.rows, record.n_split) for record in records if record.rows is not None]
    if not counted:
        return Finding(PREFIX, Verdict.unknown, ("how many rows were evaluated is not given",))
    of_split = [(epoch, rows, split) for epoch, rows, split in counted if split is not None]
    fewer = _evaluated(
        [one for one in of_split if one[1] < one[2]], "{rows:,} of the split's {split:,} rows were evaluated"
    )
    more = _evaluated(
        [one for one in of_split if one[1] > one[2]],
        "{rows:,} rows were evaluated, more than the {split:,} that the split has: a sampler that fills its last batch "
        "repeats rows, and they count twice",
    )
    if fewer or more:
        return Finding(PREFIX, Verdict.found if fewer else Verdict.suspected, (*fewer, *more))
    untold = [(epoch, rows) for epoch, rows, split in counted if split is None]
    if not untold:
        whole = _evaluated(of_split, "{rows:,} of the split's {split:,} rows were evaluated")
        return Finding(PREFIX, Verdict.not_found, whole)
    (least_at, least), (most_at, most) = (end(untold, key=lambda one: one[1]) for end in (min, max))
    if least < most:
        words = (
            f"the number of rows that were evaluated changes, from {least:,} at epoch {least_at} to {most:,} at epoch {most_at}. "
            "How many rows the split has is not given"
        )
        return Finding(PREFIX, Verdict.suspected, (words,))
    return _round_number(*untold[-1])


def _evaluated(epochs: Sequence[tuple[int, int, int]], words: str) -> tuple[str, ...]:
    """Say how many rows were evaluated of how many, a line for all epochs of the same two numbers; of the first few."""
    alike: dict[tuple[int, int], list[int]] = {}
    for epoch, rows, split in epochs:
        alike.setdefault((rows, split), []).append(epoch)
    lines = [
        f"{'epoch' if len(at) == 1 else 'epochs'} {first_few(at)}: {words.format(rows=rows, split=split)}"
        for (rows, split), at in alike.items()
    ]
    rest = [f"and at other epochs {len(lines) - FIRST_FEW:,} other numbers of rows"] if len(lines) > FIRST_FEW else []
    return (*lines[:FIRST_FEW], *rest)


def _round_number(epoch: int, rows: int) -> Finding:
    """Ask whether so many rows were evaluated as a limit on batches gives."""
    whole = [(rows // size, size) for size in (1024, 512, 256, 128, 64, 32) if rows % size == 0]
    of_round_number = [
        f"{n:,} batches of {size}" for n, size in whole if n >= _ROUND_BATCHES and n % _ROUND_BATCHES == 0
    ]
    if of_round_number:
        words = (
            f"epoch {epoch}: {rows:,} rows were evaluated, {' or '.join(of_round_number[:3])} to the row: a split "
            "seldom ends so, a limit on batches does. How many rows the split has is not given"
        )
        return Finding(PREFIX, Verdict.suspected, (words,))
    words = f"epoch {epoch}: {rows:,} rows were evaluated, no whole number of round batches"
    return Finding(PREFIX, Verdict.not_found, (words,))
