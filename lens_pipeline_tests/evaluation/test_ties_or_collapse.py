"""What ties did to a metric is told from what the ranking did to it."""

import numpy as np
import polars as pl
import pytest

from lens_pipeline.evaluation.diagnosis import diagnose
from lens_pipeline.evaluation.epoch_records import records_of_table
from lens_pipeline.evaluation.findings import COLLAPSE, SATURATION, Finding, Verdict
from lens_pipeline.evaluation.measured_epochs import records_of_scores
from lens_pipeline_tests.evaluation.test_diagnosis import AUDITED, causes_found, evidence_of


def _normal_scores(n_controls: int, n_lenses: int, tops: list[np.ndarray], seed: int = 0) -> pl.DataFrame:
    """Distinct scores N(0, 1) of controls and N(5, 1) of lenses, whose first controls score otherwise in each epoch."""
    rng = np.random.default_rng(seed)
    label = np.repeat([0, 1], [n_controls, n_lenses])
    logit = rng.normal(0, 1, label.size) + 5.0 * label
    parts = []
    for epoch, top in enumerate(tops):
        parts.append(pl.DataFrame({"epoch": epoch, "label": label, "logit": np.concatenate([top, logit[top.size :]])}))
    return pl.concat(parts)


NO_ROWS = np.empty(0)


def _verdict(findings: list[Finding], cause: str) -> Verdict:
    return next(finding for finding in findings if finding.cause == cause).verdict


def test_a_rate_that_contaminants_with_distinct_scores_brought_to_zero_is_a_collapse_of_the_top_not_ties() -> None:
    contaminants = 14 + np.random.default_rng(3).random(60)
    findings = diagnose(records_of_scores(_normal_scores(65_090, 20_000, [NO_ROWS, NO_ROWS, contaminants])))
    assert causes_found(findings) == {COLLAPSE}
    assert _verdict(findings, SATURATION) is Verdict.not_found
    assert (
        "the top of the ranking collapsed: 60 negatives lie above every lens, more than the 6 that FPR 0.0001"
        in evidence_of(findings, COLLAPSE)
    )


def test_a_rate_that_negatives_in_one_tie_block_brought_to_zero_is_saturation_though_nearly_all_scores_are_distinct() -> (
    None
):
    scores = _normal_scores(65_090, 20_000, [NO_ROWS, NO_ROWS, np.full(60, 4.0)])
    clipped = scores.with_columns(
        pl.when(pl.col("epoch") == 2).then(pl.col("logit").clip(upper_bound=4.0)).otherwise("logit")
    )
    assert causes_found(diagnose(records_of_scores(clipped))) == {SATURATION}


@pytest.mark.parametrize(
    ("share", "causes"),
    [("1.0", {COLLAPSE: Verdict.found, SATURATION: Verdict.not_found}),
     ("0.6", {COLLAPSE: Verdict.not_found, SATURATION: Verdict.found}),
     ("", {COLLAPSE: Verdict.suspected, SATURATION: Verdict.suspected})],
)  # fmt: skip
def test_a_published_fall_to_zero_is_judged_by_the_share_of_distinct_scores_where_it_is_given(
    share: str, causes: dict[str, Verdict]
) -> None:
    findings = diagnose(records_of_table([{**row, "distinct_logit_share": share} for row in AUDITED[:2]]))
    assert {cause: _verdict(findings, cause) for cause in causes} == causes


def _controls_listed_twice(**columns: pl.Expr) -> pl.DataFrame:
    once = _normal_scores(20_000, 20_000, [NO_ROWS, NO_ROWS]).with_row_index("row").with_columns(**columns)
    return pl.concat([once, once.filter(pl.col("label") == 0)])


@pytest.mark.parametrize("name", ["pixel_hash", "task_id"])
def test_controls_that_are_listed_twice_are_no_ties_where_something_identifies_them(name: str) -> None:
    records = records_of_scores(_controls_listed_twice(**{name: pl.col("row").cast(pl.String)}))
    findings = diagnose(records)
    assert causes_found(findings) == set()
    assert _verdict(findings, SATURATION) is Verdict.not_found
    assert [(record.rows, record.n_negatives, record.repeated_rows) for record in records] == [
        (60_000, 20_000, 20_000)
    ] * 2


def test_controls_that_may_be_listed_twice_are_suspected_of_ties_with_both_explanations() -> None:
    findings = diagnose(records_of_scores(_controls_listed_twice()))
    assert _verdict(findings, SATURATION) is Verdict.suspected
    assert "ties, or stamps that are listed more than once" in evidence_of(findings, SATURATION)
    # Other pixels: then they tie.
    stranger = _controls_listed_twice().with_row_index("pixel_hash")
    assert causes_found(diagnose(records_of_scores(stranger))) == {SATURATION}


def test_one_control_that_is_listed_twice_at_the_top_is_no_saturation() -> None:
    findings = diagnose(records_of_scores(_normal_scores(20_000, 20_000, [np.full(2, 14.0)])))
    assert _verdict(findings, SATURATION) is Verdict.not_found


