from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.numpy import load_file

from lens_pipeline.batches.loader import Loader
from lens_pipeline.contracts.errors import ContractError, ScoringError
from lens_pipeline.scoring.compatibility import refuse_other_stamps
from lens_pipeline.scoring.config import ScoringConfig
from lens_pipeline.scoring.logits import score_rows
from lens_pipeline.scoring.model import open_classifier
from lens_pipeline.stamps.decode import DECODER_VERSION
from lens_pipeline.stamps.store import Rows, StampStore
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.metrics import score_of
from lens_pipeline_tests.scoring.conftest import Trained, republished


def _score(trained: Trained, **settings: object) -> np.ndarray:
    classifier, store = trained.opened()
    return score_rows(classifier, store, ScoringConfig.model_validate(settings))


@pytest.fixture(scope="module")
def logits(trained: Trained) -> np.ndarray:
    return _score(trained)


@pytest.mark.parametrize("batch_size", [1, 7, 32, 33])
@pytest.mark.parametrize("threads", [1, 2])
def test_neither_batch_size_nor_threads_move_a_bit_of_any_logit(
    trained: Trained, logits: np.ndarray, batch_size: int, threads: int
) -> None:
    assert _score(trained, batch_size=batch_size, threads=threads).tobytes() == logits.tobytes()


@pytest.mark.parametrize("reader", ["pread", "memory"])
def test_how_the_store_is_read_moves_no_bit_of_any_logit(trained: Trained, logits: np.ndarray, reader: str) -> None:
    assert _score(trained, reader=reader, threads=2).tobytes() == logits.tobytes()


def test_a_reader_that_cant_be_had_is_refused_with_the_settings() -> None:
    with pytest.raises(ValidationError, match="there is no GPU"):
        ScoringConfig.model_validate({"reader": "device"})


@pytest.fixture(scope="module")
def turned(trained: Trained) -> np.ndarray:
    return _score(trained, tta=True)


@pytest.mark.parametrize(("batch_size", "threads"), [(7, 2), (33, 1)])
def test_neither_batch_size_nor_threads_move_a_bit_of_a_mean_over_turns(
    trained: Trained, turned: np.ndarray, batch_size: int, threads: int
) -> None:
    assert _score(trained, tta=True, batch_size=batch_size, threads=threads).tobytes() == turned.tobytes()


