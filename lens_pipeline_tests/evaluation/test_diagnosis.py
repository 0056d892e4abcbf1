"""Simulated trainings of four kinds, and the published table of an audited one."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from scipy import special

from lens_pipeline.contracts.errors import EvaluationError
from lens_pipeline.evaluation.diagnosis import diagnose
from lens_pipeline.evaluation.epoch_records import records_of_table
from lens_pipeline.evaluation.findings import COLLAPSE, OVERFITTING, PREFIX, SATURATION, Finding, Verdict
from lens_pipeline.evaluation.measured_epochs import records_of_scores
from lens_pipeline.evaluation.score_health import score_health

# As it was published: rounded rates, and the number of negatives that went with them.
AUDITED = [
    {"epoch": "4", "train_loss": "0.005", "TPR@1e-3": "85.0%", "TPR@1e-4": "79.8%", "FPR@TPR50": "0.003%", "n_neg": "65,090"},
    {"epoch": "5", "train_loss": "0.003", "TPR@1e-3": "85.2%", "TPR@1e-4": "0%", "FPR@TPR50": "0.07%", "n_neg": "65,090"},
    {
        **{"epoch": "7", "train_loss": "0.0001", "TPR@1e-3": "0%", "TPR@1e-4": "0%", "n_neg": "65,090"},
        **{"FPR@TPR50": "0.22%", "FPR@TPR70": "0.22%", "FPR@TPR85": "0.22%"},
    },
]  # fmt: skip
N = 40_000


def _scores(epochs: int, seen: Callable[[int, np.ndarray, np.ndarray], np.ndarray], seed: int = 0) -> pl.DataFrame:
    """Validation scores of one fixed ranking, as each epoch shows it."""
    rng = np.random.default_rng(seed)
    label = (np.arange(N) % 2).astype(np.int64)
    ranking = rng.normal(0, 1, N) + np.where(label > 0, 5.0, 0.0) - 2.0
    parts = [
        pl.DataFrame({"epoch": epoch, "label": label, "logit": seen(epoch, ranking, label), "split": "val_select"})
        for epoch in range(epochs)
    ]
    return pl.concat(parts)


def _float32_sigmoid(logit: np.ndarray) -> np.ndarray:
    return special.expit(logit.astype(np.float32)).astype(np.float64)


def causes_found(findings: list[Finding]) -> set[str]:
    return {finding.cause for finding in findings if finding.verdict is Verdict.found}


def evidence_of(findings: list[Finding], cause: str) -> str:
    return "\n".join(next(finding for finding in findings if finding.cause == cause).evidence)


def saturating() -> list[Finding]:
    """Logits of one ranking grow from epoch to epoch, and are stored as float32 probabilities."""
    return diagnose(records_of_scores(_scores(6, lambda epoch, ranking, _: _float32_sigmoid(ranking * 2.0**epoch))))


def collapsing() -> list[Finding]:
    noise = np.random.default_rng(1).normal(size=N)
    mixed = _scores(6, lambda epoch, ranking, _: ranking * 0.25**epoch + noise * min(1, epoch))
    return diagnose(records_of_scores(mixed))


def overfitting() -> list[Finding]:
    """Certain of what it has seen, more and more wrongly certain of what it has not."""
    rng = np.random.default_rng(2)

    seen_through = rng.normal(size=N)

    def unseen(epoch: int, _: np.ndarray, label: np.ndarray) -> np.ndarray:
        return (1 + epoch) * (label - 0.5 + seen_through)

    held = _scores(6, unseen)
    trained = held.with_columns(split=pl.lit("train"), logit=(2 * pl.col("label") - 1) * (1.0 + 2 * pl.col("epoch")))
    trained = trained.with_columns(logit=pl.col("logit") + pl.Series(rng.normal(0, 0.1, trained.height)))
    return diagnose(records_of_scores(pl.concat([held, trained])))


def of_a_prefix() -> list[Finding]:
    scores = _scores(4, lambda epoch, ranking, _: ranking * (1 + 0.1 * epoch))
    return diagnose(records_of_scores(scores, n_split=3 * N))


def sound() -> list[Finding]:
    scores = _scores(4, lambda epoch, ranking, _: ranking * (1 + 0.1 * epoch))
    return diagnose(records_of_scores(scores, n_split=N))


@pytest.mark.parametrize(
    ("history", "cause"),
    [(saturating, SATURATION), (collapsing, COLLAPSE), (overfitting, OVERFITTING), (of_a_prefix, PREFIX)],
)
def test_each_kind_of_history_is_told_from_the_others(history: Callable[[], list[Finding]], cause: str) -> None:
    assert causes_found(history()) == {cause}


def test_a_sound_history_is_cleared_of_all() -> None:
    assert causes_found(sound()) == set()


def test_saturation_is_shown_by_the_rates_that_fell_to_zero_and_the_ties_that_did_it() -> None:
    evidence = evidence_of(saturating(), SATURATION)
    assert "is exactly 0 after" in evidence
    assert "share the highest score" in evidence


def test_the_audited_history_is_explained_from_its_published_table_alone() -> None:
    findings = diagnose(records_of_table(AUDITED))
    assert causes_found(findings) == {SATURATION}
    evidence = evidence_of(findings, SATURATION)
    for words in (
        "epoch 5: TPR at FPR 0.0001 is exactly 0 after 79.8% while TPR is 85.2% at FPR 0.001: the ranking stands",
        "about 46 (43 to 48 by rounding) of 65,090 negatives lie at or above the threshold of TPR 0.5, more than the 6 that",
        "about 143 (140 to 146 by rounding) of 65,090 negatives lie at or above the threshold of TPR 0.5, more than the 65 that",
        "negatives at or above the threshold of TPR 0.5: 2 at epoch 4, about 46 (43 to 48 by rounding) at epoch 5, about 143",
        "epoch 7: the FPR is 0.0022 at TPR 0.5, 0.7, 0.85 alike",
    ):
        assert words in evidence
    # 2 is no multiple of 8: negatives were not each evaluated 8 times.
    assert records_of_table(AUDITED)[0].negatives_at(0.5) == (2, 2, 2)


def test_an_evaluation_of_so_many_whole_batches_is_suspected() -> None:
    rows = [{**row, "n_eval": 128_000} for row in AUDITED]
    finding = diagnose(records_of_table(rows))[-1]
    assert finding.verdict is Verdict.suspected
    assert "250 batches of 512 or 500 batches of 256" in finding.evidence[0]
    told = diagnose(records_of_table([{**row, "n_val": 1_060_000} for row in rows]))[-1]
    assert told.verdict is Verdict.found
    assert "128,000 of the split's 1,060,000 rows" in told.evidence[0]


@pytest.mark.parametrize(
    ("evaluated", "n_split", "verdict", "says"),
    [
        ([500, 500, 900], 900, Verdict.found, "epochs 0, 1: 500 of the split's 900 rows were evaluated"),
        (
            [900, 900, 904],
            900,
            Verdict.suspected,
            "epoch 2: 904 rows were evaluated, more than the 900 that the split has",
        ),
        ([500, 900, 904], 900, Verdict.found, "epoch 2: 904 rows were evaluated, more than the 900"),
        ([500, None, 900], None, Verdict.suspected, "from 500 at epoch 0 to 900 at epoch 2"),
        ([900, 900, None], 900, Verdict.not_found, "epochs 0, 1: 900 of the split's 900 rows were evaluated"),
        ([None, None, None], 900, Verdict.unknown, "how many rows were evaluated is not given"),
    ],
)
def test_each_epoch_is_asked_how_many_of_the_rows_of_the_split_it_was_evaluated_on(
    evaluated: list[int | None], n_split: int | None, verdict: Verdict, says: str
) -> None:
    rows = [{"epoch": i, "val_loss": 0.5, "n_eval": n, "n_val": n_split} for i, n in enumerate(evaluated)]
    finding = diagnose(records_of_table(rows))[-1]
    assert finding.verdict is verdict
    assert says in "\n".join(finding.evidence)


@pytest.mark.parametrize("others", ["val_select", "train", None])
def test_rows_whose_split_is_null_are_refused_and_not_left_out(others: str | None) -> None:
    split = pl.Series([None, others] * (N // 2), dtype=pl.Null if others is None else pl.String)
    table = pl.DataFrame({"label": np.arange(N) % 2, "logit": np.linspace(-1, 1, N), "split": split})
    nulls = split.null_count()
    with pytest.raises(EvaluationError, match=rf"^{nulls:,} of {N:,} rows are of a split that isn't known: null\."):
        records_of_scores(table, n_split=N)


def test_what_a_table_does_not_hold_cannot_be_told() -> None:
    findings = diagnose(records_of_table([{"epoch": 0, "train_loss": 0.5}, {"epoch": 1, "train_loss": 0.4}]))
    assert {finding.verdict for finding in findings} == {Verdict.unknown}


def test_a_table_of_something_else_is_refused_with_its_columns() -> None:
    with pytest.raises(EvaluationError, match="ra, dec"):
        records_of_table([{"ra": 1.0, "dec": 2.0}])


def test_rates_are_read_as_fractions_per_cent_and_percent_signs_alike() -> None:
    for values in ([0.798, 0.0], [79.8, 0.0], ["79.8%", "0%"], ["79.8", "0"]):
        records = records_of_table([{"epoch": i, "tpr_at_fpr_1e-04": value} for i, value in enumerate(values)])
        assert records[0].tpr_at[1e-4].value == pytest.approx(0.798)


@pytest.mark.parametrize(
    ("name", "fpr"),
    [("TPR@0.1%", 1e-3), ("TPR@FPR0.01%", 1e-4), ("val_tpr@fpr=1 %", 1e-2), ("TPR@1e-3", 1e-3), ("TPR@FPR10", 0.1)],
)
def test_a_percent_sign_in_the_name_of_a_rate_counts(name: str, fpr: float) -> None:
    (record,) = records_of_table([{"epoch": 0, name: "79.8%"}])
    assert {at: reading.value for at, reading in record.tpr_at.items()} == pytest.approx({fpr: 0.798})


@pytest.mark.parametrize("values", [[0.973, 0.968], [97.3, 96.8], ["97.3%", "96.8 %"], ["97.3", "96.8"]])
def test_an_auroc_is_read_as_fraction_per_cent_and_percent_sign_alike(values: list[float] | list[str]) -> None:
    records = records_of_table([{"epoch": i, "val_auroc": value} for i, value in enumerate(values)])
    assert [record.auroc for record in records] == pytest.approx([0.973, 0.968])
    assert causes_found(diagnose(records)) == set()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([1.2, 0.9], "1 of 2 epochs have an AUROC that is no share: 1.2 at epoch 0"),
        ([97.3, 0.96], "1 of 2 epochs have an AUROC that is no share: 97.3 at epoch 0"),
        ([973, 968], "2 of 2 epochs have an AUROC that is no share: 9.73 at epoch 0, 9.68 at epoch 1"),
        ([-0.5, 0.9], "1 of 2 epochs have an AUROC that is no share: -0.5 at epoch 0"),
    ],
)
def test_an_auroc_that_is_neither_a_fraction_nor_per_cent_is_refused(values: list[float], says: str) -> None:
    with pytest.raises(EvaluationError, match=says):
        records_of_table([{"epoch": i, "val_auroc": value} for i, value in enumerate(values)])


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"auc": 0.99, "val_auroc": 0.9}, "columns that tell of the same: auc and val_auroc"),
        ({"loss": 0.1, "train_loss": 0.2}, "columns that tell of the same: loss and train_loss"),
        ({"TPR@0.1%": 0.5, "tpr_at_fpr_1e-03": 0.4}, "TPR@0.1% and tpr_at_fpr_1e-03"),
    ],
)
def test_two_columns_that_tell_of_the_same_are_refused_by_name(row: dict[str, float], says: str) -> None:
    with pytest.raises(EvaluationError, match=says):
        records_of_table([{"epoch": 0, **row}])
    first = next(iter(row))
    assert records_of_table([{"epoch": 0, **row, first: ""}])


def test_training_and_validation_that_were_logged_in_rows_of_their_own_are_one_epoch() -> None:
    rows = [
        {"epoch": "0", "step": "9", "train_loss": "", "val_loss": "0.5"},
        {"epoch": "0", "step": "9", "train_loss": "0.7", "val_loss": ""},
        {"epoch": "1", "step": "19", "train_loss": "", "val_loss": "0.4"},
    ]
    first, second = records_of_table(rows)
    assert (first.train_loss, first.val_loss) == (0.7, 0.5)
    assert (second.epoch, second.train_loss, second.val_loss) == (1, None, 0.4)


def test_an_epoch_that_stands_there_twice_is_refused() -> None:
    rows = [{"epoch": epoch, "val_loss": 0.5} for epoch in (0, 1, 1, 2)]
    with pytest.raises(EvaluationError, match="1 of 3 epochs stand in more than one row: 1"):
        records_of_table(rows)


def test_health_counts_what_ties_at_the_top_and_what_a_sigmoid_made_certain() -> None:
    health = score_health([1.0, 1.0, 1.0, 0.5, 0.25, 0.0], [True, True, False, True, False, False])
    assert (health.top_positives, health.top_negatives, health.top_negative_share) == (2, 1, 1 / 3)
    assert (health.distinct_share, health.largest_tie_share, health.extreme_share) == (4 / 6, 3 / 6, 4 / 6)
    assert health.are_probabilities
    with pytest.raises(EvaluationError, match="not finite"):
        score_health([1.0, np.inf], [True, False])
