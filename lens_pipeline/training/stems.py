"""The first layer of an architecture, fitted to the stamp size: which stem there is, how it is built, what side it leaves.

A network made for 224 pixels halves its map five times; of a 64-pixel stamp 2 x 2 pixels would be left. So the stem, and
nothing else, is made finer.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import timm
import torch
from torch import nn

from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.training.choices import Architecture

# A head that averages over one pixel can't tell where anything is; 2 x 2 is the least that is accepted.
MIN_FEATURE_SIDE = 2


class Stem(NamedTuple):
    """Stride of the first convolution, and whether the pooling after it is kept."""

    stride: int
    pool: bool = False


@dataclass(frozen=True)
class Family:
    """How one architecture is built for small stamps.

    Attributes
    ----------
    timm_name : str
        What timm calls it.
    stems : tuple of Stem
        The architecture's own first, then what smaller stamps need.
    wanted_side : int
        Pixels on a side of the last feature map for which a finer stem is taken.
    halvings : int
        Layers of stride 2 after the stem.
    round_up : bool
        Whether half of an odd side is rounded up (padded convolutions) or down (patches).
    start : dict
        What timm is told besides. A residual branch that starts at zero (`zero_init_last`) would get no gradient in the
        first step, in which it is checked that everything trains.
    """

    timm_name: str
    stems: tuple[Stem, ...]
    wanted_side: int
    halvings: int
    round_up: bool
    start: dict[str, Any]

    def side(self, stamp_size: int, stem: Stem) -> int:
        """Pixels on a side of the last feature map; 0 where patches don't tile the stamp."""
        if self.patches_tile and stamp_size % stem.stride:
            return 0
        side = stamp_size
        for factor in (stem.stride, 2 if stem.pool else 1, *([2] * self.halvings)):
            side = -(-side // factor) if self.round_up else side // factor
        return side

    @property
    def patches_tile(self) -> bool:
        """Whether every pixel must belong to a patch: a transformer has no later layer that could see the others."""
        return self.halvings == 0


_SCRATCH = {"zero_init_last": False}
# Tokens are averaged, as feature maps are elsewhere: no class token, and the last normalisation stays before the mean.
_AVERAGED = {"class_token": False, "global_pool": "avg", "fc_norm": False}
_HEAD_RANGE = 1000**-0.5
_HALVED = (Stem(2, True), Stem(2), Stem(1))

FAMILIES: dict[Architecture, Family] = {
    Architecture.test_resnet: Family("test_resnet", _HALVED, 2, 3, True, _SCRATCH),
    Architecture.resnet10t: Family("resnet10t", _HALVED, 2, 3, True, _SCRATCH),
    Architecture.resnet18: Family("resnet18", (Stem(1),), 8, 3, True, _SCRATCH),
    Architecture.regnetx_002: Family("regnetx_002", (Stem(2), Stem(1)), 2, 4, True, _SCRATCH),
    Architecture.efficientnet_b0: Family("efficientnet_b0", (Stem(2), Stem(1)), 4, 4, True, {}),
    Architecture.test_convnext: Family("test_convnext", (Stem(4), Stem(2)), 2, 3, False, {}),
    Architecture.convnext_tiny: Family("convnext_tiny", (Stem(4), Stem(2)), 4, 3, False, {}),
    Architecture.vit_tiny: Family("vit_tiny_patch16_224", (Stem(16), Stem(8), Stem(4)), 8, 0, False, _AVERAGED),
}


def stem_for(architecture: Architecture, stamp_size: int) -> tuple[Stem, int]:
    """Choose the first stem that leaves the side that is wanted, else the one that leaves most.

    Returns
    -------
    stem, side : Stem, int
        And the pixels on a side of the last feature map.

    Raises
    ------
    ConfigError
        If none leaves `MIN_FEATURE_SIDE`.
    """
    family = FAMILIES[architecture]
    sides = [(stem, family.side(stamp_size, stem)) for stem in family.stems]
    stem, side = next(
        (found for found in sides if found[1] >= family.wanted_side), max(sides, key=lambda found: found[1])
    )
    if side < MIN_FEATURE_SIDE:
        tiles = f" in patches of {', '.join(str(s.stride) for s in family.stems)}" if family.patches_tile else ""
        raise ConfigError(
            f"{architecture.value} leaves {side}x{side} pixels of a {stamp_size}-pixel stamp{tiles}, at least "
            f"{MIN_FEATURE_SIDE}x{MIN_FEATURE_SIDE} are needed. Use larger stamps or another model."
        )
    return stem, side


def create(
    architecture: Architecture, stem: Stem, *, bands: int, stamp_size: int, outputs: int, **settings: Any
) -> nn.Module:
    """Build timm's model with that stem, with fresh weights from torch's current seed."""
    family = FAMILIES[architecture]
    tiled: dict[str, Any] = {"img_size": stamp_size, "patch_size": stem.stride} if family.patches_tile else {}
    model: nn.Module = timm.create_model(
        family.timm_name, pretrained=False, in_chans=bands, num_classes=outputs, **settings, **family.start, **tiled
    )
    parts: Any = model
    first = first_convolution(model)
    if architecture is Architecture.resnet18:
        parts.conv1 = nn.Conv2d(bands, first.out_channels, 3, stride=stem.stride, padding=1, bias=False)
        nn.init.kaiming_normal_(parts.conv1.weight, mode="fan_out", nonlinearity="relu")
    elif not family.patches_tile and first.stride != (stem.stride, stem.stride):
        if first.kernel_size == (4, 4):
            # Patches overlap by half; a border of one pixel keeps the map at half the stamp's side.
            first.padding = (1, 1)
        first.stride = (stem.stride, stem.stride)
    if architecture is Architecture.efficientnet_b0:
        # timm draws the head from +-1 / sqrt(outputs), made for 1,000 of them: one output would start at logits of +-4.
        head: Any = model.get_submodule(head_name(model))
        nn.init.uniform_(head.weight, -_HEAD_RANGE, _HEAD_RANGE)
    if not stem.pool and hasattr(model, "maxpool"):
        parts.maxpool = nn.Identity()
    return model


def first_convolution(model: nn.Module) -> nn.Conv2d:
    """Give the convolution that sees the stamp."""
    first = model.get_submodule(first_name(model))
    assert isinstance(first, nn.Conv2d)
    return first


def first_name(model: nn.Module) -> str:
    """Name of the convolution that sees the stamp."""
    configuration: Any = model.pretrained_cfg
    return str(configuration["first_conv"])


def head_name(model: nn.Module) -> str:
    """Name of the layer that gives the outputs."""
    configuration: Any = model.pretrained_cfg
    return str(configuration["classifier"])


def stock_model(architecture: Architecture) -> nn.Module:
    """Build timm's own model without memory: names, shapes and strides of the weights that are published for it."""
    with torch.device("meta"):
        model: nn.Module = timm.create_model(FAMILIES[architecture].timm_name, pretrained=False)
    return model
