"""Arcs too faint to see that are told from controls are found by a test under the null, which raises no false alarms."""

import numpy as np
import polars as pl
import pytest
from scipy import stats

from lens_pipeline.evaluation.metrics import BootstrapSettings, Metric
from lens_pipeline.evaluation.null_rank_test import p_if_alike
from lens_pipeline.evaluation.rank_metrics import null_test
from lens_pipeline.evaluation.ranking import RankedScores

LOWEST = float(stats.norm.ppf(0.9))


def _ranked(faint: np.ndarray, controls: np.ndarray, clusters: np.ndarray | None = None) -> RankedScores:
    n = faint.size + controls.size
    is_faint = np.arange(n) < faint.size
    return RankedScores.of(np.concatenate([faint, controls]), is_faint, np.arange(n) if clusters is None else clusters)


@pytest.mark.parametrize("decimals", [8, 0])
def test_rows_alone_in_their_galaxies_get_the_test_of_mann_and_whitney(decimals: int) -> None:
    rng = np.random.default_rng(0)
    faint, controls = (rng.normal(0.4 * shift, 1, 60).round(decimals) for shift in (1, 0))
    wanted = stats.mannwhitneyu(faint, controls, use_continuity=False, method="asymptotic").pvalue
    for first, second in ((faint, controls), (controls, faint)):
        assert p_if_alike(_ranked(first, second)) == pytest.approx(wanted, rel=0.02 if decimals == 0 else 1e-9)


def test_scores_that_all_tie_tell_nothing_apart() -> None:
    assert p_if_alike(_ranked(np.zeros(30), np.zeros(300))) == 1


def test_arcs_that_score_exactly_as_the_controls_of_their_own_galaxies_tell_nothing_apart() -> None:
    logit = np.random.default_rng(0).normal(size=40)
    assert p_if_alike(_ranked(logit, logit, np.tile(np.arange(40), 2))) == 1


def test_arcs_a_little_above_the_control_of_their_own_galaxy_are_seen_though_galaxies_differ_far_more() -> None:
    rng = np.random.default_rng(0)
    own = rng.normal(0, 3, 60)
    logit = np.concatenate([own + 0.3, own + rng.normal(0, 0.3, 60)])
    assert p_if_alike(_ranked(logit[:60], logit[60:])) > 0.1
    assert p_if_alike(_ranked(logit[:60], logit[60:], np.tile(np.arange(60), 2))) < 0.001


def test_few_hits_in_a_large_tie_block_are_as_probable_as_the_binomial_law_says() -> None:
    controls = np.arange(9000) < 900
    for hits in (5, 6, 7):
        found = p_if_alike(_ranked(np.arange(20) < hits, controls))
        # The law is continuous: it stands for half of what the lattice has at the value itself.
        at, beyond = stats.binom.pmf(hits, 20, 0.1), stats.binom.sf(hits, 20, 0.1)
        assert found / 2 == pytest.approx(beyond + at / 2, rel=0.3)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("alike", [0.0, 0.1, 0.5, 0.95])
@pytest.mark.parametrize(
    ("galaxies", "arcs_each", "own_control"), [(21, 1, True), (60, 2, False), (10, 20, False), (20, 5, True)]
)
def test_arcs_that_score_like_controls_are_called_different_no_more_often_than_said(
    galaxies: int, arcs_each: int, own_control: bool, alike: float, tied: bool
) -> None:
    # Few galaxies with many arcs each tell least of how alike their rows are.
    draws, n_controls = (1000 if arcs_each == 20 else 200), 120
    rng = np.random.default_rng([galaxies, int(100 * alike)])
    faint = np.repeat(np.arange(galaxies), arcs_each)
    galaxy = np.concatenate([faint, np.arange(n_controls) + (0 if own_control else galaxies)])
    found = []
    for _ in range(draws):
        own = rng.normal(0, np.sqrt(alike), galaxy.max() + 1)
        logit = own[galaxy] + rng.normal(0, np.sqrt(1 - alike), galaxy.size)
        logit = np.maximum(logit, LOWEST) if tied else logit
        found.append(p_if_alike(_ranked(logit[: faint.size], logit[faint.size :], galaxy)))
    for level in (0.05, 0.01):
        # So many alarms at their level are exceeded by chance in 1 of 1,000 such runs.
        assert np.sum(np.array(found) < level) <= stats.binom.ppf(0.999, draws, level)


@pytest.mark.parametrize("noise", [0.3, 1.0])
@pytest.mark.parametrize("galaxies", [10, 100])
def test_arcs_that_score_against_the_control_of_their_own_galaxy_raise_no_more_alarms(
    galaxies: int, noise: float
) -> None:
    draws, rng = 400, np.random.default_rng([galaxies, int(10 * noise)])
    found = []
    for _ in range(draws):
        own = rng.normal(0, 1, galaxies)
        controls = -own + noise * rng.normal(size=galaxies)
        found.append(p_if_alike(_ranked(own, controls, np.tile(np.arange(galaxies), 2))))
    for level in (0.05, 0.01):
        # So many alarms at their level are exceeded by chance in 1 of 1,000 such runs.
        assert np.sum(np.array(found) < level) <= stats.binom.ppf(0.999, draws, level)


