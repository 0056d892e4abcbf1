import json

import numpy as np
import pytest
from scipy import special
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from lens_pipeline.contracts.errors import EvaluationError
from lens_pipeline.evaluation.calibrators import Calibrator, Floats, Method, even_weights, fit_calibrator

EVEN = 0.0
FITTED = (Method.temperature, Method.beta, Method.isotonic)


def _gaussian(n: int, n_controls: int, seed: int = 0) -> tuple[Floats, np.ndarray, Floats]:
    """True log likelihood ratios, classes and weights: lenses N(2, 4), controls N(-2, 4), so that the ratio is the value."""
    rng = np.random.default_rng(seed)
    lens = np.arange(n + n_controls) < n
    return np.where(lens, 2.0, -2.0) + rng.normal(0, 2, lens.size), lens, np.ones(lens.size)


@pytest.mark.parametrize("n_controls", [20_000, 400_000])
@pytest.mark.parametrize(
    ("method", "distorted"),
    [
        (Method.temperature, lambda z: 2.5 * z),
        (Method.beta, lambda z: 0.5 * z + 3),
        (Method.isotonic, lambda z: np.arcsinh(z) - 1),
    ],
)
def test_a_distorted_score_gets_its_likelihood_ratio_back_at_any_mix_of_classes(method, distorted, n_controls) -> None:  # type: ignore[no-untyped-def]
    ratio, lens, weight = _gaussian(20_000, n_controls)
    found = fit_calibrator(method, distorted(ratio), lens, weight, EVEN)
    inner = np.linspace(-3, 3, 61)
    assert np.abs(found.log_likelihood_ratio(distorted(inner)) - inner).max() < 0.35


def test_isotonic_and_temperature_are_those_of_scikit_learn() -> None:
    ratio, lens, weight = _gaussian(3000, 3000)
    scores = 3 * ratio
    mine = fit_calibrator(Method.isotonic, scores, lens, weight, EVEN)
    ends, one_row = [scores.max(), scores.min()], [3000 / 3001] * 2
    theirs = IsotonicRegression(out_of_bounds="clip").fit(
        np.r_[scores, ends], np.r_[lens, False, True], np.r_[weight, one_row]
    )
    assert special.expit(mine.log_likelihood_ratio(scores)) == pytest.approx(theirs.predict(scores), abs=1e-9)
    slope = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(scores[:, None], lens).coef_[0, 0]
    fitted = fit_calibrator(Method.temperature, scores, lens, weight, EVEN)
    assert 1 / fitted.parameters["temperature"][0] == pytest.approx(slope, rel=5e-3)  # Slopes have a prior.


def test_p_lens_is_bayes_rule_at_the_prevalence_asked_for() -> None:
    ratio, lens, weight = _gaussian(500, 500)
    found = fit_calibrator(Method.temperature, ratio, lens, weight, EVEN)
    likelihood = np.exp(found.log_likelihood_ratio([3.0])[0])
    assert found.p_lens([3.0], 1e-3)[0] == pytest.approx(1e-3 * likelihood / (1e-3 * likelihood + 1 - 1e-3))
    assert found.p_lens(ratio, 0.9).mean() > found.p_lens(ratio, 0.5).mean() > found.p_lens(ratio, 1e-3).mean()


def test_saerens_shift_makes_probabilities_right_where_lenses_are_rare() -> None:
    ratio, lens, weight = _gaussian(20_000, 20_000)
    found = fit_calibrator(Method.beta, 2 * ratio + 1, lens, weight, EVEN)
    later, rare, _ = _gaussian(2_000, 200_000, seed=1)
    p = found.p_lens(2 * later + 1, 2_000 / 202_000)
    for low, high in ((0.0, 0.01), (0.01, 0.1), (0.1, 1.0)):
        inside = (p >= low) & (p < high)
        assert rare[inside].mean() == pytest.approx(p[inside].mean(), rel=0.15)


