"""What a user's table says of stamps of real lenses: which lens each shows, how that was found, and how sure it is."""

from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from lens_pipeline.contracts.errors import ConfigError, ContractError, first_few

YES_OR_NO = ("is_confident", "independent_of_networks")
FACTS = ("lens_name", "methods", *YES_OR_NO)


def read_names(file: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Read what is known of the lenses, by the `key` of their stamps.

    Parameters
    ----------
    file : str
        CSV or parquet.
    rows : polars.DataFrame
        Stamps with `key`, and `row`, which is null where all of a file was refused.

    Returns
    -------
    polars.DataFrame
        `key` and `FACTS`; an empty or blank name is none.

    Raises
    ------
    ConfigError
        If there is no such file.
    ContractError
        If it can't be read, lacks a column, names a stamp twice or not at all, or says neither true nor false.
    """
    path = Path(file).expanduser().absolute()
    if not path.is_file():
        raise ConfigError(f"real_lens_recovery.names: there is no file {path}. Name a CSV or parquet, or leave it out.")
    try:
        table = (
            pl.DataFrame(pq.read_table(path)) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema=False)
        )
    except (pl.exceptions.PolarsError, pa.ArrowInvalid, UnicodeDecodeError) as error:
        why = str(error).partition("\n")[0]
        raise ContractError(f"real_lens_recovery.names: {path} can't be read as CSV or parquet: {why}") from error
    if missing := [name for name in ("task_id", "lens_name") if name not in table.columns]:
        raise ContractError(f"{path} has no column {first_few(missing)}; it has {first_few(table.columns, 12)}.")
    table = table.with_columns(pl.lit(None).alias(name) for name in FACTS if name not in table.columns)
    table = table.select(
        pl.col("task_id").cast(pl.String).alias("key"),
        *(pl.col(name).cast(pl.String).str.strip_chars().replace("", None) for name in ("lens_name", "methods")),
        *(_yes_or_no(table[name], path) for name in YES_OR_NO),
    )
    if twice := table.filter(pl.col("key").is_duplicated())["key"].unique(maintain_order=True).to_list():
        raise ContractError(
            f"{path} names {len(twice):,} of its stamps more than once: {first_few(twice)}. Each row is a stamp."
        )
    whole = rows.drop_nulls("row")  # A file that is refused whole shows no stamp that could be named.
    unnamed = whole.join(table, on="key", how="anti", maintain_order="left")["key"].to_list()
    if unnamed:
        raise ContractError(
            f"{path} says nothing of {len(unnamed):,} of {whole.height:,} stamps: {first_few(unnamed)}. Name them by their "
            "task_id, or FILE:ROW where they have none, as here, or leave real_lens_recovery.names out: then each stamp counts "
            "as a lens of its own."
        )
    return table


def refuse_one_stamp_of_two_lenses(told: pl.DataFrame, file: str) -> None:
    """Refuse names by which the very same pixels show two lenses: one of them has another's stamp.

    Parameters
    ----------
    told : polars.DataFrame
        Stamps with `key`, `pixel_hash` and `lens_name`.
    file : str
        That names them.

    Raises
    ------
    ContractError
        Naming the stamps that are the same.
    """
    named = told.drop_nulls(["pixel_hash", "lens_name"])
    torn = named.filter(pl.col("lens_name").n_unique().over("pixel_hash") > 1)
    if torn.height:
        groups = torn.group_by("pixel_hash", maintain_order=True).agg(pl.format("{} ({})", "key", "lens_name"))
        listed = [" = ".join(members) for members in groups.drop("pixel_hash").to_series()]
        raise ContractError(
            f"{file} gives {len(listed):,} stamps, pixel for pixel the same, to more than one lens: {first_few(listed)}. "
            "One of each has another lens's stamp: put the right one there, or name both alike."
        )


def _yes_or_no(values: pl.Series, path: Path) -> pl.Series:
    """Read true and false, however they are written; null where nothing is."""
    words = values.cast(pl.String).str.to_lowercase().str.strip_chars()
    found = words.replace_strict(
        {"true": True, "1": True, "false": False, "0": False}, default=None, return_dtype=pl.Boolean
    )
    strange = values.filter(found.is_null() & words.is_not_null() & (words != "")).unique(maintain_order=True).to_list()
    if strange:
        raise ContractError(
            f"{path}: {values.name} is neither true nor false but {first_few(strange)}. Leave it empty where it isn't known."
        )
    return found
