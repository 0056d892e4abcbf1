"""The ROC of a split as a table: TPR at false-positive rates spaced evenly on a logarithmic axis, with the band around it."""

import numpy as np
import polars as pl
import pyarrow as pa

from lens_pipeline.contracts.catalogue import ROC
from lens_pipeline.evaluation.metrics import BootstrapSettings
from lens_pipeline.evaluation.rank_metrics import ranked_rows, shared_estimates
from lens_pipeline.evaluation.rank_statistics import tpr_statistic
from lens_pipeline.evaluation.ranking import missing_class, roc_curve
from lens_pipeline.evaluation.resolution import ResolutionRule

_PLACES = 60


def roc_table(rows: pl.DataFrame, split: str, rule: ResolutionRule, settings: BootstrapSettings) -> pa.Table:
    """ROC of a split, each row once; empty where a class is.

    The interval of each TPR is that of `tpr_at_fpr_*` in METRICS. Each holds for its own rate, not for all of them together.

    Parameters
    ----------
    rows : polars.DataFrame
        `logit`, `is_lens` and `galaxy_id`, `region_id` where there is one; distinct negatives.
    """
    ranked = ranked_rows(rows)
    n = ranked.n_negatives
    if missing_class(ranked.n_positives, n):
        return ROC.schema.empty_table()
    counts = np.unique([0, *np.geomspace(1, n, _PLACES).round().astype(int)])
    curve = roc_curve(ranked)
    places = np.searchsorted(curve.false_positives, counts, side="right") - 1
    galaxies = curve.false_positive_galaxies[places]
    resolved = {
        int(k) for k, known in zip(counts, galaxies >= rule.min_false_positives, strict=True) if known and k < n
    }
    asked = {str(k): tpr_statistic(k / n) for k in sorted(resolved)}
    found = shared_estimates(rows, ranked, asked, settings) if asked else {}
    few = f"false positives from fewer than {rule.min_false_positives} galaxies: not resolved"
    records = []
    for k, place in zip(counts.tolist(), places.tolist(), strict=True):
        estimate = found.get(str(k))
        records.append(
            {
                "split": split,
                "fpr": k / n,
                "n_false_positives": k,
                "tpr": float(curve.tpr[place]),
                "low": estimate.low if estimate else None,
                "high": estimate.high if estimate else None,
                "n_positives": ranked.n_positives,
                "n_negatives": n,
                "cluster": estimate.cluster if estimate else None,
                "interval": estimate.interval if estimate else None,
                "reason": estimate.reason if estimate else "everything is let through" if k == n else few,
            }
        )
    return pa.Table.from_pylist(records, schema=ROC.schema)
