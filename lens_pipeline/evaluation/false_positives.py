"""Which negatives are mistaken for lenses, and where on the sky: false-positive rates by region and by kind of negative."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from lens_pipeline.evaluation.cell_sums import Numbers
from lens_pipeline.evaluation.clustered_cells import CellEstimate, clustered_proportions
from lens_pipeline.evaluation.counting import Threshold
from lens_pipeline.evaluation.metrics import proportion_over
from lens_pipeline.evaluation.scored_rows import galaxy_numbers

Record = dict[str, Any]


def by_region(rows: pl.DataFrame, regions: pl.DataFrame, thresholds: Sequence[Threshold]) -> list[Record]:
    """Rows of REGIONS.

    Parameters
    ----------
    rows : polars.DataFrame
        Scored rows of test, as `join_store` gives them, with `region_id`; distinct controls.
    regions : polars.DataFrame
        `region_id`, `ra` and `dec`.
    """
    names = rows.select("region_id").unique().sort("region_id")
    places = names.join(regions, on="region_id", how="left", validate="1:1", maintain_order="left").to_dicts()
    negatives = rows.filter(~pl.col("is_lens"))
    false = _counted(negatives, ["region_id"], names, thresholds, exact=True)
    found = _counted(rows.filter(pl.col("is_lens")), ["region_id"], names, thresholds, exact=False)
    records = []
    for threshold, of_negatives, of_lenses in zip(thresholds, false, found, strict=True):
        for place, one, (n_recovered, lenses) in zip(places, of_negatives, of_lenses, strict=True):
            records.append(
                {"operating_point": threshold.name}
                | {name: place[name] for name in ("region_id", "ra", "dec")}
                | _false(one)
                | {
                    "n": lenses.n,
                    "n_recovered": n_recovered,
                    "n_eff": lenses.n_eff,
                    "completeness": lenses.value,
                    "completeness_low": lenses.low,
                    "completeness_high": lenses.high,
                    "reason": lenses.reason,
                }
            )
    return records


def by_kind(rows: pl.DataFrame, thresholds: Sequence[Threshold]) -> list[Record]:
    """Rows of CONTAMINANTS.

    Parameters
    ----------
    rows : polars.DataFrame
        Scored rows of test, as `join_store` gives them, with `role`, null where nobody says; distinct controls.
    """
    negatives = rows.filter(~pl.col("is_lens")).with_columns(pl.col("role").cast(pl.String).fill_null(""))
    kinds = negatives.select("lens_model", "role").unique().sort("lens_model", "role")
    of_kinds = [
        negatives.filter((pl.col("lens_model") == kind["lens_model"]) & (pl.col("role") == kind["role"]))
        for kind in kinds.iter_rows(named=True)
    ]
    return [
        {"operating_point": threshold.name, **kind} | _false(_over_all(mine, threshold))
        for threshold in thresholds
        for kind, mine in zip(kinds.to_dicts(), of_kinds, strict=True)
    ]


def at_thresholds(rows: pl.DataFrame, thresholds: Sequence[Threshold]) -> dict[str, Record]:
    """Say of each threshold its `logit` and the false-positive rate that it has on these rows, as METRICS does.

    Parameters
    ----------
    rows : polars.DataFrame
        Scored rows of test, as `join_store` gives them; distinct controls.

    Returns
    -------
    dict
        Name of the operating point to `logit`, `n_negatives`, `n_negative_galaxies`, `n_false_positives`, `fpr`, `fpr_low`,
        `fpr_high` (95 %) and `fpr_reason`.
    """
    negatives = rows.filter(~pl.col("is_lens"))
    return {
        threshold.name: {"logit": threshold.logit} | _false(_over_all(negatives, threshold)) for threshold in thresholds
    }


def _over_all(negatives: pl.DataFrame, threshold: Threshold) -> CellEstimate:
    """Estimate their rate as FPR is in METRICS: also over regions, where those leave more open."""
    above = (negatives["logit"] > threshold.logit).to_numpy()
    rate = proportion_over(negatives, above, exact=True)
    return CellEstimate(int(above.sum()), replace(rate, n_clusters=negatives["galaxy_id"].n_unique()))


def _counted(
    rows: pl.DataFrame, columns: list[str], groups: pl.DataFrame, thresholds: Sequence[Threshold], *, exact: bool
) -> list[list[CellEstimate]]:
    """Share above each threshold in each group: weighted for lenses, each negative once."""
    numbered = rows.join(groups.with_row_index("group"), on=columns, how="left", maintain_order="left")
    galaxies = galaxy_numbers(numbered)
    order = np.argsort(galaxies, kind="stable")
    group: Numbers = numbered["group"].to_numpy()[order]
    if groups.height <= np.iinfo(np.uint16).max:
        group = group.astype(np.uint16)
    logit = numbered["logit"].to_numpy()[order]
    weight = np.ones(rows.height) if exact else numbered["weight"].to_numpy()[order]
    above = [logit > threshold.logit for threshold in thresholds]
    return clustered_proportions(above, group, groups.height, galaxies[order], weight, exact=exact)


def _false(found: CellEstimate) -> Record:
    rate = found.proportion
    return {
        "n_negatives": rate.n,
        "n_negative_galaxies": rate.n_clusters,
        "n_false_positives": found.n_recovered,
        "fpr": rate.value,
        "fpr_low": rate.low,
        "fpr_high": rate.high,
        "fpr_reason": rate.reason,
    }
