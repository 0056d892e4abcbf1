"""Which parameters are trained in an epoch: the head alone at first, then the stages above one another, or all."""

from collections.abc import Iterable

from timm.models import group_parameters
from torch import nn

from lens_pipeline.contracts.errors import TrainingError, first_few
from lens_pipeline.training.config import TrainingConfig


def layers(model: nn.Module, *, coarse: bool) -> dict[str, int]:
    """Give each parameter the number of its layer, the stem's being 0 and the head's the largest, as timm groups them.

    Parameters
    ----------
    coarse : bool
        Whether to count stages instead of blocks.

    Raises
    ------
    TrainingError
        If the model doesn't say how its parameters are layered.
    """
    matcher = getattr(model, "group_matcher", None)
    if matcher is None:
        raise TrainingError(
            f"{type(model).__name__} doesn't say how its parameters are layered (group_matcher), so that layer_decay and "
            "frozen_epochs have no meaning. Leave them at 1 and 0, or take another model."
        )
    layer: dict[str, int] = group_parameters(model, matcher(coarse=coarse), reverse=True)
    return layer


def trainable(model: nn.Module, config: TrainingConfig, epoch: int) -> frozenset[str]:
    """Names of the parameters that are trained in an epoch; what has thawed stays so.

    For `frozen_epochs` epochs that is the head alone, then everything; or, with `thaw_every_epochs`, one stage more each
    time, from the head towards the stem.
    """
    names = frozenset(name for name, _ in model.named_parameters())
    if not config.frozen_epochs:
        return names
    stage = layers(model, coarse=True)
    lowest = max(stage.values())
    if epoch >= config.frozen_epochs:
        every = config.thaw_every_epochs
        lowest = lowest - 1 - (epoch - config.frozen_epochs) // every if every else 0
    return frozenset(name for name in names if stage[name] >= lowest)


def trained_before(model: nn.Module, config: TrainingConfig, epoch: int, step: int) -> frozenset[str]:
    """Names of the parameters that some step before this one has trained: the optimizer has a state of exactly these."""
    last = epoch if step else epoch - 1
    return trainable(model, config, last) if last >= 0 else frozenset()


def thaws(model: nn.Module, config: TrainingConfig, epoch: int) -> bool:
    """Whether an epoch trains other parameters than the one before; the first one does."""
    return epoch == 0 or trainable(model, config, epoch) != trainable(model, config, epoch - 1)


def apply(model: nn.Module, names: Iterable[str]) -> None:
    """Let exactly these parameters have gradients.

    Raises
    ------
    TrainingError
        If a name is of no parameter.
    """
    wanted, held = frozenset(names), {name for name, _ in model.named_parameters()}
    if unknown := sorted(wanted - held):
        raise TrainingError(f"{len(unknown)} names to train are of no parameter of the model: {first_few(unknown)}.")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in wanted)


def hold_statistics(model: nn.Module) -> None:
    """Let batch normalisation of frozen layers use its running statistics, and leave them, until the next `train()`.

    Otherwise a layer whose parameters stand still would go on changing through what it normalises by.
    """
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and own and not any(p.requires_grad for p in own):
            module.eval()
