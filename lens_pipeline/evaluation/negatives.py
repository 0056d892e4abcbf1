"""Which controls a rate is about: all, galaxies as the survey has them, those that have an injection too, or the others."""

from typing import Any

import polars as pl

from lens_pipeline.contracts.dataset import DatasetContract

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


def of_survey(rows: pl.DataFrame, contract: DatasetContract) -> pl.DataFrame:
    """Return every injection, and the controls that are galaxies as the survey has them.

    Fakes, hard negatives and a set's own contaminants are there in a share that somebody chose: what is told of the survey at
    its prevalence of lenses leaves them out.

    Parameters
    ----------
    rows : polars.DataFrame
        `is_lens` and `lens_model`; their order is kept, and there may be no such control.
    """
    return rows.filter(pl.col("is_lens") | (pl.col("lens_model") == contract.control_value))


def none_of_survey(alike: pl.DataFrame, rows: pl.DataFrame, contract: DatasetContract) -> str | None:
    """Say that `of_survey` leaves none of the controls; None if it leaves some, or there are none.

    Parameters
    ----------
    alike, rows : polars.DataFrame
        `is_lens` of what `of_survey` returned, and of what it was given.
    """
    if rows["is_lens"].all() or not alike["is_lens"].all():
        return None
    return f"no control is a galaxy as the survey has them (lens_model {contract.control_value})"


def put_in(rows: pl.DataFrame, contract: DatasetContract) -> dict[str, Any]:
    """Count the controls, and those of each other kind by its lens_model."""
    controls = rows.filter(~pl.col("is_lens"))
    others = controls.filter(pl.col("lens_model") != contract.control_value)
    kinds = others.group_by("lens_model").len().sort("lens_model")
    return {"n": controls.height, "put_in": dict(kinds.iter_rows())}
