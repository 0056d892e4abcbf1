"""Influences of clusters are what the areas themselves change by."""

from functools import partial

import numpy as np
import pytest

from lens_pipeline.evaluation.binning import GroupedCounts
from lens_pipeline.evaluation.influence import (
    Gradient,
    auroc_gradient,
    average_precision_gradient,
    influences_of,
    partial_auc_gradient,
    resting_on,
)
from lens_pipeline.evaluation.ranking import RankedScores
from lens_pipeline.evaluation.tallies import Floats, Tallies, auroc, average_precision, partial_auc

RARE = 0.02


@pytest.mark.parametrize(
    ("area", "gradient"),
    [
        (auroc, auroc_gradient),
        (partial(partial_auc, max_fpr=0.13), partial(partial_auc_gradient, max_fpr=0.13)),
        (partial(average_precision, prevalence=RARE), partial(average_precision_gradient, prevalence=RARE)),
        (partial(average_precision, prevalence=0.4), average_precision_gradient),
    ],
)
def test_a_galaxy_that_counts_a_little_more_moves_the_area_by_its_influence(area: object, gradient: Gradient) -> None:
    rng = np.random.default_rng(0)
    n = 200
    logits = np.round(rng.normal(size=n) + 1.5 * (np.arange(n) < 80), 1)
    counts = GroupedCounts.of(RankedScores.of(logits, np.arange(n) < 80, np.arange(n) % 50), seed=0)
    influences = influences_of(counts, gradient)

    def with_more(group: int, more: float) -> float:
        weight = np.ones((1, 50))
        weight[0, group] += more
        tallies = Tallies(weight @ counts.positives.astype(float), weight @ counts.negatives.astype(float))
        values: Floats = area(tallies)  # type: ignore[operator]
        return float(values[0])

    slopes = [(with_more(group, 1e-6) - with_more(group, -1e-6)) / 2e-6 for group in range(50)]
    np.testing.assert_allclose(influences, slopes, atol=2e-6)
    assert influences.sum() == pytest.approx(0, abs=1e-6)


def test_equal_influences_rest_on_all_clusters_and_a_large_one_on_itself() -> None:
    assert resting_on(np.tile([1.0, -1.0], 15)) == pytest.approx(30)
    assert resting_on(np.r_[100.0, np.ones(29)]) == pytest.approx(1, abs=0.01)
    assert resting_on(np.zeros(30)) == 0
