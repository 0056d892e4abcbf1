"""Which rows a run trains and validates on, by logical number, and what stands against training on them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import SplitError, TrainingError, first_few
from lens_pipeline.splits.assignment import KNOWN_LENS, SPLITS, TRAIN, VAL_SELECT, WITHHELD
from lens_pipeline.splits.region_splits import ROWS, iterate_split_rows
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.folds import fold_of_rows


@dataclass(frozen=True)
class Rows:
    """Logical numbers of the rows of a run, ascending, and the label of every stored row.

    Attributes
    ----------
    train : int32 array
        Rows of train, or of every other fold.
    validation : int64 array
        Rows of val_select, or of the fold that is validated on; they are published in this type.
    labels : int8 array
        Label of every stored row, by logical number.
    """

    train: npt.NDArray
    validation: npt.NDArray[np.int64]
    labels: npt.NDArray

    def counts(self, rows: npt.NDArray, n_classes: int) -> tuple[int, ...]:
        """Count the rows of each class."""
        return tuple(int(n) for n in np.bincount(self.labels[rows], minlength=n_classes))


def read_rows(splits: Publication, store: Publication, config: TrainingConfig) -> Rows:
    """Read them from the published splits, in a few bytes a row.

    With `folds` the rows of train and val_select together are what is validated on, where they are of the region's own
    `fold`, and trained on where not. Rows of val_calibrate and test are neither, in every fold.

    Raises
    ------
    SplitError
        If the splits were made for another version of the store, or don't give each row one split.
    """
    n_rows = splits.entry(f"{ROWS}.parquet").rows or 0
    labels, split_of = np.full(n_rows, -1, np.int8), np.full(n_rows, -1, np.int8)
    names = pa.array([*SPLITS, KNOWN_LENS, WITHHELD])
    for batch in iterate_split_rows(splits, store, ["logical", "split", "label"]):
        batch = batch.filter(pc.less(batch["logical"], n_rows))
        logical = batch["logical"].to_numpy()
        labels[logical] = batch["label"].to_numpy()
        split_of[logical] = pc.fill_null(pc.index_in(batch["split"], value_set=names), -1).to_numpy()
    without = np.flatnonzero(split_of < 0)
    if len(without):
        raise SplitError(
            f"region_splits {splits.version} gives {len(without):,} of {n_rows:,} rows no split, first logical numbers: "
            f"{first_few(without.tolist())}. Others are named twice, or by a split that isn't one of {', '.join(SPLITS)}. "
            "Next: dagster asset materialize --select region_splits -m lens_pipeline.definitions -c PRESET"
        )

    train, validation = split_of == SPLITS.index(TRAIN), split_of == SPLITS.index(VAL_SELECT)
    if config.folds:
        dealt, is_own = train | validation, fold_of_rows(splits, store, config.folds) == config.fold
        train, validation = dealt & ~is_own, dealt & is_own
    return Rows(train=np.flatnonzero(train).astype(np.int32), validation=np.flatnonzero(validation), labels=labels)


def names_of_sides(config: TrainingConfig) -> tuple[str, str]:
    """Words for the rows that are trained on and those that are validated on."""
    return (
        (f"the folds without {config.fold}", f"fold {config.fold} of {config.folds}")
        if config.folds
        else (TRAIN, VAL_SELECT)
    )


def refuse_unusable(rows: Rows, contract: DatasetContract, config: TrainingConfig) -> None:
    """Refuse, before any work, rows that no model can be trained or judged on.

    Raises
    ------
    TrainingError
        If a split lacks a class, or there are fewer training rows than one step takes.
    """
    sides = names_of_sides(config)
    for split, chosen in zip(sides, (rows.train, rows.validation), strict=True):
        counts = rows.counts(chosen, len(contract.classes))
        absent = [name for name, count in zip(contract.class_names, counts, strict=True) if not count]
        if absent:
            raise TrainingError(
                f"{split} has no row of class {first_few(absent)} (of {len(chosen):,} rows in all: "
                f"{_listed(contract, counts)}). Without every class in both splits neither a loss nor a metric means "
                "anything. Look at region_splits: more regions, larger fractions, or floors that ask for this class; fewer folds."
            )
    if len(rows.train) < config.batch_size:
        raise TrainingError(
            f"{sides[0]} has {len(rows.train):,} rows, fewer than one step takes (batch_size {config.batch_size} over "
            f"{config.world_size} ranks). Lower batch_size, or give more stamps."
        )


def _listed(contract: DatasetContract, counts: tuple[int, ...]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in zip(contract.class_names, counts, strict=True))
