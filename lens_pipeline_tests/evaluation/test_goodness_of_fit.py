"""What a smooth fit can't follow is measured on cells of pairs of its axes, widens its intervals, and marks its points."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import special, stats

from lens_pipeline.evaluation.config import CompletenessConfig
from lens_pipeline.evaluation.counting import Attempts, Threshold
from lens_pipeline.evaluation.fit_residuals import Fits, fit_selection
from lens_pipeline.evaluation.goodness_of_fit import CellResiduals, calibration, falls_short, goodness_of_fit
from lens_pipeline.evaluation.parent_share import RowShares
from lens_pipeline.evaluation.selection_function import FILE, FORMAT, SelectionFunction

AXES = ["theta_e_arcsec", "psf_fwhm_used_r"]
Law = Callable[[np.ndarray], np.ndarray]


def ratio(values: np.ndarray) -> np.ndarray:
    return 0.95 * special.expit(8 * (values[:, 0] / values[:, 1] - 1))


def apart(values: np.ndarray) -> np.ndarray:
    return special.expit(3 * values[:, 0] - 4 * values[:, 1] + 1.5)


def drawn(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.uniform(0.3, 2.5, n), np.clip(rng.normal(1.25, 0.15, n), 0.8, 1.8)], axis=1)


def fitted(law: Law, n: int, config: CompletenessConfig | None = None) -> Fits:
    values = drawn(n)
    return fitted_on(values, np.random.default_rng(1).random(n) < law(values), config)


def fitted_on(
    values: np.ndarray,
    recovered: np.ndarray,
    config: CompletenessConfig | None = None,
    regions: np.ndarray | None = None,
) -> Fits:
    n = len(values)
    stored = pl.DataFrame(dict(zip(AXES, values.T, strict=True)))
    attempts = Attempts(
        stored=stored,
        lost=stored.clear(),
        known_of_lost=frozenset(),
        order=np.arange(n),
        galaxies=np.arange(n),
        weights=np.ones(n),
        logits=recovered - 0.5,
        shares=RowShares("unknown", {}, ()),
        regions=regions,
    )
    return fit_selection(attempts, [Threshold("one", 0.0)], config or CompletenessConfig(fit_axes=AXES))


def function_of(fits: Fits, folder: Path) -> SelectionFunction:
    content = {"format": FORMAT, "primary": "one", "provenance": {}, "fit_notes": [], "surfaces": fits.surfaces}
    (folder / FILE).write_text(json.dumps(content))
    return SelectionFunction.load(folder / FILE, smooth=True)


def goodness(fits: Fits) -> dict[str, Any]:
    (one,) = fits.surfaces[0]["calibration"]["goodness_of_fit"]
    return one


@pytest.mark.parametrize("law", [ratio, apart])
@pytest.mark.parametrize("n", [2_000, 20_000, 60_000])
def test_intervals_hold_the_truth_however_many_injections_there_are(law: Law, n: int, tmp_path: Path) -> None:
    points = drawn(2_000, seed=99)
    found = function_of(fitted(law, n), tmp_path).evaluate(
        extrapolate=True, theta_e_arcsec=points[:, 0], psf_fwhm_used_r=points[:, 1]
    )
    truth = law(points)
    assert np.mean((found.low <= truth) & (truth <= found.high)) > 0.9
    assert np.median(found.high - found.low) < 10 / np.sqrt(n)


# Too few injections for so many knots to be multiplied, so that the fit can't follow a ratio.
MANY_KNOTS = CompletenessConfig(fit_axes=AXES, fit_knots=12)


def test_what_each_axis_alone_hides_is_seen_on_cells_of_both() -> None:
    fits = fitted(ratio, 19_000, MANY_KNOTS)
    rows = pl.DataFrame(fits.residuals)
    alone = rows.filter(pl.col("axis").is_in(AXES))
    both = rows.filter(pl.col("axis") == " x ".join(AXES))
    assert alone["residual_sigma"].abs().max() < 1.5
    assert both["residual_sigma"].abs().max() > 3
    assert both["n"].sum() == 19_000
    assert both.select("low", "high", "low_2", "high_2").null_count().sum_horizontal().item() == 0
    assert alone["unit_2"].null_count() == alone.height
    seen = both.filter(pl.min_horizontal("cross_validated", 1 - pl.col("cross_validated")) * pl.col("n_eff") >= 5)
    assert goodness(fits)["n_cells"] == seen.height
    assert goodness(fits)["chi_squared"] == pytest.approx((seen["residual_sigma"] ** 2).sum())
    assert goodness(fits)["p"] < 0.01
    assert goodness(fitted(apart, 19_000, MANY_KNOTS))["p"] > 0.01


def test_a_fit_that_falls_short_is_marked_small_where_that_outweighs_the_injections(tmp_path: Path) -> None:
    points = drawn(2_000, seed=99)
    asked = dict(zip(AXES, points.T, strict=True))
    short = function_of(fitted(ratio, 19_000, MANY_KNOTS), tmp_path).evaluate(extrapolate=True, **asked)
    good = function_of(fitted(apart, 19_000, MANY_KNOTS), tmp_path).evaluate(extrapolate=True, **asked)
    assert short.is_small[short.n_eff > 100].mean() > 0.2
    assert not good.is_small[good.n_eff > 100].any()
    truth = ratio(points)
    assert np.mean(short.is_small | ((short.low <= truth) & (truth <= short.high))) > 0.9


def test_a_fit_on_one_axis_is_judged_on_that_axis() -> None:
    one = goodness(fitted(apart, 2_000, CompletenessConfig(fit_axes=AXES[:1])))
    assert one["cells"] == "theta_e_arcsec"
    assert one["p"] > 0.001


def test_where_nearly_nothing_is_recovered_nobody_knows_how_good_the_fit_is() -> None:
    fits = fitted(lambda values: np.full(len(values), 0.001), 1_000)
    one = goodness(fits)
    assert (one["p"], one["misfit"], one["chi_squared"]) == (None, None, None)
    assert one["reason"].startswith("0 of 48 cells expect 5 recovered and 5 not")
    assert fits.surfaces[0]["completeness"][0]["misfit"] == 0


def test_predictions_that_separate_outcomes_have_no_slope_and_say_why() -> None:
    predicted = np.linspace(0.1, 0.9, 60)
    apart = calibration(predicted, (predicted > 0.4).astype(np.float64), np.ones(60))
    assert (apart["intercept"], apart["slope"]) == (None, None)
    assert apart["reason"].startswith("predictions separate the 37 recovered of 60 injections")
    assert 0 < apart["brier"] < 0.2
    inverted = calibration(predicted, (predicted <= 0.4).astype(np.float64), np.ones(60))
    assert inverted["slope"] is None
    assert inverted["reason"].startswith("predictions separate the 23 recovered of 60 injections")
    touching = calibration(np.repeat([0.2, 0.5, 0.8], 20), np.repeat([0.0, 0.0, 1.0], 20), np.ones(60))
    assert touching["slope"] is None
    for outcome, word in ((0.0, "none"), (1.0, "all")):
        assert calibration(predicted, np.full(60, outcome), np.ones(60))["reason"] == (
            f"{word} of 60 injections are recovered"
        )


@pytest.mark.parametrize("slope", [0.05, 0.2, 1.0])
def test_predictions_that_are_far_too_sure_get_their_slope(slope: float) -> None:
    rng = np.random.default_rng(3)
    eta = rng.normal(0, 1 / slope, 5_000) * 1.5
    recovered = (rng.random(5_000) < special.expit(slope * eta)).astype(np.float64)
    weights = rng.uniform(0.5, 2.0, 5_000)
    told = calibration(special.expit(eta), recovered, weights)
    line = np.array([told["intercept"], told["slope"]])
    # Predictions beyond 1e-9 of an end are taken for it.
    x = np.clip(eta, special.logit(1e-9), special.logit(1 - 1e-9))
    score = weights * (recovered - special.expit(line[0] + line[1] * x))
    assert told["reason"] is None
    assert np.array([score.sum(), (score * x).sum() / 10]) == pytest.approx([0, 0], abs=1e-3)
    assert slope < 0.1 or told["slope"] == pytest.approx(slope, rel=0.1)


def test_intervals_of_a_fit_hold_the_truth_where_regions_differ(tmp_path: Path) -> None:
    n_regions, each, spread = 15, 400, 0.3
    theta_e, seeing = (x.ravel() for x in np.meshgrid(np.linspace(0.5, 2.3, 6), np.linspace(1.0, 1.9, 6)))
    middle = 1.5 * (theta_e - 1.2) - 1.5 * (seeing - 1.4)
    # A region's chance is drawn, so the truth is the mean over what it may be.
    chances = spread * special.ndtri((np.arange(200) + 0.5) / 200)
    truth = special.expit(middle[:, None] + chances).mean(axis=1)
    region = np.repeat(np.arange(1, n_regions + 1), each)
    held: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        values = np.stack(
            [rng.uniform(0.3, 2.5, region.size), rng.uniform(0.9, 2.0, n_regions + 1)[region] + rng.normal(0, 0.03, region.size)],
            axis=1,
        )  # fmt: skip
        eta = 1.5 * (values[:, 0] - 1.2) - 1.5 * (values[:, 1] - 1.4) + rng.normal(0, spread, n_regions + 1)[region]
        recovered = rng.random(region.size) < special.expit(eta)
        for known in held:
            function = function_of(fitted_on(values, recovered, regions=region if known else None), tmp_path)
            found = function.evaluate(theta_e_arcsec=theta_e, psf_fwhm_used_r=seeing, extrapolate=True)
            held[known].append(float(((found.low <= truth) & (truth <= found.high)).mean()))
    assert np.mean(held[True]) > 0.92
    assert np.mean(held[False]) < 0.9


def test_a_fit_on_fewer_than_five_regions_says_that_they_are_left_out() -> None:
    values = drawn(2000)
    recovered = np.random.default_rng(1).random(2000) < apart(values)
    notes = fitted_on(values, recovered, regions=np.arange(2000) % 4 + 1).notes
    assert notes == ["the interval leaves out how much regions differ, which isn't known: 4 regions, fewer than 5"]
    assert fitted_on(values, recovered, regions=np.arange(2000) % 5 + 1).notes == []


def of_four_cells(**others: list[float]) -> dict[str, Any]:
    told = {
        "residual": [0.1, -0.05, 0.3, 0.5],
        "predicted": [0.5, 0.2, 0.9, 0.99],
        "spread": [0.24, 0.15, 0.08, 0.01],
        "n_eff": [100, 100, 40, 100],
        "leverage": [0.25, 0.5, 0.1, 0.1],
    }
    return goodness_of_fit("a x b", CellResiduals(**{name: np.array(x) for name, x in (told | others).items()}))


def test_cells_with_too_few_expected_on_either_side_are_left_out_of_the_sum_of_squares() -> None:
    told = of_four_cells()
    chi_squared = 0.1**2 * 100 / 0.24 + 0.05**2 * 100 / 0.15
    assert (told["n_cells"], told["degrees_of_freedom"]) == (2, 1.25)
    assert told["chi_squared"] == pytest.approx(chi_squared)
    assert told["p"] == pytest.approx(stats.chi2.sf(chi_squared, 1.25))
    assert told["misfit"] == pytest.approx((chi_squared - 1.25) / (100 * 0.24 + 100 * 0.15))


def test_cells_that_a_fit_follows_closely_leave_nothing_to_judge_it_by() -> None:
    told = of_four_cells(leverage=[0.6, 0.6, 0.1, 0.1])
    assert (told["p"], told["misfit"]) == (None, None)
    assert told["reason"] == "2 of 4 cells expect 5 recovered and 5 not, which leaves 0.8 degrees of freedom"


def test_the_best_of_several_chances_is_allowed_for_before_a_fit_is_called_short() -> None:
    assert falls_short([{"p": 0.009}])
    assert not falls_short([{"p": 0.05}])
    assert not falls_short([{"p": 0.009}, {"p": 0.5}])
    assert not falls_short([{"p": None}])


def test_the_brier_score_of_a_fit_weighs_injections_as_the_population_does() -> None:
    told = calibration(np.array([0.2, 0.8]), np.zeros(2), np.array([1.0, 3.0]))
    assert told["brier"] == pytest.approx((0.2**2 + 3 * 0.8**2) / 4)
