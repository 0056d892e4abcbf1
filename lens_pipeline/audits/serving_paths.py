"""Whether a row's logit is the same by every path: training's validation, scores, `predict` on blobs, `model.pt2`.

A difference is a skew between training and serving: another order of bands, another normalisation, statistics of other pixels.
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from lens_pipeline.audits.gate import Gate, Kind, Status
from lens_pipeline.evaluation.scored_rows import OPEN_SPLITS
from lens_pipeline.storage.parquet import write_parquet
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.stamp_pairs import PairReader
from lens_pipeline.training.logits import SelectedLogits

VALIDATION, PREDICT, PROGRAM, RENDERED = (
    f"scores_equal_{path}" for path in ("validation", "predict", "program", "rendered")
)
_OF = {
    VALIDATION: "logits of val_select in scores, and as training's validation wrote them after the best epoch",
    PREDICT: "logits in scores, and by `lens_pipeline predict` on the published stamp blobs",
    PROGRAM: "logits in scores, and by the exported program model.pt2 on the same blobs, decoded",
    RENDERED: "logits in scores, and of the same injections rendered again, as arrays",
}

_ROWS_A_BLOB = 4

Logits = NDArray[np.floating]


def published_blobs(stamps: Publication, scores: Publication, path: Path, n: int) -> pl.DataFrame:
    """Write some published stamps as they are, key and blob, to a parquet file; return their scores in that order.

    Rows of test are left out.
    """
    reader = PairReader(stamps, n)
    # More than are wanted, since some are of test; never all keys of a survey.
    blobs = {row["task_id"]: blob for row, blob in islice(reader.rows(), _ROWS_A_BLOB * n)}
    read = pl.DataFrame({"task_id": list(blobs)}, schema={"task_id": pl.String})
    table = pl.DataFrame(scores.read_table(columns=["task_id", "split", "logit"]))
    open_ones = table.filter(pl.col("split").is_in(OPEN_SPLITS))
    chosen = read.join(open_ones, on="task_id", how="inner", maintain_order="left").head(n)
    contract, keys = reader.contract, chosen["task_id"].to_list()
    columns = {
        contract.key: pa.array(keys, pa.string()),
        contract.blob_column: pa.array([blobs[key] for key in keys], pa.binary()),
    }
    write_parquet(pa.table(columns), path)
    return chosen


def validation_path(scores: Publication, classifiers: Sequence[Publication], limit: float) -> Gate:
    """Hold the published logits of validation against the scores of the same rows."""
    if len(classifiers) > 1 or scores.attributes.get("tta"):
        return not_measured(VALIDATION, "a score is the mean of several models or turns, which validation isn't")
    validated = SelectedLogits.read(classifiers[0])
    table = pl.DataFrame(scores.read_table(columns=["logical", "logit"])).sort("logical")
    return path_gate(VALIDATION, table["logit"].to_numpy()[validated.logical], validated.score, limit)


def path_gate(name: str, scores: Logits, other: Logits, limit: float) -> Gate:
    """Return the row of one path: the largest difference of two logits of a row, in units of max(1, |logit|).

    Parameters
    ----------
    scores, other : (row,) arrays
        NaN in `other` is a row that the path refused, which is red.
    """
    n = len(scores)
    if not n:
        return not_measured(name, "there are no such rows")
    off = np.abs(scores.astype(np.float64) - other) / np.maximum(1.0, np.abs(scores))
    refused, largest = int(np.isnan(off).sum()), float(np.nanmax(off, initial=0.0))
    wrong = int((off > limit).sum())
    status, reason = (Status.ok, None) if not refused + wrong else (Status.red, "")
    if refused:
        reason = f"{refused:,} of {n:,} rows have no logit by this path. "
    if wrong:
        reason = f"{reason}{wrong:,} of {n:,} rows have another logit by this path."
    return Gate(
        name=name,
        kind=Kind.path,
        of=_OF[name],
        unit="logit over max(1, |logit|)",
        value=largest,
        limit=limit,
        n_positives=n,
        n_negatives=n,
        status=status,
        reason=reason and reason.strip(),
    )


def not_measured(name: str, why: str) -> Gate:
    """Return the row of a path that can't be gone."""
    return Gate(
        name=name,
        kind=Kind.path,
        of=_OF[name],
        unit="logit over max(1, |logit|)",
        status=Status.not_measured,
        reason=why,
    )
