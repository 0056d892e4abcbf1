"""A published classifier, opened: its own architecture, its own preprocessing, its own weights, or a refusal."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

from lens_pipeline.batches.preprocessing import Preprocessing
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import ScoringError
from lens_pipeline.scoring.aliases import is_ensemble, members_of
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.models import ModelSpec, build_model


@dataclass(frozen=True)
class Classifier:
    """A model that is ready to score.

    Attributes
    ----------
    model : nn.Module
        In eval mode.
    contract : DatasetContract
        What the stamps that it was trained on say of themselves.
    is_turned : bool
        Whether a score is the mean over a stamp's 8 turns and flips.
    """

    model: nn.Module
    spec: ModelSpec
    preprocessing: Preprocessing
    contract: DatasetContract
    is_turned: bool = False

    @property
    def members(self) -> "tuple[Classifier, ...]":
        """Itself: of one model the mean is that one."""
        return (self,)


@dataclass(frozen=True)
class Ensemble:
    """Several models whose mean logit is the score.

    Attributes
    ----------
    members : tuple of Classifier
        Of one dataset contract.
    is_turned : bool
        Whether each scores a stamp as the mean over its 8 turns and flips.
    """

    members: tuple[Classifier, ...]
    is_turned: bool

    @property
    def contract(self) -> DatasetContract:
        """What the stamps that all were trained on say of themselves."""
        return self.members[0].contract

    @property
    def spec(self) -> ModelSpec:
        """The first member's; the others' may be other architectures with as many outputs."""
        return self.members[0].spec


def open_model(home: Home, named: Publication, *, tta: bool = False) -> Classifier | Ensemble:
    """Open a version of a model: a lens_classifier, or the scores of an ensemble with all of its members.

    Parameters
    ----------
    tta : bool
        Whether a score is the mean over a stamp's 8 turns and flips; an ensemble whose scores are is turned in any case.

    Raises
    ------
    ScoringError, StorageError
        If a member is damaged or gone.
    """
    members = tuple(open_classifier(member) for member in members_of(home, named))
    if is_ensemble(named):
        return Ensemble(members, tta or named.attributes.get("tta", False))
    return replace(members[0], is_turned=tta)


def open_classifier(publication: Publication) -> Classifier:
    """Build the model from what the checkpoint says of itself, and load its weights with every name matched.

    Raises
    ------
    ScoringError
        If the weights aren't those of the architecture that the checkpoint names.
    StorageError
        If a file is damaged.
    """
    name = f"lens_classifier {publication.version}"
    return _build(publication.read_json("model.json"), publication.path("model.safetensors"), name)


def read_classifier(folder: Path) -> Classifier:
    """Do the same with the files of a version that is still being made."""
    return _build(json.loads((folder / "model.json").read_bytes()), folder / "model.safetensors", str(folder))


def _build(about: dict[str, Any], weights: Path, name: str) -> Classifier:
    spec = ModelSpec.from_json(about["model"])
    model = build_model(spec)
    try:
        model.load_state_dict(load_file(weights), strict=True)
    except RuntimeError as error:
        raise ScoringError(
            f"the weights of {name} are not those of the {spec.architecture} that its model.json describes: {error} "
            "Materialize lens_classifier again, or score with another version of it."
        ) from error
    return Classifier(
        model=model.eval(),
        spec=spec,
        preprocessing=Preprocessing.from_spec(about["preprocessing"]),
        contract=DatasetContract.model_validate(about["contract"]),
    )
