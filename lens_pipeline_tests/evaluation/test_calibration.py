import html
import json
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from scipy import special

from lens_pipeline.contracts.catalogue import P_LENS
from lens_pipeline.contracts.errors import EvaluationError
from lens_pipeline.evaluation.calibration import (
    FILE,
    Labelled,
    cross_fitted,
    frozen_calibrator,
    galaxy_folds,
    judged,
    prior_logit_of,
)
from lens_pipeline.evaluation.calibrators import Method, even_weights
from lens_pipeline.evaluation.config import OperatingPointConfig
from lens_pipeline.evaluation.likelihood_metrics import log_losses
from lens_pipeline.evaluation.mean_losses import Losses
from lens_pipeline.evaluation.operating_point import fit_operating_point
from lens_pipeline.evaluation.reliability_bins import reliability_rows
from lens_pipeline.evaluation.scored_rows import CALIBRATE, distinct_rows, join_store, open_rows
from lens_pipeline_tests.evaluation.conftest import Evaluated
from lens_pipeline_tests.evaluation.synthetic import Stamps, draw

Evaluate = Callable[[Stamps], Evaluated]


def _methods(evaluated: Evaluated) -> dict[str, dict[str, object]]:
    return {row["method"]: row for row in evaluated.fit.calibration.table.to_pylist()}


def _labelled(evaluated: Evaluated) -> Labelled:
    chain = evaluated.chain
    return Labelled.of(
        distinct_rows(join_store(open_rows(chain.scores, CALIBRATE), scores=chain.scores, store=chain.store))
    )


