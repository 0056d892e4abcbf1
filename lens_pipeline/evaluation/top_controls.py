"""The controls with the highest scores, listed to be looked at: a lens that nobody has found yet would stand among them."""

import polars as pl
import pyarrow as pa

from lens_pipeline.contracts.catalogue import TOP_CONTROLS
from lens_pipeline.evaluation.calibrators import Calibrator
from lens_pipeline.storage.publication import Publication

_POSITION = ("ra", "dec")


def top_controls(
    distinct: pl.DataFrame, points: pl.DataFrame, calibrator: Calibrator, prevalence: float, store: Publication, n: int
) -> pa.Table:
    """TOP_CONTROLS of some rows, the highest score first, ties by key.

    Parameters
    ----------
    distinct : polars.DataFrame
        Rows joined to the store; distinct controls.
    points : polars.DataFrame
        `operating_point` and `threshold`; null where there is none.
    prevalence : float
        That `p_lens` is stated at.
    n : int
        Most controls listed.
    """
    controls = distinct.filter(~pl.col("is_lens"))
    highest = controls.sort("logit", "task_id", descending=[True, False]).head(n)
    thresholds = points.drop_nulls("threshold").select("operating_point", "threshold").rows()
    above = [", ".join(name for name, at in thresholds if logit > at) or None for logit in highest["logit"]]
    logits = highest["logit"].to_numpy()
    listed = highest.select("task_id", "galaxy_id", "lens_model", "logit").with_columns(
        pl.Series("rank", range(1, highest.height + 1), dtype=pl.Int64),
        pl.Series(
            "p_lens",
            [None] * logits.size if calibrator.why_no_p_lens else calibrator.p_lens(logits, prevalence),
            dtype=pl.Float64,
        ),
        pl.Series("extrapolated", calibrator.is_extrapolated(logits)),
        pl.Series("above", above, dtype=pl.String),
    )
    placed = listed.join(_positions(store, listed), on="task_id", how="left", validate="1:1", maintain_order="left")
    return placed.select([column.name for column in TOP_CONTROLS.columns]).to_arrow().cast(TOP_CONTROLS.schema)


def _positions(store: Publication, listed: pl.DataFrame) -> pl.DataFrame:
    """Where the listed stamps are in the sky; null where the store doesn't say."""
    available = store.entry(f"{store.asset}.parquet").schema or {}
    there = [name for name in _POSITION if name in available]
    index = pl.DataFrame(store.read_table(columns=["task_id", *there]))
    found = index.join(listed.select("task_id"), on="task_id", how="semi")
    return found.with_columns(*(pl.lit(None, pl.Float64).alias(name) for name in _POSITION if name not in there))
