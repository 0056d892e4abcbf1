import numpy as np
import pytest
from sklearn import metrics as oracle

from lens_pipeline.contracts.errors import EvaluationError
from lens_pipeline.evaluation.binning import GroupedCounts
from lens_pipeline.evaluation.bootstrap import rank_estimates
from lens_pipeline.evaluation.intervals import clopper_pearson
from lens_pipeline.evaluation.rank_statistics import AUROC as AUROC_STATISTIC
from lens_pipeline.evaluation.rank_statistics import tpr_statistic
from lens_pipeline.evaluation.ranking import RankedScores, roc_curve
from lens_pipeline.evaluation.tallies import (
    auroc,
    average_precision,
    fpr_at_tpr,
    partial_auc,
    tpr_at_fpr,
    tpr_at_one_fewer,
)

AUROC = {"auroc": AUROC_STATISTIC}


def _case(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    n = int(rng.integers(2, 60))
    positive = rng.random(n) < rng.uniform(0.1, 0.9)
    positive[:2] = True, False
    kind = rng.integers(4)
    if kind == 0:
        return np.full(n, 3.25), positive
    logits = rng.normal(size=n) + positive
    return (np.round(logits, int(rng.integers(0, 3))) if kind < 3 else logits), positive


def test_ranks_agree_with_scikit_learn_on_ties_and_constants() -> None:
    rng = np.random.default_rng(0)
    for _ in range(400):
        logits, positive = _case(rng)
        ranked = RankedScores.of(logits, positive, np.arange(logits.size))
        assert auroc(ranked.tallies)[0] == pytest.approx(oracle.roc_auc_score(positive, logits), abs=1e-12)
        expected = oracle.average_precision_score(positive, logits)
        assert average_precision(ranked.tallies)[0] == pytest.approx(expected, abs=1e-12)
        fpr, tpr, thresholds = oracle.roc_curve(positive, logits, drop_intermediate=False)
        curve = roc_curve(ranked)
        np.testing.assert_allclose(curve.fpr, fpr, atol=1e-12)
        np.testing.assert_allclose(curve.tpr, tpr, atol=1e-12)
        np.testing.assert_array_equal(curve.lowest_recovered[1:], thresholds[1:])
        for target in (0.05, 0.1, 0.5):
            best = tpr[fpr <= target * (1 + 1e-12)].max()
            assert tpr_at_fpr(ranked.tallies, target)[0] == pytest.approx(best, abs=1e-12)
            place = fpr[fpr <= target * (1 + 1e-12)].max()
            fewer = tpr[fpr <= place - (1 - 1e-6) / (~positive).sum()]
            assert tpr_at_one_fewer(ranked.tallies, target)[0] == pytest.approx(max([0.0, *fewer]), abs=1e-12)
            least = fpr[tpr >= target * (1 - 1e-12)].min()
            assert fpr_at_tpr(ranked.tallies, target)[0] == pytest.approx(least, abs=1e-12)
            part = oracle.roc_auc_score(positive, logits, max_fpr=target)
            assert partial_auc(ranked.tallies, target)[0] == pytest.approx(part, abs=1e-12)


def test_counts_of_drawn_galaxies_weigh_rows_as_scikit_learn_does() -> None:
    rng = np.random.default_rng(5)
    logits, positive = np.round(rng.normal(size=80), 1), rng.random(80) < 0.4
    cluster = rng.integers(0, 25, 80)
    ranked = RankedScores.of(logits, positive, cluster)
    drawn = rng.multinomial(ranked.n_clusters, np.full(ranked.n_clusters, 1 / ranked.n_clusters))
    tallies = GroupedCounts.of(ranked, seed=0).tallies(drawn[None].astype(np.float32))
    _, place = np.unique(cluster, return_inverse=True)
    weight = drawn[place]
    assert auroc(tallies)[0] == pytest.approx(oracle.roc_auc_score(positive, logits, sample_weight=weight), abs=1e-12)
    expected = oracle.average_precision_score(positive, logits, sample_weight=weight)
    assert average_precision(tallies)[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("positive", [True, False])
def test_one_class_is_undefined_with_a_reason_and_never_a_number(positive: bool) -> None:
    ranked = RankedScores.of([0.1, 0.2, 0.3], [positive] * 3, [0, 1, 2])
    assert np.isnan(auroc(ranked.tallies)[0])
    assert np.isnan(average_precision(ranked.tallies)[0])
    found = rank_estimates(ranked, AUROC, n_replicates=200, seed=0)["auroc"]
    assert found.value is None
    assert "there is no" in str(found.reason)
    with pytest.raises(EvaluationError, match="both classes"):
        roc_curve(ranked)


def test_a_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(EvaluationError, match=r"1 of 3 scores are not finite \(rows 1\)"):
        RankedScores.of([0.0, np.nan, 1.0], [True, False, True], [0, 1, 2])


def test_fewer_than_20_galaxies_give_a_value_without_an_interval() -> None:
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(19), 20)
    ranked = RankedScores.of(rng.normal(size=380), np.arange(380) % 2 == 0, cluster)
    found = rank_estimates(ranked, AUROC, n_replicates=200, seed=0)["auroc"]
    assert found.value is not None
    assert (found.low, found.high) == (None, None)
    assert "19 galaxies" in str(found.reason)


def test_perfect_separation_leaves_open_what_so_many_pairs_can_not_exclude() -> None:
    ranked = RankedScores.of(np.r_[np.ones(30), np.zeros(30)], np.arange(60) < 30, np.tile(np.arange(30), 2))
    found = rank_estimates(ranked, AUROC, n_replicates=200, seed=0)["auroc"]
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** (1 / 30))


