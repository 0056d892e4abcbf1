"""Words and numbers of the report say neither more nor less than the tables that they come from."""

import pytest

from lens_pipeline.evaluation.wording import metric_words, number


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.99977, "0.9998"), (1 - 1e-7, "0.9999999"), (1.0, "1"), (0.0004557, "0.000456"), (12.0, "12")],
)
def test_a_share_is_rounded_to_one_only_where_it_is_one(value: float, shown: str) -> None:
    assert number(value) == shown


def test_the_recall_of_one_class_finds_no_lenses_in_words() -> None:
    assert metric_words("recall_at_fpr_1e-01", "class control") == "Recall at the threshold for FPR 0.1"
    assert metric_words("recall_at_fpr_1e-01") == "Lenses found at the threshold for FPR 0.1"
    assert metric_words("specificity_at_fpr_1e-01", "class control") == "Specificity at the threshold for FPR 0.1"
