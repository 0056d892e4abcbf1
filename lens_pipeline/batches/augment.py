"""Augmentation: one of the 8 symmetries of the square, for training only.

It sees no label, treats all bands alike, and is drawn from (seed, epoch, row), so that neither world size, batch nor
thread count changes what a row looks like. Deterministic steps belong in the preprocessing.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from lens_pipeline.batches.hashing import mix

N_ELEMENTS = 8


@dataclass(frozen=True)
class DihedralAugmentation:
    """Draws one of the 8 elements of the dihedral group uniformly for every (seed, epoch, row)."""

    seed: int

    def elements(self, epoch: int, logical: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Draw the element, 0 to 7, of each row in one epoch; element 0 is the identity."""
        drawn = mix(logical.astype(np.uint64) ^ mix(np.uint64(self.seed), salt=epoch), salt=0xD1)
        return (drawn >> np.uint64(61)).astype(np.int64)


def apply_elements(pixels_BCHW: torch.Tensor, elements_B: torch.Tensor) -> torch.Tensor:
    """Turn and flip each stamp by its own element, the same for all its bands.

    Bit 0 of an element transposes, bit 1 flips y, bit 2 flips x, in this order: the 8 combinations are the 8 elements.

    Parameters
    ----------
    pixels_BCHW : torch.Tensor
        (row, band, y, x), any dtype, square.
    elements_B : torch.Tensor
        int64 in 0..7.
    """
    bits_BK = ((elements_B[:, None] >> torch.arange(3, device=elements_B.device)) & 1).bool()
    turned_BCHW = pixels_BCHW
    for bit, move in enumerate((_transpose, _flip_y, _flip_x)):
        turned_BCHW = torch.where(bits_BK[:, bit, None, None, None], move(turned_BCHW), turned_BCHW)
    return turned_BCHW


def _transpose(pixels_BCHW: torch.Tensor) -> torch.Tensor:
    return pixels_BCHW.transpose(2, 3)


def _flip_y(pixels_BCHW: torch.Tensor) -> torch.Tensor:
    return pixels_BCHW.flip(2)


def _flip_x(pixels_BCHW: torch.Tensor) -> torch.Tensor:
    return pixels_BCHW.flip(3)
