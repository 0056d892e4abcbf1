"""Scored rows as evaluation needs them: checked, and joined 1:1 by task_id to what the store knows of each.

Rows of the test split don't come through here by themselves: see `sealed`.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from lens_pipeline.contracts.catalogue import SCORES
from lens_pipeline.contracts.errors import EvaluationError, first_few
from lens_pipeline.storage.publication import Publication

TRAIN = "train"
TEST = "test"
CALIBRATE = "val_calibrate"
# Fewer rows may lie between 0 and 1, or on one side of 0, by chance.
_FEW_ROWS, _NEAR_END = 50, 0.1
_HALF_IN_PERCENT = 50
# One float32 in 8,192 is a number of float16 too; so many different logits that all are were rounded to it.
_ROUNDED = 100
_STORED = "label_in_the_store"
# Table of the scores that the classical finder's own stand in.
MATCHED_FILTER = "matched_filter"
OPEN_SPLITS = (TRAIN, "val_select", CALIBRATE)
_NEEDED = ("pixel_hash", "galaxy_id", "lens_model", "theta_e_arcsec")
_USED_WHERE_THERE = (
    *("weight", "psf_fwhm_used_r", "arc_snr", "arc_snr_matched", "src_mag_r", "magnification"),
    *("source_id", "is_held_out", "region_id"),
)


def open_rows(scores: Publication, split: str) -> pl.DataFrame:
    """Scores of one split that may be looked at freely.

    Raises
    ------
    EvaluationError
        If the split is test, which only `sealed.open_test_rows` reads, or is none of ours.
    """
    if split not in OPEN_SPLITS:
        raise EvaluationError(
            f"split {split!r} can't be read here: {', '.join(OPEN_SPLITS)} can. Rows of test are read by open_test_rows "
            "only, which takes a frozen operating point and logs that it read."
        )
    return rows_of_split(scores, split)


def rows_of_split(scores: Publication, split: str) -> pl.DataFrame:
    """Scores of any split; outside this module only `sealed` calls it.

    Returns
    -------
    polars.DataFrame
        Columns of SCORES, `logit` as float64, `logit_<class>` where there are more than two classes, and `is_lens`.

    Raises
    ------
    ContractError
        If the table breaks its contract, e.g. a logit that is not finite.
    EvaluationError
        If logits were stored in less than float32, or those of any split were rounded to less, or are probabilities or per cent.
    """
    table = scores.read_table()
    SCORES.validate(table, where=f"scores {scores.version}")
    width = table.schema.field("logit").type.bit_width
    again = "dagster asset materialize --select scores -m lens_pipeline.definitions -c PRESET"
    if width < 32:
        raise EvaluationError(
            f"scores {scores.version} stores logits in {width} bits, which ties what the model told apart. Score again "
            f"in float32: {again}"
        )
    # A split alone too: sound rows beside it would hide what was done to its own.
    parts = {"": table["logit"]} | {
        f"split {name} of ": table["logit"].filter(pc.equal(table["split"], name))
        for name in pc.unique(table["split"]).to_pylist()
    }
    for part, logits in parts.items():
        if spoiled := _how_spoiled(logits):
            raise EvaluationError(f"all {len(logits):,} logits of {part}scores {scores.version} {spoiled}: {again}")
    of_classes = [name for name in table.column_names if name.startswith("logit_")]
    table = table.filter(pc.equal(table["split"], split)).select(["task_id", "logical", "label", "logit", *of_classes])
    return pl.DataFrame(table).with_columns(pl.col("logit").cast(pl.Float64), is_lens=pl.col("label") > 0)


def _how_spoiled(logits: pa.ChunkedArray) -> str | None:
    """Say what was done to logits and what next, None where they may be raw.

    Probabilities fill the interval from 0 to 1, per cents reach beyond 50 and never below 0; raw logits of many rows do neither.
    """
    numbers = logits.to_numpy()
    with np.errstate(over="ignore"):
        fits = bool((numbers == numbers.astype(np.float16)).all())
    if fits and np.unique(numbers).size >= _ROUNDED:
        return (
            "are numbers of float16: they were rounded to 16 bits before they were stored, which ties what the model told "
            "apart. Score again in float32"
        )
    if numbers.size < _FEW_ROWS:
        return None
    low, high = numbers.min(), numbers.max()
    if 0 <= low < _NEAR_END and 1 - _NEAR_END < high <= 1:
        return (
            "lie between 0 and 1, and reach near both: they are probabilities, which tie at the ends where logits don't. "
            "Store the raw logit and score again"
        )
    if low >= 0 and _HALF_IN_PERCENT < high <= 100:
        return (
            "lie between 0 and 100, and reach beyond 50: they are per cent, which tie at the ends where logits don't. "
            "Store the raw logit and score again"
        )
    return None


def join_store(
    rows: pl.DataFrame, *, scores: Publication, store: Publication, more: Sequence[str] = ()
) -> pl.DataFrame:
    """Add what the store knows of each row: galaxy, pixels' hash, lens model, and the axes of completeness.

    A column that the store lacks (the survey never measured it) comes back null; a missing `weight` as 1.

    Parameters
    ----------
    more : sequence of str
        Columns wanted beside these.

    Raises
    ------
    EvaluationError
        If the scores were made from another store, or a scored row isn't in this one or has another label there.
    """
    refuse_other(scores, "scores", store)
    available = store.entry(f"{store.asset}.parquet").schema or {}
    wanted = [name for name in dict.fromkeys((*_USED_WHERE_THERE, *more)) if name not in (*_NEEDED, "task_id")]
    columns = [name for name in wanted if name in available]
    index = pl.DataFrame(store.read_table(columns=["task_id", "label", *_NEEDED, *columns])).rename({"label": _STORED})
    joined = rows.join(index, on="task_id", how="left", validate="1:1", maintain_order="left")
    strangers = joined.filter(pl.col("pixel_hash").is_null())
    if strangers.height:
        raise EvaluationError(
            f"{strangers.height:,} of {rows.height:,} scored rows are not in stamp_store {store.version}: "
            f"{first_few(strangers['task_id'].to_list())}. Materialize scores again."
        )
    relabelled = joined.filter(pl.col("label") != pl.col(_STORED))
    if relabelled.height:
        raise EvaluationError(
            f"{relabelled.height:,} of {rows.height:,} scored rows have another label in stamp_store {store.version}: "
            f"{first_few(relabelled['task_id'].to_list())}. Lenses would be counted as controls. Materialize scores again."
        )
    joined = joined.drop(_STORED)
    # Where nobody weighs injections, each stands for as many as any other.
    given = {name: 1.0 if name == "weight" else None for name in wanted if name not in columns}
    return joined.with_columns(pl.lit(value, dtype=pl.Float64).alias(name) for name, value in given.items())


def by_matched_filter(rows: pl.DataFrame, scores: Publication) -> pl.DataFrame | None:
    """Return the same rows as the classical finder scores them, its signal-to-noise as `logit`; None where it was left out.

    Raises
    ------
    EvaluationError
        If it has not looked at one of the rows.
    """
    if f"{MATCHED_FILTER}.parquet" not in scores.manifest.files:
        return None
    found = pl.DataFrame(scores.read_table(MATCHED_FILTER, columns=["task_id", "snr"]))
    joined = rows.join(found, on="task_id", how="left", validate="1:1", maintain_order="left")
    lacking = joined.filter(pl.col("snr").is_null())
    if lacking.height:
        raise EvaluationError(
            f"{lacking.height:,} of {rows.height:,} rows have no {MATCHED_FILTER} in scores {scores.version}: "
            f"{first_few(lacking['task_id'].to_list())}. Materialize scores again."
        )
    return joined.with_columns(logit=pl.col("snr").cast(pl.Float64)).drop("snr")


def distinct_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """Count a control once however often the very same pixels of a galaxy stand there; injections are left alone."""
    first = rows.select(pl.col("is_lens") | pl.struct("galaxy_id", "pixel_hash", "is_lens").is_first_distinct())
    return rows.filter(first.to_series())


def refuse_other(made: Publication, made_name: str, source: Publication) -> None:
    """Refuse two publications of which the first was not made from the second.

    Raises
    ------
    EvaluationError
        Naming both versions.
    """
    read = made.version_read(source)
    if read != source.version:
        raise EvaluationError(
            f"{made_name} {made.version} was made from {source.asset} {read}, not from {source.version}: numbers of one "
            f"would be told of the other. Next: dagster asset materialize --select {made.asset} "
            "-m lens_pipeline.definitions -c PRESET"
        )


def refuse_empty_class(rows: pl.DataFrame, where: str, so: str = "no rate can be stated") -> None:
    """Refuse rows without an injection or without a control.

    Parameters
    ----------
    where, so : str
        What they are rows of, and what can't be done without them.

    Raises
    ------
    EvaluationError
        Saying which class is empty, of how many rows.
    """
    if rows.is_empty():
        raise EvaluationError(
            f"{where} has no row, so {so}. Next: give that split a share of the regions (region_splits), and run again from "
            "region_splits."
        )
    n_lenses = int(rows["is_lens"].sum())
    n_controls = rows.height - n_lenses
    for n, other, name in ((n_controls, n_lenses, "controls"), (n_lenses, n_controls, "injections")):
        if n == 0:
            raise EvaluationError(
                f"{where} has no {name} ({other:,} rows of the other class), so {so}. Give the data set "
                f"more {name} or that split a larger share (region_splits), and run again from region_splits."
            )


def galaxy_numbers(rows: pl.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the number of each row's galaxy, in the order in which they first stand there, shape (n,)."""
    numbers: np.ndarray[tuple[int], np.dtype[np.int64]] = (
        rows["galaxy_id"].to_arrow().dictionary_encode().indices.to_numpy().astype(np.int64)
    )
    return numbers
