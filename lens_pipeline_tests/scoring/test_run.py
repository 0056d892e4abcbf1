import numpy as np
import pytest
from safetensors.numpy import load_file

from lens_pipeline.contracts.catalogue import SCORES
from lens_pipeline.contracts.errors import ConfigError, ScoringError, SplitError, StorageError
from lens_pipeline.scoring.checks import score_conservation, score_saturation
from lens_pipeline.scoring.config import ScoringConfig
from lens_pipeline.scoring.run import score_store
from lens_pipeline.training.metrics import score_of
from lens_pipeline_tests.scoring.conftest import Trained, republished


def test_the_scores_of_another_survey_are_keyed_conserved_and_carry_each_class(trained_elsewhere: Trained) -> None:
    made = trained_elsewhere
    with made.home.stage("tried", "scores", inputs=[made.classifier, made.store, made.splits]) as staging:
        result = score_store(ScoringConfig(), [made.classifier], made.store, made.splits, staging)
        published = staging.commit().read_table()
    SCORES.validate(published, where="the test")
    index = made.store.read_table(None, ["task_id", "logical", "label"])
    assert score_conservation(published, index).passed
    assert score_saturation(published, ScoringConfig()).passed
    assert result.reader.startswith("mapped: the rows take ")
    assert (result.n_rows, sum(result.n_by_split.values())) == (128, 128)
    head = np.column_stack([published[f"logit_{name}"].to_numpy() for name in ("other", "ring", "spiral")])
    assert np.array_equal(published["logit"].to_numpy(), score_of(head.astype(np.float64)).astype(np.float32))


def test_the_refusal_of_the_scoring_process_reaches_the_person_in_its_own_words(trained: Trained) -> None:
    tensors = load_file(trained.classifier.path("model.safetensors"))
    lacking = republished(trained, {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")})
    with (
        trained.home.stage("tried", "scores") as staging,
        pytest.raises(ScoringError, match=r"are not those of the test_resnet that its model\.json describes"),
    ):
        score_store(ScoringConfig(), [lacking], trained.store, trained.splits, staging)


def test_the_store_of_another_survey_is_refused_before_a_process_starts(
    trained: Trained, trained_elsewhere: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("lens_pipeline.scoring.run.compute")
    other = trained_elsewhere
    with trained.home.stage("tried", "scores") as staging, pytest.raises(ScoringError, match="name: trained on"):
        score_store(ScoringConfig(), [trained.classifier], other.store, other.splits, staging)


def test_splits_of_another_store_are_refused(trained: Trained, trained_elsewhere: Trained) -> None:
    with trained.home.stage("tried", "scores") as staging, pytest.raises(SplitError, match="was made for stamp_store"):
        score_store(ScoringConfig(), [trained.classifier], trained.store, trained_elsewhere.splits, staging)


def test_cuda_on_a_machine_without_a_gpu_is_refused_before_any_work(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    config = ScoringConfig.model_validate({"device": "cuda"})
    with trained.home.stage("tried", "scores") as staging, pytest.raises(ConfigError, match="offers 0"):
        score_store(config, [trained.classifier], trained.store, trained.splits, staging)


def test_a_store_with_one_flipped_bit_is_not_scored(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("lens_pipeline.scoring.run.compute")
    segment = next(trained.store.folder.glob("*.f16"))
    sound = segment.read_bytes()
    segment.write_bytes(sound[:-7] + bytes([sound[-7] ^ 1]) + sound[-6:])
    try:
        with (
            trained.home.stage("tried", "scores") as staging,
            pytest.raises(StorageError, match=r"(?s)not what was published.*segment-00000\.f16"),
        ):
            score_store(ScoringConfig(), [trained.classifier], trained.store, trained.splits, staging)
    finally:
        segment.write_bytes(sound)