@pytest.mark.parametrize(("galaxies", "separation"), [(25, 3.0), (60, 2.0)])
def test_intervals_of_the_auroc_cover_for_pairs_of_one_galaxy(galaxies: int, separation: float) -> None:
    from scipy import stats

    rng = np.random.default_rng(4)
    truth = stats.norm.cdf(separation / np.sqrt(2))
    covered, draws = 0, 200
    for _ in range(draws):
        host = rng.normal(size=galaxies) * np.sqrt(0.5)
        scores = np.concatenate([host + rng.normal(0, np.sqrt(0.5), galaxies) + shift for shift in (separation, 0)])
        ranked = RankedScores.of(scores, np.arange(2 * galaxies) < galaxies, np.tile(np.arange(galaxies), 2))
        found = rank_estimates(ranked, AUROC, n_replicates=200, seed=int(rng.integers(1 << 30)))["auroc"]
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth <= found.high
    assert covered / draws >= 0.92


def test_thirty_lenses_of_which_few_are_invisible_seldom_have_an_area_that_is_stated_too_high() -> None:
    from scipy import stats

    rng = np.random.default_rng(8)
    n_lenses, n_controls, shift, invisible, draws = 30, 300, 3.0, 0.05, 200
    n = n_lenses + n_controls
    truth = (1 - invisible) * stats.norm.cdf(shift / np.sqrt(2)) + invisible / 2
    covered = 0
    for _ in range(draws):
        scores = rng.normal(size=n)
        scores[:n_lenses] += shift * (rng.random(n_lenses) > invisible)
        ranked = RankedScores.of(scores, np.arange(n) < n_lenses, np.arange(n))
        found = rank_estimates(ranked, AUROC, n_replicates=100, seed=0)["auroc"]
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth <= found.high
    # By the bootstrap's spread alone, which most draws without such a lens have too small, it is 78 %.
    assert covered / draws >= 0.93


def test_an_area_that_turns_on_one_low_lens_is_no_surer_than_so_many_pairs() -> None:
    scores = np.r_[np.full(29, 9.0), 0.0, np.linspace(-3, 3, 300)]
    ranked = RankedScores.of(scores, np.arange(330) < 30, np.arange(330))
    found = rank_estimates(ranked, AUROC, n_replicates=200, seed=0)["auroc"]
    assert found.value is not None
    assert found.low is not None
    assert found.low <= clopper_pearson(found.value * 30, 30)[0]
    assert "as many pairs as there are galaxies" in str(found.interval)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_galaxy_that_holds_nearly_all_of_a_class_leaves_no_interval_and_is_named_by_its_share(weighted: bool) -> None:
    rng = np.random.default_rng(9)
    sizes = np.r_[1000, np.full(29, 5)]
    galaxy = np.arange(30) if weighted else np.repeat(np.arange(30), sizes)
    lens = np.arange(2 * galaxy.size) < galaxy.size
    weight = np.where(lens, np.tile(sizes, 2), 1.0) if weighted else None
    ranked = RankedScores.of(rng.normal(size=lens.size) + 1.75 * lens, lens, np.tile(galaxy, 2), weight)
    found = rank_estimates(ranked, AUROC, n_replicates=200, seed=0)["auroc"]
    assert found.value is not None
    assert (found.low, found.high) == (None, None)
    assert "30 galaxies worth 1.3 equal ones (the largest holds 87 % of the class)" in str(found.reason)


def test_a_tpr_that_rests_on_few_false_positives_of_a_heavy_tail_is_seldom_too_high_for_its_interval() -> None:
    from scipy import stats

    rng = np.random.default_rng(6)
    n_lenses, n_controls, above, shift, draws = 600, 60, 5, 2.5, 2000
    n, fpr = n_lenses + n_controls, above / n_controls
    truth = stats.logistic.sf(stats.logistic.isf(fpr), shift)
    covered = too_high = 0
    for _ in range(draws):
        scores = np.r_[rng.logistic(shift, size=n_lenses), rng.logistic(size=n_controls)]
        ranked = RankedScores.of(scores, np.arange(n) < n_lenses, np.arange(n))
        found = rank_estimates(ranked, {"tpr": tpr_statistic(fpr)}, n_replicates=100, seed=0)["tpr"]
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth <= found.high
        too_high += truth < found.low
    assert covered / draws >= 0.93
    # With the lower end at the threshold of the value itself it is 5.6 %.
    assert too_high / draws <= 0.045
