"""Which controls a rate is about: all of them, those of galaxies that have an injection too, or the others."""

import polars as pl

PAIRED, UNPAIRED = "paired controls", "unpaired controls"


def strata_of_controls(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Divide controls by whether their galaxy has an injection among the rows; a stratum may be empty.

    Parameters
    ----------
    rows : polars.DataFrame
        `is_lens` and `galaxy_id`, of both classes.
    """
    hosts = rows.filter(pl.col("is_lens")).select("galaxy_id").unique()
    controls = rows.filter(~pl.col("is_lens"))
    return {
        PAIRED: controls.join(hosts, on="galaxy_id", how="semi", maintain_order="left"),
        UNPAIRED: controls.join(hosts, on="galaxy_id", how="anti", maintain_order="left"),
    }
