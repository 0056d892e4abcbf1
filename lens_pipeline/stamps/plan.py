"""The first pass of ingest: all columns but the blobs are read once, and it is settled which row goes where.

Rows are spread over buckets by the hash of their key, then each bucket is sorted and judged alone; a row that goes on to the
decoder gets the next place on disk. So the order of places is the order of keys, whatever files the rows came in, and no
more than a bucket and a few batches are in memory. What was settled stays in the work folder, for the passes after and for
a run that goes on after a crash.
"""

import json
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.stamps.buckets import Buckets, as_column, as_words, bucket_of, n_buckets_for
from lens_pipeline.stamps.fragments import Fragment, Fragments, Identity
from lens_pipeline.stamps.galaxies import GalaxyNames, Positions, is_unnamed
from lens_pipeline.stamps.placing import START_ANEW, allocate
from lens_pipeline.stamps.previous import Previous, find
from lens_pipeline.stamps.reasons import Quarantine, Reason
from lens_pipeline.stamps.rows import as_declared, hash_keys, judge, labels_of
from lens_pipeline.storage.atomic import fsync_file, sha256_of, write_atomically
from lens_pipeline.storage.progress import progress

# What a settled row has beside the input's columns.
PLANNED = pa.schema(
    [
        ("input_row", pa.int64()),  # counted over all fragments
        ("key_hash", pa.binary(16)),  # zero where the key is null
        ("label", pa.int8()),
        ("place", pa.int64()),  # on disk, in new segments; null if none
        ("segment", pa.int32()),  # of the previous store; null unless the row is kept from there
        ("segment_row", pa.int64()),
        ("pixel_hash", pa.binary(16)),
        ("reason", pa.string()),  # why the row is refused; null unless it is
        ("detail", pa.string()),
    ]
)
_PLAN, _PLACES = "plan", "places"
_READ_ROWS = 16_384
_MOST_READERS = 4


@dataclass(frozen=True)
class Plan:
    """Where every row goes.

    Attributes
    ----------
    columns : list of str
        Of the input, as far as declared, and galaxy_id.
    filled : list of int
        Buckets that hold rows.
    first_place : list of int
        Of each bucket, and at last the number of places.
    kept : dict
        Segment of the previous store, as text, to the rows that stay in it.
    identities : list
        What each file must still be when all is read.
    sha256 : dict
        Of the file of places and of each bucket: a run that goes on with others would write rows over one another.
    """

    folder: Path
    columns: list[str]
    filled: list[int]
    n_rows: int
    first_place: list[int]
    kept: dict[str, int]
    identities: list[Identity]
    sha256: dict[str, str]

    @property
    def n_places(self) -> int:
        """Places in new segments."""
        return self.first_place[-1]

    @property
    def n_buckets(self) -> int:
        """Buckets that the rows are spread over."""
        return len(self.first_place) - 1

    @property
    def n_kept(self) -> int:
        """Rows that stay where the previous store has them."""
        return sum(self.kept.values())

    def read(self, bucket: int) -> pa.Table:
        """Read a bucket's rows in the order of their key hash: the input's columns and `PLANNED`."""
        rows = Buckets(self.folder, "planned", self.n_buckets).read(bucket)
        if rows is None:
            raise StorageError(f"{self.folder} lacks bucket {bucket} of its plan. {START_ANEW}")
        return rows


def read_places(folder: Path, first_row: int, n_rows: int) -> NDArray[np.int64]:
    """Place of each of some rows, counted over all fragments; -1 for a row that isn't to be decoded."""
    with open(folder / _PLACES, "rb") as file:
        file.seek(8 * first_row)
        return np.frombuffer(file.read(8 * n_rows), np.int64)


def make_plan(fragments: Fragments, previous: Previous | None, match_arcsec: float, workers: int, folder: Path) -> Plan:
    """Settle where every row goes, or read what an earlier run in this work folder has settled.

    Raises
    ------
    StorageError
        If a file is not what was published, or is damaged; or if what an earlier run has settled is.
    """
    path = folder / _PLAN
    if path.exists():
        return _resume(_read(path), fragments)
    raw = Buckets(folder, "raw", n_buckets_for(fragments.n_rows))
    identities = _spread(fragments, previous.known if previous else frozenset(), raw, min(workers, _MOST_READERS))
    planned = Buckets(folder, "planned", raw.n)
    first_place, kept = _settle(
        raw, planned, folder, fragments, previous, _name_galaxies(raw, fragments.contract, match_arcsec)
    )
    filled = [bucket for bucket in range(planned.n) if planned.path(bucket).exists()]
    columns = list(dict.fromkeys([*fragments.columns, "galaxy_id"]))
    settled = [folder / _PLACES, *(planned.path(bucket) for bucket in filled)]
    sha256 = {path.name: sha256_of(path) for path in settled}
    plan = Plan(folder, columns, filled, fragments.n_rows, first_place, kept, identities, sha256)
    content = {name: value for name, value in asdict(plan).items() if name != "folder"}
    text = json.dumps(content)
    write_atomically(path, f"{zlib.crc32(text.encode()):08x} {text}".encode())
    return plan


