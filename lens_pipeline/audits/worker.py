"""The job of the process that asks a trained model, so that the step of the chain never loads torch."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from lens_pipeline.audits.occlusion import occluded
from lens_pipeline.contracts.errors import PipelineError
from lens_pipeline.scoring.ensemble import mean_logits
from lens_pipeline.scoring.export import PROGRAM
from lens_pipeline.scoring.model import Classifier, Ensemble, open_classifier
from lens_pipeline.scoring.predict import predict, predict_files
from lens_pipeline.scoring.process import REFUSED
from lens_pipeline.stamps.decode import Decoded, decode_batch
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.choices import Device
from lens_pipeline.training.metrics import score_of

Logits = NDArray[np.float32]


def main(arguments: list[str]) -> int:
    """Do the job as RUN.json says; a refusal is written beside it and is exit code 3."""
    if len(arguments) != 2 or arguments[0] != "ask":
        print("usage: python -m lens_pipeline.audits ask RUN.json", file=sys.stderr)
        return 2
    path = Path(arguments[1])
    try:
        _ask(json.loads(path.read_bytes()), path.parent)
    except PipelineError as error:
        path.with_name("refusal.json").write_text(json.dumps({"kind": type(error).__name__, "message": str(error)}))
        return REFUSED
    return 0


def _ask(run: dict[str, Any], folder: Path) -> None:
    """Write logits.safetensors: of every array of stamps.safetensors, of occluded ones, and of blobs.parquet by each path."""
    published = [Publication.open(Path(name)) for name in run["classifiers"]]
    model = _opened(published, is_ensemble=run["is_ensemble"], tta=run["tta"])
    device = Device(run["device"])
    logits = {
        name: predict(model, stamps, device=device).score
        for name, stamps in load_file(folder / "stamps.safetensors").items()
    }
    pairs = load_file(folder / "evidence.safetensors")
    for place in range(len(pairs["stamp"])):
        stamps = occluded(pairs["stamp"][place], pairs["background"][place])
        logits[f"occluded/{place}"] = predict(model, stamps, device=device).score
    tally = predict_files(model, [str(folder / "blobs.parquet")], folder / "predicted.parquet", device=device)
    predicted = pq.read_table(folder / "predicted.parquet", columns=["logit"])["logit"]
    logits["predict"] = predicted.fill_null(float("nan")).to_numpy().astype(np.float32)
    if tally.rows and not run["tta"] and all(PROGRAM in one.manifest.files for one in published):
        logits["program"] = _by_programs(published, model, folder / "blobs.parquet")
    save_file(logits, folder / "logits.safetensors")


def _opened(published: list[Publication], *, is_ensemble: bool, tta: bool) -> Classifier | Ensemble:
    members = tuple(open_classifier(one) for one in published)
    return Ensemble(members, tta) if is_ensemble else replace(members[0], is_turned=tta)


def _by_programs(published: list[Publication], model: Classifier | Ensemble, blobs: Path) -> Logits:
    """Scores by the exported programs, which know nothing of this package."""
    column = pq.read_table(blobs, columns=[model.contract.blob_column])[model.contract.blob_column].to_pylist()
    room = Decoded.room_for(len(column), model.contract)
    decode_batch(column, model.contract, room)
    inputs = (torch.from_numpy(room.half), *(torch.from_numpy(room.stats[..., place].copy()) for place in (0, 1)))
    programs = [torch.export.load(one.path(PROGRAM)).module() for one in published]
    with torch.inference_mode():
        each = [program(*inputs).float().numpy() for program in programs]
    found: Logits = score_of(mean_logits(each).astype(np.float64)).astype(np.float32)
    return found
