"""Scores for stamps that are in no store: from arrays in a notebook, or from files to a table.

The same judgement, statistics, preprocessing and forward pass as the pipeline's own, so that the same stamp gets the same
logit, alone or among others: on a CPU bit for bit.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from lens_pipeline.batches.loader import FORWARD_MULTIPLE, Batch
from lens_pipeline.contracts.catalogue import PREDICTIONS
from lens_pipeline.contracts.errors import ScoringError
from lens_pipeline.scoring.ensemble import mean_logits
from lens_pipeline.scoring.fits_inputs import FitsOptions
from lens_pipeline.scoring.inputs import Offered, Refusal, judged, read_stamps
from lens_pipeline.scoring.logits import turned
from lens_pipeline.scoring.model import Classifier, Ensemble
from lens_pipeline.scoring.probability import FrozenOdds, NoOdds, Odds, probability_columns
from lens_pipeline.stamps.buckets import HASH_BYTES
from lens_pipeline.storage.atomic import appearing, refuse_unless_new
from lens_pipeline.storage.parquet import RowGroups
from lens_pipeline.training.choices import Device
from lens_pipeline.training.forward import evaluate_logits
from lens_pipeline.training.gpus import device_for
from lens_pipeline.training.metrics import score_of

# Rows of one forward pass; they move no bit of any logit on a CPU.
_BATCH = 128
NOT_ASKED = NoOdds("no operating point was asked for")

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Predictions:
    """Scores of some stamps, in their order.

    Attributes
    ----------
    logits : (n, output) float32 array
        The head's own outputs; NaN where refused.
    refusals : list of Refusal or None
        Why a stamp has no score; None where it has one.
    """

    logits: Logits
    refusals: list[Refusal | None]

    @property
    def score(self) -> Logits:
        """The logit that the pipeline ranks by, (n,) float32: log-odds of not being of the first class."""
        found: Logits = score_of(self.logits.astype(np.float64)).astype(np.float32)
        return found


@dataclass
class Tally:
    """What became of all inputs.

    Attributes
    ----------
    inputs, rows, scored : int
        Inputs named, rows written, and of them those with a score.
    extrapolated : int
        Of these, those whose `p_lens` rests on the shape of the calibration's curve alone.
    refused : Counter
        Rows without, by reason.
    """

    inputs: int
    rows: int = 0
    scored: int = 0
    extrapolated: int = 0
    refused: Counter[str] = field(default_factory=Counter)


def predict(
    classifier: Classifier | Ensemble, stamps: NDArray[np.floating], *, device: Device = Device.cpu
) -> Predictions:
    """Score stamps out of an array.

    Parameters
    ----------
    stamps : (n, band, y, x) or (band, y, x) float array
        Pixels in the contract's unit (nanomaggy), bands in its order.

    Raises
    ------
    ConfigError
        If the device isn't there.
    ScoringError
        If the array has another shape or type.
    """
    wanted, pixels = classifier.contract.stamp_shape, np.asarray(stamps)
    pixels = pixels[None] if pixels.shape == wanted else pixels
    if pixels.dtype.kind != "f" or pixels.shape[1:] != wanted:
        raise ScoringError(
            f"an array of {np.asarray(stamps).dtype} and shape {np.shape(stamps)} holds no stamps of this model, which takes "
            f"floats of shape (n, {', '.join(map(str, wanted))}), (band, y, x) in {classifier.contract.flux_unit}."
        )
    with np.errstate(over="ignore"):
        offered = judged("array", 0, pixels.astype(np.float32), classifier.contract)
    with _Scorer(classifier, device) as scorer:
        return Predictions(scorer.logits(offered), offered.refusals)


def predict_files(
    classifier: Classifier | Ensemble,
    names: Sequence[str],
    out: Path,
    *,
    options: FitsOptions | None = None,
    device: Device = Device.cpu,
    odds: Odds = NOT_ASKED,
) -> Tally:
    """Score every stamp of every input into a PREDICTIONS table, in the order of inputs; memory doesn't grow with them.

    Parameters
    ----------
    names : sequence of str
        See `inputs.read_stamps`.
    out : Path
        Parquet; appears when it is whole.
    odds : FrozenOdds or NoOdds
        What makes probabilities of the logits, or why nothing does; see `probability.odds_of`.

    Raises
    ------
    ConfigError
        If `out` is there already or has no folder, or the device isn't there.
    """
    refuse_unless_new(out, what="the scores")
    offered = read_stamps(names, classifier.contract, options or FitsOptions())
    return predict_offered(classifier, offered, out, n_inputs=len(names), device=device, odds=odds)


def predict_offered(
    classifier: Classifier | Ensemble,
    offered: Iterable[Offered],
    out: Path,
    *,
    n_inputs: int,
    device: Device = Device.cpu,
    odds: Odds = NOT_ASKED,
) -> Tally:
    """Score stamps that have been read into a PREDICTIONS table, in their order.

    Raises
    ------
    ConfigError
        If `out` is there already or has no folder, or the device isn't there.
    """
    refuse_unless_new(out, what="the scores")
    tally = Tally(n_inputs)
    contract = classifier.contract
    schema = PREDICTIONS.schema
    heads = contract.class_names if classifier.spec.outputs > 1 else ()
    for name in heads:
        schema = schema.append(pa.field(f"logit_{name}", pa.float32()))
    if isinstance(odds, FrozenOdds):
        schema = schema.with_metadata({"p_lens": str(odds)})
    with _Scorer(classifier, device) as scorer, appearing(out) as file, RowGroups(file, schema) as table:
        for group in _groups(offered):
            found = scorer.logits(*group)
            rows = _table(group, found, heads, schema, odds)
            tally.rows += rows.num_rows
            tally.extrapolated += pc.sum(rows["extrapolated"]).as_py() or 0
            tally.refused.update(reason for reason in rows["reason"].to_pylist() if reason is not None)
            table.write(rows)
    tally.scored = tally.rows - tally.refused.total()
    return tally


class _Scorer:
    """Runs forward passes side by side, each by one thread: neither their number nor a stamp's neighbours move a bit."""

    def __init__(self, classifier: Classifier | Ensemble, device: Device) -> None:
        self._device = device_for(device)
        self._models = [(one.model.to(self._device), one.preprocessing) for one in classifier.members]
        self._is_turned, self._outputs = classifier.is_turned, classifier.spec.outputs
        threads = len(os.sched_getaffinity(0)) if device is Device.cpu else 1
        self._pool = ThreadPoolExecutor(threads, "predict", lambda: torch.set_num_threads(1))

    def __enter__(self) -> "_Scorer":
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()

    def logits(self, *offered: Offered) -> Logits:
        """Head outputs of all stamps (n, output), NaN where refused."""
        good = np.array([refusal is None for part in offered for refusal in part.refusals], dtype=bool)
        half = np.concatenate([part.stamps.half for part in offered])[good]
        stats = np.concatenate([part.stamps.stats for part in offered])[good]
        found = np.full((len(good), self._outputs), np.nan, np.float32)
        starts = range(0, len(half), _BATCH)
        parts = self._pool.map(
            lambda start: self._forward(half[start : start + _BATCH], stats[start : start + _BATCH]), starts
        )
        found[good] = np.concatenate([np.empty((0, found.shape[1]), np.float32), *parts])
        return found

    def _forward(self, half: NDArray[np.float16], stats: NDArray[np.float32]) -> Logits:
        n = len(half)
        padded = -(-n // FORWARD_MULTIPLE) * FORWARD_MULTIPLE
        pixels = np.zeros((padded, *half.shape[1:]), np.float16)
        summaries = np.zeros((padded, *stats.shape[1:]), np.float32)
        pixels[:n], summaries[:n] = half, stats
        batch = Batch(
            logical=np.arange(n),
            pixels=torch.from_numpy(pixels),
            median=torch.from_numpy(summaries[..., 0]),
            mad=torch.from_numpy(summaries[..., 1]),
            step=0,
            n_global=n,
        )
        # As scores are made: each model's mean over turns, then the mean of models.
        logits_BO = mean_logits(
            [
                mean_logits(
                    [
                        evaluate_logits(model, preprocessing, seen, self._device).numpy()
                        for seen in (turned(batch) if self._is_turned else [batch])
                    ]
                )
                for model, preprocessing in self._models
            ]
        )
        if not np.isfinite(logits_BO).all():
            raise ScoringError(
                "the model gives a logit that isn't finite for a sound stamp: it diverged in training. Train it again with a "
                "lower learning_rate."
            )
        return logits_BO


def _groups(offered: Iterable[Offered]) -> Iterator[list[Offered]]:
    """Gather what comes in ones until it fills a few forward passes."""
    waiting: list[Offered] = []
    for part in offered:
        waiting.append(part)
        if sum(len(one.rows) for one in waiting) >= _BATCH:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _table(group: list[Offered], logits: Logits, heads: Sequence[str], schema: pa.Schema, odds: Odds) -> pa.Table:
    refusals = [refusal for part in group for refusal in part.refusals]
    refused = np.array([refusal is not None for refusal in refusals], dtype=bool)
    score = Predictions(logits, refusals).score
    columns = {
        "input": pa.array([part.source for part in group for _ in part.rows], pa.string()),
        "row": pa.array([row for part in group for row in part.rows], pa.int64()),
        "task_id": pa.array([key for part in group for key in part.keys], pa.string()),
        "logit": pa.array(score, pa.float32(), mask=refused),
        **probability_columns(odds, score, refused),
        "reason": pa.array([refusal and refusal.reason for refusal in refusals], pa.string()),
        "detail": pa.array([refusal and refusal.detail for refusal in refusals], pa.string()),
        "pixel_hash": pa.array(
            [
                hashlib.blake2b(half.tobytes(), digest_size=HASH_BYTES).digest() if refusal is None else None
                for part in group
                for half, refusal in zip(part.stamps.half, part.refusals, strict=True)
            ],
            pa.binary(HASH_BYTES),
        ),
    }
    for place, name in enumerate(heads):
        columns[f"logit_{name}"] = pa.array(np.ascontiguousarray(logits[:, place]), pa.float32(), mask=refused)
    return pa.table(columns, schema=schema)