LOSING = [
    {"epoch": "0", "val_auroc": "0.996", "TPR@1e-4": "79.8%", "FPR@TPR50": "0.003%"},
    {"epoch": "1", "val_auroc": "0.98", "TPR@1e-4": "40%", "FPR@TPR50": "0.1%"},
    {"epoch": "2", "val_auroc": "0.91", "TPR@1e-4": "0.3%", "FPR@TPR50": "2.1%"},
]


@pytest.mark.parametrize("columns", [("val_auroc",), ("FPR@TPR50",), ("val_auroc", "FPR@TPR50")])
@pytest.mark.parametrize("counts", [{}, {"n_neg": "65090", "n_pos": "20000"}])
def test_a_loss_of_the_top_is_a_collapse_by_the_area_and_by_the_controls_above_half_of_the_lenses(
    columns: tuple[str, ...], counts: dict[str, str]
) -> None:
    rows = [{name: row[name] for name in ("epoch", "TPR@1e-4", *columns)} | counts for row in LOSING]
    findings = diagnose(records_of_table(rows))
    assert causes_found(findings) == {COLLAPSE}
    evidence = evidence_of(findings, COLLAPSE)
    assert ("22.5-fold" in evidence, "was 3e-05 at epoch 0 and is 0.021 at epoch 2" in evidence) == (
        "val_auroc" in columns,
        "FPR@TPR50" in columns,
    )


@pytest.mark.parametrize("counts", [{}, {"n_neg": 500, "n_pos": 500}])
@pytest.mark.parametrize(("before", "after"), [(0.3, 0.02), (0.97, 0.03), (0.52, 0.4)])
def test_an_auroc_below_chance_is_said_to_rank_the_classes_the_wrong_way_round(
    before: float, after: float, counts: dict[str, int]
) -> None:
    findings = diagnose(
        records_of_table([{"epoch": i, "auroc": auc, **counts} for i, auc in enumerate((before, after))])
    )
    assert causes_found(findings) == {COLLAPSE}
    words = f"epoch 1: AUROC {after:g} is below 0.5: the scores rank the classes the wrong way round, as with swapped labels"
    assert words in evidence_of(findings, COLLAPSE)


@pytest.mark.parametrize(("auroc", "counts"), [(0.49, {}), (0.45, {"n_neg": 50, "n_pos": 50})])
def test_an_auroc_at_chance_within_its_error_is_not_called_inverted(auroc: float, counts: dict[str, int]) -> None:
    findings = diagnose(records_of_table([{"epoch": 0, "auroc": auroc, **counts}]))
    assert "wrong way round" not in evidence_of(findings, COLLAPSE)


def test_a_growth_within_counting_error_is_no_collapse() -> None:
    rows = [
        {"epoch": 0, "val_auroc": 0.999, "TPR@1e-2": 0.9, "FPR@TPR50": 0.0, "n_neg": 200, "n_pos": 200},
        {"epoch": 1, "val_auroc": 0.995, "TPR@1e-2": 0.9, "FPR@TPR50": 0.01, "n_neg": 200, "n_pos": 200},
    ]
    assert causes_found(diagnose(records_of_table(rows))) == set()


def _dense_scores() -> pl.DataFrame:
    """Single-precision logits of distinct stamps, as many to a number as of ten million stamps whose logits spread over more."""
    rng = np.random.default_rng(5)
    label = np.arange(40_000) % 2
    logit = (10 + 0.01 * (rng.normal(size=label.size) + 3 * label)).astype(np.float32).astype(np.float64)
    return pl.DataFrame({"label": label, "logit": logit, "pixel_hash": np.arange(label.size).astype(str)})


@pytest.mark.parametrize("identified", [True, False])
def test_scores_that_tie_by_chance_alone_as_single_precision_makes_them_are_no_saturation(identified: bool) -> None:
    scores = _dense_scores() if identified else _dense_scores().drop("pixel_hash")
    (record,) = records_of_scores(scores)
    assert record.distinct_share is not None
    assert 0.7 < record.distinct_share < 0.85
    assert record.distinct_share + record.chance_ties > 0.95
    assert _verdict(diagnose([record]), SATURATION) is Verdict.not_found


def test_ties_beyond_those_of_chance_are_saturation_still() -> None:
    scores = _dense_scores()
    clipped = scores.with_columns(pl.col("logit").clip(upper_bound=10.03))
    coarse = scores.with_columns((pl.col("logit") * 2**14).round() / 2**14)
    twice = pl.concat([scores, scores]).with_columns(pixel_hash=pl.int_range(pl.len()).cast(pl.String))
    block = scores.with_columns(logit=pl.when(pl.int_range(pl.len()) < 8000).then(10.0).otherwise("logit"))
    for rows in (clipped, coarse, twice, block):
        assert _verdict(diagnose(records_of_scores(rows)), SATURATION) is Verdict.found
