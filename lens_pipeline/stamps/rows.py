"""Rows without their pixels: who they are, which class and stratum, and which can't be stored.

Belongs here: everything about a row that can be said before its blob is opened, over one table of rows. Which tables those
are, and where the rows go, is in `plan.py`.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lens_pipeline.contracts.catalogue import STAMPS
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import ContractError
from lens_pipeline.contracts.tables import Column
from lens_pipeline.stamps.buckets import HASH_BYTES
from lens_pipeline.stamps.fragments import Fragment
from lens_pipeline.stamps.reasons import Quarantine, Reason

# Judged on their own, with reasons of their own.
_JUDGED_APART = frozenset({"task_id", "cutout_ok", "lens_model", "galaxy_id"})


def hash_keys(keys: Iterable[str | None]) -> NDArray[np.uint64]:
    """BLAKE2b-128 of each key as (n, 2) big-endian uint64, zero for a null key."""
    nothing = bytes(HASH_BYTES)
    digests = b"".join(
        nothing if key is None else hashlib.blake2b(key.encode(), digest_size=HASH_BYTES).digest() for key in keys
    )
    return np.frombuffer(digests, dtype=">u8").reshape(-1, 2)


def labels_of(lens_model: pa.Array | pa.ChunkedArray, contract: DatasetContract) -> NDArray[np.int8]:
    """Integer label of each row, -1 where the value is null or unknown."""
    known = contract.label_of
    place = pc.index_in(lens_model, value_set=pa.array(list(known), pa.string())).fill_null(-1)
    # The last place, which -1 points to, is for values that no class names.
    labels = np.array([*known.values(), -1], dtype=np.int8)
    found: NDArray[np.int8] = labels[place.to_numpy(zero_copy_only=False)]
    return found


def strata_of(table: pa.Table, label: NDArray[np.int8], contract: DatasetContract) -> pa.Array:
    """Stratum of each row, asking the contract once for each class, lens model and Einstein-radius bin."""
    models = table["lens_model"].combine_chunks().dictionary_encode()
    theta_e = table["theta_e_arcsec"].to_numpy()
    edges = np.asarray(contract.theta_e_edges_arcsec)
    bins = np.where(np.isfinite(theta_e), np.searchsorted(edges, theta_e, side="right"), -1)
    kinds = np.column_stack([label, models.indices.to_numpy(zero_copy_only=False), bins])
    _, first, which = np.unique(kinds, axis=0, return_index=True, return_inverse=True)
    names = [
        contract.stratum(
            int(label[row]), table["lens_model"][row].as_py(), float(theta_e[row]) if bins[row] >= 0 else None
        )
        for row in first.tolist()
    ]
    return pa.array(names, pa.string()).take(pa.array(which.ravel()))


def as_declared(batch: pa.RecordBatch, columns: tuple[str, ...], fragment: Fragment) -> pa.Table:
    """Return a batch's rows with exactly these columns, cast to their declared types; null where the file lacks one.

    Raises
    ------
    ContractError
        If a value doesn't fit its declared type.
    """
    schema = pa.schema([(name, STAMPS.column(name).dtype) for name in columns])
    there = {name: _cast(batch.column(name), schema.field(name).type, fragment) for name in batch.schema.names}
    return pa.table([there.get(name, pa.nulls(batch.num_rows, schema.field(name).type)) for name in columns], schema)


def _cast(values: pa.Array, dtype: pa.DataType, fragment: Fragment) -> pa.Array:
    try:
        cast = values.cast(dtype)
    except pa.ArrowInvalid as error:
        raise ContractError(f"{fragment.path}: a column of type {values.type} doesn't fit {dtype}: {error}.") from error
    # pandas writes NaN for "no value"; with us that is null.
    return pc.if_else(pc.is_nan(cast), None, cast) if pa.types.is_floating(dtype) else cast


def judge(table: pa.Table, key_hash: NDArray[np.uint64], label: NDArray[np.int8]) -> dict[int, Quarantine]:
    """Row to why it isn't stored; a row that isn't in it goes on. Where more than one reason applies, the first stands.

    Parameters
    ----------
    table : pa.Table
        All rows of any key that is in it, columns as declared.
    key_hash : (n, 2) uint64 array
        Zero where the key is null.
    label : (n,) int8 array
        -1 where there is none.
    """
    verdicts: dict[int, Quarantine] = {}
    quality, keys, models = table["cutout_ok"], table["task_id"], table["lens_model"]
    not_ok = pc.fill_null(pc.not_equal(quality, 1), True)
    for row, value in _where(not_ok, quality):
        verdicts[row] = Quarantine(Reason.CUTOUT_NOT_OK, f"cutout_ok is {value}")
    for row, key in _where(pc.fill_null(pc.equal(keys, ""), True), keys):
        verdicts.setdefault(row, Quarantine(Reason.NULL_KEY, f"task_id is {key!r}"))
    for row, n_copies in _repeated(key_hash):
        verdicts.setdefault(row, Quarantine(Reason.DUPLICATE_KEY, f"{n_copies} rows have this task_id"))
    for row, model in _where(pa.array(label < 0), models):
        verdicts.setdefault(row, Quarantine(Reason.UNKNOWN_LABEL, f"lens_model is {model!r}"))
    for column in STAMPS.columns:
        if column.name in table.column_names and column.name not in _JUDGED_APART:
            for row, value in _where(_breaks(table[column.name], column), table[column.name]):
                detail = f"{column.name} is {value}{_allowed(column)}"
                verdicts.setdefault(row, Quarantine(Reason.BAD_VALUE, detail))
    return verdicts


def _repeated(key_hash: NDArray[np.uint64]) -> list[tuple[int, int]]:
    """Rows whose key stands on more than one row, with how many."""
    real = np.flatnonzero(key_hash.any(axis=1))
    _, which, counts = np.unique(key_hash[real], axis=0, return_inverse=True, return_counts=True)
    copies = counts[which.ravel()]
    return list(zip(real[copies > 1].tolist(), copies[copies > 1].tolist(), strict=True))


def _breaks(values: pa.ChunkedArray, column: Column) -> pa.ChunkedArray:
    """Whether each value breaks its column's declaration."""
    broken = pc.and_(pc.is_null(values), not column.nullable)
    if pa.types.is_floating(values.type):
        broken = pc.or_(broken, pc.fill_null(pc.is_inf(values), False))
    if column.minimum is not None:
        broken = pc.or_(broken, pc.fill_null(pc.less(values, column.minimum), False))
    if column.maximum is not None:
        broken = pc.or_(broken, pc.fill_null(pc.greater(values, column.maximum), False))
    return broken


def _allowed(column: Column) -> str:
    low = "-inf" if column.minimum is None else f"{column.minimum:g}"
    high = "inf" if column.maximum is None else f"{column.maximum:g}"
    null = ", null is allowed" if column.nullable else ", null is not allowed"
    is_number = pa.types.is_floating(column.dtype) or pa.types.is_integer(column.dtype)
    return f", allowed are {low} to {high} {column.unit}".rstrip() + null if is_number else null


def _where(mask: pa.Array | pa.ChunkedArray, values: pa.ChunkedArray) -> list[tuple[int, object]]:
    """Rows that a mask names, each with its value."""
    found = np.flatnonzero(mask.to_numpy(zero_copy_only=False))
    return list(zip(found.tolist(), values.take(pa.array(found)).to_pylist(), strict=True))
