"""Completeness of a cross-validation: each injection judged by the model that has not seen its galaxy, above its fold's controls.

Belongs here: the thresholds of the folds, what is recovered above them, and how many false positives such thresholds can hide.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
from scipy import special

from lens_pipeline.contracts.catalogue import FOLD_THRESHOLDS, OUT_OF_FOLD, OUT_OF_FOLD_COMPLETENESS
from lens_pipeline.evaluation.attempted import attempted_in
from lens_pipeline.evaluation.axes import COLUMNS
from lens_pipeline.evaluation.config import CompletenessConfig
from lens_pipeline.evaluation.counting import Attempts, Tally, Threshold
from lens_pipeline.evaluation.intervals import CONFIDENCE, clopper_pearson
from lens_pipeline.evaluation.metrics import OK, UNDEFINED, Metric, proportion_over
from lens_pipeline.evaluation.operating_point import HIGHEST_CONTROL
from lens_pipeline.evaluation.parent_share import ParentShare
from lens_pipeline.evaluation.scored_rows import distinct_rows, join_store
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging

COMPLETENESS_TABLE, THRESHOLDS_TABLE = "out_of_fold", "fold_thresholds"
POOLED = "out_of_fold"
_SPLITS_IN_FOLDS = ("train", "val_select")


def is_cross_validated(scores: Publication) -> bool:
    """Whether scores are those of a cross-validation and have logits out of fold."""
    return f"{OUT_OF_FOLD.name}.parquet" in scores.manifest.files


def build_out_of_fold(
    config: CompletenessConfig,
    *,
    scores: Publication,
    store: Publication,
    splits: Publication,
    manifest: Publication,
    parent: ParentShare,
    staging: Staging,
) -> None:
    """Write the tables ``out_of_fold`` (OUT_OF_FOLD_COMPLETENESS) and ``fold_thresholds`` (FOLD_THRESHOLDS).

    The threshold of a fold is its highest control's logit by the model that was not trained on the fold. So that one table
    can hold all folds, rows are compared by how far they stand above their own threshold. Intervals take thresholds as given,
    and galaxies as clusters, or regions where those know less.

    Raises
    ------
    EvaluationError
        If the scores were made from another store.
    """
    table = pl.DataFrame(scores.read_table(OUT_OF_FOLD.name)).with_columns(
        pl.col("logit").cast(pl.Float64), is_lens=pl.col("label") > 0
    )
    rows = above_own_threshold(join_store(table, scores=scores, store=store, more=COLUMNS))
    staging.write_table(THRESHOLDS_TABLE, fold_thresholds(rows), FOLD_THRESHOLDS)
    lenses = rows.filter(pl.col("is_lens")).with_columns(logit=pl.col("margin"))
    lost = attempted_in(manifest, store, splits, _SPLITS_IN_FOLDS).lost
    tally = Tally(Attempts.of(lenses, lost, parent), [Threshold(HIGHEST_CONTROL, 0.0)], config)
    records = tally.along_axes()
    cells = pa.Table.from_pylist(records, schema=OUT_OF_FOLD_COMPLETENESS.schema)
    staging.write_table(COMPLETENESS_TABLE, cells, OUT_OF_FOLD_COMPLETENESS)


def above_own_threshold(rows: pl.DataFrame) -> pl.DataFrame:
    """Add each row's `threshold`, the highest logit of its fold's controls, and its `margin` above it.

    Parameters
    ----------
    rows : polars.DataFrame
        `fold`, `logit` and `is_lens`; each fold has a control.
    """
    highest = rows.filter(~pl.col("is_lens")).group_by("fold").agg(threshold=pl.col("logit").max())
    joined = rows.join(highest, on="fold", how="left", validate="m:1", maintain_order="left")
    return joined.with_columns(margin=pl.col("logit") - pl.col("threshold"))


def fold_thresholds(rows: pl.DataFrame) -> pa.Table:
    """Return FOLD_THRESHOLDS of rows with their margins."""
    folds = [(f"fold {fold[0]}", part) for fold, part in sorted(rows.group_by("fold"), key=lambda pair: pair[0])]
    single = [_threshold_row(name, part, part["threshold"][0]) for name, part in folds]
    whole = _threshold_row(POOLED, rows, None)
    galaxies = [row["n_negative_galaxies"] for row in single]
    own = "; ".join(filter(None, ["each fold has a threshold of its own", whole["reason"]]))
    pooled = whole | {"fpr_high": fpr_above_highest(galaxies), "reason": own}
    return pa.Table.from_pylist([*single, pooled], schema=FOLD_THRESHOLDS.schema)


def fpr_above_highest(galaxies: Sequence[int], confidence: float = CONFIDENCE) -> float:
    """Upper end of the interval of the false-positive rate above the highest control, of one fold or of several together.

    The rate p above the highest of n controls follows Beta(1, n) (Wilks 1941), whose quantile is Clopper & Pearson's for 0 of
    n. Of several folds the rate is that of a control judged in one of them, in proportion to their controls: the sum of
    (n_i / N) p_i. As P(n p > x) = (1 - x / n)^n <= exp(-x), N times the sum of k independent ones lies below a Gamma(k)
    variable, whose quantile over N is the bound returned. It isn't Clopper & Pearson's for 0 of N, which would be far too
    low: k controls, not one, are the highest by construction.

    Parameters
    ----------
    galaxies : sequence of int
        Galaxies with a control, a number for each fold; none is 0.
    """
    tail = (1 + confidence) / 2
    if len(galaxies) == 1:
        return clopper_pearson(0, galaxies[0], confidence)[1]
    return min(1.0, float(special.gammaincinv(len(galaxies), tail)) / sum(galaxies))


@dataclass(frozen=True)
class CrossFit:
    """The tables of a cross-validation: FOLD_THRESHOLDS and OUT_OF_FOLD_COMPLETENESS."""

    thresholds: pl.DataFrame
    cells: pl.DataFrame

    @classmethod
    def of(cls, completeness: Publication) -> "CrossFit | None":
        """Read them; None where completeness isn't of a cross-validation."""
        if f"{THRESHOLDS_TABLE}.parquet" not in completeness.manifest.files:
            return None
        thresholds, cells = (
            pl.DataFrame(completeness.read_table(name)) for name in (THRESHOLDS_TABLE, COMPLETENESS_TABLE)
        )
        return cls(thresholds, cells)

    @property
    def whole(self) -> dict[str, Any]:
        """The row of all folds together."""
        return self.thresholds.row(by_predicate=pl.col("split") == POOLED, named=True)


