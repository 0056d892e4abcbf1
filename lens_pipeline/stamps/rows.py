"""The rows of all fragments without their pixels: who they are, which class and galaxy, and which can't be stored.

Belongs here: everything about a row that can be said before its blob is opened. Memory holds these columns of every row
(they become the index), never a blob.
"""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lens_pipeline.contracts.catalogue import STAMPS
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import ContractError
from lens_pipeline.contracts.tables import Column
from lens_pipeline.stamps.fragments import Fragment, Fragments, Identity
from lens_pipeline.stamps.galaxies import galaxy_ids
from lens_pipeline.stamps.reasons import Quarantine, Reason

HASH_BYTES = 16
_READ_ROWS = 65_536
# Judged on their own, with reasons of their own.
_JUDGED_APART = frozenset({"task_id", "cutout_ok", "lens_model", "galaxy_id"})


@dataclass(frozen=True)
class InputRows:
    """Every row of the input.

    Attributes
    ----------
    table : pa.Table
        The declared columns that the input has, cast to their declared types, in the order of the fragments;
        galaxy_id complete.
    fragment, fragment_row : (n,) arrays
        Place in the list of fragments, and row within that file.
    key_hash : (n, 2) big-endian uint64 array
        BLAKE2b-128 of the key; sorts as its bytes do. Zero where the key is null.
    label : (n,) int8 array
        Place of the class in the dataset contract; -1 where there is none.
    verdicts : dict
        Row to why it isn't stored; a row that isn't in it goes on to the decoder.
    identities : list
        What each file must still be when all is read.
    """

    table: pa.Table
    fragment: NDArray[np.int32]
    fragment_row: NDArray[np.int64]
    key_hash: NDArray[np.uint64]
    label: NDArray[np.int8]
    verdicts: dict[int, Quarantine]
    identities: list[Identity]


def read_rows(fragments: Fragments, match_arcsec: float, workers: int) -> InputRows:
    """Read and judge every row without its blob.

    Raises
    ------
    StorageError
        If a file is not what was published, or is damaged.
    """
    with ThreadPoolExecutor(max_workers=workers) as pool:
        read = list(pool.map(lambda fragment: _read_one(fragment, fragments.columns), fragments.fragments))
    lengths = np.array([table.num_rows for table, _ in read], dtype=np.int64)
    empty = pa.schema([(name, STAMPS.column(name).dtype) for name in fragments.columns]).empty_table()
    table = pa.concat_tables([empty, *(table for table, _ in read)])
    key_hash = hash_keys(table["task_id"].to_pylist())
    label = labels_of(table["lens_model"], fragments.contract)
    verdicts = _judge(table, key_hash, label)
    table = _with_galaxies(table, verdicts, match_arcsec)
    return InputRows(
        table=table,
        fragment=np.repeat(np.arange(len(read), dtype=np.int32), lengths),
        fragment_row=np.concatenate([np.arange(n, dtype=np.int64) for n in lengths] or [np.empty(0, np.int64)]),
        key_hash=key_hash,
        label=label,
        verdicts=verdicts,
        identities=[identity for _, identity in read],
    )


def hash_keys(keys: Iterable[str | None]) -> NDArray[np.uint64]:
    """BLAKE2b-128 of each key as (n, 2) big-endian uint64, zero for a null key."""
    nothing = bytes(HASH_BYTES)
    digests = b"".join(
        nothing if key is None else hashlib.blake2b(key.encode(), digest_size=HASH_BYTES).digest() for key in keys
    )
    return np.frombuffer(digests, dtype=">u8").reshape(-1, 2)


def labels_of(lens_model: pa.ChunkedArray, contract: DatasetContract) -> NDArray[np.int8]:
    """Integer label of each row, -1 where the value is null or unknown."""
    known = contract.label_of
    place = pc.index_in(lens_model, value_set=pa.array(list(known), pa.string())).fill_null(-1)
    # The last place, which -1 points to, is for values that no class names.
    labels = np.array([*known.values(), -1], dtype=np.int8)
    found: NDArray[np.int8] = labels[place.to_numpy()]
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