def _read(path: Path) -> Plan:
    checksum, _, text = path.read_bytes().partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        raise StorageError(f"{path} is damaged. {START_ANEW}")
    return Plan(path.parent, **json.loads(text))


def _resume(plan: Plan, fragments: Fragments) -> Plan:
    for name, sha256 in plan.sha256.items():
        path = plan.folder / name
        if not path.exists() or sha256_of(path) != sha256:
            raise StorageError(f"{path} is gone or is not what was settled before rows were written. {START_ANEW}")
    identities: list[Identity] = []
    for fragment, kept in zip(fragments.fragments, plan.identities, strict=True):
        identity: Any = tuple(kept)
        try:
            fragment.must_still_be(identity)
        except StorageError:
            # Touched or put back, perhaps with the same bytes.
            identity = fragment.prove()
        identities.append(identity)
    return replace(plan, identities=identities)


def _spread(fragments: Fragments, known: frozenset[str], raw: Buckets, readers: int) -> list[Identity]:
    """Read every fragment and add its rows to their buckets."""
    columns = fragments.columns
    starts = np.cumsum([0, *(fragment.n_rows for fragment in fragments.fragments)]).tolist()

    def read(fragment: Fragment, start: int) -> Identity:
        identity = fragment.prove()
        for batch in fragment.batches(columns, rows=_READ_ROWS):
            rows = as_declared(batch, columns, fragment)
            key_hash = hash_keys(rows["task_id"].to_pylist()).astype(np.uint64)
            input_row = np.arange(start, start + rows.num_rows)
            # Rows without a key need no order, and may be many.
            first = np.where(key_hash.any(axis=1), key_hash[:, 0], input_row.astype(np.uint64) << np.uint64(48))
            rows = rows.append_column("input_row", pa.array(input_row))
            rows = rows.append_column("key_hash", as_column(key_hash))
            rows = rows.append_column("is_known", pa.array(np.full(len(key_hash), fragment.sha256 in known)))
            raw.spread(rows, bucket_of(first, raw.n))
            start += batch.num_rows
            bar.advance(batch.num_rows)
        fragment.must_still_be(identity)
        return identity

    with (
        progress("reading rows", fragments.n_rows) as bar,
        raw,
        ThreadPoolExecutor(max_workers=readers) as pool,
    ):
        return list(pool.map(read, fragments.fragments, starts[:-1]))


def _name_galaxies(raw: Buckets, contract: DatasetContract, match_arcsec: float) -> GalaxyNames | None:
    """Match positions over all rows that go on; None where the input names every galaxy."""
    if not any(_lacks_names(rows) for bucket in range(raw.n) if (rows := raw.read(bucket)) is not None):
        return None
    positions = Positions()
    for bucket in range(raw.n):
        if (rows := raw.read(bucket)) is not None:
            rows, _, verdicts = _judged(rows, contract)
            alive = np.ones(rows.num_rows, dtype=bool)
            alive[list(verdicts)] = False
            rows = rows.filter(pa.array(alive))
            positions.add(_named(rows), *_position(rows))
    return positions.match(match_arcsec)


def _lacks_names(rows: pa.Table) -> bool:
    return bool(is_unnamed(_named(rows)).any())


def _named(rows: pa.Table) -> pa.ChunkedArray | pa.Array:
    there = "galaxy_id" in rows.column_names
    return rows["galaxy_id"] if there else pa.nulls(rows.num_rows, pa.string())


