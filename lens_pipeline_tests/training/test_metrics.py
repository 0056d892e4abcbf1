import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from lens_pipeline.training.metrics import auroc, negative_log_likelihood, score_of

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
    assert negative_log_likelihood(logits, labels) == pytest.approx(wanted, rel=1e-9)


def test_the_likelihood_of_three_classes_is_scikit_learns() -> None:
    labels, logits = RANDOM.integers(0, 3, 200), RANDOM.normal(size=(200, 3))
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert negative_log_likelihood(logits, labels) == pytest.approx(log_loss(labels, probability), rel=1e-9)


def test_logits_that_overflow_a_sigmoid_still_have_a_finite_likelihood() -> None:
    assert negative_log_likelihood(np.array([[1000.0], [-1000.0]]), np.array([0, 1])) == 1000.0


def test_the_score_is_the_log_odds_of_not_being_of_the_first_class() -> None:
    logits = RANDOM.normal(size=(50, 4))
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    wanted = np.log((1 - probability[:, 0]) / probability[:, 0])
    assert np.allclose(score_of(logits), wanted)
    assert np.array_equal(score_of(logits[:, :1]), logits[:, 0])
