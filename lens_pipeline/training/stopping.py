"""Early stopping and the choice of the best epoch: one monitor, one state, one decision. Imports no torch."""

from dataclasses import dataclass, replace

import numpy as np

from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.choices import Monitor
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.rows import Rows

# Of a count of this many, the standard deviation is 10 %: so many galaxies of each class a rank metric must rest on.
ENOUGH_GALAXIES = 100


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
        An improvement is larger than this many standard errors of the monitor.
    """

    larger_is_better: bool
    patience: int
    min_delta: float
    best_epoch: int | None = None
    best_value: float | None = None
    last_epoch: int | None = None

    def after(self, epoch: int, value: float, standard_error: float = 0.0) -> "Stopping":
        """Return the state after an epoch whose monitored metric is `value`.

        Parameters
        ----------
        standard_error : float
            Of `value`, over the rows that it was measured on. Epochs are judged on the same rows, so that their difference
            has a smaller one: `min_delta` 1 asks for more than it seems to.
        """
        if self.best_value is None or self._gain(value) > self.min_delta * standard_error:
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


def refuse_unresolvable_monitor(config: TrainingConfig, rows: Rows, store: Publication) -> None:
    """Refuse, before any work, a monitor whose changes val_select can't tell from chance.

    A rank metric rests on as many independent rows as there are galaxies; a partial area up to a false-positive rate f
    on the part f of those without a lens. A likelihood has a value from every row, so its own standard error says how well
    it is known, and `min_delta` can be set by it.

    Raises
    ------
    TrainingError
        With the numbers that there are and those that are needed.
    """
    if not config.monitor.larger_is_better:
        return
    part = config.partial_auc_max_fpr if config.monitor is Monitor.val_partial_auc else 1.0
    galaxy = store.read_table(None, ["galaxy_id"])["galaxy_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    is_lens = rows.labels[rows.validation] > 0
    lenses, others = (len(np.unique(galaxy[rows.validation[chosen]])) for chosen in (is_lens, ~is_lens))
    needed = int(np.ceil(ENOUGH_GALAXIES / part - 1e-9))
    if lenses >= ENOUGH_GALAXIES and others >= needed:
        return
    up_to = f" up to a false-positive rate of {part:g}" if part < 1 else ""
    raise TrainingError(
        f"monitor {config.monitor.value}{up_to} would be decided by chance: val_select has {int(is_lens.sum()):,} lenses of "
        f"{lenses:,} galaxies and {int((~is_lens).sum()):,} others of {others:,}; for counts that are known to 10 % "
        f"{ENOUGH_GALAXIES} galaxies with a lens and {needed:,} without are needed. Set monitor: val_loss or "
        "val_balanced_loss, or give val_select more regions."
    )
