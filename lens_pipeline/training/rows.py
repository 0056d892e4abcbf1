"""Which rows a run trains and validates on, by logical number, and what stands against training on them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import TrainingError, first_few
from lens_pipeline.splits.region_splits import read_split_rows
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.config import TrainingConfig


@dataclass(frozen=True)
class Rows:
    """Logical numbers of the rows of a run, ascending, and the label of every stored row.

    Attributes
    ----------
    train, validation : int64 arrays
        Rows of train and val_select.
    labels : int64 array
        Label of every stored row, by logical number.
    """

    train: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]

    def counts(self, rows: npt.NDArray[np.int64], n_classes: int) -> tuple[int, ...]:
        """Count the rows of each class."""
        return tuple(int(n) for n in np.bincount(self.labels[rows], minlength=n_classes))


def read_rows(splits: Publication, store: Publication) -> Rows:
    """Read them from the published splits.

    Raises
    ------
    SplitError
        If the splits were made for another version of the store.
    """
    # Without the keys: of a full-size store they are most of the table.
    table = read_split_rows(splits, store, ["logical", "split", "label"])
    logical = table["logical"].to_numpy()
    labels = np.empty(table.num_rows, dtype=np.int64)
    labels[logical] = table["label"].to_numpy()
    return Rows(train=_of(table, "train"), validation=_of(table, "val_select"), labels=labels)


def refuse_unusable(rows: Rows, contract: DatasetContract, config: TrainingConfig) -> None:
    """Refuse, before any work, rows that no model can be trained or judged on.

    Raises
    ------
    TrainingError
        If a split lacks a class, or there are fewer training rows than one step takes.
    """
    for split, chosen in (("train", rows.train), ("val_select", rows.validation)):
        counts = rows.counts(chosen, len(contract.classes))
        absent = [name for name, count in zip(contract.class_names, counts, strict=True) if not count]
        if absent:
            raise TrainingError(
                f"{split} has no row of class {first_few(absent)} (of {len(chosen):,} rows in all: "
                f"{_listed(contract, counts)}). Without every class in both splits neither a loss nor a metric means "
                "anything. Look at region_splits: more regions, larger fractions, or floors that ask for this class."
            )
    if len(rows.train) < config.batch_size:
        raise TrainingError(
            f"train has {len(rows.train):,} rows, fewer than one step takes (batch_size {config.batch_size} over "
            f"{config.world_size} ranks). Lower batch_size, or give more stamps."
        )


def _of(table: pa.Table, split: str) -> npt.NDArray[np.int64]:
    chosen = table["logical"].filter(pc.equal(table["split"], split))
    rows: npt.NDArray[np.int64] = np.sort(chosen.to_numpy()).astype(np.int64, copy=False)
    return rows


def _listed(contract: DatasetContract, counts: tuple[int, ...]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in zip(contract.class_names, counts, strict=True))
