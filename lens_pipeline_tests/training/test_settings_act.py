"""No dead setting: each one moves the first steps or the decisions after epochs, or is listed with the reason why not."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from lens_pipeline.training import freezing
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.effects import NO_NUMERIC_EFFECT
from lens_pipeline.training.rank import trainer_for
from lens_pipeline.training.schedule import Schedule
from lens_pipeline.training.spec import RunSpec
from lens_pipeline.training.stopping import Stopping
from lens_pipeline.training.validation import Validation
from lens_pipeline_tests.training.conftest import Survey
from lens_pipeline_tests.training.making import only_rank, prepared

Change = dict[str, Any]
FOCAL: Change = {"loss": "focal", "focal_gamma": 0.0}
PLATEAU: Change = {"schedule": "plateau", "plateau_factor": 0.5, "plateau_patience": 0, "patience": 3}
PARTIAL: Change = {"monitor": "val_partial_auc"}
MIXED: Change = {"mixup_alpha": 1.0}

# Setting -> (what it is changed on top of, the change): another loss, or other weights, within the first steps.
IN_THE_FIRST_STEPS: dict[str, tuple[Change, Change]] = {
    "model": ({}, {"model": "resnet10t"}),
    "preprocessing": ({}, {"preprocessing": "robust_clip_v1"}),
    "softening": ({}, {"softening": 5.0}),
    "seed": ({}, {"seed": 2}),
    "folds": ({}, {"folds": 3}),
    "fold": ({"folds": 3}, {"fold": 1}),
    "batch_size": ({}, {"batch_size": 48}),
    "order": ({}, {"order": "paired"}),
    "order_weights": (
        {"order": "repeated", "order_weights": {"lens": 1.5}},
        {"order": "repeated", "order_weights": {"lens": 1.2}},
    ),
    "schedule": ({}, {"schedule": "one_cycle"}),
    "learning_rate": ({}, {"learning_rate": 1e-3}),
    "min_learning_rate": ({}, {"min_learning_rate": 1e-4}),
    "warmup_epochs": ({}, {"warmup_epochs": 0.0}),
    "epochs": ({}, {"epochs": 4}),
    "layer_decay": ({}, {"layer_decay": 0.5}),
    "frozen_epochs": ({}, {"frozen_epochs": 1}),
    "weight_decay": ({}, {"weight_decay": 0.5}),
    "clip_norm": ({}, {"clip_norm": 0.01}),
    "loss": ({}, {"loss": "focal", "focal_gamma": 2.0}),
    "focal_gamma": (FOCAL, {"focal_gamma": 1.0}),
    "focal_alpha": (FOCAL, {"focal_alpha": 0.7}),
    "label_smoothing": ({}, {"label_smoothing": 0.1}),
    "class_weighting": ({}, {"class_weighting": "balanced"}),
    "stratum_weighting": ({}, {"stratum_weighting": "balanced"}),
    "mixup_alpha": ({}, MIXED),
    "cutmix_alpha": (MIXED, {"cutmix_alpha": 1.0}),
    "dropout": ({}, {"dropout": 0.5}),
    "precision": ({}, {"precision": "bf16"}),
    "micro_batch_size": ({}, {"micro_batch_size": 16}),
    "drop_path": ({}, {"drop_path": 0.5}),
    "normalization": ({}, {"normalization": "group"}),
    "ema_decay": ({}, {"ema_decay": 0.5}),
}

# Setting -> the same, for what is decided between epochs: rates, stopping, the best epoch, what is trained.
BETWEEN_EPOCHS: dict[str, tuple[Change, Change]] = {
    "monitor": ({}, {"monitor": "val_auroc"}),
    "patience": ({}, {"patience": 2}),
    "min_delta": ({}, {"min_delta": 3.0}),
    "partial_auc_max_fpr": (PARTIAL, {"partial_auc_max_fpr": 0.5}),
    "plateau_factor": (PLATEAU, {"plateau_factor": 0.3}),
    "plateau_patience": (PLATEAU, {"plateau_patience": 1}),
    "thaw_every_epochs": ({"frozen_epochs": 1}, {"thaw_every_epochs": 2}),
}

# Setting -> the file beside this one whose tests show that it acts: it needs more than another value.
TESTED_ELSEWHERE = {
    "swa_epochs": "test_averaging.py",
    "pretrained": "test_pretrained.py",
    "pretrained_sha256": "test_pretrained.py",
}


def test_every_setting_is_tested_to_act_or_listed_with_the_reason_why_it_moves_no_number() -> None:
    sorted_out = [*IN_THE_FIRST_STEPS, *BETWEEN_EPOCHS, *TESTED_ELSEWHERE, *NO_NUMERIC_EFFECT]
    assert sorted(sorted_out) == sorted(TrainingConfig.model_fields)
    assert all(NO_NUMERIC_EFFECT.values())
    for setting, name in TESTED_ELSEWHERE.items():
        assert setting in Path(__file__).with_name(name).read_text()


@dataclass(frozen=True)
class FirstSteps:
    """What an epoch of four steps gave: the loss of each, and the weights at its end."""

    losses: list[float]
    weights: dict[str, torch.Tensor]

    def is_like(self, other: "FirstSteps") -> bool:
        same = self.losses == other.losses and self.weights.keys() == other.weights.keys()
        return same and all(torch.equal(tensor, other.weights[name]) for name, tensor in self.weights.items())


FirstStepsOf = Callable[[Change], FirstSteps]


@pytest.fixture(scope="module")
def first_steps(uneven_survey: Survey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FirstStepsOf]:
    """Train in this process, with one rank; the same settings are trained with once."""
    found: dict[str, FirstSteps] = {}

    def train(change: Change) -> FirstSteps:
        key = repr(sorted(change.items()))
        if key not in found:
            path = tmp_path_factory.mktemp("first") / "run"
            folder = prepared(path, uneven_survey, **{"world_size": 1, "warmup_epochs": 0.5, **change})
            found[key] = _first_steps(folder)
        return found[key]

    def _first_steps(folder: Any) -> FirstSteps:
        spec, attempt = RunSpec.read(folder.specification), folder.next_attempt()
        trainer = trainer_for(spec, folder, world, lambda epoch, step: None, attempt)
        losses = []
        trainer.take_step.begin(0)
        batches = trainer.loader.training_batches(
            trainer.sampler, trainer.augmentation, epoch=0, start_step=0, rank=0, world=1
        )
        for batch in batches:
            losses.append(float(trainer.take_step(0, batch, trainer._rate(0, batch.step), number=batch.step).loss))
        weights = {name: tensor.clone() for name, tensor in trainer.take_step.judged.state_dict().items()}
        return FirstSteps(losses, weights)

    with only_rank(tmp_path_factory.mktemp("meeting")) as world:
        yield train


@pytest.mark.parametrize("setting", IN_THE_FIRST_STEPS)
def test_it_changes_the_first_steps_and_the_runs_hash(first_steps: FirstStepsOf, setting: str) -> None:
    base, change = IN_THE_FIRST_STEPS[setting]
    _assert_another_run(setting, base, change)
    assert not first_steps(base).is_like(first_steps({**base, **change}))


def test_the_same_settings_twice_give_the_same_first_steps(first_steps: FirstStepsOf) -> None:
    assert first_steps({}).is_like(first_steps({"patience": 5}))


@pytest.mark.parametrize(
    "change",
    [
        {"loader_threads": 3},
        {"reader": "memory"},
        {"validation_batch_size": 5},
        {"checkpoint_every_steps": 1},
        {"checkpoints_kept": 1},
        {"report_every_steps": 7},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_setting_that_is_listed_changes_no_bit_of_the_first_steps(first_steps: FirstStepsOf, change: Change) -> None:
    assert set(change) <= set(NO_NUMERIC_EFFECT)
    assert first_steps({}).is_like(first_steps(change))


@pytest.mark.parametrize("setting", BETWEEN_EPOCHS)
def test_it_changes_what_is_decided_between_epochs_and_the_runs_hash(setting: str) -> None:
    base, change = BETWEEN_EPOCHS[setting]
    _assert_another_run(setting, base, change)
    assert _decisions(base) != _decisions({**base, **change})


def _assert_another_run(setting: str, base: Change, change: Change) -> None:
    assert setting in change
    one, other = (TrainingConfig.model_validate({"epochs": 12, **settings}) for settings in (base, {**base, **change}))
    assert getattr(one, setting) != getattr(other, setting)
    assert one.sha256() != other.sha256()


def _decisions(change: Change) -> tuple[Any, ...]:
    """Script a run whose model gets better, and then better at the top and worse elsewhere."""
    config = TrainingConfig.model_validate({"epochs": 12, **change})
    schedule, model = Schedule(config, 4), timm.create_model("test_resnet", num_classes=1)
    stopping = Stopping(config.monitor.larger_is_better, config.patience, config.min_delta)
    monitored: list[float] = []
    rates, trained = [], []
    for epoch in range(config.epochs):
        rates.append(schedule.rate(epoch, 3, monitored))
        trained.append(len(freezing.trainable(model, config, epoch)))
        value, error = _validation(epoch, config.partial_auc_max_fpr).monitored(config.monitor)
        monitored.append(value)
        stopping = stopping.after(epoch, value, error)
        if stopping.stop:
            break
    return epoch, stopping.best_epoch, rates, trained


def _validation(epoch: int, max_fpr: float) -> Validation:
    """Return the figures of a model that ranks better for eight epochs and is sure of itself sooner than it may be."""
    labels = np.arange(2000) % 2
    noise = np.random.default_rng(5).normal(size=2000)
    wide = np.where(labels == 1, 1 + 0.1 * epoch, 1.0)
    logits = (min(0.5 + 0.2 * epoch, 2.1) * labels + noise * wide) * (1 + 0.4 * max(epoch - 3, 0))
    return Validation.of(logits[:, None], labels, max_fpr=max_fpr)
