"""Weights of classes and strata in the loss, from the counts of the training split. Imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lens_pipeline.contracts.errors import TrainingError, first_few
from lens_pipeline.stamps.weighted import LARGEST_WEIGHT
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.choices import ClassWeighting, StratumWeighting
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.rows import Rows

# Where lenses are rarer than this, a focal_alpha under a half is what Lin et al. (2017) found best.
RARE = 0.1


@dataclass(frozen=True)
class Strata:
    """The strata of a store.

    Attributes
    ----------
    names : tuple of str
    labels : tuple of int
        Class that each belongs to.
    counts : tuple of int
        Training rows of each.
    of_row : int array
        Stratum of every stored row, by logical number.
    """

    names: tuple[str, ...]
    labels: tuple[int, ...]
    counts: tuple[int, ...]
    of_row: npt.NDArray[np.int32]

    def by_row(self, weights: Mapping[str, float]) -> npt.NDArray[np.float32]:
        """Weight of every stored row, by logical number; 1 in strata that have none."""
        return np.array([weights.get(name, 1.0) for name in self.names], dtype=np.float32)[self.of_row]


def strata_for(config: TrainingConfig, rows: Rows, store: Publication) -> Strata | None:
    """Read the strata where the loss weighs them."""
    return None if config.stratum_weighting is StratumWeighting.none else read_strata(rows, store)


def read_strata(rows: Rows, store: Publication) -> Strata:
    """Read which stratum each stored row belongs to, and count the training rows."""
    column = store.read_table(None, ["stratum"])["stratum"].combine_chunks().dictionary_encode()
    names, of_row = tuple(column.dictionary.to_pylist()), column.indices.to_numpy()
    labels = np.zeros(len(names), np.int64)
    labels[of_row] = rows.labels
    counts = np.bincount(of_row[rows.train], minlength=len(names))
    return Strata(names, tuple(labels.tolist()), tuple(counts.tolist()), of_row)


def class_weights(counts: Sequence[int], weighting: ClassWeighting) -> tuple[float, ...]:
    """Weight of each class from its count in the training split.

    Balanced: n / (k n_c), so that classes weigh alike and the mean weight of a training row is 1.
    """
    if weighting is ClassWeighting.none:
        return tuple(1.0 for _ in counts)
    return tuple(sum(counts) / (len(counts) * count) for count in counts)


def stratum_weights(strata: Strata, weighting: StratumWeighting) -> dict[str, float]:
    """Weight of each stratum that has training rows; without weighting there is none.

    Balanced: n_c / (k_c n_s) for a stratum of n_s rows in a class of n_c rows and k_c strata, so that the strata of a
    class weigh alike and the class weighs as before.

    Raises
    ------
    TrainingError
        If a stratum is so rare that each of its rows would weigh more than 100.
    """
    if weighting is StratumWeighting.none:
        return {}
    found = [(name, label, n) for name, label, n in zip(strata.names, strata.labels, strata.counts, strict=True) if n]
    weights = {}
    for name, label, n in found:
        of_class = [count for _, other, count in found if other == label]
        weights[name] = sum(of_class) / (len(of_class) * n)
    rare = [f"{name}: {n:,} rows" for name, _, n in found if weights[name] > LARGEST_WEIGHT]
    if rare:
        raise TrainingError(
            f"stratum_weighting balanced gives {len(rare)} of {len(found)} strata a weight over {LARGEST_WEIGHT:g} "
            f"({first_few(rare)}): a handful of rows would rule the gradient. Give more stamps of them, or set "
            "stratum_weighting: none."
        )
    return weights


def refuse_unusable_weights(config: TrainingConfig, counts: Sequence[int], rows: Rows, store: Publication) -> None:
    """Refuse, before any work, weights of classes or strata that can't be made of these rows.

    Raises
    ------
    TrainingError
        As `refuse_focal_alpha` and `stratum_weights` do.
    """
    refuse_focal_alpha(config, counts)
    if (strata := strata_for(config, rows, store)) is not None:
        stratum_weights(strata, config.stratum_weighting)


def refuse_focal_alpha(config: TrainingConfig, counts: Sequence[int]) -> None:
    """Refuse a focal alpha that has no meaning, or that takes weight from lenses which aren't rare.

    Raises
    ------
    TrainingError
        If there are more than two classes, or alpha is under a half and lenses are a tenth of the rows or more.
    """
    alpha = config.focal_alpha
    if alpha is None:
        return
    if len(counts) != 2:
        raise TrainingError(
            f"focal_alpha {alpha:g} is a weight of one of two classes, and there are {len(counts)}. "
            "Set focal_alpha: null; class_weighting: balanced weighs any number of classes."
        )
    share = counts[1] / sum(counts)
    if alpha < 0.5 and share >= RARE:
        raise TrainingError(
            f"focal_alpha {alpha:g} gives a lens {alpha / (1 - alpha):.2g} times the weight of a non-lens, and lenses are "
            f"{share:.0%} of the {sum(counts):,} training rows: that spoils their completeness and the calibration. Lin et "
            "al. (2017) found 0.25 where one anchor in thousands was an object. Set focal_alpha: null, or 0.5 and more."
        )
