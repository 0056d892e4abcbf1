from functools import partial

import numpy as np
import polars as pl
import pytest
from scipy import special
from sklearn import metrics as oracle

from lens_pipeline.evaluation.binning import Columns, GroupedCounts
from lens_pipeline.evaluation.bootstrap import Statistic, bootstrap
from lens_pipeline.evaluation.fpr_bound import fpr_bound
from lens_pipeline.evaluation.intervals import Estimate
from lens_pipeline.evaluation.likelihood_metrics import calibration_error
from lens_pipeline.evaluation.metrics import BootstrapSettings, Metric, completed, metric_table
from lens_pipeline.evaluation.negatives import PAIRED, UNPAIRED, pairing_strata
from lens_pipeline.evaluation.rank_metrics import (
    AT_PREVALENCE,
    Asked,
    rank_metrics,
    tie_metrics,
    weighted_auroc,
)
from lens_pipeline.evaluation.ranking import RankedScores
from lens_pipeline.evaluation.resolution import ResolutionRule
from lens_pipeline.evaluation.tallies import auroc, average_precision, fpr_at_tpr, partial_auc, tpr_at_fpr

RULE, SETTINGS = ResolutionRule(5, 0.5), BootstrapSettings(200, 0)
ASKED = Asked(tprs=(0.5, 0.85), max_fprs=(0.1,), prevalence=0.03)


def _rows(n: int, seed: int = 0, shift: float = 1.5) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    lens = np.arange(n) % 2 == 0
    return pl.DataFrame({"logit": rng.normal(size=n) + shift * lens, "is_lens": lens}).with_columns(
        galaxy_id=pl.Series([f"g{i}" for i in range(n)]),
        region_id=pl.Series([f"r{i % 40}" for i in range(n)]),
        weight=pl.Series(rng.exponential(size=n)),
    )


def _measured(rows: pl.DataFrame, asked: Asked = ASKED) -> dict[str, Metric]:
    return {m.metric: m for m in rank_metrics(rows, "test", [0.1, 1e-4], RULE, SETTINGS, asked=asked)}


def test_every_metric_has_an_interval_or_a_reason() -> None:
    metrics = _measured(_rows(2000))
    assert {"tpr0", "tpr10", "fpr_at_tpr_0.5", "partial_auc_to_fpr_1e-01", AT_PREVALENCE} <= set(metrics)
    for metric in metrics.values():
        assert metric.reason or (metric.low is not None and metric.high is not None)
        assert metric.interval or metric.low is None
    assert metrics["tpr0"].low is None
    assert "highest of 1,000 negatives" in str(metrics["tpr0"].reason)


def test_where_no_control_lies_as_high_the_rate_has_a_bound_and_no_value() -> None:
    metric = _measured(_rows(400, shift=8))["fpr_at_tpr_0.5"]
    assert (metric.value, metric.low, metric.status) == (None, 0.0, "bound")
    assert metric.high == pytest.approx(1 - 0.025 ** (1 / 200))
    assert "0 of 200 distinct controls lie as high" in str(metric.reason)


def test_a_bound_without_a_false_positive_knows_that_few_lenses_set_the_threshold() -> None:
    truth = float(special.ndtr(special.ndtri(0.7) - 4))
    n_lenses, n = 30, 20_030
    lens = np.arange(n) < n_lenses
    bounds = []
    for draw in range(1500):
        logit = np.random.default_rng(draw).normal(size=n) + 4.0 * lens
        if logit[~lens].max() < np.sort(logit[lens])[n_lenses - 21]:
            rows = pl.DataFrame({"logit": logit, "is_lens": lens, "galaxy_id": np.arange(n)})
            bounds.append(fpr_bound(rows, 0.7, Estimate(0.0, None, None, n, n, None)).high)
    assert len(bounds) >= 40
    # Without a word of the lenses each of them would be 1.84e-4, and the truth is 2.55e-4.
    assert np.mean([high is not None and high >= truth for high in bounds]) >= 0.93


def test_too_few_lenses_to_set_a_threshold_leave_its_rate_open() -> None:
    lens = np.arange(320) < 20
    rows = pl.DataFrame({"logit": np.where(lens, 5.0, 0.0), "is_lens": lens, "galaxy_id": np.arange(320)})
    bound = fpr_bound(rows, 0.85, Estimate(0.0, None, None, 320, 320, None))
    assert (bound.low, bound.high) == (0.0, 1.0)
    assert "no lens is surely as low" in str(bound.reason)


