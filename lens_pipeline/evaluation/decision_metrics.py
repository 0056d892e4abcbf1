"""Metrics of decisions at a frozen threshold, for lens against none and for k classes, and the table of who was taken for what.

A row at or under the threshold is decided to be of the first class (no lens). A row above it is a lens; with more than two
classes, of the one among the others whose own logit is highest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from lens_pipeline.contracts.catalogue import CONFUSION
from lens_pipeline.evaluation.intervals import (
    FEW_CLUSTERS,
    Estimate,
    clustered_proportion,
    mean_of,
    numbered,
    share_from_influence,
)
from lens_pipeline.evaluation.metrics import OF_CLASS, UNRESOLVED, Basis, Clusters, Metric, metric_of, over_clusters

ABOVE = "above the threshold"
_PER_CLASS = ("precision", "recall", "specificity", "f1")

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Decisions:
    """Rows with what they are and what they were taken for.

    Attributes
    ----------
    rows : polars.DataFrame
        `label`, `is_lens`, `galaxy_id`, `region_id` where there is one.
    decided : array of int64, shape (n,)
        Place in `names`.
    class_names : sequence of str
        Of the labels.
    """

    rows: pl.DataFrame
    decided: npt.NDArray[np.int64]
    class_names: Sequence[str]

    @classmethod
    def at(cls, rows: pl.DataFrame, threshold: float, class_names: Sequence[str]) -> "Decisions":
        """Decide each row at a threshold.

        Parameters
        ----------
        rows : polars.DataFrame
            Also `logit`; with more than two classes `logit_<class>`, else nothing above the threshold is told apart.
        """
        above = (rows["logit"] > threshold).to_numpy()
        others = [f"logit_{name}" for name in class_names[1:]]
        if len(class_names) == 2:
            kind = np.ones(rows.height, dtype=np.int64)
        elif set(others) <= set(rows.columns):
            kind = 1 + np.argmax(rows.select(others).to_numpy(), axis=1)
        else:
            kind = np.full(rows.height, len(class_names))
        return cls(rows, np.where(above, kind, 0), class_names)

    @property
    def names(self) -> list[str]:
        """What a row can be taken for."""
        told_apart = self.decided.max(initial=0) < len(self.class_names)
        return [*self.class_names] if told_apart else [self.class_names[0], ABOVE]

    @cached_property
    def clusters(self) -> Clusters:
        """Galaxy and region of each row."""
        return Clusters.of(self.rows)

    def centred(self, influence: Floats) -> Floats:
        """Influences less the mean of their class: how many rows a class has is given, and adds nothing to the spread."""
        label = self.rows["label"].to_numpy().astype(np.int64)
        n = np.maximum(np.bincount(label), 1)
        return np.asarray(influence - (np.bincount(label, weights=influence) / n)[label])

    @property
    def places(self) -> npt.NDArray[np.int64]:
        """Place of each decision in `names`."""
        return np.minimum(self.decided, len(self.names) - 1)


@dataclass(frozen=True)
class _Share:
    """A weighted share of rows: sum of w y / sum of w, e.g. of those decided to be lenses the ones that are."""

    success: Flags
    weight: Floats
    empty: str

    def estimate(self, decisions: Decisions) -> Estimate:
        """Give it Wilson's interval at the effective number of rows, with as many rows of each class as there are.

        Where the rarer outcome is too rare for a variance, whole clusters are counted (`clustered_proportion`).
        """
        if not self.weight.any():
            return Estimate(None, None, None, 0, 0, None, self.empty)
        there = self.weight > 0
        rarer = there & (self.success == (self.value <= 0.5))
        if np.unique(decisions.clusters.galaxies[rarer]).size < FEW_CLUSTERS:
            counted = partial(_proportion, self.success[there], self.weight[there], False)
            return over_clusters(decisions.clusters.where(there), counted)
        influence = decisions.centred(self.influence)
        return over_clusters(
            decisions.clusters, lambda clusters, _: share_from_influence(self.value, influence, clusters)
        )

    @property
    def value(self) -> float:
        return float(self.weight @ self.success / self.weight.sum())

    @property
    def influence(self) -> Floats:
        return np.asarray(self.weight * (self.success - self.value) / self.weight.sum())


def threshold_metrics(
    rows: pl.DataFrame, split: str, point: str, threshold: float, stratum: str = "all"
) -> list[Metric]:
    """Recall and FPR where logit > a frozen threshold, with intervals clustered by galaxy or region.

    Recall = TP / (TP + FN) with Wilson's interval (1927, J. Am. Stat. Assoc. 22, 209), FPR = FP / (FP + TN) with Clopper &
    Pearson's (1934, Biometrika 26, 404); both 0 to 1, null where the class is absent.
    """
    metrics = []
    for name, is_lens, exact in (("recall", True, False), ("fpr", False, True)):
        mine = rows.filter(pl.col("is_lens") == is_lens)
        above = (mine["logit"] > threshold).to_numpy()
        rate = _rate(mine, above, exact)
        metrics.append(metric_of(f"{name}_at_{point}", split, mine, rate, stratum=stratum))
    return metrics


def unresolved_threshold_metrics(rows: pl.DataFrame, split: str, point: str, reason: str) -> list[Metric]:
    """Recall and FPR of an operating point that has no threshold: unresolved, with the reason."""
    nothing = Estimate(None, None, None, rows.height, 0, None, reason)
    return [metric_of(f"{name}_at_{point}", split, rows, nothing, status=UNRESOLVED) for name in ("recall", "fpr")]


def decision_metrics(decisions: Decisions, split: str, point: str) -> list[Metric]:
    """Precision, specificity, F1, accuracy and balanced accuracy of lens against none; each class's own, and their macro means.

    With TP, FP, FN, TN of the class in question: precision TP / (TP + FP), recall TP / (TP + FN), specificity TN / (TN + FP),
    F1 = 2 TP / (2 TP + FP + FN) (van Rijsbergen 1979), accuracy the share of right decisions, balanced accuracy the mean of
    recall and specificity (Brodersen et al. 2010). All are fractions from 0 to 1 at the split's own balance. A share of no
    rows is undefined, null with the reason; so is a macro mean of which one class is.
    """
    actual = decisions.rows["label"].to_numpy().astype(np.int64)
    basis = Basis.of(decisions.rows)
    is_lens, above = actual > 0, decisions.decided > 0
    lens = _shares(is_lens, above, "lens")
    metrics = [
        metric_of(f"{name}_at_{point}", split, basis, lens[name].estimate(decisions))
        for name in ("precision", "specificity", "f1")
    ]
    both = [lens["recall"], lens["specificity"]]
    metrics.append(_mean_metric("balanced_accuracy", both, decisions, basis, split, point))
    told_apart = len(decisions.names) == len(decisions.class_names)
    right = _Share(
        actual == decisions.decided if told_apart else is_lens == above, np.ones(actual.size), "there are no rows"
    )
    metrics.append(metric_of(f"accuracy_at_{point}", split, basis, right.estimate(decisions)))
    if not told_apart:
        return metrics + _not_told_apart(decisions, split, point)
    of_class = [_shares(actual == k, decisions.decided == k, name) for k, name in enumerate(decisions.class_names)]
    for name, shares in zip(decisions.class_names, of_class, strict=True):
        metrics += [
            metric_of(f"{kind}_at_{point}", split, basis, shares[kind].estimate(decisions),
                      stratum=f"{OF_CLASS}{name}")
            for kind in _PER_CLASS
        ]  # fmt: skip
    for kind in ("precision", "recall", "f1"):
        metrics.append(
            _mean_metric(f"macro_{kind}", [shares[kind] for shares in of_class], decisions, basis, split, point)
        )
    return metrics


def confusion_table(decisions: Decisions, split: str, point: str) -> pa.Table:
    """CONFUSION: of each class, how many were taken for what, as numbers and as shares of the class with intervals."""
    actual, records = decisions.rows["label"].to_numpy(), []
    for k, name in enumerate(decisions.class_names):
        there = actual == k
        mine = decisions.rows.filter(pl.Series(there))
        for place, decided in enumerate(decisions.names):
            taken = decisions.places[there] == place
            share = _rate(mine, taken, False)
            records.append(
                {
                    "split": split, "operating_point": point, "actual": name, "decided": decided, "n": int(taken.sum()),
                    "n_actual": mine.height, "n_galaxies": mine["galaxy_id"].n_unique(), "share": share.value,
                    "low": share.low, "high": share.high, "interval": share.interval,
                    "reason": None if mine.height else f"no row is of class {name}",
                }
            )  # fmt: skip
            records[-1]["reason"] = records[-1]["reason"] or share.reason
    return pa.Table.from_pylist(records, schema=CONFUSION.schema)


def _shares(actual: Flags, decided: Flags, name: str) -> dict[str, _Share]:
    hit = actual & decided
    return {
        "precision": _Share(actual, decided.astype(np.float64), f"no row was taken for {name}"),
        "recall": _Share(decided, actual.astype(np.float64), f"no row is of class {name}"),
        "specificity": _Share(~decided, (~actual).astype(np.float64), f"all rows are of class {name}"),
        "f1": _Share(hit, actual.astype(np.float64) + decided, f"no row is of class {name} or was taken for it"),
    }


def _mean_metric(
    name: str, shares: Sequence[_Share], decisions: Decisions, basis: Basis, split: str, point: str
) -> Metric:
    """Mean of shares, its interval put together of theirs."""
    empty = [share.empty for share in shares if not share.weight.any()]
    if empty:
        estimate = Estimate(None, None, None, decisions.rows.height, 0, None, "; ".join(dict.fromkeys(empty)))
    else:
        estimate = mean_of([share.estimate(decisions) for share in shares], _correlations(shares, decisions))
    return metric_of(f"{name}_at_{point}", split, basis, estimate)


def _correlations(shares: Sequence[_Share], decisions: Decisions) -> Floats:
    """Correlations of shares of the same galaxies; 0 where one shows no spread.

    They are below 0 where galaxies that score high lose as many controls as they win lenses.
    """
    place, n = numbered(decisions.clusters.galaxies)
    changes = np.stack([np.bincount(place, decisions.centred(share.influence), n) for share in shares])
    spread = np.sqrt(np.sum(changes**2, axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.nan_to_num(changes @ changes.T / np.outer(spread, spread), posinf=0.0, neginf=0.0)
    found = np.clip(found, -1.0, 1.0)
    np.fill_diagonal(found, 1.0)
    return np.asarray(found)


def _not_told_apart(decisions: Decisions, split: str, point: str) -> list[Metric]:
    why = "the scores carry no logit of each class, so what lies above the threshold is not told apart"
    nothing = Estimate(None, None, None, decisions.rows.height, 0, None, why)
    return [
        metric_of(f"macro_{kind}_at_{point}", split, decisions.rows, nothing) for kind in ("precision", "recall", "f1")
    ]


def _rate(rows: pl.DataFrame, success: Flags, exact: bool) -> Estimate:
    if not rows.height:
        return Estimate(None, None, None, 0, 0, None, "there are no rows")
    rate = over_clusters(rows, partial(_proportion, success, None, exact))
    return replace(rate, n=rows.height)


def _proportion(
    success: Flags, weight: Floats | None, exact: bool, clusters: npt.NDArray[np.int64], whole_where_few: bool
) -> Estimate:
    return clustered_proportion(success, clusters, weight, exact=exact, whole_where_few=whole_where_few)