def _read_one(fragment: Fragment, columns: tuple[str, ...]) -> tuple[pa.Table, Identity]:
    identity = fragment.prove()
    schema = pa.schema([(name, STAMPS.column(name).dtype) for name in columns])
    parts = [schema.empty_table()]
    for batch in fragment.batches(columns, rows=_READ_ROWS):
        there = {name: _cast(batch.column(name), schema.field(name).type, fragment) for name in batch.schema.names}
        parts.append(
            pa.table([there.get(name, pa.nulls(batch.num_rows, schema.field(name).type)) for name in columns], schema)
        )
    fragment.must_still_be(identity)
    return pa.concat_tables(parts), identity


def _cast(values: pa.Array, dtype: pa.DataType, fragment: Fragment) -> pa.Array:
    try:
        cast = values.cast(dtype)
    except pa.ArrowInvalid as error:
        raise ContractError(f"{fragment.path}: a column of type {values.type} doesn't fit {dtype}: {error}.") from error
    # pandas writes NaN for "no value"; with us that is null.
    return pc.if_else(pc.is_nan(cast), None, cast) if pa.types.is_floating(dtype) else cast


def _judge(table: pa.Table, key_hash: NDArray[np.uint64], label: NDArray[np.int8]) -> dict[int, Quarantine]:
    """Verdicts by row; where more than one applies, the first of this order stands."""
    verdicts: dict[int, Quarantine] = {}
    quality, keys, models = table["cutout_ok"], table["task_id"], table["lens_model"]
    not_ok = pc.fill_null(pc.not_equal(quality, 1), True)
    for row in _where(not_ok):
        verdicts[row] = Quarantine(Reason.CUTOUT_NOT_OK, f"cutout_ok is {quality[row].as_py()}")
    for row in _where(pc.fill_null(pc.equal(keys, ""), True)):
        verdicts.setdefault(row, Quarantine(Reason.NULL_KEY, f"task_id is {keys[row].as_py()!r}"))
    for row, n_copies in _repeated(key_hash):
        verdicts.setdefault(row, Quarantine(Reason.DUPLICATE_KEY, f"{n_copies} rows have this task_id"))
    for row in np.flatnonzero(label < 0).tolist():
        verdicts.setdefault(row, Quarantine(Reason.UNKNOWN_LABEL, f"lens_model is {models[row].as_py()!r}"))
    for column in STAMPS.columns:
        if column.name in table.column_names and column.name not in _JUDGED_APART:
            for row in _where(_breaks(table[column.name], column)):
                detail = f"{column.name} is {table[column.name][row].as_py()}{_allowed(column)}"
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


def _with_galaxies(table: pa.Table, verdicts: dict[int, Quarantine], match_arcsec: float) -> pa.Table:
    """Complete galaxy_id over the rows that are still in, and refuse those that have neither name nor position."""
    alive = np.ones(table.num_rows, dtype=bool)
    alive[list(verdicts)] = False
    rows = np.flatnonzero(alive)
    some = table.take(pa.array(rows))
    named = some["galaxy_id"] if "galaxy_id" in table.column_names else None
    ra, dec = (some[name].to_numpy().astype(np.float64) for name in ("ra", "dec"))
    found = galaxy_ids(named, ra, dec, match_arcsec)
    for row in rows[found.is_null().to_numpy(zero_copy_only=False)].tolist():
        verdicts[row] = Quarantine(Reason.NO_GALAXY, "galaxy_id, ra or dec is null")
    place = np.full(table.num_rows, -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    complete = found.take(pa.array(place, mask=place < 0))
    if named is not None:
        table = table.drop_columns(["galaxy_id"])
    return table.append_column("galaxy_id", complete)


def _where(mask: pa.ChunkedArray) -> list[int]:
    found: list[int] = np.flatnonzero(mask.to_numpy()).tolist()
    return found