def test_precision_at_the_surveys_prevalence_weighs_controls_as_scikit_learn_would() -> None:
    rows = _rows(4000)
    weight = np.where(rows["is_lens"], 0.03 / 0.5, 0.97 / 0.5)
    expected = oracle.average_precision_score(rows["is_lens"], rows["logit"], sample_weight=weight)
    assert _measured(rows)[AT_PREVALENCE].value == pytest.approx(expected, abs=1e-12)


def test_too_few_controls_for_the_prevalence_leave_its_precision_unresolved() -> None:
    few = _measured(_rows(800))[AT_PREVALENCE]
    assert (few.value, few.status) == (None, "unresolved")
    nobody = _measured(_rows(800), Asked((), (), None))[AT_PREVALENCE]
    assert (nobody.value, nobody.status) == (None, "undefined")
    assert "states no prevalence" in str(nobody.reason)


def test_tpr0_and_tpr10_stop_before_the_first_and_the_tenth_false_positive() -> None:
    logit = np.r_[np.arange(20, 0, -1), np.arange(20, 0, -1) - 5.5]
    rows = pl.DataFrame({"logit": logit.astype(float), "is_lens": np.arange(40) < 20}).with_columns(
        galaxy_id=pl.Series([f"g{i}" for i in range(40)])
    )
    metrics = _measured(rows)
    assert metrics["tpr0"].value == 6 / 20
    assert metrics["tpr10"].value == 15 / 20


def test_regions_are_the_clusters_where_they_spread_more() -> None:
    rows = _rows(2000)
    alone = _measured(rows)["tpr_at_fpr_1e-01"]
    region = rows["region_id"].rank("dense").to_numpy().astype(int) - 1
    lifted = rows.with_columns(logit=pl.col("logit") + pl.Series(np.random.default_rng(1).normal(size=40)[region]))
    together = _measured(lifted)["tpr_at_fpr_1e-01"]
    assert (together.cluster, together.n_clusters) == ("region", 40)
    assert together.n_eff is not None
    assert alone.n_eff is not None
    assert together.n_eff < alone.n_eff / 3


def test_a_false_positive_in_each_of_three_regions_says_nothing_about_regions() -> None:
    rows = _rows(2000).with_columns(logit=pl.when(pl.int_range(2000) < 6).then(99.0).otherwise("logit"))
    tied = tie_metrics(rows, "test")[-1]
    assert (tied.value, tied.cluster, tied.n_eff) == (3 / 1000, "galaxy", 1000)


def test_controls_are_told_apart_by_whether_their_galaxy_has_an_injection() -> None:
    rows = _rows(200).with_columns(galaxy_id=pl.Series([f"g{i // 2 if i < 100 else i}" for i in range(200)]))
    strata = pairing_strata(rows)
    counts = {name: int((~part["is_lens"]).sum()) for name, part in strata.items()}
    assert counts == {PAIRED: 50, UNPAIRED: 50}
    assert all(part["is_lens"].sum() == 100 for part in strata.values())


def test_the_weighted_area_is_that_of_scikit_learn_with_the_injections_weights() -> None:
    rows = _rows(600)
    weight = np.where(rows["is_lens"], rows["weight"], 1.0)
    metric = weighted_auroc(rows, "test", SETTINGS)
    expected = oracle.roc_auc_score(rows["is_lens"], rows["logit"], sample_weight=weight)
    assert metric.value == pytest.approx(expected, abs=1e-12)
    assert metric.stratum == "population"