def test_a_model_trained_where_lenses_are_rare_starts_from_those_odds() -> None:
    ratio, lens, weight = _gaussian(4000, 4000)
    prior = np.log(1 / 50)
    found = fit_calibrator(Method.temperature, ratio + prior, lens, weight, prior)
    assert found.parameters["temperature"][0] == pytest.approx(1, abs=0.1)
    assert found.log_likelihood_ratio([prior])[0] == pytest.approx(0, abs=0.4)


@pytest.mark.parametrize("method", FITTED)
def test_injections_weigh_as_the_population_has_them(method: Method) -> None:
    """Bright lenses were injected ten times as often as they are: weights give the fit of the population back."""
    rng = np.random.default_rng(2)
    faint, bright, controls = (rng.normal(mean, 1, 20_000) for mean in (0.5, 4.0, -1.0))
    truth = fit_calibrator(
        method,
        np.concatenate([faint, bright[:2000], controls]),
        np.arange(42_000) < 22_000,
        np.ones(42_000),
        EVEN,
    )
    lens = np.arange(60_000) < 40_000
    weight = np.concatenate([np.ones(20_000), np.full(20_000, 0.1), np.ones(20_000)])
    weighted = fit_calibrator(method, np.concatenate([faint, bright, controls]), lens, weight, EVEN)
    at = np.array([-1.0, 0.0, 1.0])
    assert weighted.log_likelihood_ratio(at) == pytest.approx(truth.log_likelihood_ratio(at), abs=0.15)


@pytest.mark.parametrize("method", list(Method))
def test_a_calibrated_score_never_falls_and_survives_json(method: Method) -> None:
    ratio, lens, weight = _gaussian(300, 500)
    found = fit_calibrator(method, 5 * ratio, lens, weight, EVEN)
    wide = np.linspace(-1000, 1000, 4001)
    assert np.all(np.diff(found.log_likelihood_ratio(wide)) >= 0)
    again = Calibrator.from_json(json.loads(json.dumps(found.as_json(), allow_nan=False)))
    assert np.array_equal(again.log_likelihood_ratio(wide), found.log_likelihood_ratio(wide))


@pytest.mark.parametrize("method", FITTED)
def test_classes_that_do_not_overlap_claim_no_more_than_their_number_allows(method: Method) -> None:
    scores = np.array([-5.0] * 10 + [5.0] * 10)
    found = fit_calibrator(method, scores, scores > 0, np.ones(20), EVEN)
    assert found.log_likelihood_ratio([5.0])[0] == pytest.approx(np.log(11), abs=0.1)


@pytest.mark.parametrize("method", FITTED)
@pytest.mark.parametrize("counts", [(30, 20_000), (20_000, 30), (500, 500)])
def test_no_ratio_of_rows_far_apart_is_beyond_the_number_of_the_other_class(
    method: Method, counts: tuple[int, int]
) -> None:
    n_lenses, n_controls = counts
    lens = np.arange(sum(counts)) < n_lenses
    scores = np.where(lens, 20.0, -20.0) + np.random.default_rng(0).uniform(-1, 1, lens.size)
    found = fit_calibrator(method, scores, lens, np.ones(lens.size), EVEN)
    ratio = found.log_likelihood_ratio([scores[~lens].max(), scores[lens].min()])
    assert -np.log(n_lenses + 1) - 1e-6 <= ratio[0] < 0 < ratio[1] <= np.log(n_controls + 1) + 1e-6


@pytest.mark.parametrize("method", [Method.temperature, Method.beta])
@pytest.mark.parametrize("counts", [(30, 2000), (2000, 30), (300, 300)])
def test_a_fit_to_few_rows_of_a_class_is_as_often_too_high_as_too_low(method: Method, counts: tuple[int, int]) -> None:
    lens = np.arange(sum(counts)) < counts[0]
    at, missed = np.array([-4.0, -2.0, 2.0, 4.0]), []
    for seed in range(40):
        ratio = np.where(lens, 2.0, -2.0) + np.random.default_rng(seed).normal(0, 2, lens.size)
        fitted = fit_calibrator(method, 1.5 * ratio, lens, np.ones(lens.size), EVEN)
        missed.append(fitted.log_likelihood_ratio(1.5 * at) - at)
    too_high = np.mean(np.array(missed) > 0, axis=0)
    assert np.all((too_high > 0.2) & (too_high < 0.8)), too_high
    assert np.abs(np.median(missed, axis=0)).max() < 0.5


