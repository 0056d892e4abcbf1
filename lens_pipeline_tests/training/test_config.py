import subprocess
import sys

import pytest
from pydantic import ValidationError

from lens_pipeline.training.config import TrainingConfig

FOCAL: dict[str, object] = {"loss": "focal", "focal_gamma": 2}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": 65}, "multiple of world_size 2"),
        ({"batch_size": 16}, "8 rows at once of a rank .* at least 16 are needed"),
        ({"batch_size": 64, "micro_batch_size": 8}, "8 rows at once of a rank"),
        (
            {"batch_size": 62, "world_size": 2, "micro_batch_size": 16},
            "15 rows at once .* Raise batch_size or micro_batch_size",
        ),
        ({"precision": "float16"}, "float16 is for GPUs"),
        ({"world_size": 8}, "too few"),
        ({"min_learning_rate": 1e-2, "learning_rate": 1e-3}, "above learning_rate"),
        ({"warmup_epochs": 9, "epochs": 8}, "more than epochs"),
        ({"learning_rat": 1e-3}, "Extra inputs are not permitted"),
        ({"label_smoothing": 0.5}, "less than 0.5"),
        ({"model": "resnet19"}, "'test_resnet', 'resnet10t', 'resnet18'"),
        ({"batch_size": 16}, "or set normalization: group"),
        ({"normalization": "group", "model": "convnext_tiny"}, "convnext_tiny has none: leave it out"),
        ({"normalization": "sync", "model": "vit_tiny", "device": "cuda"}, "vit_tiny has none: leave it out"),
        ({"normalization": "sync"}, "cuda only, and device is cpu: set normalization: group"),
        (
            {"normalization": "sync", "device": "cuda", "batch_size": 8},
            "8 rows at once over all ranks",
        ),
        ({"pretrained": "weights.safetensors"}, "given together or not at all"),
        ({"pretrained_sha256": "0" * 64}, "given together or not at all"),
        ({"pretrained": "weights.safetensors", "pretrained_sha256": "0" * 63}, "should match pattern"),
        ({"metadata": ["psfsize_r"]}, r"\['psfsize_r'\] can't be used.* there is no such probe yet"),
        ({"drop_path": 1}, "less than 1"),
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
        ({**FOCAL, "label_smoothing": 0.1}, "loss focal takes hard labels, and label_smoothing 0.1 softens them"),
        ({**FOCAL, "mixup_alpha": 0.2}, "loss focal takes hard labels, and mixup_alpha 0.2 softens them"),
        ({**FOCAL, "cutmix_alpha": 1}, "loss focal takes hard labels, and cutmix_alpha 1.0 softens them"),
        ({"loss": "focal"}, "needs focal_gamma"),
        ({"focal_gamma": 2}, "focal_gamma 2.0 with loss cross_entropy, which doesn't read it"),
        ({**FOCAL, "focal_alpha": 0.75, "class_weighting": "balanced"}, "weigh the same rows more than once"),
        ({"order": "repeated", "order_weights": {"lens": 2}, "class_weighting": "balanced"}, "more than once"),
        ({"order": "repeated", "order_weights": {"lens": 2}, "stratum_weighting": "balanced"}, "same rows twice"),
        ({"stratum_weighting": "balanced", "mixup_alpha": 0.2}, "a mixed row belongs to two strata"),
        ({"schedule": "plateau", "plateau_factor": 0.5}, "needs plateau_patience"),
        ({"schedule": "plateau", "plateau_factor": 0.5, "plateau_patience": 4}, "at most patience - 2"),
        (
            {"schedule": "plateau", "plateau_factor": 0.5, "plateau_patience": 3, "epochs": 4},
            "the learning rate would never fall",
        ),
        ({"mixup_alpha": 0.2, "micro_batch_size": 1, "normalization": "group"}, "that would be mixed with itself"),
        (
            {"cutmix_alpha": 0.2, "batch_size": 4, "world_size": 4, "model": "test_convnext"},
            "batch_size 4, world_size 4: rows are mixed within what a rank takes at once",
        ),
        # Three rows of a rank are taken in two parts.
        (
            {"mixup_alpha": 0.2, "batch_size": 6, "world_size": 2, "micro_batch_size": 2, "model": "test_convnext"},
            "micro_batch_size 2: rows are mixed within",
        ),
        ({"frozen_epochs": 6, "epochs": 9}, "patience must be at least frozen_epochs"),
        ({"clip_norm": float("inf")}, "finite number"),
        ({"learning_rate": float("nan")}, "finite number"),
        ({"plateau_factor": 0.5}, "with schedule cosine, which doesn't read it"),
        ({"schedule": "one_cycle", "warmup_epochs": 0}, "leave nothing for one of the two"),
        ({"frozen_epochs": 6, "epochs": 6}, "nothing but the head would ever be trained"),
        ({"thaw_every_epochs": 1}, "frozen_epochs is 0"),
        ({"layer_decay": 0.2}, "greater than or equal to 0.3"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_what_is_allowed(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TrainingConfig.model_validate(settings)


def test_a_small_batch_is_allowed_where_nothing_normalises_over_it() -> None:
    assert TrainingConfig.model_validate({"model": "test_convnext", "batch_size": 4}).batch_size == 4


@pytest.mark.parametrize(
    "settings", [{"normalization": "group"}, {"normalization": "sync", "device": "cuda", "world_size": 4}]
)
def test_a_small_batch_a_rank_is_allowed_where_normalisation_does_not_need_more(settings: dict[str, object]) -> None:
    assert TrainingConfig.model_validate({**settings, "batch_size": 16}).batch_size == 16


def test_no_clipping_must_be_said_explicitly() -> None:
    assert TrainingConfig().clip_norm is not None
    assert TrainingConfig.model_validate({"clip_norm": None}).clip_norm is None


def test_the_side_that_starts_training_and_scoring_never_loads_torch() -> None:
    modules = "lens_pipeline.training.run, lens_pipeline.training.checks, "
    modules += "lens_pipeline.scoring.run, lens_pipeline.scoring.checks"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
