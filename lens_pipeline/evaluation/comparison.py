"""Two models on the same rows of test: differences with intervals, from draws in which both see the same galaxies.

Belongs here: what is compared, and the refusal to compare what was measured on different rows. Which models are meant is the
asset's business. Each model stands at its own frozen threshold, so rates are compared as they would be used.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import special, stats

from lens_pipeline.contracts.errors import EvaluationError, first_few
from lens_pipeline.evaluation.binning import GroupedCounts, groups_of
from lens_pipeline.evaluation.bootstrap import Statistic, bootstrap, draws
from lens_pipeline.evaluation.intervals import CONFIDENCE, MIN_CLUSTERS
from lens_pipeline.evaluation.likelihood_metrics import brier_scores, log_losses
from lens_pipeline.evaluation.metrics import FRACTION, NATS, OK, UNDEFINED, BootstrapSettings
from lens_pipeline.evaluation.operating_point import name_of
from lens_pipeline.evaluation.ranking import RankedScores, missing_class, roc_curve
from lens_pipeline.evaluation.resolution import ResolutionRule, resolve
from lens_pipeline.evaluation.scored_rows import distinct_rows, galaxy_numbers
from lens_pipeline.evaluation.tallies import auroc, average_precision, tpr_at_fpr

Floats = npt.NDArray[np.float64]
Record = dict[str, Any]

# Beyond so many steps the exact distribution of a sum of signs is not worth its time, and its normal limit is as good.
_EXACT_STEPS = 20_000


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
        Its scored rows of test, joined to the store: `task_id`, `label`, `logit`, `is_lens`, `galaxy_id`, `pixel_hash`.
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
        Saying how many rows are of one alone, and the first few.
    """
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
        If they were not tested on the same rows.
    """
    refuse_other_rows(this, other)
    keyed = other.rows.select("task_id", pl.col("logit").alias("other_logit"))
    rows = distinct_rows(this.rows.sort("task_id")).join(keyed, on="task_id", validate="1:1", maintain_order="left")
    about = {"against": other.name, "against_version": other.version}
    records = [
        *_ranking(rows, targets, rule, settings),
        *_likelihood(rows, settings),
        *_rates(rows, this.thresholds, other.thresholds, settings),
    ]
    return [about | record for record in records]


def _ranking(
    rows: pl.DataFrame, targets: Iterable[float], rule: ResolutionRule, settings: BootstrapSettings
) -> Iterable[Record]:
    galaxies = galaxy_numbers(rows)
    ranked = [RankedScores.of(rows[name], rows["is_lens"], galaxies) for name in ("logit", "other_logit")]
    statistics = {"auroc": Statistic(auroc), "average_precision": Statistic(average_precision)}
    absent = missing_class(ranked[0].n_positives, ranked[0].n_negatives)
    if not absent:
        for target in targets:
            if all(resolve(roc_curve(one), target, rule).threshold is not None for one in ranked):
                statistics[f"tpr_at_{name_of(target)}"] = Statistic(partial(tpr_at_fpr, fpr=target))
    if absent or ranked[0].fewest_clusters < MIN_CLUSTERS:
        reason = absent or _too_few(ranked[0].fewest_clusters)
        values = {
            name: [None if absent else float(s.of(one.tallies)[0]) for one in ranked] for name, s in statistics.items()
        }
        return [_record(rows, name, *values[name], reason=reason) for name in statistics]
    # The same seed draws the same galaxies for both.
    drawn = [
        bootstrap(
            GroupedCounts.of(one, seed=settings.seed),
            statistics,
            n_replicates=settings.n_replicates,
            seed=settings.seed,
        )
        for one in ranked
    ]
    return [
        _record(
            rows,
            name,
            *(float(statistic.of(one.tallies)[0]) for one in ranked),
            differences=drawn[0][name] - drawn[1][name],
            n_clusters=ranked[0].fewest_clusters,
        )
        for name, statistic in statistics.items()
    ]


def _likelihood(rows: pl.DataFrame, settings: BootstrapSettings) -> Iterable[Record]:
    is_lens = rows["is_lens"].to_numpy()
    for name, losses, unit in (("log_loss", log_losses, NATS), ("brier", brier_scores, FRACTION)):
        mine, others = (losses(rows[column].to_numpy(), is_lens) for column in ("logit", "other_logit"))
        yield _mean_record(rows, rows, name, mine, others, settings, less_is_better=True) | {"unit": unit}


def _rates(
    rows: pl.DataFrame, thresholds: Mapping[str, float], others: Mapping[str, float], settings: BootstrapSettings
) -> Iterable[Record]:
    for point in (point for point in thresholds if point in others):
        for name, is_lens in (("recall", True), ("fpr", False)):
            some = rows.filter(pl.col("is_lens") == is_lens)
            this = (some["logit"] > thresholds[point]).to_numpy()
            other = (some["other_logit"] > others[point]).to_numpy()
            shares = this.astype(np.float64), other.astype(np.float64)
            record = _mean_record(
                rows, some, f"{name}_at_{point}", shares[0], shares[1], settings, less_is_better=not is_lens
            )
            yield record | {
                "p_value": clustered_mcnemar(this, other, galaxy_numbers(some)) if some.height else None,
                "n_only_this": int((this & ~other).sum()),
                "n_only_other": int((other & ~this).sum()),
            }


def _mean_record(
    rows: pl.DataFrame,
    some: pl.DataFrame,
    name: str,
    mine: Floats,
    others: Floats,
    settings: BootstrapSettings,
    *,
    less_is_better: bool,
) -> Record:
    """Return the difference of two means over the same rows."""
    if not some.height:
        return _record(rows, name, None, None, reason="there are no such rows")
    galaxies = galaxy_numbers(some)
    n_galaxies = int(galaxies.max()) + 1
    values = float(mine.mean()), float(others.mean())
    if n_galaxies < MIN_CLUSTERS:
        return _record(rows, name, *values, reason=_too_few(n_galaxies))
    group = groups_of(n_galaxies, seed=settings.seed)[galaxies]
    sums = np.stack([np.bincount(group, mine - others), np.bincount(group)], axis=1)
    totals = np.concatenate(
        [drawn @ sums for drawn in draws(len(sums), settings.n_replicates, seed=settings.seed, cells=2)]
    )
    return _record(
        rows,
        name,
        *values,
        differences=totals[:, 0] / totals[:, 1],
        n_clusters=n_galaxies,
        less_is_better=less_is_better,
    )


def _record(
    rows: pl.DataFrame,
    name: str,
    value: float | None,
    against: float | None,
    *,
    differences: Floats | None = None,
    n_clusters: int = 0,
    less_is_better: bool = False,
    reason: str | None = None,
) -> Record:
    delta = None if value is None or against is None else value - against
    low = high = wins = None
    if differences is not None and delta is not None:
        spread = float(differences.std(ddof=1))
        if spread > 0:
            half = float(special.stdtrit(n_clusters - 1, (1 + CONFIDENCE) / 2)) * spread
            low, high = delta - half, delta + half
        else:
            reason = f"no interval: every draw of these {n_clusters:,} galaxies gives the same difference"
        # Draws of a TPR at a low FPR lie to one side of its value; about delta they agree with the interval.
        centred = differences - differences.mean() + delta
        better = -centred if less_is_better else centred
        wins = float(((better > 0) + 0.5 * (better == 0)).mean())
    n_positives = int(rows["is_lens"].sum())
    return {
        "metric": name,
        "value": value,
        "against_value": against,
        "delta": delta,
        "low": low,
        "high": high,
        "win_probability": wins,
        "p_value": None,
        "n_only_this": None,
        "n_only_other": None,
        "n_positives": n_positives,
        "n_negatives": rows.height - n_positives,
        "n_galaxies": rows["galaxy_id"].n_unique(),
        "unit": FRACTION,
        "status": UNDEFINED if delta is None else OK,
        "reason": reason,
    }


def clustered_mcnemar(this: npt.ArrayLike, other: npt.ArrayLike, clusters: npt.ArrayLike) -> float:
    """Chance that two equally good models differ as much, rows of a cluster being alike (two-sided).

    With d_k the rows of cluster k that this model alone lets through less those that the other alone does, equally good models
    give each d_k either sign alike, whatever happens within a cluster: the sum of d_k is held against all its signs. Rows that
    are alone in their clusters give McNemar's exact test (1947, Psychometrika 12, 153); many clusters its limit after
    Obuchowski (1998, Stat. Med. 17, 1495), (sum d_k)^2 / sum d_k^2 as chi-squared of one degree of freedom.

    Parameters
    ----------
    this, other : array of bool, shape (n,)
    clusters : array, shape (n,)
    """
    _, place = np.unique(np.asarray(clusters), return_inverse=True)
    off = np.asarray(this, dtype=np.int64) - np.asarray(other, dtype=np.int64)
    d = np.bincount(place, weights=off).astype(np.int64)
    d = d[d != 0]
    if not d.size:
        return 1.0
    total = abs(int(d.sum()))
    reach = int(np.abs(d).sum())
    if reach > _EXACT_STEPS:
        return float(stats.chi2.sf(total**2 / float((d.astype(np.float64) ** 2).sum()), 1))
    chance = np.zeros(2 * reach + 1)
    chance[reach] = 1.0
    for step in np.abs(d):
        up, down = np.roll(chance, step), np.roll(chance, -step)
        chance = (up + down) / 2
    sums = np.abs(np.arange(-reach, reach + 1))
    return float(min(1.0, chance[sums >= total].sum()))


def _too_few(n: int) -> str:
    return f"no interval: a class has {n} galaxies, a bootstrap over fewer than {MIN_CLUSTERS} is too narrow"
