"""Stamps of real lenses that have the very same pixels: which of them counts, which lens it shows, and what is known of that.

The store names a lens by one table and a user's file by another. Pixels that are the same say that both mean one lens, and so
do all other stamps under either name.
"""

import numpy as np
import polars as pl

from lens_pipeline.audits.lens_names import YES_OR_NO
from lens_pipeline.contracts.errors import first_few
from lens_pipeline.evaluation.intervals import numbered

_JOINED = " = "


def with_copies_told(stamps: pl.DataFrame) -> pl.DataFrame:
    """Give stamps that share pixels one lens and all that is known of any of them, and say which alone counts.

    That is the first that has a score. A flag is true where any copy says so; methods are those of all copies.

    Parameters
    ----------
    stamps : polars.DataFrame
        Shape (n,), with `key`, `pixel_hash` (null: not known), `logit`, `lens_name` (null: none is given) and the other `FACTS`.

    Returns
    -------
    polars.DataFrame
        The same rows in their order. `lens_name` holds all names of a lens, or the key of its first stamp. New are `same_as`,
        the key of the copy that counts (null: this one), `has_aliases`, whether the lens has more than one name, and
        `disputed`, the flags that one copy says are true and another false (null: none).
    """
    rows = stamps.with_row_index("place")
    rows = rows.with_columns(
        pl.coalesce(pl.when(pl.col("pixel_hash").is_not_null()).then(pl.col("place").first().over("pixel_hash")), "place")
        .alias("pixels")
    )  # fmt: skip
    rows = rows.with_columns(_lens_of(rows))
    names = pl.col("lens_name").drop_nulls().unique(maintain_order=True)
    counts = pl.struct("place", "key").sort_by(pl.col("logit").is_null(), "place").first().over("pixels")
    disputed = [pl.when(pl.col(flag).drop_nulls().n_unique() > 1).then(pl.lit(flag)) for flag in YES_OR_NO]
    told = rows.with_columns(
        pl.when(names.len() > 0).then(names.str.join(_JOINED)).otherwise(pl.col("key").first()).over("lens"),
        *(pl.col(flag).max().over("pixels") for flag in YES_OR_NO),
        pl.when(pl.col("place") != counts.struct["place"]).then(counts.struct["key"]).alias("same_as"),
        (names.len() > 1).over("lens").alias("has_aliases"),
        pl.concat_str(disputed, separator=", ", ignore_nulls=True).over("pixels").replace("", None).alias("disputed"),
    )
    told = told.drop("methods").join(_methods_of(rows), on="pixels", how="left", maintain_order="left")
    return told.drop("place", "pixels", "lens")


def told_of_copies(stamps: pl.DataFrame) -> list[str]:
    """Say how many stamps count no more, how many lenses have several names, and where copies contradict each other.

    Parameters
    ----------
    stamps : polars.DataFrame
        Some of the rows of `with_copies_told`.
    """
    said = []
    copies = stamps.drop_nulls("same_as")
    if n := copies.height:
        listed = copies.select(pl.format("{} = {}", "key", "same_as")).to_series()
        said.append(f"{n:,} more {_have(n)} the pixels of another and count no more: {first_few(listed)}")
    aliases = stamps.filter("has_aliases")["lens_name"].unique(maintain_order=True)
    if n := aliases.len():
        lenses = "lens has several names and counts" if n == 1 else "lenses have several names and count"
        said.append(f"{n:,} {lenses} once: {first_few(aliases)}")
    disputed = stamps.filter(pl.col("same_as").is_null()).drop_nulls("disputed")
    if n := disputed.height:
        listed = disputed.select(pl.format("{} ({})", "key", "disputed")).to_series()
        said.append(f"{n:,} {_have(n)} a copy that contradicts, and yes was taken over no: {first_few(listed)}")
    return said


def _have(n: int) -> str:
    return "has" if n == 1 else "have"


def _methods_of(rows: pl.DataFrame) -> pl.DataFrame:
    """Put together the methods of all stamps that share pixels, each once."""
    each = rows.select("pixels", pl.col("methods").str.split(", ")).explode("methods").filter(pl.col("methods") != "")
    return each.unique(maintain_order=True).group_by("pixels").agg(pl.col("methods").str.join(", "))


def _lens_of(rows: pl.DataFrame) -> pl.Series:
    """Give each row the number of its lens: what pixels and names join, in however many steps, is one."""
    # Here and not at the top: scipy's graphs take long to load.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = rows.height
    if n == 0:
        return pl.Series("lens", [], pl.Int32)
    pixels = rows["pixels"].to_numpy()
    names, _ = numbered(rows.select(pl.coalesce("lens_name", "key")).to_series().to_numpy())
    links = coo_array((np.ones(n, dtype=bool), (pixels, n + names)), shape=(2 * n, 2 * n))
    _, lens = connected_components(links, directed=False)
    return pl.Series("lens", lens[pixels])
