"""Mixup and cutmix of a rank's rows, with draws that are functions of (seed, epoch, step, rank)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from lens_pipeline.batches.hashing import seed_of
from lens_pipeline.training.config import TrainingConfig

_STREAM = 5


@dataclass(frozen=True)
class Draw:
    """How the rows of one step are mixed.

    Attributes
    ----------
    share : float
        What each row keeps of itself, in pixels and in its label.
    box : tuple of int or None
        Of cutmix: first and last + 1 pixel in y and in x that come from the other row; None is mixup.
    """

    share: float
    box: tuple[int, int, int, int] | None


def draw(config: TrainingConfig, side: int, *, epoch: int, step: int, rank: int) -> Draw | None:
    """Draw how a step is mixed; None where mixing is off.

    The share is Beta(alpha, alpha), one a step; cutmix exchanges a square of area 1 - share around a uniform centre, cut
    at the border, and the share is then the area that stays (Zhang et al. 2018; Yun et al. 2019; as timm does it).

    Parameters
    ----------
    side : int
        Pixels on a side of a stamp.
    """
    alphas = {False: config.mixup_alpha, True: config.cutmix_alpha}
    if not any(alphas.values()):
        return None
    random = np.random.Generator(np.random.Philox(seed_of(config.seed, _STREAM, epoch, step, rank)))
    cut = bool(random.random() < 0.5) if all(alphas.values()) else config.cutmix_alpha > 0
    share = float(random.beta(alphas[cut], alphas[cut]))
    if not cut:
        return Draw(share, None)
    length = int(side * np.sqrt(1 - share))
    y, x = (int(center) for center in random.integers(0, side, 2))
    top, left = max(y - length // 2, 0), max(x - length // 2, 0)
    bottom, right = min(y + (length + 1) // 2, side), min(x + (length + 1) // 2, side)
    return Draw(1.0 - (bottom - top) * (right - left) / side**2, (top, bottom, left, right))


def mix(
    pixels_BCHW: torch.Tensor,
    labels_B: torch.Tensor,
    config: TrainingConfig,
    *,
    n_rows: int,
    n_classes: int,
    epoch: int,
    step: int,
    rank: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix each row with the one that stands as far from the end as it does from the start.

    Parameters
    ----------
    pixels_BCHW : torch.Tensor
        What the model would see; it is not written to.
    labels_B : torch.Tensor
        int64 places of the classes.
    n_rows : int
        The first rows, that are the step's own; what pads them stays as it is and mixes with none.

    Returns
    -------
    pixels, targets : torch.Tensor
        The same two tensors where mixing is off; else new pixels, and float32 (row, class) shares of the classes.
    """
    drawn = draw(config, pixels_BCHW.shape[-1], epoch=epoch, step=step, rank=rank)
    if drawn is None:
        return pixels_BCHW, labels_B
    mixed_BCHW = pixels_BCHW.clone(memory_format=torch.preserve_format)
    own, others = mixed_BCHW[:n_rows], pixels_BCHW[:n_rows].flip(0)
    if drawn.box is None:
        own.mul_(drawn.share).add_(others.mul_(1.0 - drawn.share))
    else:
        top, bottom, left, right = drawn.box
        own[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
    targets_BK = functional.one_hot(labels_B, n_classes).float()
    own_BK = targets_BK[:n_rows]
    targets_BK[:n_rows] = own_BK * drawn.share + own_BK.flip(0) * (1.0 - drawn.share)
    return mixed_BCHW, targets_BK
