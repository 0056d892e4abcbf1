from itertools import pairwise

import pytest
import timm
import torch
from torch import nn

from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.training import freezing
from lens_pipeline.training.config import TrainingConfig


def _model() -> nn.Module:
    return timm.create_model("test_resnet", num_classes=1)


def _config(**settings: object) -> TrainingConfig:
    return TrainingConfig.model_validate({"epochs": 12, **settings})


def _stages(names: frozenset[str]) -> list[str]:
    return sorted({name.split(".")[0] for name in names})


def test_by_default_everything_is_trained_in_every_epoch() -> None:
    model = _model()
    for epoch in (0, 5):
        assert freezing.trainable(model, _config(), epoch) == {name for name, _ in model.named_parameters()}


def test_the_head_is_trained_alone_for_so_many_epochs_and_then_everything() -> None:
    model, config = _model(), _config(frozen_epochs=3)
    for epoch in (0, 2):
        assert freezing.trainable(model, config, epoch) == {"fc.weight", "fc.bias"}
    assert freezing.trainable(model, config, 3) == {name for name, _ in model.named_parameters()}
    assert [epoch for epoch in range(12) if freezing.thaws(model, config, epoch)] == [0, 3]


def test_stages_thaw_one_after_another_from_the_head_to_the_stem_and_stay_so() -> None:
    model, config = _model(), _config(frozen_epochs=1, thaw_every_epochs=2)
    trained = [freezing.trainable(model, config, epoch) for epoch in range(12)]
    assert _stages(trained[0]) == ["fc"]
    assert _stages(trained[1]) == _stages(trained[2]) == ["fc", "layer4"]
    assert _stages(trained[3]) == ["fc", "layer3", "layer4"]
    assert trained[9] == {name for name, _ in model.named_parameters()}
    assert all(earlier <= later for earlier, later in pairwise(trained))
    assert [epoch for epoch in range(12) if freezing.thaws(model, config, epoch)] == [0, 1, 3, 5, 7, 9]


def test_only_what_a_step_has_trained_before_has_a_state() -> None:
    model, config = _model(), _config(frozen_epochs=2)
    assert freezing.trained_before(model, config, 0, 0) == frozenset()
    assert _stages(freezing.trained_before(model, config, 0, 1)) == ["fc"]
    assert _stages(freezing.trained_before(model, config, 2, 0)) == ["fc"]
    assert freezing.trained_before(model, config, 2, 1) == {name for name, _ in model.named_parameters()}


def test_a_frozen_parameter_has_no_gradient_and_a_thawed_one_has() -> None:
    model = _model()
    for names in ({"fc.weight"}, {name for name, _ in model.named_parameters()}):
        freezing.apply(model, names)
        model.zero_grad(set_to_none=True)
        model(torch.randn(2, 3, 64, 64)).sum().backward()
        assert {name for name, p in model.named_parameters() if p.grad is not None} == names


def test_batch_statistics_of_frozen_layers_stand_still() -> None:
    model = _model()
    freezing.apply(model, {name for name, _ in model.named_parameters() if name.startswith(("fc", "layer4"))})
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.train()
    freezing.hold_statistics(model)
    model(torch.randn(4, 3, 64, 64))
    moved = {name.split(".")[0] for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])}
    assert moved == {"layer4"}


def test_a_name_of_no_parameter_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"are of no parameter of the model: fc\.wait"):
        freezing.apply(_model(), ["fc.wait", "fc.bias"])


def test_a_model_that_does_not_say_what_its_layers_are_cannot_be_frozen_by_layer() -> None:
    with pytest.raises(TrainingError, match="Linear doesn't say how its parameters are layered"):
        freezing.trainable(nn.Linear(2, 1), _config(frozen_epochs=1), 0)
    assert freezing.trainable(nn.Linear(2, 1), _config(), 0) == {"weight", "bias"}
