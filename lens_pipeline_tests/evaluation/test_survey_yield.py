from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from scipy import stats

from lens_pipeline.evaluation.config import OperatingPointConfig
from lens_pipeline.evaluation.contamination import fpr_on_fitted, resolve_contamination
from lens_pipeline.evaluation.intervals import Estimate
from lens_pipeline.evaluation.operating_point import OperatingPointResult, fit_operating_point
from lens_pipeline.evaluation.prevalence import Prevalence
from lens_pipeline.evaluation.ranking import RankedScores, roc_curve
from lens_pipeline.evaluation.resolution import ResolutionRule
from lens_pipeline.evaluation.statements import undiscovered_lenses
from lens_pipeline.evaluation.survey_yield import Survey, survey_yield
from lens_pipeline.evaluation.wording import metric_words, threshold_words
from lens_pipeline_tests.evaluation.conftest import Evaluated
from lens_pipeline_tests.evaluation.synthetic import Chain, Stamps, draw

Evaluate = Callable[[Stamps], Evaluated]
COMMON = {
    "lens_prevalence": 0.1,
    "lens_prevalence_low": 0.05,
    "lens_prevalence_high": 0.2,
    "lens_prevalence_source": "told",
}
DENSITY = Estimate(100.0, 90.0, 110.0, 6000, 6000, None)


def _fit(chain: Chain, survey: Survey | None = None, **settings: Any) -> OperatingPointResult:
    with chain.stage("operating_point", chain.scores, chain.store) as staging:
        config = OperatingPointConfig(**settings)
        return fit_operating_point(config, scores=chain.scores, store=chain.store, staging=staging, survey=survey)


def _named(table: Any, key: str = "operating_point") -> dict[str, dict[str, Any]]:
    return {row[key]: row for row in table.to_pylist()}


def test_the_lowest_threshold_within_the_budget_is_taken(survey: Evaluated) -> None:
    fitted = _fit(survey.chain, max_contaminations=[0.2], **COMMON)
    row = _named(fitted.table)["contamination_2e-01"]
    assert (row["status"], row["max_contamination"], row["target_fpr"]) == ("resolved", 0.2, None)
    yields = _named(fitted.survey_yield)["contamination_2e-01"]
    assert yields["purity"] >= 0.8
    assert yields["purity_low"] < yields["purity"] < yields["purity_high"]
    scores = pl.DataFrame(survey.chain.scores.read_table()).filter(pl.col("split") == "val_calibrate")
    lens = scores["label"].to_numpy() > 0
    logit = scores["logit"].cast(pl.Float64).to_numpy()
    for lower in np.sort(logit[logit < row["threshold"]]):
        recall, fpr = (logit[lens] > lower).mean(), (logit[~lens] > lower).mean()
        assert 0.9 * fpr > 0.2 * (0.1 * recall + 0.9 * fpr)


def test_a_lens_at_the_very_threshold_is_not_a_candidate() -> None:
    rows = pl.DataFrame(
        {
            "logit": [1.0] * 5 + [2.0] * 10 + [0.0] * 5 + [1.0] * 2 + [3.0] * 8 + [0.0] * 10,
            "is_lens": [True] * 20 + [False] * 20,
            "galaxy_id": [str(n) for n in range(40)],
            "weight": [1.0] * 40,
        }
    )
    points = pa.Table.from_pylist([{"operating_point": "one", "threshold": 1.0, "max_contamination": None}])
    (one,) = survey_yield(rows, points, Prevalence(0.1, 0.05, 0.2, "told"), Survey(DENSITY)).to_pylist()
    assert (one["recall"], one["fpr"]) == (0.5, 0.4)


