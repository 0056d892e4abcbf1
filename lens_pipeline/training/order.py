"""From the settings to the order of the training rows: who is in which weighted group, and who is whose control."""

from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lens_pipeline.batches.hashing import seed_of
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import TrainingError, first_few
from lens_pipeline.stamps.orders import Ordering, Shuffled
from lens_pipeline.stamps.pairs import Paired
from lens_pipeline.stamps.sampler import GlobalSampler
from lens_pipeline.stamps.weighted import Repeated, WithReplacement
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.choices import RowOrder
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.rows import Rows
from lens_pipeline.training.weights import read_strata

_STREAM = 3


def sampler_for(config: TrainingConfig, contract: DatasetContract, rows: Rows, store: Publication) -> GlobalSampler:
    """Return the sampler of a run's training rows, the same in every rank and in the check of the ledgers.

    Raises
    ------
    TrainingError
        If a weight names no class and no stratum, there is no pair to keep together, or an epoch is less than one step.
    """
    sampler = GlobalSampler(
        rows.train,
        seed=seed_of(config.seed, _STREAM),
        global_batch=config.batch_size,
        order=_ordering(config, contract, rows, store),
    )
    if sampler.order.n_places < config.batch_size:
        raise TrainingError(
            f"train has {len(rows.train):,} rows, of which an epoch in the order {config.order.value} takes "
            f"{sampler.order.n_places:,}: fewer than one step (batch_size {config.batch_size}). Lower batch_size, raise "
            "order_weights, or give more stamps."
        )
    return sampler


def refuse_unknown_weights(config: TrainingConfig, contract: DatasetContract, store: Publication) -> None:
    """Refuse weights of what no stored row belongs to, as soon as there is a store to know it from.

    Raises
    ------
    TrainingError
        Naming the classes and strata that there are.
    """
    classes = contract.class_names
    if set(config.order_weights) <= set(classes):
        return
    strata = sorted(pc.unique(store.read_table(None, ["stratum"])["stratum"]).to_pylist())
    unknown = sorted(set(config.order_weights) - set(strata) - set(classes))
    if unknown:
        raise TrainingError(
            f"order_weights names {first_few(unknown)}, which no row belongs to. Classes: {first_few(classes, 20)}; "
            f"strata: {first_few(strata, 40)}."
        )


def _ordering(config: TrainingConfig, contract: DatasetContract, rows: Rows, store: Publication) -> Ordering:
    if config.order is RowOrder.paired:
        return partial(Paired, control=_controls(rows, store))
    if config.order.is_weighted:
        group, weights = _groups(config.order_weights, contract, rows, store)
        kind = Repeated if config.order is RowOrder.repeated else WithReplacement
        return partial(kind, group=group, weights=weights)
    return Shuffled


def _groups(
    weights: dict[str, float], contract: DatasetContract, rows: Rows, store: Publication
) -> tuple[npt.NDArray, list[float]]:
    """Return the group of each training row and the weight of each group; a stratum's own weight goes before its class's."""
    classes = contract.class_names
    if set(weights) <= set(classes):
        return rows.labels[rows.train], [weights.get(name, 1.0) for name in classes]
    strata = read_strata(rows, store)
    trained = {name for name, count in zip(strata.names, strata.counts, strict=True) if count}
    if idle := sorted(set(weights) - trained - set(classes)):
        raise TrainingError(
            f"order_weights names {first_few(idle)}, which no training row belongs to: there these weights have no effect. "
            f"Strata of training rows: {first_few(sorted(trained), 40)}."
        )
    return strata.of_row[rows.train], [
        weights.get(name, weights.get(classes[label], 1.0))
        for name, label in zip(strata.names, strata.labels, strict=True)
    ]


def _controls(rows: Rows, store: Publication) -> npt.NDArray[np.int64]:
    """Return the logical number of each training row's control, -1 where there is none among the training rows."""
    if "pair_id" not in (store.entry(f"{store.asset}.parquet").schema or {}):
        raise TrainingError(f"order paired needs the column pair_id, and stamp_store {store.version} has none.")
    table = store.read_table(None, ["task_id", "pair_id"]).take(pa.array(rows.train))
    is_control = pc.is_null(table["pair_id"]).to_numpy()
    place = pc.index_in(table["pair_id"], value_set=table["task_id"].filter(pa.array(is_control)).combine_chunks())
    found = pc.fill_null(place, -1).to_numpy()
    paired = found >= 0
    control = np.full(len(rows.train), -1, np.int64)
    control[paired] = rows.train[is_control][found[paired]]
    if not paired.any():
        raise TrainingError(
            f"order paired: no injection of the {len(rows.train):,} training rows has its control among them (pair_id). "
            "Take another order."
        )
    return control
