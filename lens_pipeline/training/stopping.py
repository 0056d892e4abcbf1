"""Early stopping and the choice of the best epoch: one monitor, one state, one decision."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Stopping:
    """Where the monitor stands. Immutable: `after` gives the next state.

    Attributes
    ----------
    larger_is_better : bool
        Direction of the monitor.
    patience : int
        Epochs without improvement after which to stop: the last epoch trained is best_epoch + patience.
    min_delta : float
        An improvement is larger than this.
    """

    larger_is_better: bool
    patience: int
    min_delta: float
    best_epoch: int | None = None
    best_value: float | None = None
    last_epoch: int | None = None

    def after(self, epoch: int, value: float) -> "Stopping":
        """Return the state after an epoch whose monitored metric is `value`."""
        if self.best_value is None or self._gain(value) > self.min_delta:
            return replace(self, best_epoch=epoch, best_value=value, last_epoch=epoch)
        return replace(self, last_epoch=epoch)

    def _gain(self, value: float) -> float:
        assert self.best_value is not None
        return value - self.best_value if self.larger_is_better else self.best_value - value

    @property
    def improved(self) -> bool:
        """Whether the last epoch is the best one."""
        return self.last_epoch is not None and self.best_epoch == self.last_epoch

    @property
    def stop(self) -> bool:
        """Whether patience has run out."""
        if self.last_epoch is None or self.best_epoch is None:
            return False
        return self.last_epoch - self.best_epoch >= self.patience
