"""Whether a classifier and a store are about the same stamps. No torch here: the step asks before it starts a process."""

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import ScoringError
from lens_pipeline.storage.publication import Publication


def refuse_other_stamps(classifier: Publication, store: Publication) -> None:
    """Refuse a store whose stamps aren't what the model was trained on, or were decoded otherwise.

    Raises
    ------
    ScoringError
        Naming every field of the dataset contract that differs, and the decoder's version if that does.
    """
    about = classifier.read_json("model.json")
    trained = {**_fields(about["contract"]), "decoder_version": about["decoder_version"]}
    offered = {**_fields(store.attributes["dataset_contract"]), "decoder_version": store.attributes["decoder_version"]}
    differs = [
        f"{name}: trained on {trained[name]}, the store has {offered[name]}"
        for name in trained
        if trained[name] != offered[name]
    ]
    if differs:
        raise ScoringError(
            f"the classifier and the store are about different stamps: {'; '.join(differs)}. A score would mean nothing. "
            "Train on this store (materialize lens_classifier), or open the store that the classifier was trained on."
        )


def _fields(contract: object) -> dict[str, object]:
    return DatasetContract.model_validate(contract).model_dump(mode="json")
