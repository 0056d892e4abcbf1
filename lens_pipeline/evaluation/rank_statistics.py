"""The statistics of a ROC, and of precision and recall, that are asked for, each with what its interval needs to know."""

from functools import partial

from lens_pipeline.evaluation.bootstrap import Statistic
from lens_pipeline.evaluation.influence import auroc_gradient, average_precision_gradient, partial_auc_gradient
from lens_pipeline.evaluation.tallies import (
    auroc,
    average_precision,
    fpr_at_tpr,
    partial_auc,
    tpr_at_fpr,
    tpr_at_one_fewer,
)

AUROC = Statistic(auroc, gradient=auroc_gradient)


def precision_statistic(prevalence: float | None) -> Statistic:
    """Average precision at a prevalence; None: at the balance of each draw."""
    return Statistic(
        partial(average_precision, prevalence=prevalence),
        gradient=partial(average_precision_gradient, prevalence=prevalence),
    )


def area_statistic(max_fpr: float) -> Statistic:
    """Partial AUC up to an FPR."""
    return Statistic(partial(partial_auc, max_fpr=max_fpr), gradient=partial(partial_auc_gradient, max_fpr=max_fpr))


def tpr_statistic(fpr: float) -> Statistic:
    """TPR at an FPR, with the lower end of its interval at one false positive fewer."""
    return Statistic(partial(tpr_at_fpr, fpr=fpr), is_rate=True, lower_end_at=partial(tpr_at_one_fewer, fpr=fpr))


def fpr_statistic(tpr: float) -> Statistic:
    """FPR at a TPR."""
    return Statistic(partial(fpr_at_tpr, tpr=tpr), is_rate=True, is_rare=True)
