"""The model: a timm architecture by name, its stem fitted to the stamp size, described by a spec that rebuilds it.

Training and scoring both build from the spec, and from nothing else.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

import timm
import torch
from torch import nn

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.training.config import Architecture

# A head that averages over one pixel can't tell where anything is; 2 x 2 is the least that is accepted.
MIN_FEATURE_SIDE = 2

# (stride, pooling) of the stem, the architecture's own first, then what a smaller stamp needs.
_STEMS: dict[Architecture, tuple[tuple[int, bool], ...]] = {
    Architecture.test_resnet: ((2, True), (2, False), (1, False)),
    Architecture.resnet10t: ((2, True), (2, False), (1, False)),
    Architecture.resnet18: ((1, False),),
    Architecture.regnetx_002: ((2, False), (1, False)),
    Architecture.test_convnext: ((4, False), (2, False)),
}


@dataclass(frozen=True)
class ModelSpec:
    """Everything that defines the model but its weights.

    Attributes
    ----------
    stem_stride : int
        Stride of the first convolution.
    stem_pool : bool
        Whether the architecture's pooling after the stem is kept.
    feature_side : int
        Pixels on a side of the last feature map, asserted when built.
    """

    architecture: str
    bands: int
    stamp_size: int
    outputs: int
    dropout: float
    stem_stride: int
    stem_pool: bool
    feature_side: int

    @classmethod
    def from_json(cls, spec: dict[str, Any]) -> "ModelSpec":
        """Rebuild from a checkpoint's JSON.

        Raises
        ------
        ConfigError
            If a field is missing or unknown.
        """
        wanted = {field.name for field in fields(cls)}
        if set(spec) != wanted:
            raise ConfigError(
                f"a model spec has the fields {sorted(wanted)}, this one has {sorted(spec)}: "
                "the checkpoint was written by another version of this package."
            )
        return cls(**spec)

    def to_json(self) -> dict[str, Any]:
        """Return the fields, JSON-able."""
        return asdict(self)


def spec_for(architecture: Architecture, contract: DatasetContract, dropout: float) -> ModelSpec:
    """Choose the stem for the contract's stamp size.

    resnet18 gets a 3x3 stride-1 stem without pooling at any size (a 64-pixel stamp then keeps an 8x8 map). The small
    networks keep their own stem where it leaves at least 2x2 pixels; for smaller stamps they lose first its pooling, then
    its stride.

    Raises
    ------
    ConfigError
        If the stamps are too small even so.
    """
    for stride, pool in _STEMS[architecture]:
        side = _feature_side(architecture, contract.stamp_size, stride, pool)
        if side >= MIN_FEATURE_SIDE:
            break
    else:
        raise ConfigError(
            f"{architecture.value} leaves {side}x{side} pixels of a {contract.stamp_size}-pixel stamp, at least "
            f"{MIN_FEATURE_SIDE}x{MIN_FEATURE_SIDE} are needed. Use larger stamps or another model."
        )
    return ModelSpec(
        architecture=architecture.value,
        bands=len(contract.bands),
        stamp_size=contract.stamp_size,
        outputs=contract.n_outputs,
        dropout=dropout,
        stem_stride=stride,
        stem_pool=pool,
        feature_side=side,
    )


def build_model(spec: ModelSpec) -> nn.Module:
    """Build the model with fresh weights from torch's current seed, in channels-last memory format.

    Raises
    ------
    ConfigError
        If its last feature map or head isn't what the spec says.
    """
    architecture = Architecture(spec.architecture)
    # Residual branches that start at zero get no gradient in the first step, in which it is checked that all train.
    start: dict[str, Any] = {"zero_init_last": False} if architecture.has_batchnorm else {}
    model: nn.Module = timm.create_model(
        spec.architecture,
        pretrained=False,
        in_chans=spec.bands,
        num_classes=spec.outputs,
        drop_rate=spec.dropout,
        **start,
    )
    _fit_stem(model, architecture, spec)
    model = model.to(memory_format=torch.channels_last)
    _assert_shapes(model, spec)
    return model


def has_batchnorm(model: nn.Module) -> bool:
    """Whether any layer normalises over the batch."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def freeze_batchnorm(model: nn.Module) -> None:
    """Let batch normalisation use its running statistics, as for a step of too few rows, until the next `train()`."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def _feature_side(architecture: Architecture, stamp_size: int, stride: int, pool: bool) -> int:
    halvings = 4 if architecture is Architecture.regnetx_002 else 3
    round_up = architecture is not Architecture.test_convnext
    side = stamp_size
    for factor in (stride, 2 if pool else 1, *([2] * halvings)):
        side = -(-side // factor) if round_up else side // factor
    return side


def _fit_stem(model: nn.Module, architecture: Architecture, spec: ModelSpec) -> None:
    parts: Any = model
    if architecture is Architecture.resnet18:
        width = parts.conv1.out_channels
        parts.conv1 = nn.Conv2d(spec.bands, width, 3, stride=spec.stem_stride, padding=1, bias=False)
        nn.init.kaiming_normal_(parts.conv1.weight, mode="fan_out", nonlinearity="relu")
    elif architecture in (Architecture.test_resnet, Architecture.resnet10t):
        parts.conv1[0].stride = (spec.stem_stride, spec.stem_stride)
    elif architecture is Architecture.regnetx_002:
        parts.stem.conv.stride = (spec.stem_stride, spec.stem_stride)
    elif spec.stem_stride == 2:
        # The 4-pixel patches overlap by half; a border of one pixel keeps the map at half the stamp's side.
        parts.stem[0].stride, parts.stem[0].padding = (2, 2), (1, 1)
    if not spec.stem_pool and hasattr(model, "maxpool"):
        parts.maxpool = nn.Identity()


def _assert_shapes(model: nn.Module, spec: ModelSpec) -> None:
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            blank_BCHW = torch.zeros(1, spec.bands, spec.stamp_size, spec.stamp_size)
            features_BCHW = model.forward_features(blank_BCHW)  # type: ignore[operator]
            logits_BO = model(blank_BCHW)
    finally:
        model.train(was_training)
    found = tuple(features_BCHW.shape[-2:])
    if found != (spec.feature_side, spec.feature_side) or logits_BO.shape != (1, spec.outputs):
        raise ConfigError(
            f"{spec.architecture} built for {spec.bands} x {spec.stamp_size} x {spec.stamp_size} stamps has a last feature "
            f"map of {found} and {logits_BO.shape[1]} outputs; its spec says {spec.feature_side} and {spec.outputs}."
        )
