"""The network beside a classical finder on the same injections: completeness of both, cell by cell, and the difference of pairs.

Belongs here: what is compared, and the sentence of it. Each finder stands at its own frozen threshold for the same target, so
that they are compared at thresholds for the same target. The finder itself is `scoring.matched_filter`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
import pyarrow as pa

from lens_pipeline.contracts.catalogue import BASELINE
from lens_pipeline.evaluation.axes import ALL, axes_of
from lens_pipeline.evaluation.config import CompletenessConfig
from lens_pipeline.evaluation.counting import Attempts, Record, Tally, Threshold
from lens_pipeline.evaluation.intervals import clustered_proportion
from lens_pipeline.evaluation.metrics import over_clusters
from lens_pipeline.evaluation.paired_difference import Difference, paired_differences
from lens_pipeline.evaluation.regions import count_without, in_cell
from lens_pipeline.evaluation.scored_rows import MATCHED_FILTER, by_matched_filter, distinct_rows
from lens_pipeline.evaluation.wording import number, threshold_words
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging

TABLE, NOTES = "baseline", "baseline_notes"
NETWORK, FILTER = "network", "matched filter"
_DIFFERENCE = "network_minus"
_LEFT_OUT = "the matched filter looked at no row (scores.matched_filter)"


@dataclass(frozen=True)
class _Pair:
    """An operating point that both finders have a threshold for."""

    network: Threshold
    filter: Threshold


def write_baseline(
    config: CompletenessConfig,
    *,
    rows: pl.DataFrame,
    attempts: Attempts,
    network: Sequence[Record],
    points: Sequence[Threshold],
    scores: Publication,
    operating_point: Publication,
    staging: Staging,
) -> None:
    """Write the BASELINE table; what it lacks, and why, stands in the attribute ``baseline_notes``.

    Parameters
    ----------
    rows : polars.DataFrame
        Scored rows of test, as `join_store` gives them, of both classes.
    attempts : Attempts
        Its injections.
    network : sequence of dict
        Rows of COMPLETENESS of the network.
    points : sequence of Threshold
        The network's.
    """
    filtered = by_matched_filter(rows, scores)
    pairs, notes = ([], [_LEFT_OUT]) if filtered is None else _pairs(points, operating_point)
    records = [] if filtered is None else _compared(config, rows, filtered, attempts, network, pairs)
    staging.attributes[NOTES] = notes
    staging.write_table(TABLE, pa.Table.from_pylist(records, schema=BASELINE.schema), BASELINE)


def _pairs(points: Sequence[Threshold], operating_point: Publication) -> tuple[list[_Pair], list[str]]:
    """Operating points of both, and why others have none."""
    own = {row["operating_point"]: row for row in operating_point.read_table(MATCHED_FILTER).to_pylist()}
    pairs, notes = [], []
    for point in points:
        if (threshold := own[point.name]["threshold"]) is None:
            notes.append(
                f"the matched filter has no threshold {threshold_words(point.name)}: {own[point.name]['reason']}"
            )
        else:
            pairs.append(_Pair(point, Threshold(point.name, threshold)))
    return pairs, notes


def _compared(
    config: CompletenessConfig,
    rows: pl.DataFrame,
    filtered: pl.DataFrame,
    attempts: Attempts,
    network: Sequence[Record],
    pairs: Sequence[_Pair],
) -> list[Record]:
    lenses = filtered.filter(pl.col("is_lens"))
    by_filter = replace(attempts, logits=lenses["logit"].to_numpy()[attempts.order])
    tally = Tally(by_filter, [pair.filter for pair in pairs], config)
    counted = [(NETWORK, network), (FILTER, tally.along_axes())]
    records = []
    for pair in pairs:
        found = attempts.logits > pair.network.logit, by_filter.logits > pair.filter.logit
        differences = [
            one
            for axis in axes_of(attempts.stored)
            for one in _differences(tally, axis, attempts, found, n=len(attempts.logits))
        ]
        for (finder, of_finder), threshold, scored in zip(
            counted, (pair.network, pair.filter), (rows, filtered), strict=True
        ):
            own = {"finder": finder, "threshold": threshold.logit} | _false_positives(scored, threshold)
            mine = [row for row in of_finder if row["operating_point"] == threshold.name]
            for row, difference in zip(mine, differences, strict=True):
                records.append(own | row | (_no_difference() if finder == NETWORK else _ends(difference)))
    return records


def _differences(tally: Tally, axis: str, attempts: Attempts, found: tuple[Any, Any], *, n: int) -> list[Difference]:
    """Of each cell of an axis, in its order, as completeness is; of an axis that nobody measured one without a number."""
    cut = tally.cut(axis)
    if cut is None:
        return [Difference(None, None, None, n, 0, None, f"{axis} is null for all {n:,} injections")]
    cells, n_cells, regions = cut.stored, len(cut.cells), attempts.regions
    of_galaxies = paired_differences(*found, cells, n_cells, attempts.galaxies, attempts.weights)
    if regions is None:
        return of_galaxies
    others = paired_differences(*found, cells, n_cells, regions, attempts.weights, whole_where_few=False)
    without = count_without(regions, cells, n_cells).tolist()
    return [in_cell(*one) for one in zip(of_galaxies, others, without, strict=True)]


def _false_positives(rows: pl.DataFrame, threshold: Threshold) -> Record:
    negatives = distinct_rows(rows.filter(~pl.col("is_lens")))
    above = (negatives["logit"] > threshold.logit).to_numpy()
    rate = over_clusters(
        negatives,
        lambda clusters, whole: clustered_proportion(above, clusters, exact=True, whole_where_few=whole),
    )
    return {"fpr": rate.value, "fpr_low": rate.low, "fpr_high": rate.high, "fpr_reason": rate.reason}


def _no_difference() -> Record:
    return dict.fromkeys((_DIFFERENCE, f"{_DIFFERENCE}_low", f"{_DIFFERENCE}_high", f"{_DIFFERENCE}_reason"))


def _ends(difference: Difference) -> Record:
    values = (difference.value, difference.low, difference.high, difference.reason)
    return dict(zip(_no_difference(), values, strict=True))


def baseline_claim(completeness: Publication, primary: str) -> str:
    """Line of the report: what a classical finder makes of the same injections at the leading threshold.

    Parameters
    ----------
    completeness : Publication
        Of these scores.
    primary : str
        Operating point that the report leads with.
    """
    rows = (
        filter_rows_of(completeness).filter((pl.col("operating_point") == primary) & (pl.col("axis") == ALL)).to_dicts()
    )
    if not rows:
        why = "; ".join(completeness.attributes.get(NOTES, [])) or "completeness was counted before there was one"
        return f"Beside a classical finder: not measured, {why}."
    (row,) = rows
    found = number(row["completeness"], row["completeness_low"], row["completeness_high"])
    false = number(row["fpr"], row["fpr_low"], row["fpr_high"])
    return (
        f"A classical finder, a matched filter on the stamp without its host, at its own threshold {threshold_words(primary)}: "
        f"completeness {found} of the same injections, false-positive rate {false}. {_told(row)}"
    )


def _told(row: Record) -> str:
    delta, low, high = (row[name] for name in (_DIFFERENCE, f"{_DIFFERENCE}_low", f"{_DIFFERENCE}_high"))
    words = f"Network less filter, pair by pair, is {number(delta, low, high)}"
    if low is None or high is None:
        return f"{words} ({row[f'{_DIFFERENCE}_reason']})."
    if low <= 0 <= high:
        return f"{words}: which finds more can't be told."
    return f"{words}: the {'network' if low > 0 else 'filter'} finds more."


def filter_rows_of(completeness: Publication) -> pl.DataFrame:
    """Rows of BASELINE of the matched filter; none where an earlier version has no such table."""
    if f"{TABLE}.parquet" not in completeness.manifest.files:
        return pl.DataFrame(BASELINE.schema.empty_table())
    return pl.DataFrame(completeness.read_table(TABLE)).filter(pl.col("finder") == FILTER)
