"""Numbers and names in the words of the report: one place, so that text, tables and plots say the same."""

import math
from collections.abc import Mapping
from typing import Any

from lens_pipeline.evaluation.intervals import GALAXY
from lens_pipeline.evaluation.metrics import ALL_ROWS, NULL_TEST, NULL_TEST_MAX_ARC_SNR_MATCHED, NULL_TEST_P, OF_CLASS
from lens_pipeline.evaluation.operating_point import CONTAMINATION, HIGHEST_CONTROL
from lens_pipeline.evaluation.rank_metrics import AT_PREVALENCE

_NAMES = {
    "auroc": "Area under the ROC curve",
    "average_precision": "Average precision, at this split's own mix of classes",
    "log_loss": "Log loss of the uncalibrated score",
    "brier": "Brier score of the uncalibrated score",
    "ece": "Calibration error of the uncalibrated score, noise taken off",
    AT_PREVALENCE: "Average precision, at the survey's share of lenses",
    "auroc_weighted": "Area under the ROC curve, injections as frequent as in the population",
    "tpr0": "Lenses found before the first false positive (TPR0)",
    "tpr10": "Lenses found before the tenth false positive (TPR10)",
    "log_loss_calibrated": "Log loss of the calibrated probability, at this split's own mix of classes",
    "ece_calibrated": "Calibration error of the calibrated probability, noise taken off",
    "brier_calibrated": "Brier score of the calibrated probability, at this split's own mix of classes",
    "test_looks": "Pairs of scores and thresholds of this model that were evaluated on test",
    "above_own_control": "Injections that score above the control of their own galaxy",
    "distinct_logit_share": "Share of scores that are distinct",
    "largest_tie_share": "Share of scores in the largest tie",
    "extreme_logit_share": "Share of scores beyond logit 16.64, where a float32 sigmoid is 0 or 1",
    "control_share_at_highest_logit": "Share of controls that tie at the highest score",
    NULL_TEST: f"Null test: area under the ROC of arcs too faint to see (matched S/N < {NULL_TEST_MAX_ARC_SNR_MATCHED})",
    NULL_TEST_P: "Null test: probability of an area as far from 0.5 where such arcs score like controls",
}
_MOST_DECIMALS = 6
_ON_ROC = {
    "tpr_at_": "Lenses found where the ROC of test has FPR",
    "fpr_at_tpr_": "Controls mistaken for lenses where the ROC of test has TPR",
    "partial_auc_to_": "Partial area under the ROC curve, 0.5 at chance, up to FPR",
}
_RECALL = "recall_at_"
_AT = {
    _RECALL: "Lenses found at the threshold",
    "completeness_at_": "Completeness at the threshold",
    "fpr_bound_at_": "Most controls that are mistaken for lenses at the threshold",
    "fpr_at_": "Controls mistaken for lenses at the threshold",
    "precision_at_": "Precision at the threshold",
    "specificity_at_": "Specificity at the threshold",
    "f1_at_": "F1 at the threshold",
    "accuracy_at_": "Accuracy at the threshold",
    "balanced_accuracy_at_": "Balanced accuracy at the threshold",
    "macro_precision_at_": "Precision, mean over classes, at the threshold",
    "macro_recall_at_": "Recall, mean over classes, at the threshold",
    "macro_f1_at_": "F1, mean over classes, at the threshold",
}


def threshold_words(operating_point: str) -> str:
    """Say what a threshold was fitted for, e.g. ``for FPR 0.01``."""
    if operating_point == HIGHEST_CONTROL:
        return "set by the highest validation control"
    if operating_point.startswith(CONTAMINATION):
        return f"for a contamination of {float(operating_point.removeprefix(CONTAMINATION)):g}"
    return f"for FPR {rate_words(operating_point)}"


def metric_words(metric: str, stratum: str = ALL_ROWS) -> str:
    """Say what a metric is; of one class's rows, recall is that class's and finds no lenses."""
    if stratum.startswith(OF_CLASS) and metric.startswith(_RECALL):
        return f"Recall at the threshold {threshold_words(metric.removeprefix(_RECALL))}"
    for prefix, words in _ON_ROC.items():
        if metric.startswith(prefix):
            return f"{words} {rate_words(metric.removeprefix(prefix))}"
    for prefix, words in _AT.items():
        if metric.startswith(prefix):
            return f"{words} {threshold_words(metric.removeprefix(prefix))}"
    return _NAMES.get(metric, metric)


def number(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """Write a number with as many digits as its interval (else three) warrants, and its interval if there is one."""
    if value is None:
        return "—" if high is None else f"at most {high:.3g}"
    if low is None or high is None:
        # No rounding makes a share whole that isn't.
        return minus(next(text for n in range(3, 18) if (text := f"{value:.{n}g}") != "1" or value == 1))
    digits = _decimals(high - low)
    shown = [_rounded(end, digits) for end in (value, low, high)]
    return minus(f"{shown[0]} ({shown[1]} to {shown[2]})")


def plain(value: float) -> str:
    """Write a quantity to two digits, without a power of ten where people have a word for it."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2g}"


def signed(value: float) -> str:
    """Write a number to two decimals with a minus that can't be taken for a hyphen."""
    return minus(f"{round(value, 2) + 0.0:.2f}")


def count(n: int, singular: str, plural: str | None = None) -> str:
    """Write a number of things, e.g. ``1 galaxy`` or ``2,400 galaxies``."""
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def clusters(row: Mapping[str, Any]) -> str:
    """Say what a row of METRICS takes as independent, e.g. ``800 galaxies``."""
    return count(row["n_clusters"], row["cluster"], "galaxies" if row["cluster"] == GALAXY else None)


def minus(text: str) -> str:
    """Write the signs of numbers as minus signs, which can't be taken for hyphens."""
    return text.replace("-", "−")


def _rounded(value: float, digits: int) -> str:
    """Round to so many decimals; an exact zero alone is 0, and no other number is rounded to it."""
    if value == 0:
        return "0"
    if float(text := f"{value:.{digits}f}"):
        return text
    first = -math.floor(math.log10(abs(value)))
    return f"{value:.{first}f}" if first <= _MOST_DECIMALS else f"{value:.1g}"


def _decimals(width: float) -> int:
    return 3 if width <= 0 else min(_MOST_DECIMALS, max(2, 1 - math.floor(math.log10(width))))


def rate_words(operating_point: str) -> str:
    """Write the rate that an operating point's name holds, e.g. ``0.01`` of ``fpr_1e-02``."""
    return f"{float(operating_point.removeprefix('fpr_')):g}"
