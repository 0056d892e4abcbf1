"""Could positives that are negatives in truth rank so far from them? The rank test of Mann & Whitney, for rows that cluster.

Belongs here: the law of an AUROC where both classes are alike, which is not that of its interval: an interval asks how far the
area may be from what was measured, and near 1, or of few lenses, it is wide for reasons that don't hold at 0.5.
"""

import numpy as np
from scipy import special

from lens_pipeline.evaluation.intervals import CONFIDENCE, kish
from lens_pipeline.evaluation.ranking import RankedScores
from lens_pipeline.evaluation.tallies import Floats

_NO_SPREAD = 1e-9


def p_if_alike(ranked: RankedScores) -> float:
    """Probability that an AUROC is as far from 0.5 as here, to either side, where both classes score alike; each row once.

    AUROC - 0.5 is the sum of c s over rows, s being the rank among all rows over their number, ties at their middle, and c 1 / n
    of a row's own class, negative for negatives. Where labels could be exchanged, its variance is that of s times the sum of c^2
    (Mann & Whitney 1947, Ann. Math. Stat. 18, 50). Rows of one cluster score the same with a probability rho, else
    independently of each other: the sums of c^k are then (1 - rho) sum c^k + rho sum C^k, with C the sum of c over a cluster
    (for k = 2 as in Rosner, Glynn & Lee 2003, Biometrics 59, 1089). rho is the correlation of ranks over the pairs of rows of one
    cluster, whatever their class, about the middle of all; where clusters widen the law it is the upper end of its 95 %
    interval (Berger & Boos 1994, JASA 89, 1012). The tail is that of a Pearson III law with this variance and, on the side of
    the longer tail, the skewness, which large tie blocks have.

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
    of_clusters = np.bincount(cluster, c, n_clusters)
    n, total, squares = (np.bincount(cluster, one, n_clusters).astype(np.float64) for one in (np.ones(n_rows), s, s**2))
    widens = bool(np.sum(of_clusters**2) > np.sum(c**2))
    rho = _correlation(total**2 - squares, (n - 1).clip(0) * squares, upper=widens)
    second, third = ((1 - rho) * np.sum(c**k) + rho * np.sum(of_clusters**k) for k in (2, 3))
    if second <= _NO_SPREAD * np.sum(c**2):
        return 1.0
    skewness = float(of_blocks @ deviation**3) / n_rows / variance**1.5 * third / second**1.5
    z = float(c @ s) / np.sqrt(variance * second)
    longer = max(0.0, float(np.sign(z)) * skewness)
    return float(min(1.0, 2 * stats.pearson3.sf(abs(z), longer)))


def _correlation(products: Floats, pairs: Floats, *, upper: bool) -> float:
    """Ratio of sums over clusters, or the upper end of its interval, t on Kish's number of them; between 0 and 1."""
    worth = kish(pairs)
    if worth < 2:
        return float(upper)
    ratio = products.sum() / pairs.sum()
    spread = np.sqrt(worth / (worth - 1) * np.sum((products - ratio * pairs) ** 2)) / pairs.sum()
    half = float(special.stdtrit(worth - 1, (1 + CONFIDENCE) / 2)) * spread if upper else 0.0
    return float(np.clip(ratio + half, 0, 1))
