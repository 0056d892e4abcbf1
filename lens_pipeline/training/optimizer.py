"""AdamW over the model's parameters, in groups with their own scale of the learning rate, and its state as named tensors."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from lens_pipeline.contracts.errors import TrainingError, first_few
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.freezing import layers

_MOMENTS = ("exp_avg", "exp_avg_sq")
_STATE = (*_MOMENTS, "step")


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) over all parameters; one that is frozen has no gradient and stays as it is.

    Biases and normalisation scales, which are vectors, aren't decayed. Each group has an ``lr_scale``, by which the step
    multiplies the schedule's rate: `layer_decay` to the power of a layer's distance from the head (as timm's
    param_groups_layer_decay; Bao et al. 2022).

    Raises
    ------
    TrainingError
        If layers have rates of their own and the model doesn't say what its layers are.
    """
    named = dict(model.named_parameters())
    layer = layers(model, coarse=False) if config.layer_decay != 1 else dict.fromkeys(named, 0)
    head = max(layer.values())
    groups: list[dict[str, Any]] = []
    for depth in sorted(set(layer.values()), reverse=True):
        for is_matrix in (True, False):
            members = [p for name, p in named.items() if layer[name] == depth and (p.ndim > 1) == is_matrix]
            decay, scale = (config.weight_decay if is_matrix else 0.0), config.layer_decay ** (head - depth)
            groups += [{"params": members, "weight_decay": decay, "lr_scale": scale}] if members else []
    optimizer = torch.optim.AdamW(groups, lr=0.0, fused=True)
    refuse_other_parameters(model, optimizer)
    return optimizer


def refuse_other_parameters(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Refuse an optimizer that holds other tensors than the model's parameters, each once.

    Raises
    ------
    TrainingError
        With the numbers of those that are not the model's, and of the model's that are missing.
    """
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    wanted = {id(parameter): name for name, parameter in model.named_parameters()}
    if sorted(held) != sorted(wanted):
        missing = [name for key, name in wanted.items() if key not in held]
        raise TrainingError(
            f"the optimizer holds {len(held)} tensors, of which {sum(key not in wanted for key in held)} are not the "
            f"model's; {len(missing)} of the model's {len(wanted)} are missing: {first_few(missing)}. Model and optimizer "
            "must be built together."
        )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group the schedule's rate times its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def rates(optimizer: torch.optim.Optimizer) -> list[float]:
    """Learning rates that are in force, each once, the largest first; read from the optimizer itself."""
    return sorted({float(group["lr"]) for group in optimizer.param_groups}, reverse=True)


def assert_all_changed(model: nn.Module, before: Mapping[str, torch.Tensor]) -> None:
    """Refuse to go on if the first step didn't change exactly the trainable parameters.

    Raises
    ------
    TrainingError
        Naming the parameters that stand still although they are trained, or move although they are not.
    """
    wrong = [
        name
        for name, parameter in model.named_parameters()
        if torch.equal(parameter.detach(), before[name]) == parameter.requires_grad
    ]
    if wrong:
        raise TrainingError(
            f"after the first step {len(wrong)} of {len(before)} parameter tensors did not do what they were declared to "
            f"(trainable ones change, others don't): {first_few(wrong)}. The loss doesn't reach them, the learning rate is "
            "too small to move them, or the optimizer holds another model's parameters."
        )


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """State of AdamW by parameter name: ``name/exp_avg``, ``name/exp_avg_sq``, ``name/step``; none of what was never trained."""
    return {
        f"{name}/{key}": optimizer.state[parameter][key].detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
        for key in _STATE
    }


def load_optimizer_tensors(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, torch.Tensor],
    trained: Collection[str] | None = None,
) -> None:
    """Put the state back, in the memory format of the parameters.

    Parameters
    ----------
    trained : collection of str, optional
        Names of the parameters that have been trained so far (`freezing.trained_before`); by default all.

    Raises
    ------
    TrainingError
        If the state is not of exactly these parameters.
    """
    named = dict(model.named_parameters())
    names = named if trained is None else trained
    wanted = {f"{name}/{key}" for name in names for key in _STATE}
    if set(tensors) != wanted:
        raise TrainingError(
            f"the checkpoint's optimizer state isn't this model's: {first_few(sorted(set(tensors) ^ wanted))}."
        )
    for name in sorted(names):
        parameter = named[name]
        moments = {key: torch.empty_like(parameter).copy_(tensors[f"{name}/{key}"]) for key in _MOMENTS}
        optimizer.state[parameter] = {**moments, "step": tensors[f"{name}/step"].to(parameter.device)}
