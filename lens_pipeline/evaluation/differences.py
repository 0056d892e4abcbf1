"""Differences of two models on the same rows, over galaxies or over regions, and McNemar's test of clusters.

Those of ranks and of losses come from draws of clusters, those of rates from Tango's interval and McNemar's test.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import special

from lens_pipeline.evaluation.binning import GroupedCounts, groups_of
from lens_pipeline.evaluation.bootstrap import PLURAL, Statistic, bootstrap, counted, draws, fewest_worth, held, too_few
from lens_pipeline.evaluation.influence import influences_of, resting_on
from lens_pipeline.evaluation.intervals import CONFIDENCE, FEWEST, GALAXY, REGION, numbered
from lens_pipeline.evaluation.metrics import BootstrapSettings, over_clusters
from lens_pipeline.evaluation.paired_difference import Difference, paired_difference, tango
from lens_pipeline.evaluation.ranking import RankedScores
from lens_pipeline.evaluation.regions import Numbers, of_galaxies, over_both, region_numbers, unplaced

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# Beyond so many steps the exact distribution of a sum of signs is not worth its time, and its normal limit is as good.
_EXACT_STEPS = 20_000
# More than for an area (`bootstrap.py`), as t is symmetric here and a difference skewed. Simulated for shifts from 1.5 against 1
# to 5 against 4: with the interval of pairs below 12 galaxies the truth is held in 93 % of draws or more.
_FEWEST_INFLUENTIAL = 12


def rank_differences(
    rows: pl.DataFrame, ranked: Sequence[RankedScores], statistics: Mapping[str, Statistic], settings: BootstrapSettings
) -> dict[str, Difference]:
    """Difference of each statistic of two models' ranks, over galaxies, or over regions where that is wider.

    Parameters
    ----------
    rows : polars.DataFrame
        With `is_lens` and, where there is one, `region_id`.
    ranked : sequence of RankedScores
        Both models' ranks of these rows, with galaxies for clusters.
    """
    found = _over(GALAXY, ranked, statistics, settings)
    numbers = region_numbers(rows)
    if numbers is None:
        return found
    if why := unplaced(numbers):
        return {name: of_galaxies(one, why) for name, one in found.items()}
    regrouped = [one.regrouped(rows["is_lens"], numbers) for one in ranked]
    others = _over(REGION, regrouped, statistics, settings)
    return {name: over_both(one, others[name]) for name, one in found.items()}


def mean_difference(rows: pl.DataFrame, off: Floats, settings: BootstrapSettings) -> Difference:
    """Mean of each row's difference, over galaxies, or over regions where that is wider.

    Parameters
    ----------
    rows : polars.DataFrame
        With `galaxy_id` and, where there is one, `region_id`.
    off : (n,) float64 array
        Of each row, in which both models' draws agree.
    """

    def measured(clusters: Numbers, are_galaxies: bool) -> Difference:
        cluster = GALAXY if are_galaxies else REGION
        place, n_clusters = numbered(clusters)
        found = Difference(float(off.mean()), None, None, off.size, n_clusters, None)
        of_clusters = [np.bincount(place).astype(np.float64)]
        if why := too_few(of_clusters, cluster):
            return replace(found, reason=why)
        group = groups_of(n_clusters, seed=settings.seed)[place]
        sums = np.stack([np.bincount(group, off), np.bincount(group)], axis=1)
        totals = np.concatenate(
            [drawn @ sums for drawn in draws(len(sums), settings.n_replicates, seed=settings.seed, cells=2)]
        )
        return _of_draws(found, totals[:, 0] / totals[:, 1], fewest_worth(of_clusters))

    return over_clusters(rows, measured)


def rate_difference(rows: pl.DataFrame, this: Bools, other: Bools) -> Difference:
    """Share of rows that one model lets through less the other's, over galaxies, or over regions where these know less.

    The interval is Tango's at the effective number of `paired_differences`. Its score is normal only where many rows are
    discordant: 4 rows of one alone against none are 2 sigma, yet 4 coins fall alike once in 8 times. So neither interval nor
    chance says more than McNemar's test of the same clusters: where its p-value is 0.05 or more, the interval reaches to 0, and
    `above` stays between half of it and 1 less half of it.

    Parameters
    ----------
    rows : polars.DataFrame
        With `galaxy_id` and, where there is one, `region_id`.
    this, other : (n,) bool array
        Whether each model lets the row through.
    """

    def measured(clusters: Numbers, are_galaxies: bool) -> Difference:
        cluster = GALAXY if are_galaxies else REGION
        found = paired_difference(this, other, clusters, whole_where_few=are_galaxies)
        p_value = clustered_mcnemar(this, other, clusters)
        if found.n_clusters < FEWEST[cluster]:
            why = (
                f"no interval: rows come from {counted(found.n_clusters, cluster)}, fewer than {FEWEST[cluster]} hardly show a "
                "spread"
            )
            return replace(found, low=None, high=None, above=None, p_value=p_value, reason=why)
        assert found.low is not None
        assert found.high is not None
        assert found.above is not None
        low, high = found.low, found.high
        if p_value >= 1 - CONFIDENCE:
            low, high = min(low, 0.0), max(high, 0.0)
        above = float(np.clip(found.above, p_value / 2, 1 - p_value / 2))
        return replace(found, low=low, high=high, above=above, p_value=p_value)

    return over_clusters(rows, measured)


def _over(
    cluster: str, ranked: Sequence[RankedScores], statistics: Mapping[str, Statistic], settings: BootstrapSettings
) -> dict[str, Difference]:
    this, other = ranked
    n, fewest = this.n_positives + this.n_negatives, this.fewest_clusters
    found = {
        name: Difference(
            float(statistic.of(this.tallies)[0] - statistic.of(other.tallies)[0]),
            None,
            None,
            n,
            fewest,
            None,
            cluster=cluster,
        )
        for name, statistic in statistics.items()
    }
    of_classes = held(this)
    if why := too_few(of_classes, cluster):
        return {name: replace(one, reason=why) for name, one in found.items()}
    counts = [GroupedCounts.of(one, seed=settings.seed) for one in ranked]
    # The same seed draws the same clusters for both.
    mine, others = (
        bootstrap(one, statistics, n_replicates=settings.n_replicates, seed=settings.seed) for one in counts
    )
    worth = fewest_worth(of_classes)
    made = {}
    for name, one in found.items():
        gradient, of = statistics[name].gradient, statistics[name].of
        few = None
        # Regions are few in any case, and where lenses are few the interval over galaxies is the wider one.
        if gradient and cluster == GALAXY:
            first, second = (influences_of(one_model, gradient) for one_model in counts)
            if resting_on(first - second) < _FEWEST_INFLUENTIAL:
                few = _of_pairs(float(of(this.tallies)[0]), float(of(other.tallies)[0]), worth)
        made[name] = _of_draws(one, mine[name] - others[name], worth, few)
    return made


def _of_pairs(value: float, against: float, n: float) -> tuple[float, float]:
    """Tango's interval of two areas' difference, from n disjoint pairs that one model wins alone as often as it may at most."""
    alone, other_alone = min(value, 1 - against), min(against, 1 - value)
    low, high = tango([alone * n], [other_alone * n], [n])
    return float(low[0]), float(high[0])


def _of_draws(
    found: Difference, differences: Floats, worth: float, few: tuple[float, float] | None = None
) -> Difference:
    """Give a difference its interval, t of as many degrees of freedom as clusters are worth less one.

    Parameters
    ----------
    few : tuple of float, optional
        Ends that it reaches to at least, where the spread rests on few clusters.
    """
    assert found.value is not None
    # The share of draws above 0 is no chance of winning: a few discordant rows give a few different draws, many of them 0, and
    # those of a TPR at a low FPR lie to one side of its value, about which only their spread is used.
    spread = float(differences.std(ddof=1))
    if spread == 0:
        same = (
            f"no interval: every draw of these {found.n_clusters:,} {PLURAL[found.cluster]} gives the same difference"
        )
        return replace(found, above=float(0.5 + 0.5 * np.sign(differences.mean())), reason=same)
    freedom = worth - 1
    # A bootstrap's variance is too small by this factor, which matters where clusters are few.
    spread *= float(np.sqrt(worth / freedom))
    t = float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2))
    low, high = found.value - t * spread, found.value + t * spread
    if few:
        low, high = min(low, few[0]), max(high, few[1])
    # The way to the end on the side of 0 tells how sure the sign is, so that the chance and the interval agree.
    towards = found.value - low if found.value > 0 else high - found.value
    above = float(special.stdtr(freedom, t * found.value / towards))
    return replace(found, above=above, low=low, high=high)


def clustered_mcnemar(this: npt.ArrayLike, other: npt.ArrayLike, clusters: npt.ArrayLike) -> float:
    """Chance that two equally good models differ as much, rows of a cluster being alike (two-sided).

    With d_k the rows of cluster k that this model alone lets through less those that the other alone does, equally good models
    give each d_k either sign alike, whatever happens within a cluster: the sum of d_k is held against all its signs. Rows that
    are alone in their clusters give McNemar's exact test (1947, Psychometrika 12, 153); many clusters its limit after
    Obuchowski (1998, Stat. Med. 17, 1495), (sum d_k)^2 / sum d_k^2 as chi-squared of one degree of freedom.

    Parameters
    ----------
    this, other : array of bool, shape (n,)
    clusters : array, shape (n,)
    """
    # Imported when it is used: statistics take a second to load.
    from scipy import stats

    _, place = np.unique(np.asarray(clusters), return_inverse=True)
    off = np.asarray(this, dtype=np.int64) - np.asarray(other, dtype=np.int64)
    d = np.bincount(place, weights=off).astype(np.int64)
    d = d[d != 0]
    if not d.size:
        return 1.0
    total = abs(int(d.sum()))
    reach = int(np.abs(d).sum())
    if reach > _EXACT_STEPS:
        return float(stats.chi2.sf(total**2 / float((d.astype(np.float64) ** 2).sum()), 1))
    # Sums of the |d_k| that get a plus: of each size any number of them, binomially.
    chance = np.ones(1)
    for size, n in zip(*np.unique(np.abs(d), return_counts=True), strict=True):
        of_size = np.zeros(size * n + 1)
        of_size[::size] = stats.binom.pmf(np.arange(n + 1), n, 0.5)
        chance = np.convolve(chance, of_size)
    sums = np.abs(2 * np.arange(reach + 1) - reach)
    return float(min(1.0, chance[sums >= total].sum()))
