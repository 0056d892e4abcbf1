"""Several models as one: which may stand together, and the mean of their logits. No torch here."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lens_pipeline.contracts.errors import ScoringError, first_few
from lens_pipeline.scoring.compatibility import refuse_other_stamps
from lens_pipeline.storage.publication import Publication

Logits = npt.NDArray[np.float32]


def mean_logits(logits: Sequence[Logits]) -> Logits:
    """Mean of several logits of each row and output; the order of the several moves no bit.

    Summed in float64 from the smallest up, stored as float32; of one, that one.
    """
    total = np.zeros(logits[0].shape)
    for ranked in np.sort(np.stack(logits), axis=0):
        total += ranked
    return (total / len(logits)).astype(np.float32)


def refuse_strangers(classifiers: Sequence[Publication], store: Publication, splits: Publication) -> None:
    """Refuse members of an ensemble that didn't learn from this store and these splits.

    What one of them was trained on, another one's test rows may be.

    Raises
    ------
    ScoringError
        Naming the member, and both versions or the field of the dataset contract.
    """
    for classifier in classifiers:
        refuse_other_stamps(classifier, store)
        for source in (store, splits):
            if classifier.inputs.get(source.asset) != source.version:
                raise ScoringError(
                    f"model {classifier.model} (lens_classifier {classifier.version}) was trained on {source.asset} "
                    f"{classifier.inputs.get(source.asset)}, and the ensemble is about {source.version}: one member's training "
                    "rows may be another one's test rows. Train it again: lens_pipeline train PRESET --folds K or --seeds A,B"
                )
    twice = sorted({c.model for c in classifiers if sum(c.version == other.version for other in classifiers) > 1})
    if twice:
        raise ScoringError(
            f"the models {first_few(twice)} are one and the same lens_classifier: their mean would be no ensemble's. Give them "
            "other seeds or folds."
        )


def describe_members(classifiers: Sequence[Publication]) -> list[dict[str, str]]:
    """Say which weights made the scores: name, version and SHA-256 of each model, in the order of their names."""
    named = sorted(classifiers, key=lambda classifier: classifier.model)
    return [
        {"model": c.model, "version": c.version, "weights_sha256": c.entry("model.safetensors").sha256} for c in named
    ]
