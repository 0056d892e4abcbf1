"""Leak and balance checks on a split: nothing of the sky, of a galaxy or of a pair stands on both sides."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.splits.assignment import KNOWN_LENS, SPLITS, TEST
from lens_pipeline.splits.region_splits import ROWS
from lens_pipeline.storage.publication import Publication

_LEAKS: dict[str, tuple[str, str]] = {
    "region_id": ("regions_are_disjoint", "rows of one region share sky, seeing and neighbours"),
    "galaxy_id": ("galaxies_are_disjoint", "the model would be tested on a galaxy that it was trained on"),
    "pair_id": ("pairs_are_disjoint", "an injection and the control of the same galaxy stand on both sides"),
    "source_id": ("sources_are_disjoint", "the model would be tested on a source galaxy that it was trained on"),
    "pixel_hash": ("pixels_are_disjoint", "the very same pixels stand on both sides, under two names"),
}


def leak_checks(splits: Publication, store: Publication) -> list[Check]:
    """Check that no region, galaxy, pair, source or identical stamp stands in two splits.

    Returns
    -------
    list of Check
        One a column; green, and saying so, where the store has no such column.
    """
    rows = splits.read_table(ROWS, columns=["task_id", "split"])
    return sides_are_disjoint(rows.filter(pc.not_equal(rows["split"], KNOWN_LENS)), store)


def sides_are_disjoint(rows: pa.Table, store: Publication) -> list[Check]:
    """Check the same of any rows that are on one side or another.

    Parameters
    ----------
    rows : pa.Table
        task_id and split, the name of its side; stored rows that aren't named are on none.
    """
    available = store.entry(f"{store.asset}.parquet").schema or {}
    columns = [column for column in _LEAKS if column in available]
    index = store.read_table(columns=["task_id", *columns])
    joined = index.join(rows, keys="task_id", join_type="inner")
    if "pair_id" in columns:
        # A control is its own pair, so that it is held against the injections that name it.
        paired = pc.coalesce(joined["pair_id"], joined["task_id"])
        joined = joined.set_column(joined.column_names.index("pair_id"), "pair_id", paired)
    return [
        _in_one_split(joined, column) if column in columns else green(name, f"the input has no column {column}", n=0)
        for column, (name, _) in _LEAKS.items()
    ]


def _in_one_split(rows: pa.Table, column: str) -> Check:
    name, why = _LEAKS[column]
    held = rows.filter(pc.is_valid(rows[column]))
    both = held.select([column, "split"]).group_by([column, "split"]).aggregate([])
    per_value = both.group_by(column).aggregate([("split", "count")])
    torn = per_value.filter(pc.greater(per_value["split_count"], 1))[column]
    if len(torn) == 0:
        return green(
            name, f"each of {per_value.num_rows:,} values of {column} stands in one split", n=per_value.num_rows
        )
    mine = held.filter(pc.is_in(held[column], value_set=torn.combine_chunks())).sort_by([(column, "ascending")])
    shown = [f"{row['task_id']} in {row['split']}" for row in mine.slice(0, 6).to_pylist()]
    return red(
        name,
        f"{len(torn):,} of {per_value.num_rows:,} values of {column} stand in more than one split",
        wrong=shown,
        count=len(torn),
        why=why,
        next_step="give these rows one region_id (or mend the input's region_split), then materialize stamps and what follows",
        n=per_value.num_rows,
    )


def split_balance(splits: Publication, store: Publication, *, floor_rows: int) -> Check:
    """Check that every split holds at least `floor_rows` rows of every stratum, and every row is in one split.

    Rows that the survey holds out of training are of test alone, and no floor is asked of them; rows of known lenses are in none.
    """
    available = store.entry(f"{store.asset}.parquet").schema or {}
    further = ["is_held_out"] if "is_held_out" in available else []
    index = store.read_table(columns=["task_id", "stratum", *further])
    rows = splits.read_table(ROWS, columns=["task_id", "split"])
    joined = index.join(rows, keys="task_id", join_type="left outer")
    lost = joined.filter(pc.is_null(joined["split"]))["task_id"]
    if len(lost) or rows.num_rows != index.num_rows:
        return red(
            "split_balance",
            f"the store has {index.num_rows:,} rows, the split {rows.num_rows:,}, and {len(lost):,} stored rows have no split",
            wrong=lost.slice(0, 6).to_pylist(),
            count=max(len(lost), abs(rows.num_rows - index.num_rows)),
            why="the split was made for another version of the store",
            next_step="dagster asset materialize --select region_splits -m lens_pipeline.definitions -c PRESET",
        )
    held_out = pc.fill_null(joined["is_held_out"], False) if further else pa.array([False] * joined.num_rows)
    elsewhere = pc.invert(pc.is_in(joined["split"], value_set=pa.array([TEST, KNOWN_LENS])))
    if len(seen := joined.filter(pc.and_(held_out, elsewhere))):
        return red(
            "split_balance",
            f"{len(seen):,} of {pc.sum(held_out).as_py():,} rows that the survey holds out of training aren't in test",
            wrong=[f"{row['task_id']} in {row['split']}" for row in seen.slice(0, 6).to_pylist()],
            count=len(seen),
            why="a test of generalisation would be made on what the model was trained on",
            next_step="set region_splits.honour_survey_split: true and give the dataset a new name, or mend the input's "
            "region_split or is_held_out",
        )
    counted = joined.filter(pc.and_(pc.invert(held_out), pc.not_equal(joined["split"], KNOWN_LENS)))
    strata = sorted(pc.unique(counted["stratum"]).to_pylist())
    cells = _cells(counted, strata)
    short = [
        f"{strata[j]} in {SPLITS[i]}: {cells[i, j]} rows" for i, j in zip(*np.nonzero(cells < floor_rows), strict=True)
    ]
    smallest = int(cells.min())
    if short:
        return red(
            "split_balance",
            f"{len(short)} of {cells.size} cells (split x stratum) hold fewer than {floor_rows} rows",
            wrong=short,
            why="a split without a stratum can neither teach nor test it; the split is frozen, so it isn't drawn again",
            next_step="add rows of that stratum in new regions, lower region_splits.floor_rows, or give the dataset a new name",
            smallest_cell=smallest,
        )
    return green(
        "split_balance",
        f"every split holds at least {floor_rows} rows of each of {len(strata)} strata; the smallest cell has {smallest}",
        smallest_cell=smallest,
        n_strata=len(strata),
    )


def _cells(joined: pa.Table, strata: Sequence[str]) -> np.ndarray:
    counted = joined.group_by(["split", "stratum"]).aggregate([([], "count_all")])
    cells = np.zeros((len(SPLITS), len(strata)), dtype=np.int64)
    for row in counted.to_pylist():
        cells[SPLITS.index(row["split"]), strata.index(row["stratum"])] = row["count_all"]
    return cells
