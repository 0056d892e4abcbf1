"""A published classifier, opened: its own architecture, its own preprocessing, its own weights, or a refusal."""

from dataclasses import dataclass
from typing import Any

from safetensors.torch import load_file
from torch import nn

from lens_pipeline.batches.preprocessing import Preprocessing
from lens_pipeline.contracts.errors import ScoringError
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.models import ModelSpec, build_model


@dataclass(frozen=True)
class Classifier:
    """A model that is ready to score.

    Attributes
    ----------
    model : nn.Module
        In eval mode.
    """

    model: nn.Module
    spec: ModelSpec
    preprocessing: Preprocessing


def open_classifier(publication: Publication) -> Classifier:
    """Build the model from what the checkpoint says of itself, and load its weights with every name matched.

    Raises
    ------
    ScoringError
        If the weights aren't those of the architecture that the checkpoint names.
    StorageError
        If a file is damaged.
    """
    about: dict[str, Any] = publication.read_json("model.json")
    spec = ModelSpec.from_json(about["model"])
    model = build_model(spec)
    try:
        model.load_state_dict(load_file(publication.path("model.safetensors")), strict=True)
    except RuntimeError as error:
        raise ScoringError(
            f"the weights of lens_classifier {publication.version} are not those of the {spec.architecture} that its "
            f"model.json describes: {error} Materialize lens_classifier again, or score with another version of it."
        ) from error
    return Classifier(
        model=model.eval(),
        spec=spec,
        preprocessing=Preprocessing.from_spec(about["preprocessing"]),
    )
