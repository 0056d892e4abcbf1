"""At most how many controls lie as high as a share of the lenses, where none of those that were drawn do."""

from dataclasses import replace

import numpy as np
import polars as pl

from lens_pipeline.evaluation.intervals import CONFIDENCE, GALAXY, Estimate, clopper_pearson, kish
from lens_pipeline.evaluation.regions import LEFT_OUT, region_numbers


def fpr_bound(rows: pl.DataFrame, tpr: float, estimate: Estimate) -> Estimate:
    """Upper end of an FPR at a TPR, for lenses as well as controls that were drawn: the value is none.

    The threshold that the TPR truly has lies at or above the lens of rank q + 1 but in 2.5 % of draws, q being the binomial
    quantile of how many of the lenses lie above it (order statistics: David & Nagaraja 2003, sec. 7.1). The controls at
    or above that lens have an upper end of their own (Clopper & Pearson 1934). Galaxies of unequal numbers of rows count for as
    many equal ones as Kish's effective number.

    Parameters
    ----------
    rows : polars.DataFrame
        `logit`, `is_lens` and `galaxy_id`; no control lies as high as that share of the lenses.
    """
    # Imported when it is used: statistics take a second to load.
    from scipy import stats

    lenses, controls = rows.filter("is_lens"), rows.filter(~pl.col("is_lens"))
    n_lenses, n_controls = (int(max(1.0, round(_worth(part), 9))) for part in (lenses, controls))
    share = (float(stats.binom.ppf((1 + CONFIDENCE) / 2, n_lenses, tpr)) + 1) / n_lenses
    high, lens = 1.0, "no lens is surely as low"
    if share <= 1:
        place = int(np.ceil(share * lenses.height * (1 - 1e-12)))
        threshold = float(np.sort(lenses["logit"].to_numpy())[lenses.height - place])
        n_above = int((controls["logit"] >= threshold).sum())
        high = clopper_pearson(n_above / controls.height * n_controls, n_controls)[1]
        lens = f"{n_above:,} lie as high as the lens of rank {place:,} of {lenses.height:,}, which is surely as low"
    words = f"0 of {controls.height:,} distinct controls lie as high; {lens}, so the rate is at most {high:.3g} (95 % interval)"
    if region_numbers(rows) is not None:
        words = f"{words}; {LEFT_OUT}: no false positive tells it"
    return replace(
        estimate, value=None, low=0.0, high=high, n_eff=float(n_controls), reason=words, cluster=GALAXY,
        interval="Clopper-Pearson of galaxies, at the order statistic of lenses",
    )  # fmt: skip


def _worth(part: pl.DataFrame) -> float:
    return kish(part["galaxy_id"].value_counts()["count"].to_numpy())
