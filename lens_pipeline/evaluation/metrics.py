"""A metric as a row with its interval and what it rests on; undefined is null with the reason.

Negatives are counted distinct: `scored_rows.distinct_rows` comes first. What is measured: `rank_metrics` (the split's own ROC),
`decision_metrics` (at a frozen threshold), `likelihood_metrics` (how good the scores are as probabilities).
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from lens_pipeline.contracts.catalogue import METRICS
from lens_pipeline.evaluation.intervals import GALAXY, MIN_CLUSTERS, REGION, Estimate, wider
from lens_pipeline.evaluation.scored_rows import galaxy_numbers

OK, UNRESOLVED, UNDEFINED, BOUND = "ok", "unresolved", "undefined", "bound"
ALL_ROWS, PAIRED, UNPAIRED, POPULATION = "all", "paired controls", "unpaired controls", "population"
NULL_TEST = "null_test_auroc"
NULL_TEST_MAX_ARC_SNR_MATCHED = 0.5
FRACTION, NATS = "fraction", "nats"

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Metric:
    """One row of METRICS."""

    metric: str
    split: str
    value: float | None
    low: float | None
    high: float | None
    n_positives: int
    n_negatives: int
    n_clusters: int
    unit: str
    status: str
    reason: str | None
    stratum: str = ALL_ROWS
    cluster: str = GALAXY
    n_eff: float | None = None
    interval: str | None = None


@dataclass(frozen=True)
class BootstrapSettings:
    """Replicates and seed of the bootstrap over galaxies or regions."""

    n_replicates: int
    seed: int


def metric_table(metrics: Iterable[Metric]) -> pa.Table:
    """METRICS of these rows."""
    return pa.Table.from_pylist([asdict(metric) for metric in metrics], schema=METRICS.schema)


def completed(table: pa.Table) -> pa.Table:
    """METRICS as it was published, with the columns that an earlier version of the pipeline didn't write."""
    told = {"stratum": ALL_ROWS, "cluster": GALAXY}
    for column in METRICS.columns:
        if column.name not in table.column_names:
            table = table.append_column(
                column.name, pa.array([told.get(column.name)] * table.num_rows, type=column.dtype)
            )
    return table.select([column.name for column in METRICS.columns])


def metric_of(
    name: str,
    split: str,
    rows: pl.DataFrame,
    estimate: Estimate,
    *,
    unit: str = FRACTION,
    status: str | None = None,
    stratum: str = ALL_ROWS,
) -> Metric:
    """Return the row of an estimate.

    Parameters
    ----------
    rows : polars.DataFrame
        What it rests on: `is_lens`, `galaxy_id` and, where regions were the clusters, `region_id`.
    status : str, optional
        By default ok, or undefined where there is no value.
    """
    n_positives, n_negatives = class_counts(rows)
    return Metric(
        metric=name,
        split=split,
        stratum=stratum,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        n_positives=n_positives,
        n_negatives=n_negatives,
        n_clusters=rows["region_id" if estimate.cluster == REGION else "galaxy_id"].n_unique(),
        cluster=estimate.cluster,
        n_eff=estimate.n_eff,
        unit=unit,
        interval=estimate.interval,
        status=status or (UNDEFINED if estimate.value is None else OK),
        reason=estimate.reason,
    )


def class_counts(rows: pl.DataFrame) -> tuple[int, int]:
    """Positives and negatives among rows."""
    n_positives = int(rows["is_lens"].sum())
    return n_positives, rows.height - n_positives


def region_numbers(rows: pl.DataFrame) -> Numbers | None:
    """Return the number of each row's region, shape (n,); None where rows come from fewer than 20 regions, or nobody knows."""
    if "region_id" not in rows.columns or rows["region_id"].null_count() or rows["region_id"].n_unique() < MIN_CLUSTERS:
        return None
    return rows["region_id"].rank("dense").cast(pl.Int64).to_numpy()


def over_clusters(rows: pl.DataFrame, measure: Callable[[Numbers, bool], Estimate]) -> Estimate:
    """Measure with galaxies as clusters, and with regions, if there are 20 or more; the estimate that knows less counts.

    Parameters
    ----------
    measure : callable
        Number of each row's cluster, and whether few clusters may be counted as wholes (`clustered_proportion`): they may if
        they are galaxies, whereas a false positive in each of 3 regions says nothing about the spread of regions.
    """
    found = measure(galaxy_numbers(rows), True)
    regions = region_numbers(rows)
    if regions is None:
        return found
    other = replace(measure(regions, False), cluster=REGION)
    knows_more = found.n_eff is not None and other.n_eff is not None and other.n_eff >= found.n_eff
    return found if knows_more else wider(found, other)
