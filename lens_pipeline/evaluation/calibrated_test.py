"""The frozen calibration on test: p_lens of every row, the reliability diagram before and after, its metrics, top controls."""

from dataclasses import dataclass, replace

import polars as pl
import pyarrow as pa

from lens_pipeline.contracts.catalogue import P_LENS, TEST_RELIABILITY, TEST_TOP_CONTROLS
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.evaluation.calibration import Labelled, frozen_calibrator, prior_logit_of
from lens_pipeline.evaluation.calibrators import Calibrator
from lens_pipeline.evaluation.likelihood_metrics import calibration_metric, likelihood_metrics
from lens_pipeline.evaluation.metrics import BootstrapSettings, Metric, because
from lens_pipeline.evaluation.negatives import none_of_survey, of_survey
from lens_pipeline.evaluation.scored_rows import TEST
from lens_pipeline.evaluation.top_controls import top_controls
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging

SUFFIX = "_calibrated"


@dataclass(frozen=True)
class CalibratedTest:
    """What the frozen calibration came to on test.

    Attributes
    ----------
    metrics : list of Metric
        As `likelihood_metrics` and `calibration_metric`, of the calibrated probability at the balance of the rows of test that
        the survey has (`of_survey`); names end in ``_calibrated``.
    before, after : polars.DataFrame
        CALIBRATION_RELIABILITY and TEST_RELIABILITY.
    methods : polars.DataFrame
        CALIBRATION.
    controls : polars.DataFrame
        TEST_TOP_CONTROLS.
    no_p_lens : str or None
        Why no row has a `p_lens`.
    """

    metrics: list[Metric]
    before: pl.DataFrame
    after: pl.DataFrame
    methods: pl.DataFrame
    controls: pl.DataFrame
    no_p_lens: str | None


def publish_calibrated_test(
    operating_point: Publication,
    store: Publication,
    test: pl.DataFrame,
    distinct: pl.DataFrame,
    settings: BootstrapSettings,
    staging: Staging,
) -> CalibratedTest:
    """Write `p_lens`, `reliability` and `top_controls` of test.

    Parameters
    ----------
    test, distinct : polars.DataFrame
        Rows of test joined to the store: all of them, and those with distinct controls.

    Raises
    ------
    EvaluationError
        If the operating point holds no calibration.
    """
    calibrator = frozen_calibrator(operating_point)
    prevalence = operating_point.attributes["prevalence"]["value"]
    staging.attributes["p_lens_prevalence"] = operating_point.attributes["prevalence"]
    staging.write_table("p_lens", _p_lens(calibrator, test, prevalence), P_LENS)
    contract = DatasetContract.model_validate(store.attributes["dataset_contract"])
    alike = of_survey(distinct, contract)
    bins = _reliability(calibrator, alike, operating_point.attributes["reliability_bins"])
    table = pa.Table.from_pylist(bins, schema=TEST_RELIABILITY.schema)
    staging.write_table("reliability", table, TEST_RELIABILITY)
    points = pl.DataFrame(operating_point.read_table())
    n_listed = operating_point.attributes["n_listed_controls"]
    controls = top_controls(distinct, points, calibrator, prevalence, store, n_listed)
    staging.write_table("top_controls", controls, TEST_TOP_CONTROLS)
    return CalibratedTest(
        metrics=because(_metrics(calibrator, alike, settings), none_of_survey(alike, distinct, contract)),
        before=pl.DataFrame(operating_point.read_table("reliability")),
        after=pl.DataFrame(table),
        methods=pl.DataFrame(operating_point.read_table("calibration")),
        controls=pl.DataFrame(controls),
        no_p_lens=calibrator.why_no_p_lens,
    )


def _p_lens(calibrator: Calibrator, test: pl.DataFrame, prevalence: float) -> pa.Table:
    logits, reason = test["logit"].to_numpy(), calibrator.why_no_p_lens
    columns = {
        "task_id": test["task_id"].to_arrow(),
        "label": test["label"].to_arrow(),
        "logit": logits,
        "log_likelihood_ratio": calibrator.log_likelihood_ratio(logits),
        "p_lens": pa.nulls(logits.size, pa.float64()) if reason else calibrator.p_lens(logits, prevalence),
        "extrapolated": calibrator.is_extrapolated(logits),
        "p_lens_reason": pa.array([reason] * logits.size, pa.string()),
    }
    return pa.table(columns).cast(P_LENS.schema)


def _reliability(calibrator: Calibrator, distinct: pl.DataFrame, n_bins: int) -> list[dict[str, object]]:
    rows = Labelled.of(distinct)
    shown = {one.method: one for one in (calibrator.uncalibrated, calibrator)}
    return [
        row
        for method, one in shown.items()
        for row in rows.reliability(method, one.log_likelihood_ratio(rows.logits), n_bins)
    ]


def _metrics(calibrator: Calibrator, distinct: pl.DataFrame, settings: BootstrapSettings) -> list[Metric]:
    ratio = calibrator.log_likelihood_ratio(distinct["logit"].to_numpy())
    at_balance = pl.Series("logit", ratio + prior_logit_of(distinct["is_lens"].to_numpy()))
    calibrated = distinct.with_columns(at_balance)
    found = [*likelihood_metrics(calibrated, TEST), calibration_metric(calibrated, TEST, settings)]
    return [replace(metric, metric=metric.metric + SUFFIX) for metric in found]
