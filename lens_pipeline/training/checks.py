"""Checks on a trained classifier, from the ledgers and validation logits that its version holds."""

import re
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import FIRST_FEW
from lens_pipeline.stamps.ledger_check import verify_ledger
from lens_pipeline.storage.parquet import iterate_parquet
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.folds import FOLDS, folds_are_disjoint
from lens_pipeline.training.history import History, epochs_of
from lens_pipeline.training.logits import (
    DISTINCT,
    EXTREME,
    SelectedLogits,
    gain_error,
    logits_are_distinct,
    logits_are_moderate,
)
from lens_pipeline.training.monitoring import ADVISORY as OF_CURVES
from lens_pipeline.training.monitoring import BLOCKING as BLOCKING_OF_CURVES
from lens_pipeline.training.monitoring import classes_are_weighed, training_checks
from lens_pipeline.training.order import sampler_for
from lens_pipeline.training.rows import names_of_sides, read_rows

LEDGER, VALIDATION = "no_duplicated_fragments", "validation_is_whole"
# What keeps a version from becoming current: its rows, its record or its logits can't be relied on. Curves only advise.
BLOCKING = (LEDGER, VALIDATION, FOLDS, *BLOCKING_OF_CURVES, DISTINCT)
ADVISORY = (*OF_CURVES, EXTREME)
_LEDGER = re.compile(r"ledger-rank-(\d+)\.ledger")
_KEYS_TOGETHER = 65_536


def classifier_checks(
    classifier: Publication, store: Publication, splits: Publication, history: History
) -> list[Check]:
    """All checks of a version, each once.

    Parameters
    ----------
    history : History
        The run's own account, with the wall times that a version doesn't hold.
    """
    logits = SelectedLogits.read(classifier)
    config = TrainingConfig.model_validate(classifier.attributes["config"])
    rows = read_rows(splits, store, config)
    return [
        no_duplicated_fragments(classifier, store, splits),
        validation_is_whole(classifier, store, splits),
        folds_are_disjoint(config.folds, rows.train, rows.validation, splits, store),
        *training_checks(
            epochs_of(classifier),
            history,
            config,
            constant_loss=logits.constant_loss(balanced=classes_are_weighed(config)),
            ended=classifier.attributes["ended"],
            gain_error=partial(gain_error, classifier),
        ),
        logits_are_distinct(logits, store),
        logits_are_moderate(logits),
    ]


def no_duplicated_fragments(classifier: Publication, store: Publication, splits: Publication) -> Check:
    """Check from the ledgers of all ranks that the training rows reached the model as the run's order says.

    That is each once, or as often as its weight or its draws give it, and in its own step.

    Raises
    ------
    StorageError
        If the version's ledgers are of another format than this package reads.
    """
    config = TrainingConfig.model_validate(classifier.attributes["config"])
    contract = DatasetContract.model_validate(classifier.attributes["dataset_contract"])
    return verify_ledger(
        [classifier.path(name) for name in ledger_names(classifier.manifest.files)],
        sampler_for(config, contract, read_rows(splits, store, config), store),
        epochs=classifier.attributes["epochs"],
        n_rows=store.attributes["n_stored"],
        names=lambda rows: _keys(store, rows),
    )


def ledger_names(files: Iterable[str]) -> list[str]:
    """Names of the ledgers among a version's files, in the order of their ranks."""
    ranks = {int(found[1]): name for name in files if (found := _LEDGER.fullmatch(name))}
    return [ranks[rank] for rank in sorted(ranks)]


def validation_is_whole(classifier: Publication, store: Publication, splits: Publication) -> Check:
    """Check that each epoch was judged on every row of val_select, or of its fold, exactly once, and on no other row."""
    logits = classifier.read_table("validation_logits", ["epoch", "logical", "task_id"])
    config = TrainingConfig.model_validate(classifier.attributes["config"])
    expected, (_, where) = read_rows(splits, store, config).validation, names_of_sides(config)
    keys = store.read_table(None, ["task_id"])["task_id"].combine_chunks()
    epochs = classifier.attributes["epochs"]
    epoch, logical = logits["epoch"].to_numpy(), logits["logical"].to_numpy()
    is_expected = np.zeros(len(keys), bool)
    is_expected[expected] = True
    wrong, n_wrong = [], 0
    for number in range(max(epochs, 1 + int(epoch.max(initial=-1)))):
        counts = np.bincount(logical[epoch == number], minlength=len(keys))
        wanted = is_expected if number < epochs else np.zeros_like(is_expected)
        off = np.flatnonzero(counts != wanted)
        n_wrong += len(off)
        wrong += [
            f"{keys[row]} came {counts[row]} times in epoch {number}, not {int(wanted[row])}" for row in off[:FIRST_FEW]
        ]
    misnamed, n_misnamed = _misnamed(logits, keys)
    if n_wrong or n_misnamed:
        return red(
            VALIDATION,
            f"validation in {epochs} epochs was not on each of {len(expected):,} rows of {where} exactly once",
            wrong=[*wrong, *misnamed],
            count=n_wrong + n_misnamed,
            why="a model chosen on a part of its validation rows, or on others, is chosen by luck or by cheating",
            next_step="remove the unfinished training under HOME/DATASET/lens_classifier/MODEL/.work and train again",
        )
    return green(
        VALIDATION,
        f"each of {len(expected):,} rows of {where} was judged exactly once in each of {epochs} epochs",
        rows=len(expected),
        epochs=epochs,
    )


def _misnamed(logits: pa.Table, keys: pa.Array) -> tuple[list[str], int]:
    """Say which rows of the validation logits bear another key than the store gives them: the first few, and how many."""
    first, n = list[str](), 0
    for batch in logits.to_batches(max_chunksize=_KEYS_TOGETHER):
        wanted = keys.take(batch["logical"])
        off = np.flatnonzero(pc.not_equal(batch["task_id"], wanted).to_numpy(zero_copy_only=False))
        n += len(off)
        first += [
            f"row {batch['logical'][row]} is called {batch['task_id'][row]}, the store calls it {wanted[row]}"
            for row in off[: FIRST_FEW - len(first)].tolist()
        ]
    return first, n


def _keys(store: Publication, rows: Sequence[int]) -> list[str]:
    """Read the key of each of a few logical numbers, in bounded memory."""
    wanted, found, start = np.array(rows), dict[int, str](), 0
    for batch in iterate_parquet(store.path(f"{store.asset}.parquet"), ["task_id"], rows=_KEYS_TOGETHER):
        here = wanted[(wanted >= start) & (wanted < start + batch.num_rows)]
        found |= {row: batch["task_id"][row - start].as_py() for row in here.tolist()}
        start += batch.num_rows
    return [found[row] for row in rows]