@pytest.mark.parametrize("counts", [(1000, 1000), (100, 5000), (5000, 100)])
def test_the_ends_of_isotonic_claim_what_rows_at_such_scores_are_worth(counts: tuple[int, int]) -> None:
    lens = np.arange(sum(counts)) < counts[0]
    claimed, worth = [], []
    for seed in range(60):
        scores = np.random.default_rng(seed).normal(0, 1, lens.size) + 2 * lens
        fitted = fit_calibrator(Method.isotonic, scores, lens, np.ones(lens.size), EVEN)
        knots, ratio = (np.array(fitted.parameters[name]) for name in ("logit", "log_likelihood_ratio"))
        top, bottom = knots[ratio == ratio[-1]][0], knots[ratio == ratio[0]][-1]
        claimed.append([ratio[-1], -ratio[0]])
        above = np.array([special.ndtr(2 - top), special.ndtr(bottom)])
        worth.append(np.log(above / [special.ndtr(-top), special.ndtr(bottom - 2)]))
    assert np.all(np.mean(claimed, axis=0) < np.mean(worth, axis=0) + 0.3)
    assert np.all(np.mean(claimed, axis=0) > np.mean(worth, axis=0) - 0.7)


@pytest.mark.parametrize("method", FITTED)
@pytest.mark.parametrize("order", [0.0, -1.0])
def test_scores_that_tell_nothing_or_the_wrong_way_round_are_worth_even_odds(method: Method, order: float) -> None:
    lens = np.arange(200) < 100
    found = fit_calibrator(method, order * np.where(lens, 1.0, -1.0), lens, np.ones(200), EVEN)
    assert np.abs(found.log_likelihood_ratio([-3.0, 0.0, 3.0])).max() < 0.01


def test_scores_beyond_one_of_the_classes_are_marked_as_extrapolated() -> None:
    found = fit_calibrator(Method.beta, [-2.0, 0.0, 1.0, 3.0], [False, True, False, True], np.ones(4), EVEN)
    assert found.is_extrapolated([-0.1, 0.0, 0.5, 1.0, 1.1]).tolist() == [True, False, False, False, True]


@pytest.mark.parametrize("bad", [([1.0, 2.0], [True, True]), ([np.nan, 2.0], [True, False]), ([], [])])
def test_one_class_or_logits_that_are_no_numbers_are_refused(bad: tuple[list[float], list[bool]]) -> None:
    with pytest.raises(EvaluationError, match="a calibration needs lenses and controls with finite logits"):
        fit_calibrator(Method.beta, *bad, np.ones(len(bad[0])), EVEN)


def test_a_class_whose_rows_weigh_nothing_is_no_class() -> None:
    with pytest.raises(EvaluationError, match="0 lenses and 1 controls"):
        fit_calibrator(Method.beta, [1.0, 0.0], [True, False], [0.0, 1.0], EVEN)


@pytest.mark.parametrize("prevalence", [0.0, 1.0, -1.0, np.nan])
def test_a_prevalence_that_is_none_is_refused(prevalence: float) -> None:
    found = fit_calibrator(Method.beta, [0.0, 1.0], [False, True], np.ones(2), EVEN)
    with pytest.raises(EvaluationError, match="give the share of lenses"):
        found.p_lens([1.0], prevalence)


def test_even_weights_give_both_classes_the_same_sum() -> None:
    lens = np.array([True, False, False, False])
    weight = even_weights(lens, np.array([7.0, 1.0, 1.0, 2.0]))
    assert weight[lens].sum() == pytest.approx(weight[~lens].sum()) == pytest.approx(2)