def out_of_fold_metrics(cross_fit: CrossFit) -> list[Metric]:
    """Completeness and the bound of the false-positive rate, of each fold and of all together."""
    return [metric for row in cross_fit.thresholds.iter_rows(named=True) for metric in _metrics(row)]


def _metrics(row: dict[str, Any]) -> Iterator[Metric]:
    found = {"split": row["split"], "n_positives": row["n"], "n_negatives": row["n_negatives"], "unit": "fraction"}
    value, low, high = (row[f"completeness{end}"] for end in ("", "_low", "_high"))
    status = UNDEFINED if value is None else OK
    # An earlier version of the pipeline didn't write how the interval was made.
    yield Metric(**found, metric=f"completeness_at_{HIGHEST_CONTROL}", value=value, low=low, high=high,
                 n_clusters=row["n_clusters"], cluster=row["cluster"], status=status, reason=row["reason"],
                 interval=row.get("interval"))  # fmt: skip
    words = f"no interval: it is the upper end of one, as 0 of {row['n_negatives']:,} lie above by construction"
    yield Metric(**found, metric=f"fpr_bound_at_{HIGHEST_CONTROL}", value=row["fpr_high"], low=None, high=None,
                 n_clusters=row["n_negative_galaxies"], status=OK, reason=words)  # fmt: skip


def _threshold_row(split: str, rows: pl.DataFrame, threshold: float | None) -> dict[str, Any]:
    controls, lenses = distinct_rows(rows.filter(~pl.col("is_lens"))), rows.filter(pl.col("is_lens"))
    recovered = (lenses["margin"] > 0).to_numpy()
    found = proportion_over(lenses, recovered, lenses["weight"].to_numpy())
    n_galaxies = controls["galaxy_id"].n_unique()
    return {
        "split": split,
        "threshold": threshold,
        "n_negatives": controls.height,
        "n_negative_galaxies": n_galaxies,
        "fpr_high": fpr_above_highest([n_galaxies]),
        "n": lenses.height,
        "n_galaxies": lenses["galaxy_id"].n_unique(),
        "n_recovered": int(recovered.sum()),
        "completeness": found.value,
        "completeness_low": found.low,
        "completeness_high": found.high,
        "cluster": found.cluster,
        "n_clusters": found.n_clusters,
        "interval": found.interval,
        "reason": found.reason,
    }