def test_the_mean_over_turns_is_of_all_eight_and_of_a_turned_stamp_the_same_bits(
    trained: Trained, logits: np.ndarray, turned: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = StampStore.take

    def take_turned(store: StampStore, logical: np.ndarray, out: Rows | None = None) -> Rows:
        rows = take(store, logical, out=out)
        rows.pixels[:] = np.rot90(rows.pixels, axes=(2, 3)).copy()
        return rows

    monkeypatch.setattr(StampStore, "take", take_turned)
    assert not np.array_equal(_score(trained), logits)
    assert _score(trained, tta=True).tobytes() == turned.tobytes()
    assert not np.array_equal(turned, logits)


def test_the_layout_in_memory_moves_logits_within_rounding(trained: Trained, logits: np.ndarray) -> None:
    assert np.allclose(_score(trained, channels_last=False), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_model_sees_the_layout_that_was_set(trained: Trained, channels_last: bool) -> None:
    classifier, store = trained.opened()
    seen: list[tuple[bool, bool]] = []
    classifier.model.register_forward_pre_hook(
        lambda _, inputs: seen.append(
            (inputs[0].is_contiguous(memory_format=torch.channels_last), inputs[0].is_contiguous())
        )
    )
    score_rows(classifier, store, ScoringConfig(channels_last=channels_last))
    assert set(seen) == {(channels_last, not channels_last)}


def test_a_row_scores_the_same_bits_as_it_did_in_the_validation_of_the_best_epoch(
    trained: Trained, logits: np.ndarray
) -> None:
    # One preprocessing and one forward path for training's validation and for scoring.
    table = trained.classifier.read_table("validation_logits")
    best = table["epoch"].to_numpy() == trained.classifier.attributes["best_epoch"]
    then = table["logit_0"].to_numpy()[best]
    assert np.array_equal(logits[table["logical"].to_numpy()[best], 0], then)
    assert len(then) > 30


def test_every_split_is_scored_and_lenses_score_higher(trained: Trained, logits: np.ndarray) -> None:
    labels = trained.store.read_table(None, ["label"])["label"].to_numpy()
    assert logits.shape == (192, 1)
    assert np.median(logits[labels == 1]) > np.median(logits[labels == 0])


def test_scoring_leaves_the_model_as_it_was(trained: Trained) -> None:
    classifier, store = trained.opened()
    before = {name: tensor.clone() for name, tensor in classifier.model.state_dict().items()}
    score_rows(classifier, store, ScoringConfig())
    assert not classifier.model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in classifier.model.state_dict().items())


def test_a_model_left_in_training_mode_does_not_score(trained: Trained) -> None:
    classifier, store = trained.opened()
    classifier.model.train()
    with pytest.raises(RuntimeError, match="eval mode only"):
        score_rows(classifier, store, ScoringConfig())


def test_three_classes_five_bands_and_48_pixels_are_scored_as_log_odds_of_not_being_the_first(
    trained_elsewhere: Trained,
) -> None:
    logits = _score(trained_elsewhere)
    labels = trained_elsewhere.store.read_table(None, ["label"])["label"].to_numpy()
    assert logits.shape == (128, 3)
    score = score_of(logits.astype(np.float64))
    assert np.median(score[labels > 0]) > np.median(score[labels == 0])


def test_the_class_weights_that_were_used_are_the_ones_that_are_published(trained_elsewhere: Trained) -> None:
    counts = trained_elsewhere.classifier.attributes["class_counts"]
    weights = trained_elsewhere.classifier.read_json("model.json")["loss"]["class_weights"]
    assert counts == [32, 16, 16]
    assert [weight * count for weight, count in zip(weights, counts, strict=True)] == pytest.approx([64 / 3] * 3)


@pytest.mark.parametrize(
    "change", [{"flux_unit": "adu"}, {"bands": ("g", "r", "i")}, {"pixel_scale_arcsec": 0.2}, {"stamp_size": 18}]
)
def test_a_store_of_other_stamps_is_refused_and_the_difference_named(
    trained: Trained, change: dict[str, object]
) -> None:
    contract = {**trained.store.attributes["dataset_contract"], **change}
    with pytest.raises(ScoringError, match=f"{next(iter(change))}: trained on"):
        refuse_other_stamps(trained.classifier, _store_that_says(trained, dataset_contract=contract))


def test_a_store_of_another_decoder_is_refused(trained: Trained) -> None:
    another = DECODER_VERSION + 1
    with pytest.raises(ScoringError, match=f"decoder_version: trained on {DECODER_VERSION}, the store has {another}"):
        refuse_other_stamps(trained.classifier, _store_that_says(trained, decoder_version=another))


def test_the_store_that_a_classifier_was_trained_on_is_not_refused(trained: Trained) -> None:
    refuse_other_stamps(trained.classifier, _store_that_says(trained))


def test_weights_of_another_architecture_are_refused(trained: Trained) -> None:
    tensors = load_file(trained.classifier.path("model.safetensors"))
    lacking = {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
    with pytest.raises(ScoringError, match="are not those of the test_resnet"):
        open_classifier(republished(trained, lacking))


def test_a_preprocessing_that_this_package_does_not_know_is_refused(trained: Trained) -> None:
    about = trained.classifier.read_json("model.json")
    about["preprocessing"]["name"] = "asinh_v9"
    with pytest.raises(ContractError, match="not known"):
        open_classifier(republished(trained, load_file(trained.classifier.path("model.safetensors")), about))


def test_a_model_that_diverged_is_refused_instead_of_scored(trained: Trained) -> None:
    classifier, store = trained.opened()
    with torch.no_grad():
        next(classifier.model.parameters()).fill_(float("nan"))
    with pytest.raises(ScoringError, match="isn't finite"):
        score_rows(classifier, store, ScoringConfig())


def test_the_preprocessing_is_the_checkpoints_own(trained: Trained, logits: np.ndarray) -> None:
    classifier, store = trained.opened()
    spec = {**classifier.preprocessing.spec(), "softening": 3.0}
    other = replace(classifier, preprocessing=type(classifier.preprocessing).from_spec(spec))
    assert not np.array_equal(score_rows(other, store, ScoringConfig()), logits)


def test_a_row_that_no_thread_scored_is_noticed(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(loader: Loader, rows: np.ndarray, **settings: object) -> object:
        return evaluation_batches(loader, rows[:-1], **settings)  # type: ignore[arg-type]

    evaluation_batches = Loader.evaluation_batches
    monkeypatch.setattr(Loader, "evaluation_batches", forgetful)
    with pytest.raises(ScoringError, match="1 of 192 rows were not scored exactly once"):
        _score(trained)


def _store_that_says(trained: Trained, **attributes: object) -> Publication:
    with Home(trained.home.path / "changed").stage("tried", "stamp_store") as staging:
        staging.attributes.update(
            {name: trained.store.attributes[name] for name in ("dataset_contract", "decoder_version")}, **attributes
        )
        return staging.commit()
