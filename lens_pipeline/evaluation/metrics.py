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
from lens_pipeline.evaluation.intervals import (
    GALAXY,
    REGION,
    Estimate,
    Measured,
    clustered_proportion,
)
from lens_pipeline.evaluation.regions import Numbers, knows_less, of_galaxies, region_numbers, spread_unknown
from lens_pipeline.evaluation.scored_rows import galaxy_numbers

OK, UNRESOLVED, UNDEFINED, BOUND = "ok", "unresolved", "undefined", "bound"
ALL_ROWS, POPULATION = "all", "population"
# How the stratum of one class's rows begins.
OF_CLASS = "class "
NULL_TEST, NULL_TEST_P = "null_test_auroc", "null_test_p"
NULL_TEST_MAX_ARC_SNR_MATCHED = 0.5
FRACTION, NATS = "fraction", "nats"


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


@dataclass(frozen=True)
class Basis:
    """What metrics rest on: rows of each class, galaxies, and regions (0 where nobody knows them)."""

    n_positives: int
    n_negatives: int
    n_galaxies: int
    n_regions: int

    @classmethod
    def of(cls, rows: pl.DataFrame) -> "Basis":
        """Count `is_lens`, `galaxy_id` and, where there is one, `region_id`."""
        n_regions = rows["region_id"].n_unique() if "region_id" in rows.columns else 0
        return cls(*class_counts(rows), rows["galaxy_id"].n_unique(), n_regions)


def metric_of(
    name: str,
    split: str,
    rows: "pl.DataFrame | Basis",
    estimate: Estimate,
    *,
    unit: str = FRACTION,
    status: str | None = None,
    stratum: str = ALL_ROWS,
) -> Metric:
    """Return the row of an estimate.

    Parameters
    ----------
    rows : polars.DataFrame or Basis
        What it rests on; a basis where many metrics rest on the same rows.
    status : str, optional
        By default ok, or undefined where there is no value.
    """
    basis = rows if isinstance(rows, Basis) else Basis.of(rows)
    return Metric(
        metric=name,
        split=split,
        stratum=stratum,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        n_positives=basis.n_positives,
        n_negatives=basis.n_negatives,
        n_clusters=basis.n_regions if estimate.cluster == REGION else basis.n_galaxies,
        cluster=estimate.cluster,
        n_eff=estimate.n_eff,
        unit=unit,
        interval=estimate.interval,
        status=status or (UNDEFINED if estimate.value is None else OK),
        reason=estimate.reason,
    )


def because(metrics: Iterable[Metric], why: str | None) -> list[Metric]:
    """Return metrics that have no value for a reason that their rows alone don't tell, with it; as they are where it is None."""
    return [replace(metric, reason=why) if why else metric for metric in metrics]


def class_counts(rows: pl.DataFrame) -> tuple[int, int]:
    """Positives and negatives among rows."""
    n_positives = int(rows["is_lens"].sum())
    return n_positives, rows.height - n_positives


@dataclass(frozen=True)
class Clusters:
    """Galaxy of each row, and its region (`region_numbers`), each shape (n,); None where rows have no `region_id`."""

    galaxies: Numbers
    regions: Numbers | None

    @classmethod
    def of(cls, rows: pl.DataFrame) -> "Clusters":
        """Give the clusters of rows numbers, from `galaxy_id` and, where there is one, `region_id`."""
        return cls(galaxy_numbers(rows), region_numbers(rows))

    def where(self, there: npt.NDArray[np.bool_]) -> "Clusters":
        """Return those of some rows."""
        return Clusters(self.galaxies[there], None if self.regions is None else self.regions[there])


def over_clusters(rows: pl.DataFrame | Clusters, measure: Callable[[Numbers, bool], Measured]) -> Measured:
    """Measure with galaxies as clusters, and with regions if they are known; the estimate that knows less counts.

    From fewer than 5 regions, or where a row's region isn't known, the estimate is that over galaxies, and its reason says so.

    Parameters
    ----------
    rows : polars.DataFrame or Clusters
        Clusters where many metrics rest on the same rows.
    measure : callable
        Number of each row's cluster, and whether few clusters may be counted as wholes (`clustered_proportion`): they may if
        they are galaxies, whereas a false positive in each of 3 regions says nothing about the spread of regions.
    """
    clusters = rows if isinstance(rows, Clusters) else Clusters.of(rows)
    found = measure(clusters.galaxies, True)
    if clusters.regions is None:
        return found
    if why := spread_unknown(clusters.regions):
        return of_galaxies(found, why)
    return knows_less(found, measure(clusters.regions, False), int(np.count_nonzero(np.bincount(clusters.regions))))


def proportion_over(
    rows: pl.DataFrame, success: npt.ArrayLike, weights: npt.ArrayLike | None = None, *, exact: bool = False
) -> Estimate:
    """Weighted proportion of rows with its interval over galaxies, or over regions where those know less.

    Parameters
    ----------
    rows : polars.DataFrame
        With `galaxy_id` and, where there is one, `region_id`.
    success : array of bool, shape (n,)
    weights : array of float, shape (n,), optional
    exact : bool
        Whether the interval is Clopper and Pearson's, as of rare events.
    """
    return over_clusters(
        rows,
        lambda clusters, whole: clustered_proportion(success, clusters, weights, exact=exact, whole_where_few=whole),
    )
