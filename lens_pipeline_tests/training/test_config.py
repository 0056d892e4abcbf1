import subprocess
import sys

import pytest
from pydantic import ValidationError

from lens_pipeline.training.config import TrainingConfig


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": 65}, "multiple of world_size 2"),
        ({"batch_size": 16}, "at least 16 are needed, so batch_size >= 32"),
        ({"world_size": 8}, "too few"),
        ({"min_learning_rate": 1e-2, "learning_rate": 1e-3}, "above learning_rate"),
        ({"warmup_epochs": 9, "epochs": 8}, "more than epochs"),
        ({"learning_rat": 1e-3}, "Extra inputs are not permitted"),
        ({"label_smoothing": 0.5}, "less than 0.5"),
        ({"model": "resnet19"}, "'test_resnet', 'resnet10t', 'resnet18'"),
        ({"device": "auto"}, "'cpu' or 'cuda'"),
        ({"clip_norm": 0}, "greater than 0"),
        ({"order": "random"}, "'shuffled', 'repeated', 'with_replacement' or 'paired'"),
        ({"order": "repeated"}, "take weights of classes or strata by name"),
        ({"order_weights": {"lens": 2}}, "the others take none"),
        ({"order": "repeated", "order_weights": {"lens": 0}}, r"out of range: 0\.01 to 100"),
        ({"order": "repeated", "order_weights": {"lens": 101}}, r"out of range: 0\.01 to 100"),
        ({"order": "repeated", "order_weights": {"lens": 1, "control": 1.0}}, "are all 1, which has no effect"),
        ({"order": "with_replacement", "order_weights": {"lens/SIE": 1}}, "are all 1, which has no effect"),
        ({"reader": "device"}, "there is no GPU to hold the rows; set reader: auto"),
        ({"order": "paired", "batch_size": 66}, "multiple of 2 x world_size 2"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_what_is_allowed(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TrainingConfig.model_validate(settings)


def test_a_small_batch_is_allowed_where_nothing_normalises_over_it() -> None:
    assert TrainingConfig.model_validate({"model": "test_convnext", "batch_size": 4}).batch_size == 4


def test_no_clipping_must_be_said_explicitly() -> None:
    assert TrainingConfig().clip_norm is not None
    assert TrainingConfig.model_validate({"clip_norm": None}).clip_norm is None


def test_the_side_that_starts_training_and_scoring_never_loads_torch() -> None:
    modules = "lens_pipeline.training.run, lens_pipeline.training.checks, "
    modules += "lens_pipeline.scoring.run, lens_pipeline.scoring.checks"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
