"""A classifier as one program that needs torch and nothing of this package: pixels and their statistics in, logits out.

torch.export traces preprocessing and model into a graph of plain torch operations. What a file of it holds depends on the
model alone: stack traces, which name paths of this machine, are left out, and so is the random example.
"""

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lens_pipeline.batches.loader import FORWARD_MULTIPLE, Batch
from lens_pipeline.contracts.errors import ScoringError
from lens_pipeline.scoring.model import Classifier
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.training.forward import evaluate_logits

_TRIED_ROWS = 4 * FORWARD_MULTIPLE
# Of a logit, in units of max(1, |logit|). Both sides call the same kernels, so that on a CPU every bit agrees; elsewhere a
# library may choose others for a graph.
TOLERANCE = 1e-5
_LARGEST_BATCH = 1 << 20
_TRACES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node", "custom")

Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Trial:
    """What was seen when a program was tried.

    Attributes
    ----------
    rows : int
        Stored rows that it and the eager model both scored.
    largest_difference : float
        Between two logits of a row; 0 where every bit agrees.
    """

    rows: int
    largest_difference: float
    torch_version: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields, JSON-able."""
        return asdict(self)


class _Program(nn.Module):
    """Preprocessing and model, called with (pixels float16 BCHW, median float32 BC, mad float32 BC), in nanomaggy."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.model, self._preprocessing = classifier.model, classifier.preprocessing

    def forward(self, pixels: torch.Tensor, median: torch.Tensor, mad: torch.Tensor) -> torch.Tensor:
        seen_BCHW = self._preprocessing(pixels, median, mad).contiguous(memory_format=torch.channels_last)
        logits_BO: torch.Tensor = self.model(seen_BCHW)
        return logits_BO.float()


def export_program(classifier: Classifier, store: StampStore, path: Path) -> Trial:
    """Write the program to a file, read it back, and try it on stored rows against the model it was made of.

    The same model gives the same bytes. It takes any number of rows, on a CPU, and returns float32 (row, output).

    Raises
    ------
    ScoringError
        If torch can't trace the model, or the program's logits differ from the model's by more than `TOLERANCE`.
    """
    program = _Program(classifier).eval()
    try:
        path.write_bytes(_serialize(program, _example(classifier)))
        loaded = torch.export.load(path).module()
    except Exception as error:  # Whatever a tracer meets in somebody's model.
        raise ScoringError(f"torch.export can't trace the {classifier.spec.architecture}: {error}") from error
    return _try(loaded, program, classifier, store)


def _serialize(program: _Program, example: Inputs) -> bytes:
    rows = {0: torch.export.Dim("rows", min=1, max=_LARGEST_BATCH)}
    with torch.no_grad():
        exported = torch.export.export(program, example, dynamic_shapes=(rows, rows, rows))
    for node in exported.graph.nodes:
        for trace in _TRACES:
            node.meta.pop(trace, None)
    content = io.BytesIO()
    torch.export.save(exported, content)
    return content.getvalue()


def _example(classifier: Classifier) -> Inputs:
    # More than one row: tracing one would fix the number.
    shape = (2, *classifier.contract.stamp_shape)
    return torch.zeros(shape, dtype=torch.float16), torch.zeros(shape[:2]), torch.zeros(shape[:2])


def _try(loaded: nn.Module, program: _Program, classifier: Classifier, store: StampStore) -> Trial:
    # They stand in the order of a hash: a random sample.
    logical = np.arange(min(store.n_rows, _TRIED_ROWS), dtype=np.int64)
    rows = store.take(logical)
    inputs: Inputs = (torch.from_numpy(rows.pixels), torch.from_numpy(rows.median), torch.from_numpy(rows.mad))
    pairs = []
    with torch.inference_mode():
        if len(logical) == _TRIED_ROWS:
            batch = Batch(logical, *inputs, step=0, n_global=len(logical))
            scored_BO = evaluate_logits(classifier.model, classifier.preprocessing, batch, torch.device("cpu"))
            pairs.append((scored_BO, loaded(*inputs)))
        for n in (1, 3, len(logical)):
            some = [values[:n] for values in inputs]
            pairs.append((program(*some), loaded(*some)))
    off = [((a - b).abs() / a.abs().clamp(min=1.0)).max().item() for a, b in pairs]
    if not max(off) <= TOLERANCE:
        raise ScoringError(
            f"the exported program's logits differ from the {classifier.spec.architecture}'s own by up to {max(off):.3g} of "
            f"max(1, |logit|) on {len(logical)} stored rows; at most {TOLERANCE:g} is accepted."
        )
    return Trial(len(logical), max((a - b).abs().max().item() for a, b in pairs), torch.__version__)
