"""Injections that were attempted in some splits: how many, which were never stored and why, and how many were set aside."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.evaluation.axes import COLUMNS
from lens_pipeline.evaluation.scored_rows import TEST
from lens_pipeline.splits.frozen import split_of_regions
from lens_pipeline.splits.set_aside import TABLE as SET_ASIDE_TABLE
from lens_pipeline.storage.publication import Publication

UNACCOUNTED = "not in the quarantine table"


@dataclass(frozen=True)
class Attempted:
    """Injections that the manifest asks for in some splits' regions; rows of one key count once.

    Attributes
    ----------
    n : int
        All of them.
    lost : polars.DataFrame
        Those that the store doesn't have: columns of the manifest that axes are computed from, and `reason`, the quarantine's
        or `UNACCOUNTED`.
    n_set_aside : int
        Those that are stored and in no split, since their galaxy is a known lens.
    of_no_split : polars.DataFrame
        As `lost`, of regions whose split nobody knows; they are in none of the other numbers.
    """

    n: int
    lost: pl.DataFrame
    n_set_aside: int
    of_no_split: pl.DataFrame

    @property
    def reasons(self) -> dict[str, int]:
        """Reason to number, of `lost`; the most frequent first."""
        return _reasons(self.lost)

    @property
    def reasons_of_no_split(self) -> dict[str, int]:
        """Reason to number, of `of_no_split`; the most frequent first."""
        return _reasons(self.of_no_split)


def attempted_in(
    manifest: Publication, store: Publication, splits: Publication, wanted_splits: Sequence[str] = (TEST,)
) -> Attempted:
    """Read the injections of some splits from the manifest, and hold them against the store and its quarantine."""
    available = manifest.entry(f"{manifest.asset}.parquet").schema or {}
    wanted = [name for name in ("task_id", "region_id", "region_split", *COLUMNS) if name in available]
    contract = DatasetContract.model_validate(store.attributes["dataset_contract"])
    lens_names = [name for name, label in contract.label_of.items() if label > 0]
    rows = pl.DataFrame(manifest.read_table(columns=wanted)).filter(pl.col("lens_model").is_in(lens_names))
    keyed = pl.col("task_id").fill_null("") != ""
    injections = pl.concat([rows.filter(keyed).unique("task_id", maintain_order=True), rows.filter(~keyed)])
    split = _split_of_rows(injections, splits)
    asked, of_no_split = injections.filter(split.is_in(wanted_splits)), injections.filter(split.is_null())
    stored = pl.DataFrame(store.read_table(columns=["task_id"]))
    quarantine = pl.DataFrame(store.read_table("quarantine", columns=["task_id", "reason"])).with_columns(
        task_id=_key()
    )
    first_reason = quarantine.unique("task_id", keep="first", maintain_order=True)
    return Attempted(
        n=asked.height,
        lost=_never_stored(asked, stored, first_reason),
        n_set_aside=_n_set_aside(asked, splits),
        of_no_split=_never_stored(of_no_split, stored, first_reason),
    )


def _never_stored(injections: pl.DataFrame, stored: pl.DataFrame, first_reason: pl.DataFrame) -> pl.DataFrame:
    lost = injections.join(stored, on="task_id", how="anti", maintain_order="left").with_columns(task_id=_key())
    named = lost.join(first_reason, on="task_id", how="left", validate="m:1", maintain_order="left")
    return named.with_columns(pl.col("reason").fill_null(UNACCOUNTED))


def _reasons(lost: pl.DataFrame) -> dict[str, int]:
    return dict(lost["reason"].value_counts().sort("count", "reason", descending=[True, False]).iter_rows())


def _key() -> pl.Expr:
    """Give the key to join by: rows without one share the empty one."""
    return pl.col("task_id").fill_null("")


def _split_of_rows(injections: pl.DataFrame, splits: Publication) -> pl.Series:
    own = pl.col("region_split") if "region_split" in injections.columns else pl.lit(None, pl.String)
    agreed = pl.when(own.n_unique() == 1).then(own.first())
    regions = injections.drop_nulls("region_id").group_by("region_id").agg(agreed.alias("own"))
    found = split_of_regions(splits, dict(regions.iter_rows()))
    names = pl.DataFrame(
        {"region_id": list(found), "split": list(found.values())}, {"region_id": pl.String, "split": pl.String}
    )
    return injections.select("region_id").join(names, on="region_id", how="left", maintain_order="left")["split"]


def _n_set_aside(asked: pl.DataFrame, splits: Publication) -> int:
    if f"{SET_ASIDE_TABLE}.parquet" not in splits.manifest.files:
        return 0
    set_aside = pl.DataFrame(splits.read_table(SET_ASIDE_TABLE, columns=["task_id"]))
    return asked.join(set_aside, on="task_id", how="semi").height
