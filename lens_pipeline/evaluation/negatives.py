"""Which controls a rate is about: all of them, those of galaxies that have an injection too, or the others."""

import polars as pl

PAIRED, UNPAIRED = "paired controls", "unpaired controls"


def pairing_strata(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return every injection with the controls alone whose galaxy has one among the rows, and with the others alone.

    Parameters
    ----------
    rows : polars.DataFrame
        `is_lens` and `galaxy_id`, of both classes; their order is kept, and a stratum may be without controls.
    """
    injected = rows.filter(pl.col("is_lens"))["galaxy_id"].unique()
    paired = pl.col("galaxy_id").is_in(injected.implode())
    return {
        PAIRED: rows.filter(pl.col("is_lens") | paired),
        UNPAIRED: rows.filter(pl.col("is_lens") | ~paired),
    }
