"""Learning rate as a closed form of epoch and step: nothing to save, nothing to resume.

The plateau's one is a function of the monitored values of the epochs before, which the checkpoint holds anyway.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lens_pipeline.training.choices import ScheduleName
from lens_pipeline.training.config import TrainingConfig

# torch's OneCycleLR starts at this part of the peak (div_factor).
ONE_CYCLE_DIVISOR = 25.0
# A cut of the learning rate by less than this isn't made: eps of torch's ReduceLROnPlateau.
_LEAST_CUT = 1e-8


@dataclass(frozen=True)
class Schedule:
    """Learning rate of every step of a run.

    Parameters
    ----------
    config : TrainingConfig
    steps_per_epoch : int
        Optimizer steps of an epoch.
    """

    config: TrainingConfig
    steps_per_epoch: int

    @property
    def total_steps(self) -> int:
        """Steps of all epochs: a schedule ends with the run, not with some other number of epochs."""
        return self.config.epochs * self.steps_per_epoch

    @property
    def warmup_steps(self) -> int:
        """Steps until the peak."""
        return round(self.config.warmup_epochs * self.steps_per_epoch)

    def rate(self, epoch: int, step: int, monitored: Sequence[float] = ()) -> float:
        """Learning rate of one optimizer step, of layers whose own scale is 1.

        Parameters
        ----------
        epoch, step : int
            Step within the epoch.
        monitored : sequence of float
            Monitor after each of the epochs before this one.

        Raises
        ------
        ValueError
            If the plateau was given other than one value an epoch that is over.
        """
        config, place = self.config, epoch * self.steps_per_epoch + step
        if config.schedule is not ScheduleName.plateau:
            return (cosine_rate if config.schedule is ScheduleName.cosine else one_cycle_rate)(
                place,
                total_steps=self.total_steps,
                warmup_steps=self.warmup_steps,
                peak=config.learning_rate,
                lowest=config.min_learning_rate,
            )
        if len(monitored) != epoch:
            raise ValueError(
                f"plateau in epoch {epoch} needs {epoch} monitored values, and was given {len(monitored)}."
            )
        if place < self.warmup_steps:
            return config.learning_rate * (place + 1) / self.warmup_steps
        assert config.plateau_factor is not None
        assert config.plateau_patience is not None
        return plateau_rate(
            monitored,
            larger_is_better=config.monitor.larger_is_better,
            patience=config.plateau_patience,
            factor=config.plateau_factor,
            peak=config.learning_rate,
            lowest=config.min_learning_rate,
        )


def cosine_rate(step: int, *, total_steps: int, warmup_steps: int, peak: float, lowest: float) -> float:
    """Linear warmup, then half a cosine (Loshchilov & Hutter 2017).

    Parameters
    ----------
    step : int
        From 0 to total_steps - 1, counted over all epochs.
    warmup_steps : int
        Step `warmup_steps` - 1 has the peak; 0 starts there.
    peak, lowest : float
        Learning rates after the warmup and at the last step.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    span = max(total_steps - 1 - warmup_steps, 1)
    progress = min((step - warmup_steps) / span, 1.0)
    return lowest + 0.5 * (peak - lowest) * (1 + math.cos(math.pi * progress))


def one_cycle_rate(step: int, *, total_steps: int, warmup_steps: int, peak: float, lowest: float) -> float:
    """Half a cosine up from peak / 25 and half a cosine down (Smith & Topin 2019, torch's two phases).

    AdamW's betas stay as they are. Parameters as in `cosine_rate`; step `warmup_steps` - 1 has the peak.
    """
    top = warmup_steps - 1
    if step < top:
        return _between(peak / ONE_CYCLE_DIVISOR, peak, step / top)
    return _between(peak, lowest, (step - top) / max(total_steps - 1 - top, 1))


def plateau_rate(
    monitored: Sequence[float], *, larger_is_better: bool, patience: int, factor: float, peak: float, lowest: float
) -> float:
    """Return the peak, multiplied by `factor` each time more than `patience` epochs went by without improvement.

    The rule of torch's ReduceLROnPlateau (threshold 0, no cooldown), which timm's PlateauLRScheduler calls.

    Parameters
    ----------
    monitored : sequence of float
        The monitor after each epoch so far.
    """
    rate, best, bad = peak, None, 0
    for value in monitored:
        if best is None or (value > best if larger_is_better else value < best):
            best, bad = value, 0
        else:
            bad += 1
        if bad > patience:
            cut = max(rate * factor, lowest)
            rate, bad = cut if rate - cut > _LEAST_CUT else rate, 0
    return rate


def _between(start: float, end: float, progress: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * progress) + 1)