def test_columns_of_many_blocks_leave_each_replicate_and_the_spread_what_they_are() -> None:
    rng = np.random.default_rng(3)
    n = 40_000
    positive = np.arange(n) % 2 == 0
    ranked = RankedScores.of(rng.normal(size=n) + 2.0 * positive, positive, rng.integers(0, 400, n))
    statistics = {
        "auroc": Statistic(auroc), "ap": Statistic(average_precision),
        "rare": Statistic(partial(average_precision, prevalence=1e-2)), "part": Statistic(partial(partial_auc, max_fpr=0.01)),
        **{f"tpr {fpr}": Statistic(partial(tpr_at_fpr, fpr=fpr)) for fpr in (0.1, 0.01, 1e-3)},
        **{f"fpr {tpr}": Statistic(partial(fpr_at_tpr, tpr=tpr)) for tpr in (0.5, 0.7, 0.85)},
    }  # fmt: skip
    exact = GroupedCounts.of(ranked, seed=0, columns=Columns.of(ranked, exact_blocks=n))
    binned = GroupedCounts.of(ranked, seed=0)
    assert binned.divisible.size < 3500
    drawn = [bootstrap(counts, statistics, n_replicates=60, seed=1) for counts in (exact, binned)]
    for name, of_exact in drawn[0].items():
        assert np.abs(drawn[1][name] - of_exact).max() < 0.25 * of_exact.std(), name
        assert drawn[1][name].std() == pytest.approx(of_exact.std(), rel=0.02), name


def test_random_groups_of_galaxies_keep_the_spread() -> None:
    rng = np.random.default_rng(5)
    n = 12_000
    positive = np.arange(n) % 2 == 0
    ranked = RankedScores.of(rng.normal(size=n) + 1.0 * positive, positive, np.arange(n) // 2)
    spreads = [
        bootstrap(
            GroupedCounts.of(ranked, seed=0, max_groups=groups), {"auroc": Statistic(auroc)}, n_replicates=300, seed=1
        )["auroc"].std()
        for groups in (600, 6000)
    ]
    assert spreads[0] == pytest.approx(spreads[1], rel=0.15)


def oracle_error(probability: np.ndarray, is_lens: np.ndarray) -> float:
    """Calibration error over 15 equal bins with its noise left in."""
    bins = np.array_split(np.argsort(probability), 15)
    return float(np.mean([abs(probability[rows].mean() - is_lens[rows].mean()) for rows in bins]))


def test_calibrated_probabilities_have_an_error_of_about_nothing_and_its_interval_says_so() -> None:
    rng = np.random.default_rng(0)
    logit = 2 * rng.normal(size=6000)
    is_lens = rng.random(6000) < special.expit(logit)
    good = calibration_error(special.expit(logit), is_lens, np.arange(6000), SETTINGS)
    assert good.low == 0
    assert good.value is not None
    plain = oracle_error(special.expit(logit), is_lens)
    assert good.value < plain / 2
    bad = calibration_error(special.expit(3 * logit), is_lens, np.arange(6000), SETTINGS)
    grid = 2 * special.ndtri((np.arange(200_000) + 0.5) / 200_000)
    truth = np.mean(np.abs(special.expit(3 * grid) - special.expit(grid)))
    assert bad.low is not None
    assert bad.high is not None
    assert bad.low <= truth <= bad.high
    few = calibration_error(special.expit(logit[:50]), is_lens[:50], np.arange(50), SETTINGS)
    assert few.low is None
    assert "50 rows in 15 bins" in str(few.reason)


@pytest.mark.parametrize(("n_few", "has"), [(1, "1 galaxy"), (19, "19 galaxies")])
@pytest.mark.parametrize("few_are_lenses", [True, False])
def test_a_calibration_error_of_few_galaxies_of_a_class_has_no_interval_but_the_reason(
    n_few: int, has: str, few_are_lenses: bool
) -> None:
    probability = np.random.default_rng(0).random(2000)
    # The few have several rows each.
    galaxy = np.where(np.arange(2000) < 40, np.arange(2000) % n_few, np.arange(2000))
    is_lens = (np.arange(2000) < 40) == few_are_lenses
    found = calibration_error(probability, is_lens, galaxy, SETTINGS)
    assert found.value is not None
    assert (found.low, found.high) == (None, None)
    assert found.reason == f"no interval: a class has {has}, a bootstrap over fewer than 20 is too narrow"
    enough = np.where(np.arange(2000) < 40, np.arange(2000) % 20, np.arange(2000))
    assert calibration_error(probability, is_lens, enough, SETTINGS).low is not None


def test_a_report_of_an_earlier_version_is_read_as_one_of_all_rows() -> None:
    table = metric_table(rank_metrics(_rows(400), "test", [0.1], RULE, SETTINGS))
    earlier = table.drop_columns(["stratum", "cluster", "n_eff", "interval"])
    found = completed(earlier)
    assert found.schema.names == table.schema.names
    assert set(found["stratum"].to_pylist()) == {"all"}
    assert found["value"].to_pylist() == table["value"].to_pylist()
