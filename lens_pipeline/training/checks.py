"""Checks on a trained classifier, from the ledgers and validation logits that its version holds."""

import numpy as np

from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.stamps.ledger import verify_ledger
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.rows import read_rows

VALIDATION = "validation_is_whole"


def no_duplicated_fragments(classifier: Publication, store: Publication, splits: Publication) -> Check:
    """Check from the ledgers of all ranks that each training row reached the model exactly once an epoch."""
    ledgers = sorted(name for name in classifier.manifest.files if name.startswith("ledger-rank-"))
    return verify_ledger(
        [classifier.path(name) for name in ledgers],
        read_rows(splits, store).train,
        epochs=classifier.attributes["epochs"],
        task_ids=store.read_table(None, ["task_id"])["task_id"].to_pylist(),
    )


def validation_is_whole(classifier: Publication, store: Publication, splits: Publication) -> Check:
    """Check that each epoch was judged on every row of val_select exactly once, and on no other row."""
    logits = classifier.read_table("validation_logits", ["epoch", "logical", "task_id"])
    expected = read_rows(splits, store).validation
    keys = store.read_table(None, ["task_id"])["task_id"].to_pylist()
    epochs = classifier.attributes["epochs"]
    epoch, logical = logits["epoch"].to_numpy(), logits["logical"].to_numpy()
    wrong, n_wrong = [], 0
    for number in range(max(epochs, 1 + int(epoch.max(initial=-1)))):
        here = logical[epoch == number]
        counts = np.bincount(here, minlength=len(keys))
        wanted = np.zeros(len(keys), dtype=np.int64)
        wanted[expected] = 1 if number < epochs else 0
        off = np.flatnonzero(counts != wanted)
        n_wrong += len(off)
        wrong += [f"{keys[row]} came {counts[row]} times in epoch {number}, not {wanted[row]}" for row in off[:5]]
    misnamed = [
        f"row {row} is called {key}, the store calls it {keys[row]}"
        for row, key in zip(logical.tolist(), logits["task_id"].to_pylist(), strict=True)
        if keys[row] != key
    ]
    if wrong or misnamed:
        return red(
            VALIDATION,
            f"validation in {epochs} epochs was not on each of {len(expected):,} rows of val_select exactly once",
            wrong=[*wrong, *misnamed],
            count=n_wrong + len(misnamed),
            why="a model chosen on a part of its validation rows, or on others, is chosen by luck or by cheating",
            next_step="remove the unfinished training under HOME/DATASET/lens_classifier/MODEL/.work and train again",
        )
    return green(
        VALIDATION,
        f"each of {len(expected):,} rows of val_select was judged exactly once in each of {epochs} epochs",
        rows=len(expected),
        epochs=epochs,
    )
