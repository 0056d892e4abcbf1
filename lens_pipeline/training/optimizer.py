"""AdamW over exactly the trainable parameters, and its state as named tensors."""

from collections.abc import Mapping

import torch
from torch import nn

from lens_pipeline.contracts.errors import TrainingError, first_few

_MOMENTS = ("exp_avg", "exp_avg_sq")


def build_optimizer(model: nn.Module, *, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019); biases and normalisation scales, which are vectors, aren't decayed."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.0, fused=True)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    if sorted(held) != sorted(id(parameter) for parameter in trainable):
        raise TrainingError(f"the optimizer holds {len(held)} tensors, the model has {len(trainable)} to train.")
    return optimizer


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
            f"(trainable ones change, others don't): {first_few(wrong)}. The loss doesn't reach them, or the optimizer "
            "holds another model's parameters."
        )


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """State of AdamW by parameter name: ``name/exp_avg``, ``name/exp_avg_sq``, ``name/step``."""
    return {
        f"{name}/{key}": optimizer.state[parameter][key].detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
        for key in (*_MOMENTS, "step")
    }


def load_optimizer_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Put the state back, in the memory format of the parameters.

    Raises
    ------
    TrainingError
        If the names aren't the trainable parameters'.
    """
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    wanted = {f"{name}/{key}" for name in named for key in (*_MOMENTS, "step")}
    if set(tensors) != wanted:
        raise TrainingError(
            f"the checkpoint's optimizer state isn't this model's: {first_few(sorted(set(tensors) ^ wanted))}."
        )
    for name, parameter in named.items():
        moments = {key: torch.empty_like(parameter).copy_(tensors[f"{name}/{key}"]) for key in _MOMENTS}
        optimizer.state[parameter] = {**moments, "step": tensors[f"{name}/step"].to(parameter.device)}
