"""Two models on the same rows of test: differences with intervals, from draws in which both see the same galaxies or regions.

Belongs here: what is compared, and the refusal to compare what was measured on different rows. How a difference gets its
interval is in `differences.py`. Which models are meant is the
asset's business. Each model stands at its own frozen threshold, so rates are compared as they would be used.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from lens_pipeline.contracts.errors import EvaluationError, first_few
from lens_pipeline.evaluation.bootstrap import Statistic
from lens_pipeline.evaluation.differences import mean_difference, rank_differences, rate_difference
from lens_pipeline.evaluation.likelihood_metrics import brier_scores, log_losses
from lens_pipeline.evaluation.metrics import FRACTION, NATS, OK, UNDEFINED, BootstrapSettings
from lens_pipeline.evaluation.operating_point import name_of
from lens_pipeline.evaluation.paired_difference import Difference
from lens_pipeline.evaluation.rank_statistics import AUROC, precision_statistic
from lens_pipeline.evaluation.ranking import RankedScores, missing_class, roc_curve
from lens_pipeline.evaluation.resolution import ResolutionRule, resolve
from lens_pipeline.evaluation.scored_rows import distinct_rows, galaxy_numbers
from lens_pipeline.evaluation.tallies import tpr_at_fpr

Record = dict[str, Any]


@dataclass(frozen=True)
class Contestant:
    """A model on the rows of test.

    Attributes
    ----------
    name : str
        What it is called in the table.
    version : str
        Of its scores.
    rows : polars.DataFrame
        Its scored rows of test, joined to the store: `task_id`, `label`, `logit`, `is_lens`, `galaxy_id`, `pixel_hash`
        and, where there is one, `region_id`.
    thresholds : mapping
        Operating point to threshold, of those that have one.
    """

    name: str
    version: str
    rows: pl.DataFrame
    thresholds: Mapping[str, float]


def refuse_other_rows(this: Contestant, other: Contestant) -> None:
    """Refuse two models that were not scored on the very same rows of test with the same labels.

    Raises
    ------
    EvaluationError
        Saying how many rows are of one alone, or share their task_id with another of the same model, and the first few.
    """
    for one in (this, other):
        repeats = one.rows.filter(pl.col("task_id").is_duplicated())["task_id"]
        if not repeats.is_empty():
            raise EvaluationError(
                f"{repeats.len():,} of {one.rows.height:,} rows of {one.name} share their task_id with another: "
                f"{first_few(repeats.unique(maintain_order=True).to_list())}. Which row of the other model is the same stamp "
                "can't be told. Give each stamp one score."
            )
    keys = [
        one.rows.select("task_id", "label", pl.col("pixel_hash").alias("pixels")).sort("task_id")
        for one in (this, other)
    ]
    if keys[0].equals(keys[1]):
        return
    alone = [a.join(b, on=["task_id", "label", "pixels"], how="anti")["task_id"] for a, b in (keys, keys[::-1])]
    raise EvaluationError(
        f"{this.name} was tested on {keys[0].height:,} rows and {other.name} on {keys[1].height:,}: {len(alone[0]):,} and "
        f"{len(alone[1]):,} of them are of one alone, or differ in label or pixels ({first_few([*alone[0], *alone[1]])}). A "
        "difference between them would be one of the rows. Score both on the same stamp_store and region_splits: "
        "dagster asset materialize --select 'scores+' -m lens_pipeline.definitions -c PRESET, once a model."
    )


def compare(
    this: Contestant, other: Contestant, targets: Iterable[float], rule: ResolutionRule, settings: BootstrapSettings
) -> list[Record]:
    """Rows of MODEL_COMPARISON: ranking, likelihood, and recall and FPR at the operating points that both have.

    Parameters
    ----------
    targets : iterable of float
        False-positive rates at which TPRs of both models' own ROCs are compared, where the controls resolve them.

    Raises
    ------
    EvaluationError
        If they were not tested on the same rows, or a task_id repeats.
    """
    refuse_other_rows(this, other)
    keyed = other.rows.select("task_id", pl.col("logit").alias("other_logit"))
    rows = distinct_rows(this.rows.sort("task_id")).join(keyed, on="task_id", validate="1:1", maintain_order="left")
    about = {"against": other.name, "against_version": other.version}
    records = [
        *_ranking(rows, targets, rule, settings),
        *_likelihood(rows, settings),
        *_rates(rows, this.thresholds, other.thresholds),
    ]
    return [about | record for record in records]


def _ranking(
    rows: pl.DataFrame, targets: Iterable[float], rule: ResolutionRule, settings: BootstrapSettings
) -> Iterable[Record]:
    ranked = [RankedScores.of(rows[name], rows["is_lens"], galaxy_numbers(rows)) for name in ("logit", "other_logit")]
    statistics = {"auroc": AUROC, "average_precision": precision_statistic(None)}
    if absent := missing_class(ranked[0].n_positives, ranked[0].n_negatives):
        return [
            _record(rows, name, None, None, Difference(None, None, None, 0, 0, None, absent)) for name in statistics
        ]
    for target in targets:
        if all(resolve(roc_curve(one), target, rule).threshold is not None for one in ranked):
            statistics[f"tpr_at_{name_of(target)}"] = Statistic(partial(tpr_at_fpr, fpr=target))
    found = rank_differences(rows, ranked, statistics, settings)
    values = {name: [float(one.of(model.tallies)[0]) for model in ranked] for name, one in statistics.items()}
    return [_record(rows, name, mine, others, found[name]) for name, (mine, others) in values.items()]


def _likelihood(rows: pl.DataFrame, settings: BootstrapSettings) -> Iterable[Record]:
    is_lens = rows["is_lens"].to_numpy()
    for name, losses, unit in (("log_loss", log_losses, NATS), ("brier", brier_scores, FRACTION)):
        mine, others = (losses(rows[column].to_numpy(), is_lens) for column in ("logit", "other_logit"))
        found = mean_difference(rows, mine - others, settings)
        yield _record(rows, name, float(mine.mean()), float(others.mean()), found, less_is_better=True) | {"unit": unit}


def _rates(rows: pl.DataFrame, thresholds: Mapping[str, float], others: Mapping[str, float]) -> Iterable[Record]:
    for point in (point for point in thresholds if point in others):
        for name, is_lens in ((f"recall_at_{point}", True), (f"fpr_at_{point}", False)):
            some = rows.filter(pl.col("is_lens") == is_lens)
            if some.is_empty():
                nothing = Difference(None, None, None, 0, 0, None, "there are no such rows")
                yield _record(rows, name, None, None, nothing)
                continue
            this = (some["logit"] > thresholds[point]).to_numpy()
            other = (some["other_logit"] > others[point]).to_numpy()
            found = rate_difference(some, this, other)
            record = _record(rows, name, float(this.mean()), float(other.mean()), found, less_is_better=not is_lens)
            yield record | {"n_only_this": int((this & ~other).sum()), "n_only_other": int((other & ~this).sum())}


def _record(
    rows: pl.DataFrame,
    name: str,
    value: float | None,
    against: float | None,
    found: Difference,
    *,
    less_is_better: bool = False,
) -> Record:
    n_positives = int(rows["is_lens"].sum())
    return {
        "metric": name,
        "value": value,
        "against_value": against,
        "delta": found.value,
        "low": found.low,
        "high": found.high,
        "cluster": found.cluster,
        "win_probability": 1 - found.above if less_is_better and found.above is not None else found.above,
        "p_value": found.p_value,
        "n_only_this": None,
        "n_only_other": None,
        "n_positives": n_positives,
        "n_negatives": rows.height - n_positives,
        "n_galaxies": rows["galaxy_id"].n_unique(),
        "unit": FRACTION,
        "status": UNDEFINED if found.value is None else OK,
        "reason": found.reason,
    }
