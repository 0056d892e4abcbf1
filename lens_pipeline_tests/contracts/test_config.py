"""What every section of settings refuses."""

from typing import Any

import pytest
from pydantic import ValidationError

from lens_pipeline.scoring.config import ScoringConfig
from lens_pipeline.training.config import TrainingConfig


@pytest.mark.parametrize("field", ["epochs", "learning_rate", "ema_decay", "patience"])
def test_true_is_no_number(field: str) -> None:
    with pytest.raises(ValidationError, match="true is no value of this setting"):
        TrainingConfig.model_validate({field: True})


@pytest.mark.parametrize("value", [True, False])
def test_true_and_false_are_values_of_a_setting_that_is_one_of_them(value: bool) -> None:
    assert ScoringConfig.model_validate({"tta": value}).tta is value


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_what_cannot_be_written_down_is_no_setting(number: float) -> None:
    settings: dict[str, Any] = {"learning_rate": number}
    with pytest.raises(ValidationError, match="finite"):
        TrainingConfig.model_validate(settings)
