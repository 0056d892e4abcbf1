import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.training import freezing
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.optimizer import (
    assert_all_changed,
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
    rates,
    refuse_other_parameters,
    set_rate,
)

CONFIG = TrainingConfig(weight_decay=0.1)


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 1))


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, rate: float = 1e-2) -> None:
    set_rate(optimizer, rate)
    torch.manual_seed(1)
    optimizer.zero_grad()
    (model(torch.randn(8, 4)) ** 2).sum().backward()
    optimizer.step()


def _before(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def test_matrices_are_decayed_and_vectors_are_not() -> None:
    optimizer = build_optimizer(_model(), CONFIG)
    shapes = {group["weight_decay"]: {p.ndim for p in group["params"]} for group in optimizer.param_groups}
    assert shapes == {0.1: {2}, 0.0: {1}}


def test_a_first_step_that_trains_everything_passes() -> None:
    model = _model()
    optimizer, before = build_optimizer(model, CONFIG), _before(model)
    _step(model, optimizer)
    assert_all_changed(model, before)


def test_a_parameter_that_stands_still_although_it_is_trained_is_named() -> None:
    model = _model()
    optimizer, before = build_optimizer(model, TrainingConfig(weight_decay=0.0)), _before(model)
    model[2].weight.register_hook(lambda gradient: gradient * 0)
    _step(model, optimizer)
    with pytest.raises(TrainingError, match=r"1 of 6 .* 2\.weight"):
        assert_all_changed(model, before)


def test_an_optimizer_of_another_models_parameters_is_noticed_after_the_first_step() -> None:
    model, other = _model(), _model()
    optimizer, before = build_optimizer(other, CONFIG), _before(model)
    _step(other, optimizer)
    with pytest.raises(TrainingError, match="another model's parameters"):
        assert_all_changed(model, before)


def test_a_frozen_parameter_that_moves_is_named() -> None:
    model = _model()
    model[0].weight.requires_grad_(False)
    optimizer, before = build_optimizer(model, CONFIG), _before(model)
    _step(model, optimizer)
    assert_all_changed(model, before)
    with torch.no_grad():
        model[0].weight.add_(1)
    with pytest.raises(TrainingError, match=r"0\.weight"):
        assert_all_changed(model, before)


def test_a_step_after_the_state_came_back_has_the_same_bits() -> None:
    model = _model()
    optimizer = build_optimizer(model, CONFIG)
    _step(model, optimizer)
    weights, state = _before(model), {k: v.clone() for k, v in optimizer_tensors(model, optimizer).items()}
    _step(model, optimizer)

    again = _model()
    again.load_state_dict(weights)
    resumed = build_optimizer(again, CONFIG)
    load_optimizer_tensors(again, resumed, state)
    _step(again, resumed)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_the_state_of_another_model_is_refused() -> None:
    model = _model()
    optimizer = build_optimizer(model, CONFIG)
    _step(model, optimizer)
    state = optimizer_tensors(model, optimizer)
    state.pop("0.bias/step")
    with pytest.raises(TrainingError, match=r"isn't this model's: 0\.bias/step"):
        load_optimizer_tensors(model, optimizer, state)


def test_without_layer_decay_every_group_has_the_schedules_rate() -> None:
    optimizer = build_optimizer(_model(), CONFIG)
    set_rate(optimizer, 3e-4)
    assert rates(optimizer) == [3e-4]
    assert len(optimizer.param_groups) == 2


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "regnetx_002"])
def test_the_rates_of_layers_are_timms_and_each_parameter_is_held_once(name: str) -> None:
    model = timm.create_model(name, num_classes=1)
    optimizer = build_optimizer(model, TrainingConfig(layer_decay=0.75, weight_decay=0.1))
    names = {id(p): name for name, p in model.named_parameters()}

    timms = param_groups_layer_decay(model, weight_decay=0.1, layer_decay=0.75)
    for setting in ("lr_scale", "weight_decay"):
        ours, wanted = (
            {names[id(p)]: group[setting] for group in groups for p in group["params"]}
            for groups in (optimizer.param_groups, timms)
        )
        assert ours == pytest.approx(wanted)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)
    set_rate(optimizer, 1e-3)
    assert rates(optimizer)[0] == 1e-3
    n_layers = 1 + max(freezing.layers(model, coarse=False).values())
    assert rates(optimizer) == pytest.approx([1e-3 * 0.75**depth for depth in range(n_layers)])


def test_an_optimizer_of_another_models_parameters_is_refused_at_the_start() -> None:
    model, other = _model(), _model()
    refuse_other_parameters(model, build_optimizer(model, CONFIG))
    with pytest.raises(TrainingError, match="holds 6 tensors, of which 6 are not the model's; 6 of the model's 6"):
        refuse_other_parameters(model, build_optimizer(other, CONFIG))


def test_a_head_that_was_replaced_after_the_optimizer_was_built_is_refused() -> None:
    model = _model()
    optimizer = build_optimizer(model, CONFIG)
    model[2] = nn.Linear(3, 1)
    with pytest.raises(
        TrainingError, match=r"2 are not the model's; 2 of the model's 6 are missing: 2\.weight, 2\.bias"
    ):
        refuse_other_parameters(model, optimizer)


def test_parameters_that_thaw_later_get_a_state_of_their_own_and_it_comes_back() -> None:
    def after(steps: int, model: nn.Sequential, optimizer: torch.optim.Optimizer, start: int = 0) -> None:
        for step in range(start, steps):
            freezing.apply(
                model, {"2.weight", "2.bias"} if step < 2 else [name for name, _ in model.named_parameters()]
            )
            _step(model, optimizer)

    model = _model()
    optimizer = build_optimizer(model, CONFIG)
    after(2, model, optimizer)
    state = {name: tensor.clone() for name, tensor in optimizer_tensors(model, optimizer).items()}
    weights = _before(model)
    assert {name.split("/")[0] for name in state} == {"2.weight", "2.bias"}
    again = _model()
    again.load_state_dict(weights)
    resumed = build_optimizer(again, CONFIG)
    with pytest.raises(TrainingError, match="isn't this model's"):
        load_optimizer_tensors(again, resumed, state)
    load_optimizer_tensors(again, resumed, state, trained={"2.weight", "2.bias"})
    after(5, model, optimizer, start=2)
    after(5, again, resumed, start=2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    # A bias correction counts the steps of its own parameter.
    assert {float(s["step"]) for s in optimizer.state.values()} == {3.0, 5.0}
