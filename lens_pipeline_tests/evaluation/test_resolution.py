import numpy as np
from scipy import special

from lens_pipeline.evaluation.ranking import RankedScores, RocCurve, roc_curve
from lens_pipeline.evaluation.resolution import ResolutionRule, resolve, smallest_resolvable_fpr

RULE = ResolutionRule(min_false_positives=5, min_share_of_target=0.5)


def _curve(negatives: np.ndarray, clusters: np.ndarray | None = None, positives: np.ndarray | None = None) -> RocCurve:
    positives = np.linspace(-3, 12, 100) if positives is None else positives
    clusters = np.arange(negatives.size) if clusters is None else clusters
    logits = np.concatenate([negatives, positives])
    labels = np.arange(logits.size) >= negatives.size
    return roc_curve(RankedScores.of(logits, labels, np.concatenate([clusters, -1 - np.arange(positives.size)])))


def test_a_rate_is_resolved_where_enough_galaxies_lie_above_its_threshold() -> None:
    negatives = np.arange(1000.0) / 1000
    found = resolve(_curve(negatives), 0.01, RULE)
    assert found.threshold is not None
    assert (negatives > found.threshold).sum() == 10
    assert found.reason is None


def test_too_few_negatives_are_unresolved_and_name_the_rate_that_they_resolve() -> None:
    curve = _curve(np.arange(1000.0) / 1000)
    found = resolve(curve, 0.001, RULE)
    assert found.threshold is None
    assert "1 of 1,000 distinct controls" in str(found.reason)
    assert "0.005" in str(found.reason)
    assert smallest_resolvable_fpr(curve, RULE) == 0.005


def test_many_repeats_of_few_galaxies_resolve_no_more_than_the_galaxies() -> None:
    negatives = np.repeat(np.arange(4.0), 250)
    assert resolve(_curve(negatives, clusters=np.repeat(np.arange(4), 250)), 0.5, RULE).threshold is None


def test_a_tie_block_that_leaps_over_the_target_is_unresolved() -> None:
    negatives = np.concatenate([np.full(200, 5.0), np.linspace(-1, 1, 800)])
    found = resolve(_curve(negatives), 0.1, RULE)
    assert found.threshold is None
    assert "200 of 1,000 distinct controls share their highest logit" in str(found.reason)
    assert "0.2" in str(found.reason)


def test_a_threshold_far_below_its_target_rate_is_unresolved() -> None:
    negatives = np.concatenate([10 + np.arange(6.0), np.full(500, 5.0), np.linspace(-1, 1, 494)])
    assert resolve(_curve(negatives), 0.1, RULE).threshold is None


def test_a_rate_that_just_as_many_galaxies_serve_as_are_asked_for_is_resolved() -> None:
    negatives = np.arange(1000.0) / 1000
    found = resolve(_curve(negatives), 0.005, RULE)
    assert found.threshold is not None
    assert (negatives > found.threshold).sum() == 5
    half = np.concatenate([10 + np.arange(50.0), np.full(500, 5.0), np.linspace(-1, 1, 450)])
    assert resolve(_curve(half), 0.1, RULE).threshold == 5.0


def test_letting_every_control_through_is_no_rate_that_they_resolve() -> None:
    curve = _curve(np.zeros(10))
    assert smallest_resolvable_fpr(curve, RULE) is None
    assert "no rate below 1 has 5 galaxies above its threshold" in str(resolve(curve, 0.5, RULE).reason)


def test_growing_logits_fall_off_two_cliffs_as_sigmoids_and_off_none_as_logits() -> None:
    rng = np.random.default_rng(0)
    negatives, positives = rng.normal(-9, 4.5, 65_090), rng.normal(12, 6, 65_090)
    unresolved_at = {}
    for scale in (1.0, 3.0, 4.5):
        logits = _curve(scale * negatives, positives=scale * positives)
        stored = _curve(_sigmoid(scale * negatives), positives=_sigmoid(scale * positives))
        assert all(resolve(logits, target, RULE).threshold is not None for target in (1e-3, 1e-4))
        found = {target: resolve(stored, target, RULE) for target in (1e-3, 1e-4)}
        unresolved_at[scale] = [target for target, place in found.items() if place.threshold is None]
        assert all("share their highest logit (1)" in str(found[target].reason) for target in unresolved_at[scale])
    assert unresolved_at == {1.0: [], 3.0: [1e-4], 4.5: [1e-3, 1e-4]}


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return special.expit(logits.astype(np.float32))
