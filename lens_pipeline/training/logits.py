"""What the logits of val_select say of a finished training: whether they tell rows apart, and what a threshold makes of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.storage.parquet import iterate_parquet
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.metrics import EXTREME_LOGIT, extreme_share, log_losses, mean_of, score_of

DISTINCT, EXTREME = "logits_are_distinct", "logits_are_moderate"
MOST_SHARE = 1e-3
# So many rows are compared with one another: among many more, equal float32 logits come about by chance.
_COMPARED = 4096
_ROWS_TOGETHER = 65_536
_AGAIN = "dagster asset materialize --select 'lens_classifier*' -m lens_pipeline.definitions -c PRESET"


@dataclass(frozen=True)
class SelectedLogits:
    """Logits of val_select after the best epoch.

    Attributes
    ----------
    logical : int64 (n,)
        Logical numbers, ascending.
    label : int64 (n,)
        Place of each row's class in the dataset contract.
    score : float64 (n,)
        Log-odds of not being of the first class.
    """

    logical: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]

    @classmethod
    def read(cls, classifier: Publication) -> "SelectedLogits":
        """Read them from a version, holding no other epoch's."""
        logical, label, logits = _of_epoch(classifier, classifier.attributes["best_epoch"])
        return cls(logical, label, score_of(logits))

    def constant_loss(self, *, balanced: bool = False) -> float:
        """Least mean negative log-likelihood of who gives every row the same logits, nats.

        Over rows that is the entropy of the classes' shares; over the means of classes, the logarithm of their number.
        """
        share = np.bincount(self.label) / len(self.label)
        share = share[share > 0]
        return float(np.log(len(share)) if balanced else -(share * np.log(share)).sum())

    def confusion(self, class_names: list[str], target_fpr: float = 0.01) -> pa.Table:
        """Count how each class falls at two stated thresholds on the score: 0, and the least with that false-positive rate.

        Returns
        -------
        pa.Table
            threshold (words), logit, class, n, called_positive, share: positive is any class but the first. A threshold that the
            rows of the first class can't resolve has nulls.
        """
        rows = []
        negatives = np.sort(self.score[self.label == 0])
        # The least value such that at most that share of the first class lies above it.
        allowed = int(target_fpr * len(negatives))
        at_rate = float(negatives[len(negatives) - 1 - allowed]) if allowed else None
        for words, threshold in (("even odds", 0.0), (f"{target_fpr:.0%} of {class_names[0]}", at_rate)):
            for place, name in enumerate(class_names):
                mine = self.score[self.label == place]
                n = int((mine > threshold).sum()) if threshold is not None else None
                share = n / len(mine) if n is not None and len(mine) else None
                rows.append((words, threshold, name, len(mine), n, share))
        columns = ("threshold", "logit", "class", "n", "called_positive", "share")
        types = (pa.string(), pa.float64(), pa.string(), pa.int64(), pa.int64(), pa.float64())
        arrays = [pa.array([row[place] for row in rows], dtype) for place, dtype in enumerate(types)]
        return pa.table(arrays, names=list(columns))


def gain_error(classifier: Publication, earlier: int, later: int) -> float | None:
    """Estimate the standard error of how much lower the loss on val_select is after one epoch than after another.

    Both were judged on the same rows: what makes a row hard or easy for either falls out of the difference, so that this is
    smaller than the error of either loss.
    """
    losses = []
    for epoch in (earlier, later):
        _, label, logits = _of_epoch(classifier, epoch)
        losses.append(log_losses(logits, label))
    return mean_of(losses[0] - losses[1]).standard_error


def _of_epoch(
    classifier: Publication, epoch: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return logical numbers, ascending, labels and logits (n, output) of an epoch."""
    parts = [
        pa.Table.from_batches([batch]).filter(pc.equal(batch["epoch"], epoch))
        for batch in iterate_parquet(classifier.path("validation_logits.parquet"), rows=_ROWS_TOGETHER)
    ]
    table = pa.concat_tables(parts).sort_by("logical")
    names = sorted((name for name in table.column_names if name.startswith("logit_")), key=lambda name: int(name[6:]))
    logits = np.stack([table[name].to_numpy() for name in names], axis=1).astype(np.float64)
    return table["logical"].to_numpy(), table["label"].to_numpy().astype(np.int64), logits


def logits_are_distinct(logits: SelectedLogits, store: Publication) -> Check:
    """Check that different stamps have different logits; blocking, as every threshold and rank rests on it."""
    hashes = store.read_table(None, ["pixel_hash"])["pixel_hash"].combine_chunks()
    # Repeats of the same pixels are one stamp: they have one logit by right.
    _, first = np.unique(
        pc.dictionary_encode(hashes.take(pa.array(logits.logical))).indices.to_numpy(), return_index=True
    )
    scores = logits.score[np.sort(first)]
    _, counts = np.unique(scores, return_counts=True)
    block = int(counts.max(initial=0))
    some = scores[:_COMPARED]
    tied = len(some) - len(np.unique(some))
    figures: dict[str, Any] = {
        "distinct_share": len(counts) / max(len(scores), 1),
        "largest_tie": block,
        "n": len(scores),
        "tied_of_compared": tied,
    }
    problems = []
    if block > max(2, MOST_SHARE * len(scores)):
        problems.append(f"{block:,} of {len(scores):,} different stamps share one logit")
    if tied > max(1, MOST_SHARE * len(some)):
        problems.append(f"of {len(some):,} different stamps {tied:,} have a logit that another one has")
    if problems:
        return red(
            DISTINCT,
            "; ".join(problems),
            wrong=problems,
            count=max(block, tied),
            why="logits that tie can't be ranked, and a threshold moves over all of them at once: a model that diverged or whose "
            "last layer is dead, or logits that went through a low precision",
            next_step=f"look at training_curves; lower learning_rate, or set precision: float32, then {_AGAIN}",
            **figures,
        )
    return green(DISTINCT, f"{len(counts):,} logits of {len(scores):,} different stamps are distinct", **figures)


def logits_are_moderate(logits: SelectedLogits) -> Check:
    """Check that hardly a logit lies where its probability in float32 is exactly 0 or 1; advisory, as ranks are kept."""
    share = extreme_share(logits.score)
    n = round(share * len(logits.score))
    words = (
        f"{n:,} of {len(logits.score):,} logits on val_select lie beyond +-{EXTREME_LOGIT}, where float32 says 0 or 1"
    )
    figures: dict[str, Any] = {
        "extreme_share": share,
        "highest": float(logits.score.max()),
        "lowest": float(logits.score.min()),
    }
    if n > 1 and share > MOST_SHARE:
        return red(
            EXTREME,
            words,
            wrong=[f"{share:.2%} of the rows"],
            count=n,
            why="odds of 17 million to one can't have been learned from so many rows: the model is overconfident",
            next_step=f"raise label_smoothing or weight_decay, or train fewer epochs, then {_AGAIN}",
            blocking=False,
            **figures,
        )
    return green(EXTREME, words, blocking=False, **figures)
