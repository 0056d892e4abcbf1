"""Can anything tell the two of a pair apart? Differences of features in, the share of pairs that a classifier gets right out.

Belongs here: the classifiers, how they are judged, and when an answer is beyond chance. What is measured on a pair is in
`pair_features.py`.

A pair is a stamp and the control of its galaxy, one pair a galaxy: whatever galaxies are like drops out of the difference.
Classifiers are cross-validated by *progressive validation* (Blum, Kalai & Langford 1999, COLT, 203): in an order drawn at
random, each block of pairs is judged by a classifier that was fitted on the pairs before it alone. In k-fold cross-validation
each pair is in the training of all others' judges, and what chance gives spreads more widely than independent pairs would
(by sqrt(2) for a difference of means). Here, if the two of a pair could be exchanged, each judged pair is as likely won as
lost, given all before it: the number of pairs won is binomial, exactly, whatever the features and the classifier.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lens_pipeline.contracts.errors import EvaluationError, first_few
from lens_pipeline.evaluation.intervals import CONFIDENCE, clopper_pearson

LIMIT_ABOVE_CHANCE, LIMIT_AT_ROWS = 0.01, 100_000
# Limits beyond this say too little to call anything alike.
LARGEST_DECIDING_LIMIT = 0.6
LEAST_PAIRS = 20
# Ends of the blocks, in shares of the pairs; the first is only learned from.
_ENDS = (0.1, 0.25, 0.55, 1.0)
# A mark on 6 % of the stamps stands on 500 of so many.
_MOST_FOR_TREES = 8192
_CLIP = 4.0
_ORDINARY = 0.99
_N_NAMED = 3

Floats = NDArray[np.float64]
Judge = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Told:
    """How well the two of a pair were told apart.

    Attributes
    ----------
    value : float
        AUROC within pairs: share of judged pairs in which the first has the higher score, ties half; of the better classifier.
        0.5 to 1 and, by chance, a little below.
    low, high : float
        Interval of it at `level`, for the better of two.
    n : int
        Pairs, those that were only learned from included.
    most : tuple of str
        Features whose mean difference is most standard errors from 0, with how many.
    """

    value: float
    low: float
    high: float
    level: float
    n: int
    classifier: str
    most: tuple[str, ...]


def chance_limit(n_positives: int, n_negatives: int) -> float:
    """AUROC that rows which can't be told apart don't exceed: 0.5 + 0.01 sqrt(100,000 / n_eff); 0.51 for 100,000 rows.

    n_eff = 4 / (1 / n_positives + 1 / n_negatives) is the number of rows for classes of one size. The AUROC of two samples that
    are alike and independent of the classifier has a standard error of sqrt((n + m + 1) / (12 n m)), about
    sqrt(1 / (3 n_eff)) (Mann & Whitney 1947, Ann. Math. Stat. 18, 50): the limit is sqrt(10 x 3) = 5.5 of them from chance.
    The share of pairs won, of n_eff / 2 pairs of which nine tenths are judged, has sqrt(1 / (1.8 n_eff)): the limit is 4.2 of
    them from chance, which a fair coin exceeds once in 90,000. A gate is two classifiers: one clean answer in 45,000 is red.

    Returns
    -------
    float
        At most 1, which no AUROC exceeds: so few rows, or an empty class, can't be red.
    """
    if not n_positives or not n_negatives:
        return 1.0
    n_eff = 4 / (1 / n_positives + 1 / n_negatives)
    return min(1.0, float(0.5 + LIMIT_ABOVE_CHANCE * np.sqrt(LIMIT_AT_ROWS / n_eff)))


def tell_pairs(differences: Floats, names: Sequence[str], *, seed: int = 0) -> Told:
    """Tell the two of pairs apart by their features, with a linear classifier and with trees; the better one counts.

    Parameters
    ----------
    differences : (pair, feature) array
        First minus control; each pair of another galaxy.
    names : sequence of str
        Of the features.
    seed : int
        Of the order in which pairs are judged.

    Raises
    ------
    EvaluationError
        If a difference isn't finite: no feature may drop out unsaid.
    """
    if not (finite := np.isfinite(differences)).all():
        wrong = [names[int(place)] for place in np.flatnonzero(~finite.all(axis=0))]
        raise EvaluationError(
            f"{len(wrong):,} of {len(names):,} features differ by what isn't a finite number: {first_few(wrong)}. Nothing can be "
            "told by these. What isn't known of one of a pair is no difference: leave it out, or say so by a feature."
        )
    order = np.random.default_rng(seed).permutation(len(differences))
    units = _units(differences)
    varied = units > 0
    # The spread of differences doesn't know which of two is the first, and so takes nothing from the blocks to come.
    with np.errstate(over="ignore"):  # What overflows is clipped.
        rows = np.clip(differences[order][:, varied] / units[varied], -_CLIP, _CLIP)
    told = [_judged(rows, fit, name) for name, fit in (("linear", _linear), ("trees", _trees))]
    value, low, high, classifier = max(told)
    most = _most(rows, [name for name, kept in zip(names, varied, strict=True) if kept])
    return Told(value, low, high, CONFIDENCE, len(rows), classifier, most)


def _units(differences: Floats) -> Floats:
    """Root mean square of each feature's differences, all above the 99th percentile of those that aren't 0 taken as that.

    So a few absurd values, such as the 1e30 that some writers have for null, don't make all others alike.
    """
    units = np.zeros(differences.shape[1])
    for place, sizes in enumerate(np.abs(differences).T):
        if (there := sizes[sizes > 0]).size:
            largest = np.quantile(there, _ORDINARY, method="lower")
            units[place] = largest * np.sqrt(((np.minimum(sizes, largest) / largest) ** 2).mean())
    return units


def _judged(rows: Floats, fit: Callable[[Floats], Judge], name: str) -> tuple[float, float, float, str]:
    """Share of pairs won, its interval, and by what."""
    ends = [round(share * len(rows)) for share in _ENDS]
    won = lost = 0
    for start, stop in pairwise(ends):
        if start and rows.shape[1]:
            scores = fit(rows[:start])(rows[start:stop])
            won, lost = won + int((scores > 0).sum()), lost + int((scores < 0).sum())
    n = ends[-1] - ends[0]
    if not won + lost:
        # Of n pairs none is told apart; in so many of all pairs one may be.
        undecided = clopper_pearson(0, n, (1 + CONFIDENCE) / 2)[1] / 2
        return 0.5, 0.5 - undecided, 0.5 + undecided, name
    decided = (won + lost) / n
    # Each of two classifiers has half of what an interval leaves out.
    low, high = clopper_pearson(won, won + lost, (1 + CONFIDENCE) / 2)
    value, low, high = (0.5 + decided * (share - 0.5) for share in (won / (won + lost), low, high))
    return value, low, high, name


def _linear(past: Floats) -> Judge:
    """Logistic regression on differences, without an intercept: swapping the two of a pair changes the sign of its score."""
    from sklearn.linear_model import LogisticRegression

    is_kept = np.arange(len(past)) % 2 == 0
    rows = np.where(is_kept[:, None], past, -past)
    if is_kept.all():
        rows, is_kept = np.concatenate([past, -past]), np.repeat([True, False], len(past))
    weights = LogisticRegression(C=0.1, fit_intercept=False, max_iter=200).fit(rows, is_kept).coef_[0]
    return lambda coming: np.asarray(coming @ weights)


def _trees(past: Floats) -> Judge:
    """Boosted trees on differences and on what they would be had the two been swapped; the score is how the answers differ."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    past = past[-_MOST_FOR_TREES:]
    trees = HistGradientBoostingClassifier(
        max_iter=30, max_leaf_nodes=8, learning_rate=0.2, early_stopping=False, random_state=0
    )
    # So few rows are soon done: threads that wait for one another on busy cores would take ten times as long.
    with threadpool_limits(1):
        trees.fit(np.concatenate([past, -past]), np.repeat([1, 0], len(past)))

    def judge(coming: Floats) -> Floats:
        with threadpool_limits(1):
            return np.asarray(trees.decision_function(coming) - trees.decision_function(-coming))

    return judge


def _most(rows: Floats, names: Sequence[str]) -> tuple[str, ...]:
    """Name the features whose mean is furthest from 0, in its standard errors."""
    if len(rows) < 2:
        return ()
    errors = rows.std(axis=0, ddof=1) / np.sqrt(len(rows))
    means = rows.mean(axis=0)
    # A difference that is the same in every pair has no error.
    contrasts = np.divide(means, errors, out=np.where(means == 0, 0.0, np.copysign(np.inf, means)), where=errors > 0)
    places = np.argsort(-np.abs(contrasts), kind="stable")[:_N_NAMED]
    return tuple(f"{names[place]} ({contrasts[place]:+.1f} sigma)" for place in places if contrasts[place])
