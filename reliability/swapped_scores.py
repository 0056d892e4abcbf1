"""Scores that stand beside other rows than the model gave them to, 10,000 rows at a time: swapped, rolled, sorted, of a part.

A case draws logits, digests them as the process that scores does, moves them on their way into the table, and asks the check
that stands before every publication. Scores that were left alone must pass it, in any order of rows.
"""

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.scoring.checks import scores_match_their_digests
from lens_pipeline.scoring.digests import published_logits, row_words, score_digests
from lens_pipeline.scoring.run import keyed
from lens_pipeline.stamps.buckets import as_column
from lens_pipeline.stamps.rows import hash_keys
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from reliability.subject import Case, Subject

N_ROWS = 10_000
_BATCH = 512
_CONTRACT = DatasetContract()

Logits = NDArray[np.float32]
Move = Callable[[Logits, np.random.Generator], Logits]


def _swapped(logits: Logits, rng: np.random.Generator) -> Logits:
    moved, pair = logits.copy(), rng.choice(N_ROWS, 2, replace=False)
    moved[pair] = moved[pair[::-1]]
    return moved


def _neighbours(logits: Logits, rng: np.random.Generator) -> Logits:
    """Swap the two scores that are nearest to one another and yet differ."""
    order = np.argsort(logits[:, 0], kind="stable")
    steps = np.diff(logits[order, 0])
    place = int(np.argmin(np.where(steps > 0, steps, np.inf)))
    moved, pair = logits.copy(), order[place : place + 2]
    moved[pair] = moved[pair[::-1]]
    return moved


def _other_batches(logits: Logits, rng: np.random.Generator) -> Logits:
    """Put batches together in another order."""
    parts = [logits[start : start + _BATCH] for start in range(0, N_ROWS, _BATCH)]
    return np.concatenate([parts[place] for place in np.roll(np.arange(len(parts)), rng.integers(1, len(parts)))])


def _of_a_part(logits: Logits, rng: np.random.Generator) -> Logits:
    """Write the scores of some later rows onto the first ones, as who scores test alone and forgets which rows these are."""
    n = int(rng.integers(1, N_ROWS // 2))
    return np.concatenate([logits[-n:], logits[n:]])


def _one_bit(logits: Logits, rng: np.random.Generator) -> Logits:
    moved = logits.copy()
    moved.view(np.uint32)[rng.integers(N_ROWS), 0] ^= np.uint32(1)
    return moved


MOVES: dict[str, Move] = {
    "two swapped": _swapped,
    "the nearest two swapped": _neighbours,
    "rolled by one": lambda logits, _: np.roll(logits, 1, axis=0),
    "sorted": lambda logits, _: np.sort(logits, axis=0),
    "batches in another order": _other_batches,
    "those of later rows on the first": _of_a_part,
    "one bit changed": _one_bit,
}


def case(number: int) -> Case:
    """Draw the logits of one table, move them, and ask the check before and after."""
    rng = np.random.default_rng(number)
    name, move = [*MOVES.items()][number % len(MOVES)]
    made = _published()
    logits = rng.normal(0, 4, (N_ROWS, 1)).astype(np.float32)
    digests = score_digests(made.words, published_logits(logits), [made.classifier])
    order = pa.array(rng.permutation(N_ROWS))

    def passes(found: Logits) -> bool:
        table = keyed(made.rows.take(order), found, digests, _CONTRACT)
        return scores_match_their_digests(table, made.store, [made.classifier]).passed

    problems = []
    if not passes(logits):
        problems.append("scores that were left alone are red")
    if passes(move(logits, rng)):
        problems.append(f"{name}: green")
    return Case(problem="; ".join(problems) or None, counts={f"{name}: told": int(not problems)})


@dataclass(frozen=True)
class _Published:
    """The index of a store and a file of weights; the rows as SPLIT_ROWS, and their words. Gone with its folder."""

    store: Publication
    classifier: Publication
    rows: pa.Table
    words: NDArray[np.uint64]
    folder: tempfile.TemporaryDirectory[str]


@lru_cache(maxsize=1)
def _published() -> _Published:
    folder = tempfile.TemporaryDirectory(prefix="lens_pipeline-swapped-scores-")
    home = Home(Path(folder.name))
    keys = [f"task-{row}" for row in range(N_ROWS)]
    pixels = [hashlib.blake2b(key.encode(), digest_size=16, person=b"pixels").digest() for key in keys]
    numbers = pa.array(np.arange(N_ROWS))
    with home.stage("drawn", "stamp_store") as staging:
        index = {
            "key_hash": as_column(hash_keys(keys).astype(np.uint64)),
            "logical": numbers,
            "pixel_hash": pa.array(pixels, pa.binary(16)),
        }
        staging.write_table(None, pa.table(index))
        staging.attributes["n_stored"] = N_ROWS
        store = staging.commit()
    with home.stage("drawn", "lens_classifier") as staging:
        (staging.folder / "model.safetensors").write_bytes(b"weights")
        classifier = staging.commit()
    labels = pa.array(np.arange(N_ROWS) % 2, pa.int8())
    rows = {"task_id": keys, "logical": numbers, "split": pa.array(["test"] * N_ROWS), "label": labels}
    return _Published(store, classifier, pa.table(rows), row_words(store), folder)


SUBJECT = Subject(
    name="swapped_scores",
    question="of 10,000 scores two that are swapped, all rolled by one or sorted, batches in another order, those of some rows "
    "on others, and one bit are told by the digests; scores that were left alone are green.",
    unit="trials",
    goal=10_000,
    case=case,
)
