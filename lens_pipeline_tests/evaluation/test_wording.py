"""Words and numbers of the report say neither more nor less than the tables that they come from."""

import pytest

from lens_pipeline.evaluation.wording import metric_words, number


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.99977, "0.9998"), (1 - 1e-7, "0.9999999"), (1.0, "1"), (0.0004557, "0.000456"), (12.0, "12")],
)
def test_a_share_is_rounded_to_one_only_where_it_is_one(value: float, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("value", "low", "high", "shown"),
    [
        (0.028, 0.0033, 0.646, "0.03 (0.003 to 0.65)"),
        (0.0042, 0.0004, 0.62, "0.004 (0.0004 to 0.62)"),
        (-0.001, -0.2, 0.2, "−0.001 (−0.20 to 0.20)"),
        (0.0013, 0.00003, 0.0069, "0.0013 (0.00003 to 0.0069)"),
        (0.2, 0.0000004, 0.6, "0.20 (4e−07 to 0.60)"),
        (0.0, 0.0, 0.62, "0 (0 to 0.62)"),
        (0.5, 0.44, 0.56, "0.50 (0.44 to 0.56)"),
    ],
)
def test_nothing_but_zero_is_rounded_to_zero(value: float, low: float, high: float, shown: str) -> None:
    assert number(value, low, high) == shown


def test_the_recall_of_one_class_finds_no_lenses_in_words() -> None:
    assert metric_words("recall_at_fpr_1e-01", "class control") == "Recall at the threshold for FPR 0.1"
    assert metric_words("recall_at_fpr_1e-01") == "Lenses found at the threshold for FPR 0.1"
    assert metric_words("specificity_at_fpr_1e-01", "class control") == "Specificity at the threshold for FPR 0.1"
