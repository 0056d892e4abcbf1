import numpy as np
import pytest

from lens_pipeline.evaluation.intervals import Estimate, clopper_pearson, wilson
from lens_pipeline.evaluation.prevalence import Prevalence, candidates, purity, true_fpr_low

KNOWN = Prevalence(1e-3, 1e-3, 1e-3, "told")
VAGUE = Prevalence(1e-3, 3e-4, 3e-3, "guessed")
DENSITY = Estimate(400.0, 390.0, 410.0, 6000, 6000, None)
NO_AREA = Estimate(None, None, None, 0, 0, None, "no area is known")


def _recall(k: int, n: int) -> Estimate:
    return Estimate(k / n, *wilson(k, n), n, n, float(n))


def _fpr(k: int, n: int) -> Estimate:
    return Estimate(k / n, *clopper_pearson(k, n), n, n, float(n))


def test_purity_and_density_are_those_of_bayes_rule() -> None:
    recall, fpr = _recall(800, 1000), _fpr(20, 10_000)
    found = purity(KNOWN, recall, fpr)
    lenses, others = 1e-3 * 0.8, (1 - 1e-3) * 2e-3
    assert found.value == pytest.approx(lenses / (lenses + others))
    assert candidates(KNOWN, recall, fpr, DENSITY).value == pytest.approx(400 * (lenses + others))


def test_with_perfect_recall_and_a_known_prevalence_the_interval_is_that_of_the_rate() -> None:
    fpr = _fpr(20, 10_000)
    found = purity(KNOWN, Estimate(1.0, 1.0, 1.0, 1000, 1000, 1000.0), fpr)
    assert found.low == pytest.approx(1e-3 / (1e-3 + (1 - 1e-3) * fpr.high))  # type: ignore[operator]
    assert found.high == pytest.approx(1e-3 / (1e-3 + (1 - 1e-3) * fpr.low))  # type: ignore[operator]


def test_a_vague_prevalence_widens_every_interval() -> None:
    recall, fpr = _recall(800, 1000), _fpr(200, 10_000)
    for known, vague in (
        (purity(KNOWN, recall, fpr), purity(VAGUE, recall, fpr)),
        (candidates(KNOWN, recall, fpr, DENSITY), candidates(VAGUE, recall, fpr, DENSITY)),
    ):
        assert vague.value == pytest.approx(known.value)
        assert vague.low < known.low < known.value < known.high < vague.high  # type: ignore[operator]


def test_intervals_cover_as_often_as_they_say() -> None:
    """1,000 surveys of 300 injections and 5,000 controls, 15 false positives expected, on average."""
    rng = np.random.default_rng(0)
    truth = {"purity": 1e-3 * 0.7 / (1e-3 * 0.7 + 0.999 * 3e-3), "candidates": 400 * (1e-3 * 0.7 + 0.999 * 3e-3)}
    covered = dict.fromkeys(truth, 0)
    for _ in range(1000):
        recall, fpr = _recall(rng.binomial(300, 0.7), 300), _fpr(rng.binomial(5000, 3e-3), 5000)
        found = {"purity": purity(KNOWN, recall, fpr), "candidates": candidates(KNOWN, recall, fpr, DENSITY)}
        for name, one in found.items():
            covered[name] += one.low <= truth[name] <= one.high  # type: ignore[operator]
    assert all(n >= 935 for n in covered.values()), covered


@pytest.mark.parametrize("hidden", [0.0, 6e-4, 1.2e-3])
def test_intervals_cover_whatever_share_of_controls_are_lenses_that_nobody_has_found(hidden: float) -> None:
    """1,000 surveys of 5,000 injections and 40,000 controls, at a prevalence that is known, 9 false positives expected."""
    rng = np.random.default_rng(1)
    pi, recall, rate = 1.2e-3, 0.7, 2.25e-4
    stated = Prevalence(pi, pi, pi, "told")
    lenses, others = pi * recall, (1 - pi) * rate
    truth = {"purity": lenses / (lenses + others), "candidates": 400 * (lenses + others)}
    covered = dict.fromkeys(truth, 0)
    for _ in range(1000):
        parts = (
            _recall(rng.binomial(5000, recall), 5000),
            _fpr(rng.binomial(40_000, hidden * recall + (1 - hidden) * rate), 40_000),
        )
        found = {
            "purity": purity(stated, *parts, controls_may_be_lenses=True),
            "candidates": candidates(stated, *parts, DENSITY, controls_may_be_lenses=True),
        }
        for name, one in found.items():
            covered[name] += one.low <= truth[name] <= one.high  # type: ignore[operator]
    assert all(n >= 930 for n in covered.values()), covered


