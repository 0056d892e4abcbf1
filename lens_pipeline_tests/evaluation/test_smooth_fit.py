"""The smooth selection function: it finds a known law, its intervals know of galaxies, and it says where it knows nothing."""

import json
from collections.abc import Callable
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from scipy import special

from lens_pipeline.contracts.catalogue import COMPLETENESS_FIT
from lens_pipeline.contracts.errors import EvaluationError
from lens_pipeline.evaluation.config import CompletenessConfig
from lens_pipeline.evaluation.goodness_of_fit import calibration
from lens_pipeline.evaluation.intervals import wilson
from lens_pipeline.evaluation.selection_function import SelectionFunction
from lens_pipeline.evaluation.smooth_fit import SmoothFit, fit_smooth
from lens_pipeline_tests.evaluation.conftest import Evaluated
from lens_pipeline_tests.evaluation.synthetic import Stamps
from lens_pipeline_tests.evaluation.test_axes import measured

Evaluate = Callable[[Stamps], Evaluated]


def law(values: np.ndarray) -> np.ndarray:
    return special.expit(3 * np.sin(values[:, 0]) - values[:, 1] + 0.5 * values[:, 0] * values[:, 1])


def drawn(n: int, per_galaxy: int, taste: float, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    galaxies = np.repeat(np.arange(n // per_galaxy), per_galaxy)
    values = rng.uniform([0.0, -1.0], [3.0, 1.0], (galaxies.size, 2))
    shift = taste * rng.normal(size=n // per_galaxy)[galaxies]
    recovered = rng.random(galaxies.size) < special.expit(special.logit(law(values)) + shift)
    return values, recovered.astype(np.float64), np.ones(galaxies.size), galaxies


def test_a_known_law_is_found_within_its_interval() -> None:
    fit = fit_smooth(*drawn(20_000, 1, 0.0), n_knots=5)
    points = np.random.default_rng(1).uniform([0.2, -0.9], [2.8, 0.9], (400, 2))
    value, low, high, _ = fit.predict(points)
    truth = law(points)
    assert np.abs(value - truth).max() < 0.06
    assert np.mean((low <= truth) & (truth <= high)) > 0.85
    assert (high - low).max() < 0.15


def test_rows_of_one_galaxy_are_not_taken_for_independent() -> None:
    values, _, weights, galaxies = drawn(4_000, 40, 0.0)
    rng = np.random.default_rng(2)
    # Seeing is the galaxy's, and so is what else makes its arcs easy.
    values[:, 1] = rng.uniform(-1, 1, 100)[galaxies]
    recovered = (rng.random(4_000) < special.expit(rng.normal(0, 1.5, 100)[galaxies])).astype(np.float64)
    clustered = fit_smooth(values, recovered, weights, galaxies, n_knots=4)
    naive = fit_smooth(values, recovered, weights, np.arange(galaxies.size), n_knots=4)
    wide, narrow = (np.ptp(np.stack(fit.predict(values[:200])[1:3]), axis=0) for fit in (clustered, naive))
    assert np.median(wide / narrow) > 1.5


def test_a_row_of_weight_two_is_two_rows_and_one_recovered_by_half_is_half() -> None:
    values, recovered, weights, galaxies = drawn(400, 1, 0.0)
    doubled = fit_smooth(values, recovered, np.where(galaxies < 100, 2.0, 1.0), galaxies, n_knots=3)
    again = np.concatenate([np.arange(400), np.arange(100)])
    twice = fit_smooth(values[again], recovered[again], weights[again], galaxies[again], n_knots=3)
    assert doubled.predict(values)[0] == pytest.approx(twice.predict(values)[0], abs=0.02)
    half = fit_smooth(values, recovered * 0.5, weights, galaxies, n_knots=3)
    assert half.predict(values)[0].mean() == pytest.approx(recovered.mean() / 2, abs=0.01)


@pytest.mark.parametrize("all_found", [True, False])
def test_where_every_injection_or_none_was_found_the_fit_is_flat(all_found: bool) -> None:
    values, _, weights, galaxies = drawn(300, 1, 0.0)
    value = fit_smooth(values, np.full(300, float(all_found)), weights, galaxies, n_knots=3).predict(values)[0]
    assert np.ptp(value) == pytest.approx(0.0)
    assert (value > 0.99).all() if all_found else (value < 0.01).all()


def few(values: np.ndarray) -> np.ndarray:
    return np.full(len(values), 0.004)


def drop(values: np.ndarray) -> np.ndarray:
    return special.expit(6 - 15 * values[:, 0] + values[:, 1])


def steep_drop(values: np.ndarray) -> np.ndarray:
    return special.expit(10 - 30 * values[:, 0] + values[:, 1])


@pytest.mark.parametrize("truth_of", [few, drop, steep_drop])
def test_intervals_hold_the_truth_where_nearly_no_injection_is_found(truth_of: Callable) -> None:
    points = np.random.default_rng(99).uniform(0.05, 0.95, (200, 2))
    truth, holds = truth_of(points), []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        values = rng.uniform(size=(2_000, 2))
        recovered = (rng.random(2_000) < truth_of(values)).astype(np.float64)
        _, low, high, *_ = fit_smooth(values, recovered, np.ones(2_000), np.arange(2_000), n_knots=4).predict(points)
        holds.append((low <= truth) & (truth <= high))
    covered = np.mean(holds, axis=0)
    assert covered[truth < 0.01].mean() > 0.95
    assert covered[truth < 0.01].min() > 0.8
    assert covered.mean() > 0.95


@pytest.mark.parametrize("n_found", [0, 1])
def test_few_recovered_say_no_more_at_a_point_than_all_injections_together(n_found: int) -> None:
    values, _, weights, galaxies = drawn(500, 1, 0.0)
    recovered = (galaxies < n_found).astype(np.float64)
    for outcome in (recovered, 1 - recovered):
        value, low, high, *_ = fit_smooth(values, outcome, weights, galaxies, n_knots=3).predict(values)
        assert (low <= value).all()
        assert (value <= high).all()
        assert (high - low).min() > wilson(0, 500)[1]


def test_where_no_galaxy_holds_a_recovered_injection_whole_galaxies_are_counted() -> None:
    values, _, weights, galaxies = drawn(2_000, 40, 0.0)
    values[:, 1] = np.random.default_rng(2).uniform(-1, 1, 50)[galaxies]
    *_, high, n_eff = fit_smooth(values, np.zeros(2_000), weights, galaxies, n_knots=3).predict(values)
    assert n_eff.max() < 50
    assert high.min() > wilson(0, 50)[1]


def test_effective_numbers_are_those_of_the_splines_and_halve_with_the_rows() -> None:
    values, _, weights, galaxies = drawn(4_000, 1, 0.0)
    none = np.zeros(4_000)
    fit = fit_smooth(values, none, weights, galaxies, n_knots=3)
    # Leverages add up to the number of coefficients.
    assert (1 / fit.predict(values)[3]).sum() == pytest.approx(fit.coefficients.size, rel=0.01)
    half = fit_smooth(values[::2], none[::2], weights[::2], galaxies[::2], n_knots=3)
    assert np.median(fit.predict(values)[3] / half.predict(values)[3]) == pytest.approx(2, rel=0.05)
    heavy = fit_smooth(values, none, np.where(galaxies % 2, 3.0, 1.0), galaxies, n_knots=3)
    assert np.median(heavy.predict(values)[3] / fit.predict(values)[3]) == pytest.approx(4**2 / (2 * 10), rel=0.05)


def test_what_no_row_spans_is_not_known() -> None:
    values, _, weights, galaxies = drawn(1_000, 1, 0.0)
    values[:, 1] = values[:, 0]
    fit = fit_smooth(values, np.zeros(1_000), weights, galaxies, n_knots=3)
    _, low, high, n_eff = fit.predict(np.array([[2.9, 0.1], [1.5, 1.5]]))
    assert n_eff[0] < 1 < 20 < n_eff[1]
    assert high[0] - low[0] > 0.9


def test_what_is_written_down_predicts_the_same() -> None:
    fit = fit_smooth(*drawn(500, 5, 0.5), n_knots=3)
    again = SmoothFit.from_json(json.loads(json.dumps(fit.to_json())))
    points = np.array([[0.5, 0.0], [2.9, 0.7]])
    assert np.array_equal(np.stack(fit.predict(points)), np.stack(again.predict(points)))


def test_predictions_that_are_too_sure_have_a_slope_below_one() -> None:
    rng = np.random.default_rng(0)
    eta = rng.normal(0, 1.5, 20_000)
    recovered = (rng.random(eta.size) < special.expit(eta)).astype(np.float64)
    weights = np.ones(eta.size)
    honest, sure = (calibration(special.expit(k * eta), recovered, weights) for k in (1, 2))
    assert (honest["intercept"], honest["slope"]) == pytest.approx((0, 1), abs=0.05)
    assert sure["slope"] == pytest.approx(0.5, abs=0.03)
    assert sure["brier"] > honest["brier"]


def test_a_published_fit_stands_beside_what_was_counted_and_refuses_what_was_not_injected(evaluate: Evaluate) -> None:
    result, publication = evaluate(measured()).completeness()
    table = publication.read_table("fit")
    COMPLETENESS_FIT.validate(table, where="the test")
    rows = pl.DataFrame(table)
    axes = CompletenessConfig().fit_axes
    pairs = [" x ".join(pair) for pair in combinations(axes, 2)]
    assert set(rows["axis"]) == {*axes, *pairs}
    assert rows.group_by("operating_point", "axis").agg(pl.col("n").sum())["n"].n_unique() == 1
    counted = pl.DataFrame(result.table).select("operating_point", "axis", "cell", "completeness", counted="n")
    beside = rows.filter(pl.col("axis").is_in(axes)).join(counted, on=["operating_point", "axis", "cell"], how="left")
    assert beside["n"].to_list() == beside["counted"].to_list()
    assert beside["observed"].to_list() == pytest.approx(beside["completeness"].to_list())
    # A cell of one injection may be many sigma off.
    told = rows.filter(pl.min_horizontal("cross_validated", 1 - pl.col("cross_validated")) * pl.col("n_eff") >= 5)
    assert set(told["axis"]) > set(axes)
    assert told["residual_sigma"].abs().max() < 4  # type: ignore[operator]
    assert beside["residual_sigma"].abs().max() < 4  # type: ignore[operator]
    assert set(publication.attributes["fit"]) == {"notes", "fpr_1e-01", "highest_control"}
    assert [one["cells"] for one in publication.attributes["fit"]["fpr_1e-01"]["goodness_of_fit"]] == pairs
    function = SelectionFunction.load(publication, smooth=True)
    there = {"psf_fwhm_used_r": 1.25, "depth_mag_r": 24.6, "src_mag_r": 23.5}
    found = function.evaluate(theta_e_arcsec=[0.9, 1.4], **there)
    assert ((found.low < found.value) & (found.value < found.high)).all()
    with pytest.raises(EvaluationError, match="1 of 1 points lie where no injection was attempted: theta_e_arcsec 3"):
        function.evaluate(theta_e_arcsec=3.5, **there)
    assert not function.evaluate(extrapolate=True, theta_e_arcsec=3.5, **there).in_support
    with pytest.raises(EvaluationError, match="parent sample's losses aren't known"):
        function.evaluate(of_all_lenses=True, theta_e_arcsec=1.0, **there)


def test_axes_that_nobody_measured_and_few_galaxies_are_noted(survey: Evaluated, ten_galaxies: Evaluated) -> None:
    notes = survey.completeness()[1].attributes["fit"]["notes"]
    assert "depth_mag_r is null for all injections and is left out" in notes
    _, few = ten_galaxies.completeness()
    assert "nothing is fitted: 10 galaxies, fewer than 50" in few.attributes["fit"]["notes"]
    assert few.read_table("fit").num_rows == 0
    with pytest.raises(EvaluationError, match=r"there is no smooth fit: .*fewer than 50"):
        SelectionFunction.load(few, smooth=True)
