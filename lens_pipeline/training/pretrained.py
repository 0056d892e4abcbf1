"""Pretrained weights: copied where they fit, mapped in the first layer, fresh in the head, and every one accounted for."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from lens_pipeline.contracts.errors import ConfigError, first_few
from lens_pipeline.training.choices import Architecture
from lens_pipeline.training.kernels import map_first_kernel, map_positions
from lens_pipeline.training.models import ModelSpec
from lens_pipeline.training.stems import first_convolution, first_name, head_name, stock_model
from lens_pipeline.training.weights_file import refuse_other_weights

_POSITIONS = "pos_embed"


@dataclass(frozen=True)
class Mapped:
    """A tensor that was mapped: its name, its shapes before and after, and the formulas in words."""

    name: str
    stock_shape: tuple[int, ...]
    shape: tuple[int, ...]
    formulas: tuple[str, ...]


@dataclass(frozen=True)
class PretrainedReport:
    """What became of every tensor of the file and of the model; a part of model.json.

    Attributes
    ----------
    sha256 : str
        Of the file.
    copied : int
        Tensors that are the file's, number for number.
    mapped : tuple of Mapped
        Tensors that were made from the file's.
    fresh : tuple of str
        Tensors of the model that stayed as they were initialised.
    unused : tuple of str
        Tensors of the file that the model has no place for.
    """

    architecture: str
    sha256: str
    copied: int
    mapped: tuple[Mapped, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the fields, JSON-able, equal to what a JSON file gives back."""
        mapped = [
            {**asdict(one), "stock_shape": list(one.stock_shape), "shape": list(one.shape), "formulas": [*one.formulas]}
            for one in self.mapped
        ]
        return {**asdict(self), "mapped": mapped, "fresh": [*self.fresh], "unused": [*self.unused]}


def load_pretrained(model: nn.Module, spec: ModelSpec, path: Path, *, sha256: str) -> PretrainedReport:
    """Put the weights of timm's stock network of 3 inputs and its own stem into a model that was built for stamps.

    The first kernel is mapped (`lens_pipeline.training.kernels`), as a transformer's positions are; the head stays fresh.

    Raises
    ------
    ConfigError
        If the file isn't the one with that SHA-256 or isn't safetensors; if a tensor is missing, unexpected, of another
        shape, or not finite.
    """
    refuse_other_weights(path, sha256)
    found = load_file(path)
    stock = stock_model(Architecture(spec.architecture))
    _refuse_others(found, stock, path, spec)

    first, head = f"{first_name(stock)}.weight", f"{head_name(stock)}."
    state = model.state_dict()
    mapped: list[Mapped] = []
    copied = 0
    formulas: tuple[str, ...]
    for name, tensor in state.items():
        if name.startswith(head) or name not in found:
            continue
        given = found[name]
        if name == first:
            new, formulas = map_first_kernel(
                given,
                bands=spec.bands,
                side=tensor.shape[2],
                stride=spec.stem_stride,
                stock_stride=first_convolution(stock).stride[0],
            )
        elif name == _POSITIONS:
            new = map_positions(given, grid=spec.feature_side, n_prefix=_n_prefix(stock))
            formulas = (f"{given.shape[1]} positions to a grid of {spec.feature_side} x {spec.feature_side}, bicubic",)
        else:
            new, formulas = given, ()
        tensor.copy_(new)
        if formulas:
            mapped.append(Mapped(name, tuple(given.shape), tuple(tensor.shape), formulas))
        else:
            copied += 1
    return PretrainedReport(
        architecture=spec.architecture,
        sha256=sha256,
        copied=copied,
        mapped=tuple(mapped),
        fresh=tuple(name for name in state if name.startswith(head) or name not in found),
        unused=tuple(sorted(name for name in found if name.startswith(head) or name not in state)),
    )


def _refuse_others(found: dict[str, torch.Tensor], stock: nn.Module, path: Path, spec: ModelSpec) -> None:
    """Compare with timm's own network; the head may be missing or another, and counters of batches may be missing."""
    head = f"{head_name(stock)}."
    wanted = {name: tensor for name, tensor in stock.state_dict().items() if not name.startswith(head)}
    given = {name: tensor for name, tensor in found.items() if not name.startswith(head)}
    problems = {
        "missing": [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")],
        "unexpected": sorted(set(given) - set(wanted)),
        "of another shape": [
            f"{name} {tuple(given[name].shape)} for {tuple(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in given and given[name].shape != tensor.shape
        ],
        "not finite": [name for name, tensor in given.items() if not torch.isfinite(tensor).all()],
    }
    if any(problems.values()):
        said = "; ".join(f"{len(names)} {what}: {first_few(names)}" for what, names in problems.items() if names)
        raise ConfigError(
            f"{path} doesn't hold the weights of timm's {spec.architecture} as it is published ({len(wanted)} tensors "
            f"besides the head): {said}. Give the file of that architecture, or leave pretrained out."
        )


def _n_prefix(stock: nn.Module) -> int:
    parts: Any = stock
    return int(parts.num_prefix_tokens)
