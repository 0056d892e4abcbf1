"""The step's side of scoring: start the process that scores, join its logits to keys, and publish them. Imports no torch."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from safetensors.numpy import load_file

from lens_pipeline.contracts.catalogue import SCORES
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import ConfigError, ScoringError
from lens_pipeline.scoring.baseline import write_matched_filter
from lens_pipeline.scoring.compatibility import refuse_other_stamps
from lens_pipeline.scoring.config import ScoringConfig
from lens_pipeline.scoring.digests import COLUMN, Words, published_logits
from lens_pipeline.scoring.ensemble import describe_members, mean_logits, refuse_strangers
from lens_pipeline.scoring.out_of_fold import cross_validated, write_out_of_fold
from lens_pipeline.scoring.process import compute
from lens_pipeline.splits.region_splits import read_split_rows
from lens_pipeline.stamps.store import refuse_damaged
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging
from lens_pipeline.training.choices import Device
from lens_pipeline.training.processes import refuse_missing_gpus


@dataclass(frozen=True)
class ScoringResult:
    """What was scored: rows, rows by split, and how the stamps were read and why."""

    n_rows: int
    n_by_split: dict[str, int]
    reader: str


def score_store(
    config: ScoringConfig,
    classifiers: Sequence[Publication],
    store: Publication,
    splits: Publication,
    staging: Staging,
) -> ScoringResult:
    """Score every stored row of every split and write the SCORES table.

    With more than two classes the table also has ``logit_<class>`` columns, the head's own outputs. Of several classifiers
    a row's logits are the means of theirs; where these are all folds of one cross-validation, the tables ``out_of_fold`` and
    ``out_of_fold_metrics`` say what each model makes of the rows that it has not seen. Beside them ``matched_filter`` says what a
    classical finder makes of val_calibrate and test.

    Raises
    ------
    ScoringError
        If a classifier was trained on other stamps, several on other versions or splits, or the process failed.
    SplitError
        If the splits were made for another version of the store.
    """
    if problem := refuse_missing_gpus(config.device, 1 if config.device is Device.cuda else 0):
        raise ConfigError(problem)
    # The order in which they are named must move nothing.
    classifiers = sorted(classifiers, key=lambda classifier: classifier.model)
    if config.members:
        refuse_strangers(classifiers, store, splits)
    for classifier in classifiers:
        refuse_other_stamps(classifier, store)
    refuse_damaged(store)
    rows = read_split_rows(splits, store)
    each, digests, reader = _logits(config, classifiers, store)
    contract = DatasetContract.model_validate(store.attributes["dataset_contract"])
    scores = keyed(rows, mean_logits(each), digests, contract)
    staging.write_table(None, scores, SCORES)
    staging.attributes.update(
        {
            "store_version": store.version,
            "dataset_contract": store.attributes["dataset_contract"],
            **({"tta": True} if config.tta else {}),
            **(
                {"members": describe_members(classifiers)}
                if config.members
                else {"classifier_version": classifiers[0].version}
            ),
        }
    )
    if config.matched_filter:
        write_matched_filter(rows, store, staging, config.threads)
    if cross_validated(classifiers):
        write_out_of_fold(classifiers, each, store, splits, staging)
    counted = scores["split"].value_counts().to_pylist()
    return ScoringResult(
        n_rows=scores.num_rows,
        n_by_split={str(entry["values"]): int(entry["counts"]) for entry in counted},
        reader=reader,
    )


def _logits(
    config: ScoringConfig, classifiers: Sequence[Publication], store: Publication
) -> tuple[list[npt.NDArray[np.float32]], Words, str]:
    """Logits of each classifier in turn, digests of the scores that they come to, and how the rows were read."""
    # The process that scores is given folders.
    for publication in (*classifiers, store):
        publication.fetch()
    with tempfile.TemporaryDirectory(prefix="lens_pipeline-scoring-") as name:
        folder = Path(name)
        run = {
            "config": config.model_dump(mode="json"),
            "classifiers": [str(classifier.folder.absolute()) for classifier in classifiers],
            "store": str(store.folder.absolute()),
        }
        compute("score", run, folder)
        found = load_file(folder / "logits.safetensors")
        reader = (folder / "reader.txt").read_text()
    return [found[str(place)] for place in range(len(classifiers))], found[COLUMN], reader


def keyed(rows: pa.Table, logits: npt.NDArray[np.float32], digests: Words, contract: DatasetContract) -> pa.Table:
    """SCORES of these rows.

    Parameters
    ----------
    rows : pa.Table
        SPLIT_ROWS.
    logits, digests : (row, output) float32 and (row,) uint64 arrays
        By logical number.

    Raises
    ------
    ScoringError
        If the rows aren't those that were scored, each once.
    """
    logical = rows["logical"].to_numpy()
    if not _is_each_once(logical, len(logits)):
        raise ScoringError(
            f"region_splits names {rows.num_rows:,} rows, the store has {len(logits):,}: they must be the same rows. "
            "Materialize region_splits again."
        )
    found = published_logits(logits[logical])
    columns = {
        "task_id": rows["task_id"],
        "logical": rows["logical"],
        "split": rows["split"],
        "label": rows["label"],
        "logit": pa.array(np.ascontiguousarray(found[:, 0])),
        COLUMN: pa.array(digests[logical]),
    }
    # One output has no class of its own.
    for class_name, logit in zip(contract.class_names, found.T[1:], strict=False):
        columns[f"logit_{class_name}"] = pa.array(np.ascontiguousarray(logit))
    return pa.table(columns)


def _is_each_once(numbers: npt.NDArray[np.int64], n: int) -> bool:
    """Whether these are the numbers 0 to n - 1, each once, in any order."""
    there = np.zeros(n, bool)
    there[numbers[(numbers >= 0) & (numbers < n)]] = True
    return len(numbers) == n and bool(there.all())
