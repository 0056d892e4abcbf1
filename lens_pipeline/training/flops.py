"""Floating-point operations of one stamp, counted from the shapes alone."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from lens_pipeline.training.choices import Precision
from lens_pipeline.training.models import ModelSpec, build_model

# Dense peaks by NVIDIA's data sheets, TFLOP/s: of bf16 or float16 tensor cores, and of float32 outside them. A name that a
# longer one begins with comes after it.
_PEAKS = {
    "H100 PCIe": (756.0, 51.0),
    "H100": (989.4, 67.0),
    "H200": (989.4, 67.0),
    "A100": (312.0, 19.5),
    "V100": (125.0, 15.7),
    "L40S": (362.0, 91.6),
    "L4": (121.0, 30.3),
    "A10": (125.0, 31.2),
    "T4": (65.0, 8.1),
}


def peak_flops(device: torch.device, precision: Precision) -> float | None:
    """Operations a second that a GPU can do at most in a precision; None for a CPU or a GPU that isn't in the table."""
    if device.type != "cuda":
        return None
    return peak_of(torch.cuda.get_device_name(device), precision)


def peak_of(name: str, precision: str) -> float | None:
    """Operations a second of a GPU by its name; None for one that isn't in the table."""
    for known, (lower, single) in _PEAKS.items():
        if known in name:
            return 1e12 * (single if precision == Precision.float32 else lower)
    return None


def flops_per_stamp(spec: ModelSpec) -> int:
    """Operations of training on one stamp, forward and backward; a multiplication and an addition are two.

    Only convolutions, matrix products and attention count (torch's `FlopCounterMode`); what the GPU spends on anything
    else, and on computing again what it didn't keep, lowers a utilisation that is worked out from this.
    """
    return sum(_forward_and_backward(spec))


def forward_flops_per_stamp(spec: ModelSpec) -> int:
    """Operations of scoring one stamp."""
    return _forward_and_backward(spec)[0]


@lru_cache
def _forward_and_backward(spec: ModelSpec) -> tuple[int, int]:
    # A meta tensor has a shape and no numbers, so that nothing is computed. Two rows are counted and halved: batch
    # normalisation refuses one row whose map is one pixel.
    with torch.device("meta"):
        model = build_model(spec).train()
        stamps_BCHW = torch.zeros(2, spec.bands, spec.stamp_size, spec.stamp_size)
    counted = {torch.ops.aten.convolution_backward: _convolution_backward}
    with FlopCounterMode(display=False, custom_mapping=counted) as counter:
        logits_BO = model(stamps_BCHW)
        forward = int(counter.get_total_flops())
        logits_BO.sum().backward()
    return forward // 2, (int(counter.get_total_flops()) - forward) // 2


def _convolution_backward(
    grad_out_shape: Sequence[int],
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    output_mask: Sequence[bool],
    out_shape: Any,
) -> int:
    """Count each gradient (of the input, of the kernel) like the forward pass: they pair the same numbers.

    torch's own count takes every channel with every other for the kernel's gradient also where a convolution works on
    groups of them, which for a depthwise one is too much by its number of channels.
    """
    once = conv_flop_count(list(x_shape), list(w_shape), list(grad_out_shape), transposed=transposed)
    return int(once) * (int(output_mask[0]) + int(output_mask[1]))