def test_what_a_region_s_controls_have_in_common_widens_rates_and_purity(evaluate: Evaluate) -> None:
    def width(record: dict[str, Any], name: str) -> float:
        return float(record[f"{name}_high"] - record[f"{name}_low"])

    rows = []
    for n_regions in (60, 3):
        stamps = draw({"train": 30, "val_select": 30, "val_calibrate": 600, "test": 30})
        region = np.array([int(name.rsplit("-", 1)[1]) // 10 for name in stamps.columns["galaxy_id"]])
        stamps.logit += np.random.default_rng(1).normal(0, 2, 60)[region].astype(np.float32)
        stamps.columns["region_id"] = [
            f"{split}-{n * n_regions // 60}" for split, n in zip(stamps.split, region, strict=True)
        ]
        # Made up: what lenses among real controls leave open would hide the regions' part.
        fitted = _fit(evaluate(stamps).chain, Survey(simulated=True), max_contaminations=[0.5], **COMMON)
        rows.append((_named(fitted.table)["fpr_1e-01"], _named(fitted.survey_yield)["fpr_1e-01"]))
    (point, yields), (blind_point, blind_yields) = rows
    assert point["fpr"] == blind_point["fpr"]
    assert width(point, "fpr") > 1.5 * width(blind_point, "fpr")
    for name in ("recall", "fpr"):
        assert width(yields, name) > 1.5 * width(blind_yields, name), name
    # The prevalence's own range, the same for both, is part of it.
    assert width(yields, "purity") > 1.1 * width(blind_yields, "purity")


def test_a_budget_that_controls_can_not_resolve_says_what_it_would_take(survey: Evaluated) -> None:
    row = _named(survey.fit.table)["contamination_5e-01"]
    assert (row["status"], row["threshold"]) == ("unresolved", None)
    assert "at a prevalence of 0.0012 the least contamination that 600 distinct controls resolve is" in row["reason"]
    report, _ = survey.report()
    assert "No threshold was fitted for a contamination of 0.5" in report.page.decode()


def test_a_resolved_budget_goes_through_completeness_and_the_report(tmp_path: Any, survey: Evaluated) -> None:
    from lens_pipeline_tests.evaluation.synthetic import publish

    stamps = draw({"train": 60, "val_select": 60, "val_calibrate": 600, "test": 300})
    evaluated = Evaluated(publish(stamps, tmp_path), OperatingPointConfig(max_contaminations=[0.2], **COMMON))
    result, _ = evaluated.completeness()
    assert "contamination_2e-01" in result.table["operating_point"].to_pylist()
    report, _ = evaluated.report()
    assert "for a contamination of 0.2" in report.page.decode()
    assert {"recall_at_contamination_2e-01", "fpr_at_contamination_2e-01"} <= set(report.table["metric"].to_pylist())


def test_bright_lenses_that_were_injected_too_often_buy_no_purity() -> None:
    """Recall is the population's: nine tenths of it are faint, though half of the injections are bright."""
    rng = np.random.default_rng(0)
    logit = np.concatenate([rng.normal(6, 1, 500), rng.normal(0, 1, 500), rng.normal(0, 1, 4000)])
    lens = np.arange(5000) < 1000
    curve = roc_curve(RankedScores.of(logit, lens, np.arange(5000)))
    prior, rule = Prevalence(0.05, 0.05, 0.05, "told"), ResolutionRule(5, 0.5)
    weights = {"as injected": np.ones(1000), "population": np.where(np.arange(1000) < 500, 1.0, 9.0)}
    lenses = {name: pl.DataFrame({"logit": logit[:1000], "weight": w}) for name, w in weights.items()}
    found = {name: resolve_contamination(curve, rows, 0.5, prior, rule) for name, rows in lenses.items()}
    assert found["population"].threshold > found["as injected"].threshold  # type: ignore[operator]


def test_the_rate_at_a_threshold_for_a_contamination_may_be_that_with_the_next_controls_as_well() -> None:
    logit = np.r_[np.arange(20.0, 10.0, -1), 10.0, 10.0, np.linspace(5, -5, 188)]
    controls = pl.DataFrame({"logit": logit, "galaxy_id": [str(number) for number in range(200)]})
    ends = {k: stats.binomtest(k, 200).proportion_ci(method="exact") for k in (10, 12)}
    given, fitted = (fpr_on_fitted(controls, 10.5, for_contamination=kind) for kind in (False, True))
    assert (given.value, given.low, given.high) == pytest.approx((0.05, ends[10].low, ends[10].high))
    assert (fitted.value, fitted.low, fitted.high) == pytest.approx((0.05, ends[10].low, ends[12].high))


def test_one_budget_has_one_rate_in_every_table(survey: Evaluated) -> None:
    fitted = _fit(survey.chain, max_contaminations=[0.2], **COMMON)
    point, yields = (_named(table)["contamination_2e-01"] for table in (fitted.table, fitted.survey_yield))
    assert [point[end] for end in ("fpr", "fpr_low", "fpr_high")] == [
        yields[end] for end in ("fpr", "fpr_low", "fpr_high")
    ]
    assert point["fpr_high"] > stats.binomtest(point["n_false_positives"], point["n_negatives"]).proportion_ci().high


def test_no_control_enough_is_no_budget(ten_galaxies: Evaluated) -> None:
    row = _named(ten_galaxies.fit.table)["contamination_5e-01"]
    assert "no rate below 1 has 5 galaxies above its threshold among 5 distinct controls" in row["reason"]


def test_candidates_per_square_degree_are_counted_where_the_area_is_known(survey: Evaluated) -> None:
    without = _named(survey.fit.survey_yield)["fpr_1e-02"]
    assert without["candidates_per_deg2"] is None
    assert "area" in without["reason"]
    there = _named(_fit(survey.chain, Survey(DENSITY)).survey_yield)["fpr_1e-02"]
    expected = 100 * (1.2e-3 * there["recall"] + (1 - 1.2e-3) * there["fpr"])
    assert there["candidates_per_deg2"] == pytest.approx(expected)
    assert there["candidates_per_deg2_low"] < expected < there["candidates_per_deg2_high"]


def test_what_lenses_among_controls_leave_open_is_in_the_intervals_and_the_reason_says_so(survey: Evaluated) -> None:
    fitted = [_fit(survey.chain, Survey(DENSITY, simulated=made_up), **COMMON) for made_up in (False, True)]
    assert [row["threshold"] for row in fitted[0].table.to_pylist()] == [
        row["threshold"] for row in fitted[1].table.to_pylist()
    ]
    real, made_up = (_named(one.survey_yield)["fpr_1e-01"] for one in fitted)
    for name in ("purity", "candidates_per_deg2"):
        assert real[name] == made_up[name]
    assert (real["purity_low"], made_up["purity_high"] < real["purity_high"]) == (made_up["purity_low"], True)
    assert real["candidates_per_deg2_low"] < 100 * real["fpr"] < made_up["candidates_per_deg2_low"]
    assert "take controls to hold no lens" in real["reason"]
    assert made_up["reason"] is None


def test_lenses_among_controls_set_a_floor_unless_galaxies_are_made_up(survey: Evaluated) -> None:
    real = _named(survey.fit.survey_yield)["fpr_1e-01"]
    assert real["lens_floor_high"] == pytest.approx(7.7e-3 * real["recall_high"])
    assert 0 < real["true_fpr_low"] < real["fpr_low"]
    made_up = _named(_fit(survey.chain, Survey(DENSITY, simulated=True)).survey_yield)["fpr_1e-01"]
    assert (made_up["lens_floor_high"], made_up["true_fpr_low"]) == (0, made_up["fpr_low"])


def test_the_report_says_what_unknown_lenses_may_do_to_the_rate(survey: Evaluated) -> None:
    row = _named(survey.fit.survey_yield)["fpr_1e-02"]
    page = survey.report()[0].page.decode()
    assert f"such lenses may make up {row['lens_floor_high']:.2g} of the rate" in page
    assert f"between {row['true_fpr_low']:.2g} and {row['fpr_high']:.2g}" in page
    assert "Purity and candidates are told as if controls held none" in page
    made_up = pl.DataFrame(_fit(survey.chain, Survey(simulated=True)).survey_yield)
    assert undiscovered_lenses(made_up, "fpr_1e-02").startswith("Galaxies are made up")
    unknown = made_up.with_columns(lens_floor_high=None, true_fpr_low=None, reason=pl.lit("all of one galaxy"))
    assert undiscovered_lenses(unknown, "fpr_1e-02").endswith("isn't known: all of one galaxy.")


def test_paired_and_unpaired_controls_have_their_own_rates_and_thresholds(evaluate: Evaluate) -> None:
    """Half of the galaxies lose their injection, and these galaxies' controls score higher."""
    stamps = draw({"train": 5, "val_select": 5, "val_calibrate": 600, "test": 5})
    galaxy = np.array(stamps.columns["galaxy_id"])
    lonely = np.array([name.startswith("val_calibrate") and int(name[-5:]) % 2 == 1 for name in galaxy])
    lens = np.array(stamps.columns["label"]) == 1
    stamps.logit = np.where(lonely & ~lens, stamps.logit + 1.5, stamps.logit).astype(np.float32)
    kept = np.flatnonzero(~(lonely & lens))
    stamps.columns = {name: [values[i] for i in kept] for name, values in stamps.columns.items()}
    stamps.split, stamps.logit = [stamps.split[i] for i in kept], stamps.logit[kept]
    fitted = evaluate(stamps).fit
    rows = {(row["operating_point"], row["negatives"]): row for row in fitted.by_negatives.to_pylist()}
    paired, unpaired = (rows["fpr_1e-01", f"{kind} controls"] for kind in ("paired", "unpaired"))
    assert paired["n_negatives"] == unpaired["n_negatives"] == 300
    assert paired["fpr_high"] < 0.1 < unpaired["fpr_low"]
    assert paired["own_threshold"] < _named(fitted.table)["fpr_1e-01"]["threshold"] < unpaired["own_threshold"]
    assert paired["own_fpr"] == unpaired["own_fpr"] == pytest.approx(0.1)
    assert (paired["fpr"] + unpaired["fpr"]) / 2 == pytest.approx(_named(fitted.table)["fpr_1e-01"]["fpr"])


def test_a_kind_of_control_that_is_not_there_says_so(survey: Evaluated) -> None:
    rows = [row for row in survey.fit.by_negatives.to_pylist() if row["negatives"] == "unpaired controls"]
    assert {(row["fpr"], row["status"], row["reason"]) for row in rows} == {
        (None, "unresolved", "val_calibrate has no unpaired controls")
    }
    assert len(rows) == survey.fit.table.num_rows


def test_a_contamination_has_words() -> None:
    assert threshold_words("contamination_5e-01") == "for a contamination of 0.5"
    assert metric_words("recall_at_contamination_5e-01").endswith("at the threshold for a contamination of 0.5")
