import pytest
import torch
from torch import nn

from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.training.optimizer import (
    assert_all_changed,
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
)


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 1))


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, rate: float = 1e-2) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    torch.manual_seed(1)
    optimizer.zero_grad()
    (model(torch.randn(8, 4)) ** 2).sum().backward()
    optimizer.step()


def _before(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def test_matrices_are_decayed_and_vectors_are_not() -> None:
    optimizer = build_optimizer(_model(), weight_decay=0.1)
    shapes = {group["weight_decay"]: {p.ndim for p in group["params"]} for group in optimizer.param_groups}
    assert shapes == {0.1: {2}, 0.0: {1}}


def test_a_first_step_that_trains_everything_passes() -> None:
    model = _model()
    optimizer, before = build_optimizer(model, weight_decay=0.1), _before(model)
    _step(model, optimizer)
    assert_all_changed(model, before)


def test_a_parameter_that_stands_still_although_it_is_trained_is_named() -> None:
    model = _model()
    optimizer, before = build_optimizer(model, weight_decay=0.0), _before(model)
    model[2].weight.register_hook(lambda gradient: gradient * 0)
    _step(model, optimizer)
    with pytest.raises(TrainingError, match=r"1 of 6 .* 2\.weight"):
        assert_all_changed(model, before)


def test_an_optimizer_of_another_models_parameters_is_noticed_after_the_first_step() -> None:
    model, other = _model(), _model()
    optimizer, before = build_optimizer(other, weight_decay=0.1), _before(model)
    _step(other, optimizer)
    with pytest.raises(TrainingError, match="another model's parameters"):
        assert_all_changed(model, before)


def test_a_frozen_parameter_that_moves_is_named() -> None:
    model = _model()
    model[0].weight.requires_grad_(False)
    optimizer, before = build_optimizer(model, weight_decay=0.1), _before(model)
    _step(model, optimizer)
    assert_all_changed(model, before)
    with torch.no_grad():
        model[0].weight.add_(1)
    with pytest.raises(TrainingError, match=r"0\.weight"):
        assert_all_changed(model, before)


def test_a_step_after_the_state_came_back_has_the_same_bits() -> None:
    model = _model()
    optimizer = build_optimizer(model, weight_decay=0.1)
    _step(model, optimizer)
    weights, state = _before(model), {k: v.clone() for k, v in optimizer_tensors(model, optimizer).items()}
    _step(model, optimizer)

    again = _model()
    again.load_state_dict(weights)
    resumed = build_optimizer(again, weight_decay=0.1)
    load_optimizer_tensors(again, resumed, state)
    _step(again, resumed)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_the_state_of_another_model_is_refused() -> None:
    model = _model()
    optimizer = build_optimizer(model, weight_decay=0.1)
    _step(model, optimizer)
    state = optimizer_tensors(model, optimizer)
    state.pop("0.bias/step")
    with pytest.raises(TrainingError, match=r"isn't this model's: 0\.bias/step"):
        load_optimizer_tensors(model, optimizer, state)
