"""Folds of a cross-validation: whole regions of train and val_select, dealt by a hash; what they may not share. No torch."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.contracts.errors import FIRST_FEW
from lens_pipeline.splits.assignment import TRAIN, VAL_SELECT, deal
from lens_pipeline.splits.checks import sides_are_disjoint
from lens_pipeline.splits.region_splits import read_split_rows
from lens_pipeline.storage.parquet import iterate_parquet
from lens_pipeline.storage.publication import Publication

FOLDS = "folds_are_disjoint"
_ROWS_TOGETHER = 65_536
_SIDES = ("trained on", "validated on")


def fold_of_rows(splits: Publication, store: Publication, n_folds: int) -> npt.NDArray[np.int8]:
    """Fold of the region of every stored row, by logical number; a row of val_calibrate or test has one too, and isn't used.

    A fold is a function of (region, the splits' frozen seed, number of folds): a region that joins moves no other.
    """
    seed = int(splits.attributes["seed"])
    path = store.path(f"{store.asset}.parquet")
    folds = np.full(store.entry(path.name).rows or 0, -1, np.int8)
    for batch in iterate_parquet(path, ["logical", "region_id"], rows=_ROWS_TOGETHER):
        region = pc.dictionary_encode(batch["region_id"])
        dealt = deal(region.dictionary.to_pylist(), seed, n_folds)
        folds[batch["logical"].to_numpy()] = dealt[region.indices.to_numpy()]
    return folds


def folds_are_disjoint(
    folds: int, train: npt.NDArray, validation: npt.NDArray, splits: Publication, store: Publication
) -> Check:
    """Check that the rows of one fold and the others are those of train and val_select, and that nothing stands on both sides.

    Nothing: no row, region, galaxy, pair, source or identical stamp. No row is of val_calibrate or test.

    Parameters
    ----------
    folds : int
        Folds; 0 is green, as the splits' own checks have seen to that.
    train, validation : int array
        Logical numbers of the rows that are trained and validated on.
    """
    if not folds:
        return green(FOLDS, "no folds: train and val_select are the splits' own", n=0)
    rows = read_split_rows(splits, store, ["task_id", "logical", "split"])
    logical = rows["logical"].to_numpy()
    is_open = pc.is_in(rows["split"], value_set=pa.array([TRAIN, VAL_SELECT])).to_numpy()
    times = np.zeros((2, rows.num_rows), np.int8)
    for side, chosen in enumerate((train, validation)):
        np.add.at(times[side], chosen, 1)
    times = times[:, logical]
    off, used = np.flatnonzero(times.sum(axis=0) != is_open), times.any(axis=0)
    wrong = [
        f"{rows['task_id'][row]} of {rows['split'][row]} is trained on {times[0, row]} and validated on {times[1, row]} times"
        for row in off[:FIRST_FEW].tolist()
    ]
    sides = pa.array(_SIDES).take(pa.array((times[1] > 0)[used].astype(np.int8)))
    sided = pa.table({"task_id": rows["task_id"].filter(pa.array(used)), "split": sides})
    torn = [check for check in sides_are_disjoint(sided, store) if not check.passed]
    if wrong or torn:
        return red(
            FOLDS,
            "; ".join(
                [*([f"{len(off):,} rows are on no side, on both, or sealed"] if wrong else []), *(c.what for c in torn)]
            ),
            wrong=[*wrong, *(name for check in torn for name in check.first)],
            count=len(off) + sum(check.count for check in torn),
            why="a fold that shares something with the others is judged on what its model was trained on",
            next_step="give rows that share a galaxy, pair, source or pixels one region_id, then materialize stamps and what "
            "follows; where real sources are drawn, hold them out of training (injection_manifest.hold_out_real_sources); or set "
            "folds: 0",
        )
    return green(
        FOLDS,
        f"each of {int(is_open.sum()):,} rows of train and val_select is on one side of {folds} folds, with all of its region",
        folds=folds,
        trained_on=len(train),
        validated_on=len(validation),
    )
