"""A sweep's space is held against the training's own rules before anything runs."""

from typing import Any

import pytest
from pydantic import ValidationError

from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.search import CHOICES, RANGES, SweepConfig, check_corners, setting_of

NOTHING: dict[str, Any] = {name: [] for name in (*RANGES, *CHOICES)} | {"logarithmic": []}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dropout": [0.1]}, r"a range is \[lowest, highest\]"),
        ({"dropout": [0.3, 0.1]}, r"a range is \[lowest, highest\]"),
        ({"model": ["resnet19"]}, "resnet19: unknown; there are test_resnet"),
        ({"batch_size": [32, 32]}, "32 stands there more than once"),
        ({"logarithmic": ["dropout"]}, "dropout begins at 0 or below and has no logarithm"),
        ({"logarithmic": ["model"]}, "logarithmic names model; ranges are"),
        ({"learning_rates": [0.1, 0.2]}, "Extra inputs are not permitted"),
        (NOTHING, "nothing is searched"),
        ({"trials": 0}, "greater than or equal to 1"),
    ],
)
def test_a_space_that_says_nothing_sound_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SweepConfig.model_validate(settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dropout": [0.0, 1.0]}, r"dropout 1\.0: dropout: Input should be less than 1"),
        ({"warmup_epochs": [0.0, 9.0]}, r"warmup_epochs 9\.0: warmup_epochs 9 is more than epochs 6"),
        ({"batch_size": [31, 64]}, "batch_size 31: .*multiple of world_size 2"),
        ({"learning_rate": [1e-9, 1e-7]}, "No corner of the space is a valid training.*min_learning_rate"),
    ],
)
def test_an_end_that_no_training_can_have_is_refused_with_the_trainings_own_reason(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        check_corners(SweepConfig.model_validate(settings), TrainingConfig())


def test_a_combination_that_no_training_can_have_is_counted_and_leaves_the_rest() -> None:
    space = SweepConfig.model_validate({**NOTHING, "model": ["test_resnet", "test_convnext"], "batch_size": [16, 64]})
    corners = check_corners(space, TrainingConfig())
    (why,) = corners.refused
    assert (corners.n, corners.refused[why]) == (4, 1)
    assert "test_resnet normalises over the batch" in why
    assert "1 of 4 corners" in corners.words


def test_every_corner_of_the_default_space_is_a_valid_training() -> None:
    corners = check_corners(SweepConfig(), TrainingConfig())
    assert (corners.n, corners.refused) == (2**5 * 2 * 3, {})


def test_a_trial_has_its_own_values_and_the_presets_others() -> None:
    config = setting_of(TrainingConfig(epochs=3, seed=5), {"learning_rate": 0.004, "batch_size": 32})
    assert config == TrainingConfig(epochs=3, seed=5, learning_rate=0.004, batch_size=32)
