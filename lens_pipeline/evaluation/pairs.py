"""Injections beside the control of their own galaxy: how often the arc is what raises the score."""

import numpy as np
import polars as pl

from lens_pipeline.evaluation.intervals import Estimate, clustered_proportion
from lens_pipeline.evaluation.metrics import Metric, metric_of, over_clusters

ABOVE_OWN_CONTROL = "above_own_control"
CONTROL_LOGIT, CONTROL_LOGICAL = "control_logit", "control_logical"


def beside_controls(rows: pl.DataFrame) -> pl.DataFrame:
    """Injections that have a control among the rows: the one that they name, else the first of their galaxy by its key.

    Parameters
    ----------
    rows : polars.DataFrame
        `task_id`, `galaxy_id`, `is_lens`, `logit`, `logical` and `pair_id`, null where nobody says.

    Returns
    -------
    polars.DataFrame
        Columns of `rows`, `control_logit` and `control_logical`, in their order.
    """
    controls = rows.filter(~pl.col("is_lens")).select(
        pl.col("task_id").alias("pair_id"),
        "galaxy_id",
        pl.col("logit").alias(CONTROL_LOGIT),
        pl.col("logical").alias(CONTROL_LOGICAL),
    )
    first = controls.sort("pair_id").unique("galaxy_id", keep="first").select(pl.all().name.suffix("_of_galaxy"))
    injections = rows.filter(pl.col("is_lens")).with_columns(pl.col("pair_id").cast(pl.String))
    named = injections.join(controls.drop("galaxy_id"), on="pair_id", how="left", maintain_order="left")
    both = named.join(
        first, left_on="galaxy_id", right_on="galaxy_id_of_galaxy", how="left", validate="m:1", maintain_order="left"
    )
    found = [pl.coalesce(name, f"{name}_of_galaxy").alias(name) for name in (CONTROL_LOGIT, CONTROL_LOGICAL)]
    return both.with_columns(*found).select(*rows.columns, CONTROL_LOGIT, CONTROL_LOGICAL).drop_nulls(CONTROL_LOGICAL)


def pair_metric(pairs: pl.DataFrame, split: str) -> Metric:
    """Share of injections that score above the control of their own galaxy, with Wilson's interval clustered as FPRs are.

    0 to 1, 0.5 for scores that know nothing of the arc; a tie is not above. Undefined where no injection has a control.

    Parameters
    ----------
    pairs : polars.DataFrame
        Of `beside_controls`.
    """
    if pairs.is_empty():
        nothing = Estimate(None, None, None, 0, 0, None, "no injection has a control of its galaxy in this split")
        return metric_of(ABOVE_OWN_CONTROL, split, pairs, nothing)
    above = (pairs["logit"] > pairs[CONTROL_LOGIT]).to_numpy()
    share = over_clusters(
        pairs, lambda clusters, whole: clustered_proportion(above, np.asarray(clusters), whole_where_few=whole)
    )
    return metric_of(ABOVE_OWN_CONTROL, split, pairs, share)
