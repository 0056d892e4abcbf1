"""What a cross-validation says: the logit of each row by the one model that has not seen its fold, with metric and spread."""

import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from scipy import special

from lens_pipeline.contracts.catalogue import METRICS, OUT_OF_FOLD
from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.contracts.errors import ScoringError
from lens_pipeline.evaluation.intervals import CONFIDENCE
from lens_pipeline.evaluation.likelihood_metrics import likelihood_metrics
from lens_pipeline.evaluation.metrics import BootstrapSettings, Metric, metric_table
from lens_pipeline.evaluation.out_of_fold import POOLED
from lens_pipeline.evaluation.rank_metrics import rank_metrics
from lens_pipeline.evaluation.resolution import ResolutionRule
from lens_pipeline.evaluation.scored_rows import distinct_rows
from lens_pipeline.splits.assignment import TRAIN, VAL_SELECT
from lens_pipeline.splits.region_splits import read_split_rows
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging
from lens_pipeline.training.config import HANDLING, TrainingConfig
from lens_pipeline.training.metrics import score_of
from lens_pipeline.training.rows import read_rows

CHECK = "out_of_fold_is_whole"
TABLE, METRICS_TABLE = OUT_OF_FOLD.name, "out_of_fold_metrics"
MEAN = "mean of folds"
_BOOTSTRAP = BootstrapSettings(n_replicates=1000, seed=0)
# No rate is asked for, so that nothing has to be resolved.
_NO_RATES = ResolutionRule(min_false_positives=1, min_share_of_target=0.0)


def cross_validated(classifiers: Sequence[Publication]) -> bool:
    """Whether these are all folds of one cross-validation, each once, with equal settings but for how they were handled."""
    configs = [_config(classifier) for classifier in classifiers]
    settings = [config.model_dump(exclude={"fold", *HANDLING}) for config in configs]
    n_folds = configs[0].folds
    return (
        n_folds > 0
        and all(other == settings[0] for other in settings)
        and sorted(config.fold for config in configs) == list(range(n_folds))
    )


def write_out_of_fold(
    classifiers: Sequence[Publication],
    logits: Sequence[npt.NDArray[np.float32]],
    store: Publication,
    splits: Publication,
    staging: Staging,
) -> None:
    """Write the tables ``out_of_fold`` (OUT_OF_FOLD) and ``out_of_fold_metrics`` (METRICS).

    Parameters
    ----------
    logits : sequence of float32 (row, output)
        Of every stored row, a classifier each.

    Raises
    ------
    ScoringError
        If a row would stand in two folds.
    """
    index = store.read_table(None, ["task_id", "logical", "label", "galaxy_id", "pixel_hash"]).sort_by("logical")
    fold, logit = np.full(index.num_rows, -1, np.int8), np.zeros(index.num_rows, np.float32)
    for classifier, found in zip(classifiers, logits, strict=True):
        config = _config(classifier)
        own = read_rows(splits, store, config).validation
        if (fold[own] >= 0).any():
            raise ScoringError(f"{int((fold[own] >= 0).sum()):,} rows of fold {config.fold} stand in another fold too.")
        fold[own], logit[own] = config.fold, score_of(found[own].astype(np.float64)).astype(np.float32)
    rows = (
        index.append_column("fold", pa.array(fold)).append_column("logit", pa.array(logit)).filter(pa.array(fold >= 0))
    )
    staging.write_table(TABLE, rows.select([column.name for column in OUT_OF_FOLD.columns]), OUT_OF_FOLD)
    staging.write_table(METRICS_TABLE, metric_table(_metrics(rows, len(classifiers))), METRICS)


def out_of_fold_is_whole(scores: Publication, store: Publication, splits: Publication) -> Check:
    """Check that each row of train and val_select stands in one fold, exactly once, and no sealed row in any."""
    if f"{TABLE}.parquet" not in scores.manifest.files:
        return green(CHECK, "the scores are no cross-validation's", n=0)
    found = scores.read_table(TABLE, ["logical"])["logical"].to_numpy()
    rows = read_split_rows(splits, store, ["task_id", "logical", "split"])
    times = np.bincount(found, minlength=rows.num_rows)[rows["logical"].to_numpy()]
    wanted = pc.is_in(rows["split"], value_set=pa.array([TRAIN, VAL_SELECT])).to_numpy()
    off = np.flatnonzero(times != wanted)
    if len(off):
        return red(
            CHECK,
            f"{len(off):,} rows are not once among the out-of-fold logits, or are sealed",
            wrong=[f"{rows['task_id'][row]} of {rows['split'][row]}: {times[row]} times" for row in off[:6].tolist()],
            count=len(off),
            why="folds of different splits, or of another store, were put together",
            next_step="lens_pipeline train PRESET --folds K",
        )
    return green(CHECK, f"each of {len(found):,} rows of train and val_select has one out-of-fold logit", n=len(found))


def _metrics(rows: pa.Table, n_folds: int) -> list[Metric]:
    table = pl.DataFrame(rows).with_columns(pl.col("logit").cast(pl.Float64), is_lens=pl.col("label") > 0)
    folds = [_measure(table.filter(pl.col("fold") == fold), f"fold {fold}") for fold in range(n_folds)]
    pooled = _measure(table, POOLED)
    means = [_mean_of_folds([of[place] for of in folds], whole) for place, whole in enumerate(pooled)]
    return [*pooled, *means, *(metric for of in folds for metric in of)]


def _measure(rows: pl.DataFrame, name: str) -> list[Metric]:
    distinct = distinct_rows(rows)
    return [*rank_metrics(distinct, name, [], _NO_RATES, _BOOTSTRAP), *likelihood_metrics(distinct, name)]


def _mean_of_folds(folds: Sequence[Metric], whole: Metric) -> Metric:
    """Mean over folds, with the interval of Nadeau & Bengio (2003): folds share training rows, so their spread is too small.

    The variance of the mean is taken as (1/k + n_validation/n_training) s^2, here (1/k + 1/(k-1)) s^2, with a t quantile of
    k - 1 degrees of freedom.
    """
    values = np.array([metric.value for metric in folds if metric.value is not None])
    k = len(folds)
    if len(values) < k:
        absent = {**asdict(whole), "split": MEAN, "value": None, "low": None, "high": None, "status": "undefined"}
        return Metric(**{**absent, "reason": f"{k - len(values)} of {k} folds have no value"})
    spread = float(values.std(ddof=1))
    half = float(special.stdtrit(k - 1, (1 + CONFIDENCE) / 2)) * spread * math.sqrt(1 / k + 1 / (k - 1))
    mean = float(values.mean())
    top = 1.0 if whole.unit == "fraction" else math.inf
    found = {"split": MEAN, "value": mean, "low": max(mean - half, 0.0), "high": min(mean + half, top)}
    words = f"standard deviation over {k} folds {spread:.3g}, from {values.min():.4g} to {values.max():.4g}"
    return Metric(**{**asdict(whole), **found, "status": "ok", "reason": words})


def spread_table(metrics: pa.Table) -> pa.Table:
    """Return metrics of a cross-validation for a page: pooled, mean, and each fold."""
    return metrics.select(["metric", "split", "value", "low", "high", "n_positives", "n_negatives", "reason"])


def _config(classifier: Publication) -> TrainingConfig:
    return TrainingConfig.model_validate(classifier.attributes["config"])
