"""The step's side of scoring: start the process that scores, join its logits to keys, and publish them. Imports no torch."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from safetensors.numpy import load_file

from lens_pipeline.contracts.catalogue import SCORES
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import ConfigError, ScoringError
from lens_pipeline.scoring.compatibility import refuse_other_stamps
from lens_pipeline.scoring.config import ScoringConfig
from lens_pipeline.scoring.process import compute
from lens_pipeline.splits.region_splits import read_split_rows
from lens_pipeline.stamps.store import refuse_damaged
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging
from lens_pipeline.training.config import Device
from lens_pipeline.training.metrics import score_of
from lens_pipeline.training.processes import refuse_missing_gpus


@dataclass(frozen=True)
class ScoringResult:
    """What was scored: rows, rows by split, and how the stamps were read and why."""

    n_rows: int
    n_by_split: dict[str, int]
    reader: str


def score_store(
    config: ScoringConfig, classifier: Publication, store: Publication, splits: Publication, staging: Staging
) -> ScoringResult:
    """Score every stored row of every split and write the SCORES table.

    With more than two classes the table also has ``logit_<class>`` columns, the head's own outputs.

    Raises
    ------
    ScoringError
        If the classifier was trained on other stamps, or the process failed.
    SplitError
        If the splits were made for another version of the store.
    """
    if problem := refuse_missing_gpus(config.device, 1 if config.device is Device.cuda else 0):
        raise ConfigError(problem)
    refuse_other_stamps(classifier, store)
    refuse_damaged(store)
    rows = read_split_rows(splits, store)
    logits, reader = _logits(config, classifier, store)
    contract = DatasetContract.model_validate(store.attributes["dataset_contract"])
    scores = _keyed(rows, logits, contract)
    staging.write_table(None, scores, SCORES)
    staging.attributes.update(
        {
            "store_version": store.version,
            "classifier_version": classifier.version,
            "dataset_contract": store.attributes["dataset_contract"],
        }
    )
    counted = scores["split"].value_counts().to_pylist()
    return ScoringResult(
        n_rows=scores.num_rows,
        n_by_split={str(entry["values"]): int(entry["counts"]) for entry in counted},
        reader=reader,
    )


def _logits(config: ScoringConfig, classifier: Publication, store: Publication) -> tuple[npt.NDArray[np.float32], str]:
    # The process that scores is given folders.
    classifier.fetch()
    store.fetch()
    with tempfile.TemporaryDirectory(prefix="lens_pipeline-scoring-") as name:
        folder = Path(name)
        run = {
            "config": config.model_dump(mode="json"),
            "classifier": str(classifier.folder.absolute()),
            "store": str(store.folder.absolute()),
        }
        compute("score", run, folder)
        logits: npt.NDArray[np.float32] = load_file(folder / "logits.safetensors")["logits"]
        reader = (folder / "reader.txt").read_text()
    return logits, reader


def _keyed(rows: pa.Table, logits: npt.NDArray[np.float32], contract: DatasetContract) -> pa.Table:
    logical = rows["logical"].to_numpy()
    if not _is_each_once(logical, len(logits)):
        raise ScoringError(
            f"region_splits names {rows.num_rows:,} rows, the store has {len(logits):,}: they must be the same rows. "
            "Materialize region_splits again."
        )
    found = logits[logical]
    columns = {
        "task_id": rows["task_id"],
        "logical": rows["logical"],
        "split": rows["split"],
        "label": rows["label"],
        "logit": pa.array(score_of(found.astype(np.float64)).astype(np.float32)),
    }
    if found.shape[1] > 1:
        for place, class_name in enumerate(contract.class_names):
            columns[f"logit_{class_name}"] = pa.array(np.ascontiguousarray(found[:, place]))
    return pa.table(columns)


def _is_each_once(numbers: npt.NDArray[np.int64], n: int) -> bool:
    """Whether these are the numbers 0 to n - 1, each once, in any order."""
    there = np.zeros(n, bool)
    there[numbers[(numbers >= 0) & (numbers < n)]] = True
    return len(numbers) == n and bool(there.all())
