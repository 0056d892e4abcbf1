"""Layers that normalise over the batch, replaced where batches are always small."""

from math import gcd

from timm.layers.norm_act import BatchNormAct2d, GroupNormAct, convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lens_pipeline.training.choices import Normalization

# Wu & He (2018, table 3) find 16 channels a group best; 8 where 16 don't divide the layer.
_CHANNELS_OF_A_GROUP = 16


def normalised(model: nn.Module, normalization: Normalization) -> nn.Module:
    """Replace the layers that normalise over the batch as the setting says; scales and biases are kept.

    With ``sync`` the statistics are those of every rank's rows: in training that takes a GPU and DDP; in eval mode such a
    layer is an ordinary one.
    """
    if normalization is Normalization.sync:
        synchronised: nn.Module = convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return synchronised
    if normalization is Normalization.group:
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, _BatchNorm):
                    setattr(parent, name, _over_groups(child))
    return model


def _over_groups(layer: _BatchNorm) -> nn.GroupNorm:
    channels = layer.num_features
    groups = channels // gcd(channels, _CHANNELS_OF_A_GROUP)
    replacing: nn.GroupNorm
    if isinstance(layer, BatchNormAct2d):
        replacing = GroupNormAct(channels, groups, eps=layer.eps)
        replacing.act, replacing.drop = layer.act, layer.drop
    else:
        replacing = nn.GroupNorm(groups, channels, eps=layer.eps)
    replacing.weight, replacing.bias = layer.weight, layer.bias
    return replacing
