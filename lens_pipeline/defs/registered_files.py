"""What a registered version consists of: a folder that MLflow's pytorch flavour loads, or the names of an ensemble's members."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.scoring.aliases import CLASSIFIER
from lens_pipeline.scoring.card import as_json
from lens_pipeline.scoring.card_text import as_markdown
from lens_pipeline.scoring.export import PROGRAM
from lens_pipeline.storage.publication import Publication

MEMBERS = "ensemble.json"


def lay_out_program(folder: Path, model_id: str, classifier: Publication) -> None:
    """Write the folder that MLflow's pytorch flavour reads, with our own files beside."""
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    contract = DatasetContract.model_validate(classifier.attributes["dataset_contract"])
    bands = len(contract.bands)
    half, single = np.dtype("float16"), np.dtype("float32")
    inputs: list[ColSpec | TensorSpec] = [
        TensorSpec(half, (-1, *contract.stamp_shape), "pixels"),
        TensorSpec(single, (-1, bands), "median"),
        TensorSpec(single, (-1, bands), "mad"),
    ]
    torch_version = str(classifier.manifest.provenance["program"]["torch_version"]).partition("+")[0]
    model = Model(model_id=model_id)
    model.add_flavor("pytorch", model_data="data", pytorch_version=torch_version, code=None)
    model.signature = ModelSignature(Schema(inputs), Schema([TensorSpec(single, (-1, contract.n_outputs), "logits")]))
    for sub, names in {"data": [PROGRAM], CLASSIFIER: ["model.json", "model.safetensors"]}.items():
        (folder / sub).mkdir()
        for name in names:
            shutil.copyfile(classifier.path(name), folder / sub / name)
    (folder / "requirements.txt").write_text(f"torch=={torch_version}\n")
    model.save(str(folder / "MLmodel"))


def name_members(folder: Path, ensemble: Publication, uri_of: Callable[[dict[str, str]], str | None]) -> None:
    """Say which registered versions an ensemble's logit is the mean of; it has no program of its own.

    Parameters
    ----------
    uri_of : callable
        A member (model, version, weights_sha256) to the address of its registered version; None where it has none.
    """
    members = [{**member, "uri": uri_of(member)} for member in ensemble.attributes["members"]]
    about = {"mean_of": members, "mean_over_turns": ensemble.attributes.get("tta", False)}
    (folder / MEMBERS).write_text(json.dumps(about, indent=1, sort_keys=True))


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Write the card for people and for machines."""
    (folder / "model_card.md").write_text(as_markdown(card))
    (folder / "model_card.json").write_bytes(as_json(card))