def _position(rows: pa.Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    ra, dec = (rows[name].to_numpy().astype(np.float64) for name in ("ra", "dec"))
    return ra, dec


def _judged(rows: pa.Table, contract: DatasetContract) -> tuple[pa.Table, NDArray[np.int8], dict[int, Quarantine]]:
    """Sort a bucket by key hash, and where that is equal by input row, and judge it."""
    words = as_words(rows["key_hash"])
    order = np.lexsort((rows["input_row"].to_numpy(), words[:, 1], words[:, 0]))
    rows = rows.take(pa.array(order)).combine_chunks()
    label = labels_of(rows["lens_model"], contract)
    return rows, label, judge(rows, words[order], label)


def _settle(
    raw: Buckets,
    planned: Buckets,
    folder: Path,
    fragments: Fragments,
    previous: Previous | None,
    galaxies: GalaxyNames | None,
) -> tuple[list[int], dict[str, int]]:
    """Judge bucket after bucket and give out places; returns each bucket's first place, and rows kept a segment."""
    kept_rows = previous.kept() if previous else None
    kept_refusals = previous.refused() if previous else None
    first_place = [0]
    kept = np.zeros(1 + max(previous.sound, default=0) if previous else 1, dtype=np.int64)
    allocate(folder / _PLACES, 8 * fragments.n_rows)
    places = np.memmap(folder / _PLACES, dtype=np.int64, mode="r+", shape=(fragments.n_rows,))
    with planned, progress("settling places", fragments.n_rows) as bar:
        for bucket in range(raw.n):
            rows = raw.read(bucket)
            limit = (bucket + 1) << (65 - raw.n.bit_length()) if bucket + 1 < raw.n else None
            earlier = kept_rows.below(limit) if kept_rows else None
            refusals = kept_refusals.below(limit) if kept_refusals else None
            if rows is None:
                first_place.append(first_place[-1])
                continue
            settled = _settle_one(rows, fragments.contract, galaxies, earlier, refusals, first_place[-1])
            place = pc.fill_null(settled["place"], -1).to_numpy()
            places[settled["input_row"].to_numpy()] = place
            first_place.append(first_place[-1] + int((place >= 0).sum()))
            segments = settled["segment"].drop_null().to_numpy()
            kept += np.bincount(segments, minlength=len(kept))
            planned.spread(settled, np.full(settled.num_rows, bucket))
            raw.remove(bucket)
            bar.advance(rows.num_rows)
    places.flush()
    for bucket in range(planned.n):
        if planned.path(bucket).exists():
            fsync_file(planned.path(bucket))
    return first_place, {str(segment): int(kept[segment]) for segment in np.flatnonzero(kept)}


def _settle_one(
    rows: pa.Table,
    contract: DatasetContract,
    galaxies: GalaxyNames | None,
    earlier: pa.Table | None,
    refusals: pa.Table | None,
    first_place: int,
) -> pa.Table:
    """Settle one bucket: which rows are refused, kept as the previous store has them, or get the next places on disk.

    Parameters
    ----------
    earlier, refusals : pa.Table or None
        The previous store's rows, and the rows its decoder refused, with keys of this bucket.
    """
    rows, label, verdicts = _judged(rows, contract)
    n = rows.num_rows
    if galaxies is not None:
        rows = _complete_galaxies(rows, galaxies, verdicts)
    alive = np.ones(n, dtype=bool)
    alive[list(verdicts)] = False
    known = alive & rows["is_known"].to_numpy()
    kept = _found(rows["key_hash"], earlier, known)
    for row, there in _pairs(_found(rows["key_hash"], refusals, known)):
        verdicts[row] = _verdict_of(refusals, there)
        alive[row] = False
    to_decode = alive & (kept < 0)
    place = first_place + np.cumsum(to_decode) - 1
    reason: list[str | None] = [None] * n
    detail: list[str | None] = [None] * n
    for row, verdict in verdicts.items():
        reason[row], detail[row] = verdict.reason.value, verdict.detail
    made = {
        "input_row": rows["input_row"],
        "key_hash": rows["key_hash"],
        "label": pa.array(label),
        "place": pa.array(place, mask=~to_decode),
        **_taken(earlier, kept),
        "reason": pa.array(reason, pa.string()),
        "detail": pa.array(detail, pa.string()),
    }
    columns = [name for name in rows.column_names if name not in (*made, "is_known")]
    schema = pa.schema([*(rows.schema.field(name) for name in columns), *PLANNED])
    return pa.table([*(rows[name] for name in columns), *(made[name] for name in PLANNED.names)], schema)


def _complete_galaxies(rows: pa.Table, galaxies: GalaxyNames, verdicts: dict[int, Quarantine]) -> pa.Table:
    """Complete galaxy_id, and refuse rows that were still in and have neither name nor position."""
    complete = galaxies.complete(_named(rows), *_position(rows))
    if isinstance(complete, pa.ChunkedArray):
        complete = complete.combine_chunks()
    for row in np.flatnonzero(complete.is_null().to_numpy(zero_copy_only=False)).tolist():
        verdicts.setdefault(row, Quarantine(Reason.NO_GALAXY, "galaxy_id, ra or dec is null"))
    if "galaxy_id" in rows.column_names:
        rows = rows.drop_columns(["galaxy_id"])
    return rows.append_column("galaxy_id", complete)


def _verdict_of(refusals: pa.Table, row: int) -> Quarantine:
    by_name = {reason.value: reason for reason in Reason}
    return Quarantine(by_name[refusals["reason"][row].as_py()], refusals["detail"][row].as_py())


def _found(key_hash: pa.ChunkedArray, among: pa.Table | None, known: NDArray[np.bool_]) -> NDArray[np.int64]:
    if among is None:
        return np.full(len(known), -1, dtype=np.int64)
    return np.where(known, find(key_hash, among["key_hash"]), -1)


def _pairs(found: NDArray[np.int64]) -> list[tuple[int, int]]:
    rows = np.flatnonzero(found >= 0)
    return list(zip(rows.tolist(), found[rows].tolist(), strict=True))


def _taken(earlier: pa.Table | None, kept: NDArray[np.int64]) -> dict[str, pa.Array | pa.ChunkedArray]:
    names = ("segment", "segment_row", "pixel_hash")
    if earlier is None:
        return {name: pa.nulls(len(kept), PLANNED.field(name).type) for name in names}
    index = pa.array(np.maximum(kept, 0), mask=kept < 0)
    return {name: earlier[name].take(index).cast(PLANNED.field(name).type) for name in names}
