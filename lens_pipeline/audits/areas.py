"""Area under the ROC curve of two sets of stamps that come in pairs, with its interval over pairs."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lens_pipeline.evaluation.bootstrap import FEWEST_INFLUENTIAL
from lens_pipeline.evaluation.influence import resting_on
from lens_pipeline.evaluation.intervals import clopper_pearson

_Z = 1.96

Floats = NDArray[np.float64]


def paired_area(first: Sequence[float] | Floats, second: Sequence[float] | Floats) -> tuple[float, float, float]:
    """AUROC over all rows of two sets that come in pairs, and its 95 % interval; ties count half.

    Placements of DeLong et al. (1988, Biometrics 44, 837), added up within a pair, since its two stamps are alike: the spread of
    these sums over pairs gives the standard error (Obuchowski 1997, Biometrics 53, 567). Where that rests on fewer than 8
    pairs, or on none since nothing differs, the interval also holds Clopper and Pearson's of as many pairs, as metrics have it.

    Parameters
    ----------
    first, second : arrays of shape (n,)
        The two of each pair; a larger value is taken for the first.

    Returns
    -------
    tuple of float
        Value, lower and upper end, each between 0 and 1.
    """
    from scipy.stats import rankdata

    n = len(first)
    both = np.concatenate([first, second])
    ranks = rankdata(both)
    above = (ranks[:n] - rankdata(first)) / n
    below = 1 - (ranks[n:] - rankdata(second)) / n
    value = float(above.mean())
    moved = above + below
    half = _Z * float(moved.std(ddof=1)) / np.sqrt(n)
    ends = [value - half, value + half]
    if resting_on(moved - moved.mean()) < FEWEST_INFLUENTIAL:
        ends += clopper_pearson(min(1.0, max(0.0, value)) * n, n)
    return value, max(0.0, min(ends)), min(1.0, max(ends))
