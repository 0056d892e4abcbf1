"""The band around the ROC is made of the very intervals that the metrics have."""

import numpy as np
import polars as pl
import pytest

from lens_pipeline.contracts.catalogue import ROC
from lens_pipeline.evaluation.metrics import BootstrapSettings
from lens_pipeline.evaluation.rank_metrics import rank_metrics
from lens_pipeline.evaluation.resolution import ResolutionRule
from lens_pipeline.evaluation.roc_table import roc_table

RULE, SETTINGS = ResolutionRule(5, 0.5), BootstrapSettings(200, 0)


def rows(n: int) -> pl.DataFrame:
    rng = np.random.default_rng(1)
    galaxy = np.repeat(np.arange(n), 2)
    is_lens = np.tile([False, True], n)
    logit = rng.normal(0, 1, 2 * n) + 2 * is_lens
    return pl.DataFrame({"logit": logit, "is_lens": is_lens, "galaxy_id": galaxy.astype(str)})


def test_the_band_has_the_interval_of_the_metric_at_the_same_rate() -> None:
    drawn = rows(400)
    table = roc_table(drawn, "test", RULE, SETTINGS)
    ROC.validate(table, where="the test")
    curve = pl.DataFrame(table)
    rate = curve.filter(pl.col("low").is_not_null()).row(7, named=True)
    metric = rank_metrics(drawn, "test", [rate["fpr"]], RULE, SETTINGS)[2]
    assert (rate["tpr"], rate["low"], rate["high"]) == pytest.approx((metric.value, metric.low, metric.high))


def test_rates_that_the_controls_do_not_resolve_have_a_value_and_no_interval() -> None:
    curve = pl.DataFrame(roc_table(rows(400), "test", RULE, SETTINGS))
    few = curve.filter(pl.col("n_false_positives") < 5)
    assert few["low"].null_count() == few.height == 5
    assert set(few["reason"]) == {"false positives from fewer than 5 galaxies: not resolved"}
    between = curve.filter((pl.col("n_false_positives") >= 5) & (pl.col("fpr") < 1))
    assert between["low"].null_count() == 0
    assert curve.row(-1, named=True)["tpr"] == 1


def test_a_tie_block_is_never_divided() -> None:
    tied = rows(400).with_columns(logit=pl.when(pl.col("logit") > 1).then(1.0).otherwise("logit"))
    curve = pl.DataFrame(roc_table(tied, "test", RULE, SETTINGS))
    n = tied.filter((pl.col("logit") == 1) & ~pl.col("is_lens")).height
    assert set(curve.filter(pl.col("n_false_positives") < n)["tpr"]) == {0.0}


def test_without_a_class_there_is_no_curve() -> None:
    assert roc_table(rows(30).filter(pl.col("is_lens")), "test", RULE, SETTINGS).num_rows == 0
