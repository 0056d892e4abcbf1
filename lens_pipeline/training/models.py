"""The model: a timm architecture by name, its stem fitted to the stamp size, described by a spec that rebuilds it.

Training and scoring both build from the spec, and from nothing else.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.training.choices import Architecture, Normalization
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.normalization import normalised
from lens_pipeline.training.stems import Stem, create, stem_for


@dataclass(frozen=True)
class ModelSpec:
    """Everything that defines the model but its weights.

    Attributes
    ----------
    dropout, drop_path : float
        Share of the head's inputs that is dropped; share of rows that skip the last residual block, falling linearly to
        none in the first (Huang et al. 2016).
    normalization : str
        What the layers that normalise over the batch are (`lens_pipeline.training.config.Normalization`).
    stem_stride : int
        Stride of the first convolution.
    stem_pool : bool
        Whether the architecture's pooling after the stem is kept.
    feature_side : int
        Pixels (a transformer's tokens) on a side of the last feature map, asserted when built.
    """

    architecture: str
    bands: int
    stamp_size: int
    outputs: int
    dropout: float
    drop_path: float
    normalization: str
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


def spec_for(config: TrainingConfig, contract: DatasetContract) -> ModelSpec:
    """Choose the stem for the contract's stamp size, and the head for its classes.

    resnet18 gets a 3x3 stride-1 stem without pooling at any size (a 64-pixel stamp then keeps an 8x8 map). The others keep
    their own stem where it leaves a map that can tell where something is, and else get a finer one: docs/models.md.

    Raises
    ------
    ConfigError
        If the stamps are too small even so.
    """
    stem, side = stem_for(config.model, contract.stamp_size)
    return ModelSpec(
        architecture=config.model.value,
        bands=len(contract.bands),
        stamp_size=contract.stamp_size,
        outputs=contract.n_outputs,
        dropout=config.dropout,
        drop_path=config.drop_path,
        normalization=config.normalization.value,
        stem_stride=stem.stride,
        stem_pool=stem.pool,
        feature_side=side,
    )


def build_model(spec: ModelSpec) -> nn.Module:
    """Build the model with fresh weights from torch's current seed, in channels-last memory format.

    Raises
    ------
    ConfigError
        If its last feature map or head isn't what the spec says.
    """
    model = normalised(
        create(
            Architecture(spec.architecture),
            Stem(spec.stem_stride, spec.stem_pool),
            bands=spec.bands,
            stamp_size=spec.stamp_size,
            outputs=spec.outputs,
            drop_rate=spec.dropout,
            drop_path_rate=spec.drop_path,
        ),
        Normalization(spec.normalization),
    )
    model = model.to(memory_format=torch.channels_last)
    _assert_shapes(model, spec)
    return model


def has_batchnorm(model: nn.Module) -> bool:
    """Whether any layer normalises over the batch."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def freeze_batchnorm(model: nn.Module) -> None:
    """Let batch normalisation use its running statistics, as for a step of too few rows, until the next `train()`."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def _assert_shapes(model: nn.Module, spec: ModelSpec) -> None:
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            blank_BCHW = torch.zeros(
                1, spec.bands, spec.stamp_size, spec.stamp_size, device=next(model.parameters()).device
            )
            features = model.forward_features(blank_BCHW)  # type: ignore[operator]
            logits_BO = model.forward_head(features)  # type: ignore[operator]
    finally:
        model.train(was_training)
    # Tokens are (row, token, channel), feature maps (row, channel, y, x).
    found, wanted = (
        (features.shape[1], spec.feature_side**2)
        if features.ndim == 3
        else (tuple(features.shape[-2:]), (spec.feature_side, spec.feature_side))
    )
    if found != wanted or logits_BO.shape != (1, spec.outputs):
        raise ConfigError(
            f"{spec.architecture} built for {spec.bands} x {spec.stamp_size} x {spec.stamp_size} stamps has a last feature "
            f"map of {found} and {logits_BO.shape[1]} outputs; its spec says {spec.feature_side} and {spec.outputs}."
        )
