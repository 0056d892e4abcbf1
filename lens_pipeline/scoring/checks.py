"""Checks on scores, before anyone reads them: nothing lost, and not squeezed against the ends of the scale."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.contracts.errors import FIRST_FEW
from lens_pipeline.scoring.config import ScoringConfig
from lens_pipeline.scoring.digests import COLUMN, row_words, score_digests
from lens_pipeline.storage.publication import Publication

CONSERVATION = "score_conservation"
DIGESTS = "scores_match_their_digests"
SATURATION = "score_saturation"

Mask = npt.NDArray[np.bool_]


def score_conservation(scores: pa.Table, index: pa.Table) -> Check:
    """Check that each stored row has exactly one score, under its own key, logical number and label.

    Parameters
    ----------
    scores, index : pa.Table
        SCORES, and the store's index (task_id, logical, label).

    Notes
    -----
    Only keys of rows that aren't where they belong become Python objects: at full size the others don't fit as such.
    """
    odd_scores, odd_index = _without_those_in_their_places(scores, index)
    stored = {key: row for key, *row in _rows(odd_index)}
    scored = list(_rows(odd_scores))
    lost = stored.keys() - {key for key, *_ in scored}
    wrong = [f"{key} has no score" for key in sorted(lost)]
    seen: set[str] = set()
    for key, *row in scored:
        if key not in stored:
            wrong.append(f"{key} is not in the store")
        elif key in seen:
            wrong.append(f"{key} is scored twice")
        elif row != stored[key]:
            wrong.append(
                f"{key} is scored as row {row[0]} of label {row[1]}, the store has row {stored[key][0]} of label "
                f"{stored[key][1]}"
            )
        seen.add(key)
    if wrong:
        return red(
            CONSERVATION,
            f"{index.num_rows:,} rows are stored and {scores.num_rows:,} are scored, not one to one",
            wrong=wrong,
            why="rows were lost, doubled or exchanged between store and scores",
            next_step="dagster asset materialize --select scores -m lens_pipeline.definitions -c PRESET",
            n_stored=index.num_rows,
            n_scored=scores.num_rows,
        )
    return green(
        CONSERVATION, f"each of {index.num_rows:,} stored rows has exactly one score under its key", n=index.num_rows
    )


def scores_match_their_digests(scores: pa.Table, store: Publication, classifiers: Sequence[Publication]) -> Check:
    """Check that each score is, bit for bit, the one that the model gave to this row's pixels when it ran.

    Parameters
    ----------
    scores : pa.Table
        Of SCORES `task_id`, `logical`, `digest` and every column of logits.
    """
    logits = [name for name in scores.column_names if name.startswith("logit")]
    heads = np.column_stack([scores[name].to_numpy() for name in logits])
    wanted = score_digests(row_words(store)[scores["logical"].to_numpy()], heads, classifiers)
    wrong = np.flatnonzero(wanted != scores[COLUMN].to_numpy())
    if len(wrong):
        return red(
            DIGESTS,
            f"{len(wrong):,} of {scores.num_rows:,} scores have another digest than was made when the model gave them",
            wrong=scores["task_id"].take(pa.array(wrong[: FIRST_FEW + 1])).to_pylist(),
            count=len(wrong),
            why="logits were exchanged, shifted, sorted or changed on their way from the model to the table, so they are told of "
            "other galaxies",
            next_step="dagster asset materialize --select scores -m lens_pipeline.definitions -c PRESET",
        )
    return green(DIGESTS, f"each of {scores.num_rows:,} scores has the digest of its row, its pixels and the weights")


def score_saturation(scores: pa.Table, config: ScoringConfig) -> Check:
    """Check that logits still tell rows apart at the top, where thresholds for low false-positive rates lie."""
    logits = scores["logit"].to_numpy()
    negatives = logits[scores["label"].to_numpy() == 0]
    distinct_share = len(np.unique(logits)) / max(len(logits), 1)
    top = int((negatives == negatives.max()).sum()) if len(negatives) else 0
    tied_share = top / max(len(negatives), 1)
    figures: dict[str, Any] = {
        "distinct_share": round(distinct_share, 6),
        "negatives_at_the_top": top,
        "n_negatives": len(negatives),
        "highest_logit": float(logits.max()) if len(logits) else None,
        "lowest_logit": float(logits.min()) if len(logits) else None,
    }
    problems = []
    # One negative at the top is not a tie, however few negatives there are.
    if top > 1 and tied_share > config.max_tied_share:
        problems.append(f"{top:,} of {len(negatives):,} negatives share the highest negative logit")
    if distinct_share < config.min_distinct_share:
        problems.append(f"only {distinct_share:.1%} of {len(logits):,} logits are distinct")
    if problems:
        return red(
            SATURATION,
            "; ".join(problems),
            wrong=problems,
            count=top,
            why="ties at the top make every threshold for a low false-positive rate jump over many negatives at once; a model "
            "that diverged, blank stamps, or scores that went through a low-precision sigmoid look like this",
            next_step="look at val_auroc and train_loss of lens_classifier, and at the tied stamps in stamp_store",
            **figures,
        )
    return green(
        SATURATION,
        f"{distinct_share:.1%} of {len(logits):,} logits are distinct, and {top:,} of {len(negatives):,} negatives stand "
        "at the highest negative logit",
        **figures,
    )


def _without_those_in_their_places(scores: pa.Table, index: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Leave out of both tables every key whose rows all stand where they belong; nothing can be wrong with it."""
    fine, found = _in_their_places(scores, index)
    odd = [*scores["task_id"].filter(pa.array(~fine)).chunks, *index["task_id"].filter(pa.array(~found)).chunks]
    keys = pa.chunked_array(odd, type=scores["task_id"].type)
    return (
        scores.filter(pc.is_in(scores["task_id"], value_set=keys)),
        index.filter(pc.is_in(index["task_id"], value_set=keys)),
    )


def _in_their_places(scores: pa.Table, index: pa.Table) -> tuple[Mask, Mask]:
    """Return which scores agree with the stored row of their number, as the only one of it; and which rows have such a score."""
    n, number, stored = index.num_rows, scores["logical"].to_numpy(), index["logical"].to_numpy()
    place_of = np.full(n, -1, np.int32)
    possible = np.flatnonzero((stored >= 0) & (stored < n))
    place_of[stored[possible]] = possible
    place = np.full(scores.num_rows, -1, np.int32)
    named = np.flatnonzero((number >= 0) & (number < n))
    place[named] = place_of[number[named]]
    fine = place >= 0
    rows = pa.array(place, mask=~fine)
    for name in ("task_id", "label"):
        fine &= pc.fill_null(pc.equal(scores[name], index[name].take(rows)), False).to_numpy()
    times = np.bincount(place[place >= 0], minlength=n)
    fine[fine] = times[place[fine]] == 1
    found = np.zeros(n, bool)
    found[place[fine]] = True
    return fine, found


def _rows(table: pa.Table) -> Iterator[tuple[str, int, int]]:
    return zip(table["task_id"].to_pylist(), table["logical"].to_pylist(), table["label"].to_pylist(), strict=True)
