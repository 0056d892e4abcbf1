"""From a batch to logits: the one path that training, validation and scoring share."""

from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from lens_pipeline.batches.augment import apply_elements
from lens_pipeline.batches.loader import Batch
from lens_pipeline.batches.preprocessing import Preprocessing


def model_input(
    batch: Batch, preprocessing: Preprocessing, device: torch.device, *, channels_last: bool = True
) -> torch.Tensor:
    """Return what the model sees: float32 (row, band, y, x) on the device.

    Parameters
    ----------
    channels_last : bool
        Whether the bands of a pixel lie side by side in memory, which convolutions are fastest on; the shape is the same.
    """
    # From pinned buffers a copy goes on while this thread does; the loader fills a buffer again when it has ended.
    pixels_BCHW = batch.pixels.to(device, non_blocking=True)
    if batch.elements is not None:
        pixels_BCHW = apply_elements(pixels_BCHW, batch.elements.to(device))
    seen_BCHW = preprocessing(
        pixels_BCHW, batch.median.to(device, non_blocking=True), batch.mad.to(device, non_blocking=True)
    )
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return seen_BCHW.contiguous(memory_format=layout)


def evaluate_logits(
    model: nn.Module,
    preprocessing: Preprocessing,
    batch: Batch,
    device: torch.device,
    *,
    channels_last: bool = True,
) -> torch.Tensor:
    """Logits of a batch's own rows, float32 (n, output) on the CPU, outside autocast; the model must be in eval mode.

    Raises
    ------
    RuntimeError
        If the model is in training mode: batch statistics would mix rows and change its buffers.
    """
    if model.training:
        raise RuntimeError("logits are evaluated in eval mode only: batch statistics would mix the rows.")
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        logits_BO: torch.Tensor = model(model_input(batch, preprocessing, device, channels_last=channels_last))
    return logits_BO[: batch.n].float().cpu()


def serialize(tensors: dict[str, torch.Tensor]) -> bytes:
    """Safetensors bytes, each tensor in plain row-major order."""
    content: Any = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    return bytes(content)
