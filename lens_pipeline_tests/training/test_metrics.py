import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from lens_pipeline.training.metrics import (
    auroc,
    balanced_mean,
    distinct_share,
    extreme_share,
    log_losses,
    mean_of,
    partial_area,
    score_of,
)

RANDOM = np.random.default_rng(0)


def test_the_auroc_is_scikit_learns_also_with_ties() -> None:
    positive = RANDOM.random(500) < 0.3
    for scores in (RANDOM.normal(size=500) + positive, RANDOM.integers(0, 4, 500).astype(float)):
        assert auroc(scores, positive) == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)


@pytest.mark.parametrize("all_positive", [True, False])
def test_the_auroc_of_one_class_is_undefined_not_zero(all_positive: bool) -> None:
    assert auroc(RANDOM.normal(size=5), np.full(5, all_positive)) is None


def test_the_likelihood_of_two_classes_is_scikit_learns() -> None:
    labels, logits = RANDOM.integers(0, 2, 200), RANDOM.normal(size=(200, 1))
    wanted = log_loss(labels, 1 / (1 + np.exp(-logits[:, 0])))
    assert log_losses(logits, labels).mean() == pytest.approx(wanted, rel=1e-9)


def test_the_likelihood_of_three_classes_is_scikit_learns() -> None:
    labels, logits = RANDOM.integers(0, 3, 200), RANDOM.normal(size=(200, 3))
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert log_losses(logits, labels).mean() == pytest.approx(log_loss(labels, probability), rel=1e-9)


def test_logits_that_overflow_a_sigmoid_still_have_a_finite_likelihood() -> None:
    assert list(log_losses(np.array([[1000.0], [-1000.0]]), np.array([0, 1]))) == [1000.0, 1000.0]


def test_the_score_is_the_log_odds_of_not_being_of_the_first_class() -> None:
    logits = RANDOM.normal(size=(50, 4))
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    wanted = np.log((1 - probability[:, 0]) / probability[:, 0])
    assert np.allclose(score_of(logits), wanted)
    assert np.array_equal(score_of(logits[:, :1]), logits[:, 0])


@pytest.mark.parametrize("max_fpr", [0.001, 0.01, 0.1, 0.37, 1.0])
def test_the_partial_area_is_scikit_learns_also_with_ties(max_fpr: float) -> None:
    positive = RANDOM.random(500) < 0.3
    for scores in (RANDOM.normal(size=500) + positive, RANDOM.integers(0, 4, 500).astype(float)):
        found = partial_area(scores, positive, max_fpr)
        assert found is not None
        assert found.value == pytest.approx(roc_auc_score(positive, scores, max_fpr=max_fpr), abs=1e-12)


def test_the_whole_area_is_the_auroc_to_the_last_bit() -> None:
    positive, scores = RANDOM.random(501) < 0.3, RANDOM.normal(size=501)
    found = partial_area(scores, positive, 1.0)
    assert found is not None
    assert found.value == auroc(scores, positive)


@pytest.mark.parametrize("max_fpr", [0.05, 0.3, 1.0])
def test_the_standard_error_of_an_area_is_its_spread_over_samples(max_fpr: float) -> None:
    found = []
    for _ in range(400):
        positive = np.arange(900) < 300
        found.append(partial_area(RANDOM.normal(size=900) + 1.2 * positive, positive, max_fpr))
    values = [one.value for one in found if one]
    errors = [one.standard_error for one in found if one and one.standard_error]
    assert len(errors) == 400
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.12)


@pytest.mark.parametrize("all_positive", [True, False])
def test_a_partial_area_of_one_class_is_undefined_not_zero(all_positive: bool) -> None:
    assert partial_area(RANDOM.normal(size=5), np.full(5, all_positive), 0.1) is None


def test_one_row_of_a_class_has_an_area_without_a_standard_error() -> None:
    found = partial_area(np.arange(5.0), np.arange(5) == 4, 0.5)
    assert found is not None
    assert (found.value, found.standard_error) == (1.0, None)
    assert mean_of(np.ones(1)).standard_error is None


def test_the_standard_error_of_the_likelihood_is_that_of_a_mean_over_rows() -> None:
    labels, logits = RANDOM.integers(0, 2, 200), RANDOM.normal(size=(200, 1))
    losses = log_losses(logits, labels)
    assert mean_of(losses).value == losses.mean()
    assert mean_of(losses).standard_error == pytest.approx(losses.std(ddof=1) / 200**0.5)


def test_in_the_balanced_loss_a_rare_class_has_the_same_say_and_its_uncertainty() -> None:
    labels = (np.arange(1000) < 20).astype(np.int64)
    values = RANDOM.normal(size=1000) + 3 * labels
    found = balanced_mean(values, labels)
    assert found.value == pytest.approx((values[:20].mean() + values[20:].mean()) / 2)
    spread = np.hypot(values[:20].std(ddof=1) / 20**0.5, values[20:].std(ddof=1) / 980**0.5) / 2
    assert found.standard_error == pytest.approx(spread)
    assert balanced_mean(values[19:], labels[19:]).standard_error is None


def test_a_saturated_model_has_few_distinct_and_many_extreme_logits() -> None:
    assert distinct_share(np.array([1.0, 1.0, 2.0, 3.0])) == 0.75
    assert extreme_share(np.array([-20.0, 17.0, 16.0, 0.0])) == 0.5


def test_extreme_is_where_a_float32_sigmoid_is_exactly_one() -> None:
    def sigmoid(x: float) -> np.float32:
        return np.float32(1) / (np.float32(1) + np.exp(np.float32(-x)))

    assert sigmoid(16.65) == 1
    assert sigmoid(16.6) < 1
