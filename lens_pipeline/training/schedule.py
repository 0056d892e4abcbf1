"""Learning rate as a closed form of the step: nothing to save, nothing to resume."""

import math


def learning_rate(step: int, *, total_steps: int, warmup_steps: int, peak: float, lowest: float) -> float:
    """Learning rate of one optimizer step: linear warmup, then half a cosine (Loshchilov & Hutter 2017).

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