@pytest.fixture(scope="module")
def overconfident(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """Scores four times as far from 0 as they should be."""
    from lens_pipeline_tests.evaluation.synthetic import publish

    stamps = draw({"train": 60, "val_select": 60, "val_calibrate": 600, "test": 800})
    stamps.logit = 4 * stamps.logit
    return Evaluated(publish(stamps, tmp_path_factory.mktemp("overconfident")))


def test_an_overconfident_score_gains_by_calibration_and_says_by_how_much(overconfident: Evaluated) -> None:
    rows = _methods(overconfident)
    assert [name for name, row in rows.items() if row["chosen"]] == ["beta"]
    for name in ("temperature", "beta", "isotonic"):
        assert rows[name]["gain_low"] > 0, name  # type: ignore[operator]
        assert rows[name]["log_loss"] < rows["uncalibrated"]["log_loss_low"], name  # type: ignore[operator]
    assert rows["uncalibrated"]["gain"] is None
    assert {row["n_folds"] for row in rows.values()} == {5}


def test_the_reliability_diagram_shows_the_mend_on_rows_that_no_fit_has_seen(overconfident: Evaluated) -> None:
    report, published = overconfident.report()
    for table in (overconfident.operating_point.read_table("reliability"), published.read_table("reliability")):
        bins = pl.DataFrame(table)
        missed = bins.with_columns(miss=(pl.col("p_mean") < pl.col("low")) | (pl.col("p_mean") > pl.col("high")))
        counted = dict(missed.group_by("method").agg(pl.col("miss").sum()).iter_rows())
        assert counted["uncalibrated"] >= 4
        assert counted["beta"] <= 1
    assert report.images["reliability"].startswith(b"\x89PNG")


def test_figures_are_of_rows_that_their_fit_has_not_seen(evaluate: Evaluate) -> None:
    """An isotonic fit to noise looks good on its own rows only."""
    stamps = draw({"train": 5, "val_select": 5, "val_calibrate": 150, "test": 5})
    stamps.logit = np.random.default_rng(0).normal(size=stamps.logit.size).astype(np.float32)
    isotonic = _methods(evaluate(stamps))["isotonic"]
    assert isotonic["log_loss"] > np.log(2)  # type: ignore[operator]


def test_the_frozen_calibration_is_part_of_the_hashed_version(overconfident: Evaluated) -> None:
    chain = overconfident.chain
    versions = set()
    for method in (Method.beta, Method.isotonic):
        with chain.stage("operating_point", chain.scores, chain.store) as staging:
            fit_operating_point(
                OperatingPointConfig(calibration=method), scores=chain.scores, store=chain.store, staging=staging
            )
            versions.add(staging.commit().version)
    assert len(versions) == 2
    assert overconfident.operating_point.version in versions
    assert frozen_calibrator(overconfident.operating_point) == overconfident.fit.calibration.calibrator
    assert json.loads(overconfident.operating_point.path(FILE).read_text())["method"] == "beta"


def test_p_lens_of_test_is_published_at_the_prevalence_that_it_names(overconfident: Evaluated) -> None:
    _, published = overconfident.report()
    table = pl.DataFrame(published.read_table("p_lens"))
    prior = published.attributes["p_lens_prevalence"]
    assert table.height == 1600
    assert "Sonnenfeld" in prior["source"]
    expected = special.expit(table["log_likelihood_ratio"].to_numpy() + special.logit(prior["value"]))
    assert table["p_lens"].to_numpy() == pytest.approx(expected)
    highest = overconfident.fit.calibration.calibrator.highest_control
    assert table.filter(pl.col("logit") > highest)["extrapolated"].all()


def test_a_calibration_on_few_galaxies_gives_no_probability_but_the_reason(evaluate: Evaluate) -> None:
    few = evaluate(draw({"train": 30, "val_select": 30, "val_calibrate": 19, "test": 60}))
    report, published = few.report()
    table = published.read_table("p_lens")
    P_LENS.validate(table, where="test")
    assert table["p_lens"].null_count == table.num_rows
    (reason,) = set(table["p_lens_reason"].to_pylist())
    assert "19 galaxies with lenses and 19 galaxies with controls" in reason
    assert reason in html.unescape(report.page.decode())
    for controls in (published, few.operating_point):
        assert set(controls.read_table("top_controls")["p_lens"].to_pylist()) == {None}
    enough = evaluate(draw({"train": 30, "val_select": 30, "val_calibrate": 20, "test": 60})).report()[1]
    assert enough.read_table("p_lens")["p_lens"].null_count == 0


def test_metrics_of_the_calibrated_probability_stand_beside_those_of_the_score(overconfident: Evaluated) -> None:
    report, _ = overconfident.report()
    rows = {row["metric"]: row for row in report.table.to_pylist() if row["split"] == "test"}
    assert rows["log_loss_calibrated"]["high"] < rows["log_loss"]["low"]
    assert rows["ece_calibrated"]["high"] < rows["ece"]["low"]
    assert rows["brier_calibrated"]["value"] < rows["brier"]["value"]
    page = report.page.decode()
    assert "What a score is worth as a probability" in page
    assert "beta (in use)" in page
    assert "Log loss of the calibrated probability" in page


def test_two_galaxies_can_be_judged_and_one_says_that_it_can_not(evaluate: Evaluate) -> None:
    rows = _methods(evaluate(draw({"train": 5, "val_select": 5, "val_calibrate": 1, "test": 5})))
    assert {row["log_loss"] for row in rows.values()} == {None}
    assert all("fewer than two galaxies" in str(row["reason"]) for row in rows.values())


def test_constant_scores_are_calibrated_to_even_odds(evaluate: Evaluate) -> None:
    stamps = draw({"train": 5, "val_select": 5, "val_calibrate": 200, "test": 50})
    stamps.logit[:] = 0.5
    evaluated = evaluate(stamps)
    assert _methods(evaluated)["beta"]["log_loss"] == pytest.approx(np.log(2), abs=1e-3)
    _, published = evaluated.report()
    assert pl.DataFrame(published.read_table("reliability"))["bin"].to_list() == [0, 0]


def test_galaxies_stay_whole_and_every_fold_leaves_both_classes_to_the_others() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        m = int(rng.integers(2, 12))
        galaxies = np.repeat(rng.permutation(m) + 1, rng.integers(1, 4, m))
        lens = rng.random(galaxies.size) < rng.choice([0.1, 0.5, 0.9])
        folds = galaxy_folds(galaxies, lens, int(rng.integers(2, 7)))
        per_class = [np.unique(galaxies[lens == side]).size for side in (True, False)]
        assert (folds is None) == (min(per_class) < 2)
        if folds is not None:
            assert all(np.unique(folds[galaxies == one]).size == 1 for one in np.unique(galaxies))
            assert all(np.unique(lens[folds != fold]).size == 2 for fold in range(folds.max() + 1))


def test_odds_of_training_rows_of_one_class_are_taken_as_even() -> None:
    assert prior_logit_of([True, False, False]) == pytest.approx(np.log(0.5))
    assert prior_logit_of([True, True]) == prior_logit_of([]) == 0


def test_an_operating_point_from_before_there_were_calibrations_says_what_to_do(overconfident: Evaluated) -> None:
    chain = overconfident.chain
    with chain.stage("operating_point", chain.scores, chain.store) as staging:
        staging.write_table(None, overconfident.fit.table)
        old = staging.commit()
    with pytest.raises(EvaluationError, match=r"holds no calibration .*--select 'operating_point\*'"):
        frozen_calibrator(old)


def test_a_prevalence_outside_its_own_range_is_refused() -> None:
    with pytest.raises(ValidationError, match="must lie within"):
        OperatingPointConfig(lens_prevalence=0.5)


def test_the_interval_of_a_gain_pays_for_fits_that_share_most_of_their_rows(overconfident: Evaluated) -> None:
    gain, rows = _methods(overconfident)["beta"], _labelled(overconfident)
    folds = galaxy_folds(rows.galaxies, rows.is_lens, 5)
    before, after = (cross_fitted(method, rows, folds, 0.0) for method in (Method.uncalibrated, Method.beta))
    assert before is not None
    assert after is not None
    even = even_weights(rows.is_lens, rows.weights)
    saved = log_losses(before, rows.is_lens) - log_losses(after, rows.is_lens)
    plain = Losses.of(saved, rows.is_lens, even).mean_over(rows.galaxies)
    assert gain["gain"] == pytest.approx(plain.value)
    for end in ("low", "high"):
        wide, narrow = gain[f"gain_{end}"] - gain["gain"], getattr(plain, end) - plain.value  # type: ignore[operator]
        assert wide == pytest.approx(1.5 * narrow)


def test_a_diagram_of_few_rows_has_fewer_bins_of_twenty_rows_or_more() -> None:
    rng = np.random.default_rng(0)
    for n, n_bins in ((19, 1), (50, 2), (200, 10), (2000, 10)):
        lens = np.arange(n) % 2 == 0
        bins = reliability_rows("beta", rng.normal(size=n) + lens, lens, np.ones(n), np.arange(n), 10)
        assert len(bins) == n_bins
        assert min(row["n"] for row in bins) >= min(n, 18)  # type: ignore[type-var]


def _drawn(n_lenses: int, n_controls: int, n_regions: int | None = None, region_spread: float = 0.0) -> Labelled:
    """Exact log likelihood ratios of two normal laws, moved by what the row's region has of its own."""
    rng, lens = np.random.default_rng(0), np.arange(n_lenses + n_controls) < n_lenses
    regions = None if n_regions is None else 1 + rng.integers(n_regions, size=lens.size)
    moved = 0.0 if regions is None else region_spread * rng.normal(size=n_regions)[regions - 1]
    ratio = np.where(lens, 2.0, -2.0) + rng.normal(0, 2, lens.size) + moved
    return Labelled(ratio, lens, np.ones(lens.size), np.arange(lens.size), regions)


def _judged(rows: Labelled) -> dict[str, object]:
    folds = galaxy_folds(rows.galaxies, rows.is_lens, 5)
    ratios = [cross_fitted(method, rows, folds, 0.0) for method in (Method.beta, Method.uncalibrated)]
    return judged(Method.beta, *ratios, rows, folds)


@pytest.mark.parametrize(("counts", "rarer"), [((30, 5000), "lenses"), ((5000, 30), "controls")])
def test_a_mean_that_rests_on_few_rows_of_a_class_has_no_interval_but_the_reason(
    counts: tuple[int, int], rarer: str
) -> None:
    found = _judged(_drawn(*counts))
    for name in ("log_loss", "brier", "gain"):
        assert found[name] is not None
        assert (found[f"{name}_low"], found[f"{name}_high"]) == (None, None)
    assert str(found["reason"]).startswith(f"no interval: 30 effective {rarer}")
    assert _judged(_drawn(250, 5000))["log_loss_low"] is not None


@pytest.mark.parametrize("certain", [1.0, 3.0])
def test_intervals_of_nearly_perfect_ranks_hold_as_often_as_said_or_are_not_given(certain: float) -> None:
    """AUROC 0.9977: of 200 lenses among 3,000 controls about five are on the wrong side, and have nearly all of the loss."""
    lens, galaxies = np.arange(3200) < 200, np.arange(3200)
    shift, found = 4.0, []

    def ratio(noise: np.ndarray, are: np.ndarray) -> np.ndarray:
        return certain * shift * (noise + shift * are - shift / 2)

    middles = special.ndtri((np.arange(40_000) + 0.5) / 40_000)
    sides = [np.full(middles.size, side) for side in (True, False)]
    truth = np.mean([log_losses(ratio(middles, side), side).mean() for side in sides])
    rng = np.random.default_rng(0)
    for _ in range(500):
        drawn = ratio(rng.normal(size=lens.size), lens)
        rows = Labelled(drawn, lens, np.ones(lens.size), galaxies)
        one = judged(Method.uncalibrated, drawn, drawn, rows, galaxies % 5)
        if one["log_loss_low"] is None:
            assert "on the wrong side of even odds" in str(one["reason"])
        else:
            found.append(one["log_loss_low"] <= truth <= one["log_loss_high"])  # type: ignore[operator]
    assert len(found) > 100
    assert found.count(False) < 0.05 * 500
    assert np.mean(found) > 0.92


def test_ordinary_scores_of_two_hundred_lenses_keep_their_intervals() -> None:
    for shift in (1.8, 2.9):
        lens = np.arange(3200) < 200
        for seed in range(20):
            drawn = shift * (np.random.default_rng(seed).normal(size=3200) + shift * lens - shift / 2)
            rows = Labelled(drawn, lens, np.ones(lens.size), np.arange(3200))
            assert judged(Method.beta, drawn, drawn, rows, np.arange(3200) % 5)["log_loss_low"] is not None


def test_what_a_calibration_is_worth_is_as_unsure_as_regions_differ() -> None:
    apart, alike = (_judged(_drawn(1500, 1500, n_regions=30, region_spread=spread)) for spread in (3.0, 0.0))
    width = [one["log_loss_high"] - one["log_loss_low"] for one in (apart, alike)]  # type: ignore[operator]
    assert width[0] > 1.5 * width[1]
    few = _judged(_drawn(300, 300, n_regions=2))
    assert "leaves out how much regions differ" in str(few["reason"])