def test_controls_that_may_be_lenses_move_no_value_and_open_the_side_on_which_they_are() -> None:
    parts = (KNOWN, _recall(800, 1000), _fpr(40, 10_000))
    none, some = purity(*parts), purity(*parts, controls_may_be_lenses=True)
    assert (some.value, some.low) == (none.value, none.low)
    assert some.high > none.high  # type: ignore[operator]
    none, some = candidates(*parts, DENSITY), candidates(*parts, DENSITY, controls_may_be_lenses=True)
    assert (some.value, some.high) == (none.value, none.high)
    assert some.low < none.low  # type: ignore[operator]


def test_purity_reaches_to_all_and_not_beyond_where_lenses_alone_would_show_the_rate() -> None:
    assert purity(VAGUE, _recall(800, 1000), _fpr(8, 10_000), controls_may_be_lenses=True).high == 1
    assert purity(VAGUE, _recall(0, 1000), _fpr(8, 10_000), controls_may_be_lenses=True).low == 0
    nothing = purity(VAGUE, _recall(800, 1000), _fpr(0, 10_000), controls_may_be_lenses=True)
    assert (nothing.value, nothing.high) == (None, 1)
    assert candidates(VAGUE, _recall(800, 1000), _fpr(0, 10_000), DENSITY, controls_may_be_lenses=True).low == 0


def test_without_false_positives_purity_has_a_lower_bound_only() -> None:
    recall, fpr = _recall(500, 1000), _fpr(0, 600)
    found = purity(VAGUE, recall, fpr)
    assert (found.value, found.high) == (None, 1.0)
    assert found.low == pytest.approx(3e-4 * recall.low / (3e-4 * recall.low + (1 - 3e-4) * fpr.high))  # type: ignore[operator]
    assert "lower bound only" in str(found.reason)
    number = candidates(VAGUE, recall, fpr, DENSITY)
    assert number.value == pytest.approx(400 * 5e-4)
    assert number.high == pytest.approx(400 * fpr.high, rel=0.1)  # type: ignore[operator]


def test_without_recovered_injections_purity_has_an_upper_bound_only() -> None:
    found = purity(KNOWN, _recall(0, 300), _fpr(30, 600))
    assert (found.value, found.low) == (None, 0.0)
    assert 0 < found.high < 1e-2  # type: ignore[operator]
    assert candidates(KNOWN, _recall(0, 300), _fpr(30, 600), DENSITY).value == pytest.approx(400 * 0.999 * 0.05)


@pytest.mark.parametrize(
    "unknown", [Estimate(None, None, None, 0, 0, None, "why"), Estimate(0.1, None, None, 9, 1, None, "why")]
)
def test_what_rests_on_an_unknown_rate_is_null_with_its_reason(unknown: Estimate) -> None:
    for found in (purity(KNOWN, _recall(5, 9), unknown), candidates(KNOWN, _recall(5, 9), unknown, DENSITY)):
        assert (found.value, found.low, found.high, found.reason) == (None, None, None, "why")
    assert true_fpr_low(KNOWN, _recall(5, 9), unknown) is None


def test_candidates_need_an_area_and_purity_does_not() -> None:
    recall, fpr = _recall(800, 1000), _fpr(20, 10_000)
    assert candidates(KNOWN, recall, fpr, NO_AREA).reason == "no area is known"
    assert purity(KNOWN, recall, fpr).value is not None


def test_nothing_above_the_threshold_is_no_purity() -> None:
    assert purity(KNOWN, _recall(0, 10), _fpr(0, 10)).value is None
    assert "neither" in str(purity(KNOWN, _recall(0, 10), _fpr(0, 10)).reason)


def test_a_rate_that_unknown_lenses_alone_would_show_may_be_nothing() -> None:
    recall = Estimate(0.9, 0.9, 0.9, 1000, 1000, None)
    measured = Estimate(0.9 * 3e-3, 0.9 * 3e-3, 0.9 * 3e-3, 10_000, 10_000, None)
    assert true_fpr_low(VAGUE, recall, measured) == pytest.approx(0)
    more = Estimate(0.1, 0.09, 0.11, 10_000, 10_000, None)
    true = true_fpr_low(VAGUE, recall, more)
    assert (1 - 3e-3) * true + 3e-3 * 0.9 == pytest.approx(0.09)  # type: ignore[operator]
