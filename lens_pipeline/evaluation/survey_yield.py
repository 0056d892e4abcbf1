"""What each frozen threshold would give in the survey: purity, candidates per square degree, and what unknown lenses hide."""

from dataclasses import dataclass, replace

import polars as pl
import pyarrow as pa

from lens_pipeline.contracts.catalogue import SURVEY_YIELD
from lens_pipeline.evaluation.contamination import fpr_on_fitted
from lens_pipeline.evaluation.intervals import Estimate
from lens_pipeline.evaluation.metrics import proportion_over
from lens_pipeline.evaluation.prevalence import Prevalence, candidates, purity, true_fpr_low

_NO_AREA = Estimate(None, None, None, 0, 0, None, "the area that the parent sample covers isn't known")
LEFT_OPEN = (
    "values, and thresholds for a contamination, take controls to hold no lens; intervals of purity and candidates reach to as "
    "many lenses among controls as in the survey"
)


@dataclass(frozen=True)
class Survey:
    """What is known of the galaxies that a finder would be run on.

    Attributes
    ----------
    per_deg2 : Estimate
        Galaxies of the parent sample in a square degree; without a value and with the reason where that isn't known.
    simulated : bool
        Whether they are made up, so that no control can be a lens.
    """

    per_deg2: Estimate = _NO_AREA
    simulated: bool = False


def survey_yield(
    rows: pl.DataFrame, points: pa.Table, prevalence: Prevalence, survey: Survey, *, no_controls: str | None = None
) -> pa.Table:
    """SURVEY_YIELD of every operating point that has a threshold.

    Parameters
    ----------
    rows : polars.DataFrame
        val_calibrate joined to the store; distinct controls.
    points : pyarrow.Table
        OPERATING_POINT.
    no_controls : str, optional
        Why there is no control among the rows.
    """
    lenses, controls = rows.filter(pl.col("is_lens")), rows.filter(~pl.col("is_lens"))
    records = []
    for point in points.to_pylist():
        if point["threshold"] is None:
            continue
        above = pl.col("logit") > point["threshold"]
        recall = proportion_over(lenses, lenses.select(above).to_series().to_numpy(), lenses["weight"].to_numpy())
        fpr = fpr_on_fitted(controls, point["threshold"], for_contamination=point["max_contamination"] is not None)
        if no_controls:
            fpr = replace(fpr, reason=no_controls)
        may = not survey.simulated
        pure = purity(prevalence, recall, fpr, controls_may_be_lenses=may)
        found = candidates(prevalence, recall, fpr, survey.per_deg2, controls_may_be_lenses=may)
        reasons = dict.fromkeys(one.reason for one in (recall, fpr, pure, found) if one.reason)
        if may and pure.low is not None:
            reasons[LEFT_OPEN] = None
        records.append(
            {
                "operating_point": point["operating_point"],
                **_ends("recall", recall),
                **_ends("fpr", fpr),
                **_ends("purity", pure),
                **_ends("galaxies_per_deg2", survey.per_deg2),
                **_ends("candidates_per_deg2", found),
                "lens_floor_high": 0.0 if survey.simulated else _product(prevalence.high, recall.high),
                "true_fpr_low": fpr.low if survey.simulated else true_fpr_low(prevalence, recall, fpr),
                "reason": "; ".join(reasons) or None,
            }
        )
    return pa.Table.from_pylist(records, schema=SURVEY_YIELD.schema)


def _product(prevalence: float, recall: float | None) -> float | None:
    return None if recall is None else prevalence * recall


def _ends(name: str, found: Estimate) -> dict[str, object]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
