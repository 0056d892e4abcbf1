"""Could positives that are negatives in truth rank so far from them? The rank test of Mann & Whitney, for rows that cluster.

Belongs here: the law of an AUROC where both classes are alike, which is not that of its interval: an interval asks how far the
area may be from what was measured, and near 1, or of few lenses, it is wide for reasons that don't hold at 0.5.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from lens_pipeline.evaluation.intervals import CONFIDENCE, kish
from lens_pipeline.evaluation.ranking import Counts, RankedScores
from lens_pipeline.evaluation.tallies import Floats

_NO_SPREAD = 1e-9
# Simulated, of 3 galaxies with 20 alike arcs each, p < 0.001 in 1 % of draws where their own spread says how alike they are; of 5
# in 0.2 % or less.
_FEWEST_CLUSTERS = 5
# Least correlations of two positives, of two negatives, of one of each, and those that widen the law most. Rows of two classes
# that score against each other widen it further, and count as measured: moved on to -1, 10 sound pairs lose a quarter of their
# power.
_LEAST, _WIDEST = np.array([0.0, 0.0, -1.0]), np.array([1.0, 1.0, 0.0])


def p_if_alike(ranked: RankedScores) -> float:
    """Probability that an AUROC is as far from 0.5 as here, to either side, where both classes score alike; each row once.

    AUROC - 0.5 is the sum of c s over rows, s being the rank among all rows over their number, ties at their middle, and c 1 / n
    of a row's own class, negative for negatives. Where labels could be exchanged, its variance is that of s times the sum of c^2
    (Mann & Whitney 1947, Ann. Math. Stat. 18, 50). Rows of one cluster score the same with a probability rho, else
    independently of each other: to the sum of c^k their products add rho times what they add to that of C^k, with C the sum of c
    over a cluster (for k = 2 as in Rosner, Glynn & Lee 2003, Biometrics 59, 1089). Two positives, two negatives and one of each
    have a rho each, so that many negatives which are little alike don't stand for the positives. It is the correlation of ranks
    over such pairs, each about the middle of its class, and below 0 for one of each alone. All three are moved towards those that
    widen the law most, until the variance is at the upper end of its 95 % interval (Berger & Boos 1994, JASA 89, 1012), or, below
    5 clusters, the whole way; one below 0 stays as measured.
    The tail is that of a Pearson III law with this variance and, on the side of the longer tail, the skewness, which large tie
    blocks have.

    Parameters
    ----------
    ranked : RankedScores
        Both classes have rows.

    Returns
    -------
    float
        0 to 1; 1 where all rows tie, or each negative ties with a positive of its cluster.
    """
    # Imported when it is used: statistics take a second to load.
    from scipy import stats

    n_rows, n_clusters = ranked.n_positives + ranked.n_negatives, ranked.n_clusters
    of_blocks = (ranked.tallies.positives + ranked.tallies.negatives)[0]
    middle = (of_blocks.sum() - np.cumsum(of_blocks) + (of_blocks + 1) / 2) / n_rows
    deviation = middle - (n_rows + 1) / (2 * n_rows)
    variance = float(of_blocks @ deviation**2) / (n_rows - 1)
    if variance <= 0:
        return 1.0
    block = np.concatenate([ranked.positive_block, ranked.negative_block])
    cluster = np.concatenate([ranked.positive_cluster, ranked.negative_cluster])
    c = np.repeat([1 / ranked.n_positives, -1 / ranked.n_negatives], [ranked.n_positives, ranked.n_negatives])
    s = deviation[block]
    kinds = _Pairs.of(c, s, cluster, n_clusters)
    rho = kinds.correlations()
    second, third = (float(np.sum(c**k) + rho @ kinds.added(k)) for k in (2, 3))
    if second <= _NO_SPREAD * np.sum(c**2):
        return 1.0
    skewness = float(of_blocks @ deviation**3) / n_rows / variance**1.5 * third / second**1.5
    z = float(c @ s) / np.sqrt(variance * second)
    longer = max(0.0, float(np.sign(z)) * skewness)
    return float(min(1.0, 2 * stats.pearson3.sf(abs(z), longer)))


@dataclass(frozen=True)
class _Pairs:
    """Pairs of rows of one cluster, of three kinds: two positives, two negatives, one of each.

    Attributes
    ----------
    c : array of float64, shape (n,)
        As in `p_if_alike`.
    sums : array of float64, shape (2, n_clusters)
        Of c over the positives and over the negatives of a cluster.
    products, squares : array of float64, shape (3, n_clusters)
        Sums over the pairs of a cluster of the product of their ranks, and of their mean square, over that of all clusters.
    """

    c: Floats
    sums: Floats
    products: Floats
    squares: Floats

    @classmethod
    def of(cls, c: Floats, s: Floats, cluster: Counts, n_clusters: int) -> "_Pairs":
        classes = (c > 0, c < 0)
        # About the middle of all, two classes that differ would look like clusters that do.
        s = s - np.where(c > 0, *(s[of].mean() for of in classes))

        def sums(of_rows: Floats) -> Floats:
            return np.array([np.bincount(cluster[of], of_rows[of], n_clusters) for of in classes])

        n, total, square = sums(np.ones_like(c)), sums(s), sums(s**2)
        products = np.array([*(total**2 - square), 2 * total[0] * total[1]])
        squares = np.array([*((n - 1).clip(0) * square), n[0] * square[1] + n[1] * square[0]])
        whole = squares.sum(axis=1, keepdims=True)
        return cls(
            c, sums(c), *(np.divide(of, whole, out=np.zeros_like(of), where=whole > 0) for of in (products, squares))
        )

    def added(self, k: int) -> Floats:
        """Add up what pairs of each kind that score the same have in the sum of C^k beyond that of c^k, shape (3,)."""
        alone = [np.sum(self.c[of] ** k) for of in (self.c > 0, self.c < 0)]
        of_classes, of_all = np.sum(self.sums**k, axis=1), np.sum(self.sums.sum(axis=0) ** k)
        return np.array([*(of_classes - alone), of_all - of_classes.sum()])

    def correlations(self) -> Floats:
        """Rho of each kind, shape (3,), moved to the upper end of the variance: t on Kish's number of clusters."""
        # Rows of a class that all tie have no spread of which a part could be their cluster's.
        rho = np.where(self.squares.any(axis=1), self.products.sum(axis=1).clip(_LEAST, 1), _WIDEST)
        widest = np.append(_WIDEST[:2], min(rho[2], _WIDEST[2]))
        added = self.added(2)
        worth, room = kish(np.abs(added) @ self.squares), float(added @ (widest - rho))
        if worth < _FEWEST_CLUSTERS:
            return widest
        off = added @ (self.products - rho[:, None] * self.squares)
        spread = np.sqrt(worth / (worth - 1) * np.sum(off**2))
        half = float(special.stdtrit(worth - 1, (1 + CONFIDENCE) / 2)) * spread
        return rho + (min(1.0, half / room) if room > 0 else 0.0) * (widest - rho)