@pytest.mark.parametrize("counts", [(10, 300), (300, 10), (3, 300)], ids=str)
def test_the_many_of_one_class_do_not_say_how_alike_the_few_of_the_other_are(counts: tuple[int, int]) -> None:
    """Few galaxies of one class, whose rows score nearly the same, beside many of the other, whose rows score each its own."""
    draws, each, alike = 300, 5, 0.9
    rng, few = np.random.default_rng(list(counts)), min(counts)
    galaxy = np.repeat(np.arange(sum(counts)), each)
    of_few = galaxy < few if counts[0] == few else galaxy >= counts[0]
    found = []
    for _ in range(draws):
        noise, own = rng.normal(size=galaxy.size), rng.normal(size=sum(counts))[galaxy]
        logit = np.where(of_few, np.sqrt(alike) * own + np.sqrt(1 - alike) * noise, noise)
        found.append(p_if_alike(_ranked(logit[: each * counts[0]], logit[each * counts[0] :], galaxy)))
    for level in (0.05, 0.01):
        # So many alarms at their level are exceeded by chance in 1 of 1,000 such runs.
        assert np.sum(np.array(found) < level) <= stats.binom.ppf(0.999, draws, level)


def test_arcs_of_few_galaxies_that_all_tie_count_as_so_many_galaxies() -> None:
    controls, galaxy = np.random.default_rng(0).normal(size=300), np.repeat(np.arange(60), 5) + 8
    tied = p_if_alike(_ranked(np.full(40, 0.8), controls, np.r_[np.repeat(np.arange(8), 5), galaxy]))
    assert tied == pytest.approx(p_if_alike(_ranked(np.full(8, 0.8), controls, np.r_[np.arange(8), galaxy])), rel=0.3)


def test_arcs_that_lie_high_are_seen_though_eight_regions_say_little_of_how_regions_differ() -> None:
    rng = np.random.default_rng(0)
    region = np.repeat(np.arange(8), 100)
    faint = np.arange(800) % 100 < 20
    logit = 0.6 * rng.normal(size=8)[region] + rng.normal(size=800) + 0.6 * faint
    assert p_if_alike(_ranked(logit[faint], logit[~faint], np.r_[region[faint], region[~faint]])) < 0.01


def _measured(logit: np.ndarray, faint: np.ndarray, regions: np.ndarray | None = None) -> dict[str, Metric]:
    snr = np.where(faint, 0.1, np.nan)
    rows = pl.DataFrame({"logit": logit, "is_lens": faint, "galaxy_id": np.arange(faint.size), "arc_snr_matched": snr})
    if regions is not None:
        rows = rows.with_columns(region_id=pl.Series(regions).cast(pl.String))
    return {one.metric: one for one in null_test(rows, "test", BootstrapSettings(200, 0))}


def test_twelve_arcs_that_lie_high_are_told_apart_though_they_are_too_few_for_an_interval() -> None:
    faint = np.arange(821) < 12
    logit = np.random.default_rng(1).normal(0, 1, 821) + 2 * faint
    found = _measured(logit, faint)
    area, chance = found["null_test_auroc"], found["null_test_p"]
    assert area.value is not None
    assert chance.value is not None
    assert area.low is None
    assert area.value > 0.85
    assert chance.value < 1e-4
    assert chance.reason


def test_many_arcs_of_one_galaxy_say_no_more_than_one() -> None:
    rng = np.random.default_rng(2)
    logit = np.concatenate([3 + 0.1 * rng.normal(size=40), rng.normal(size=400)])
    together = np.concatenate([np.zeros(40, int), np.arange(1, 401)])
    assert p_if_alike(_ranked(logit[:40], logit[40:])) < 1e-9
    assert p_if_alike(_ranked(logit[:40], logit[40:], together)) > 0.05


def test_arcs_of_regions_that_score_high_as_their_controls_do_are_no_finding() -> None:
    rng = np.random.default_rng(3)
    region = np.repeat(np.arange(8), 100)
    faint = (np.arange(800) % 100 < 20) & (region < 3)
    logit = 2.0 * (region < 3) + rng.normal(size=800)
    alone, placed = (_measured(logit, faint, regions)["null_test_p"] for regions in (None, region))
    assert alone.value is not None
    assert placed.value is not None
    assert alone.value < 1e-4
    assert placed.value > 0.001
    assert (alone.cluster, placed.cluster, placed.n_clusters) == ("galaxy", "region", 8)
