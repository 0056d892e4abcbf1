"""Whether our metrics are scikit-learn's, on random scores with ties, constants, one class and weights.

A case draws one set of scores and compares every metric that both have.
"""

import warnings

import numpy as np
import polars as pl
from sklearn import metrics as oracle

from lens_pipeline.evaluation.decision_metrics import Decisions, decision_metrics
from lens_pipeline.evaluation.likelihood_metrics import brier_scores, log_losses
from lens_pipeline.evaluation.ranking import RankedScores
from lens_pipeline.evaluation.tallies import (
    Floats,
    Tallies,
    auroc,
    average_precision,
    fpr_at_tpr,
    partial_auc,
    tpr_at_fpr,
)
from reliability.subject import Case, Subject

TOLERANCE = 1e-12
_RATES = (0.01, 0.1, 0.5, 0.85)


def case(number: int) -> Case:
    """Compare one set of scores."""
    rng = np.random.default_rng(number)
    logits, positive, weights, kinds = _draw(rng)
    ranked = RankedScores.of(logits, positive, np.arange(logits.size), weights)
    found = (
        _undefined(ranked.tallies)
        if positive.all() or not positive.any()
        else _ranks(ranked, logits, positive, weights)
    )
    found |= _probabilities(logits, positive)
    found |= _decisions(logits, positive, float(rng.choice(logits)))
    name, worst = max(found.items(), key=lambda item: item[1])
    problem = f"{name} differs by {worst:.3g}: {', '.join(kinds)}, n = {logits.size}" if worst > TOLERANCE else None
    return Case(
        problem=problem, largest={"difference": worst}, counts={"comparisons": len(found), **dict.fromkeys(kinds, 1)}
    )


def _draw(rng: np.random.Generator) -> tuple[Floats, np.ndarray, Floats | None, list[str]]:
    n = int(np.exp(rng.uniform(np.log(2), np.log(2000))))
    kinds = []
    share = rng.choice([0.5, rng.uniform(), 0.0, 1.0], p=[0.4, 0.5, 0.05, 0.05])
    positive = rng.random(n) < share
    if 0 < share < 1:
        positive[:2] = True, False
    else:
        kinds.append("one class")
    logits = rng.normal(size=n) * rng.choice([0.1, 1.0, 20.0]) + rng.uniform(0, 4) * positive
    how = rng.choice(["distinct", "ties", "constant", "saturated"], p=[0.3, 0.4, 0.1, 0.2])
    if how == "ties":
        logits = np.round(logits, int(rng.integers(0, 3)))
    elif how == "constant":
        logits = np.full(n, logits[0])
    elif how == "saturated":
        logits = np.clip(logits, -2, 1.5)
    kinds.append(str(how))
    if rng.random() < 0.4:
        kinds.append("weights")
        weights = rng.exponential(size=n) if rng.random() < 0.5 else rng.integers(1, 5, n).astype(float)
        return logits, positive, weights, kinds
    return logits, positive, None, kinds


def _undefined(tallies: Tallies) -> dict[str, float]:
    """Difference 0 where a metric of one class is undefined, as it must be, else infinite."""
    values = {
        "auroc": auroc(tallies),
        "average precision": average_precision(tallies),
        "tpr": tpr_at_fpr(tallies, 0.1),
        "fpr": fpr_at_tpr(tallies, 0.5),
        "partial auc": partial_auc(tallies, 0.1),
    }
    return {name: 0.0 if np.isnan(value[0]) else np.inf for name, value in values.items()}


def _ranks(ranked: RankedScores, logits: Floats, positive: np.ndarray, weights: Floats | None) -> dict[str, float]:
    tallies, given = ranked.tallies, {"sample_weight": weights}
    fpr, tpr, _ = oracle.roc_curve(positive, logits, drop_intermediate=False, **given)
    pairs = {
        "auroc": (auroc(tallies), oracle.roc_auc_score(positive, logits, **given)),
        "average precision": (average_precision(tallies), oracle.average_precision_score(positive, logits, **given)),
        "roc fpr": (np.r_[0, tallies.let_through[0] / tallies.n_negatives], fpr),
        "roc tpr": (np.r_[0, tallies.recovered[0] / tallies.n_positives], tpr),
    }
    own = np.ones(logits.size) if weights is None else weights
    prevalence = 0.01
    to = np.where(positive, prevalence / own[positive].sum(), (1 - prevalence) / own[~positive].sum())
    rare = oracle.average_precision_score(positive, logits, sample_weight=own * to)
    pairs["average precision at a prevalence"] = (average_precision(tallies, prevalence), rare)
    for rate in _RATES:
        pairs[f"tpr at fpr {rate}"] = (tpr_at_fpr(tallies, rate), tpr[fpr <= rate * (1 + TOLERANCE)].max())
        pairs[f"fpr at tpr {rate}"] = (fpr_at_tpr(tallies, rate), fpr[tpr >= rate * (1 - TOLERANCE)].min())
        part = oracle.roc_auc_score(positive, logits, max_fpr=rate, **given)
        pairs[f"partial auc {rate}"] = (partial_auc(tallies, rate), part)
    return {name: float(np.max(np.abs(ours - theirs))) for name, (ours, theirs) in pairs.items()}


def _probabilities(logits: Floats, positive: np.ndarray) -> dict[str, float]:
    moderate = np.clip(logits, -8, 8)
    p = 1 / (1 + np.exp(-moderate))
    loss = oracle.log_loss(positive, p, labels=[False, True])
    score = oracle.brier_score_loss(positive, p, pos_label=True)
    return {
        "log loss": abs(float(log_losses(moderate, positive).mean()) - loss),
        "brier": abs(float(brier_scores(moderate, positive).mean()) - score),
    }


def _decisions(logits: Floats, positive: np.ndarray, threshold: float) -> dict[str, float]:
    rows = pl.DataFrame({"logit": logits, "label": positive.astype(np.int64), "is_lens": positive}).with_columns(
        galaxy_id=pl.Series([str(i) for i in range(logits.size)])
    )
    decisions = Decisions.at(rows, threshold, ("none", "lens"))
    values = {(m.metric, m.stratum): m.value for m in decision_metrics(decisions, "test", "t")}
    decided = decisions.decided > 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = oracle.precision_recall_fscore_support(positive, decided, labels=[False, True], zero_division=np.nan)
    differences = {}
    for place, name in enumerate(("none", "lens")):
        for kind, wanted in zip(("precision", "recall", "f1"), theirs[:3], strict=True):
            ours = values[f"{kind}_at_t", f"class {name}"]
            same = ours is None if np.isnan(wanted[place]) else ours is not None and abs(ours - wanted[place])
            differences[f"{kind} of {name}"] = float(same) if not isinstance(same, bool) else (0.0 if same else np.inf)
    differences["accuracy"] = abs((values["accuracy_at_t", "all"] or 0.0) - oracle.accuracy_score(positive, decided))
    return differences


SUBJECT = Subject(
    name="metrics_vs_sklearn",
    question="ROC, areas, rates, precision, log loss, Brier, F1 and recall of random scores with ties, constants, one class and "
    "weights are scikit-learn's.",
    unit="sets of scores",
    goal=10_000,
    case=case,
    bounds={"difference": TOLERANCE},
)
