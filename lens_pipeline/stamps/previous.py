"""What a store that stands can give to the next one: rows of fragments that both are made from.

A key that stands in a store's index, or that its decoder refused, was the key of one row only among all that the store was
made from (else all of them were refused as duplicates). So a row of a fragment that has the same SHA-256 today, with a key
that the earlier store decided on, is that very row with that very blob.
"""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lens_pipeline.contracts.errors import StorageError, first_few
from lens_pipeline.stamps.buckets import HASH_BYTES, as_column, as_words
from lens_pipeline.stamps.decode import DECODER_VERSION
from lens_pipeline.stamps.fragments import Fragments
from lens_pipeline.stamps.reasons import OF_THE_ROW
from lens_pipeline.stamps.rows import hash_keys
from lens_pipeline.stamps.segments import segment_name, stats_name
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.parquet import iterate_parquet
from lens_pipeline.storage.progress import progress
from lens_pipeline.storage.publication import Publication

INDEX_TABLE = "stamp_store"
QUARANTINE_TABLE = "quarantine"
FRAGMENTS_TABLE = "fragments"
_READ_ROWS = 16_384
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Previous:
    """A committed store of the same dataset contract and decoder.

    Attributes
    ----------
    known : frozenset of str
        SHA-256 of the fragments that it was made from.
    sound : tuple of int
        Its segments whose every byte is what was published; rows of another are decoded anew.
    """

    publication: Publication
    known: frozenset[str]
    sound: tuple[int, ...]

    @classmethod
    def open(cls, publication: Publication | None, fragments: Fragments, workers: int) -> "Previous | None":
        """Open a store to take rows from, re-reading what may be taken; None, with the reason logged, if there is none."""
        if publication is None:
            return None
        try:
            known = _known(publication, fragments)
            if isinstance(known, str):
                _log.info("stamp_store %s gives no rows: %s", publication.version, known)
                return None
            for table in (INDEX_TABLE, QUARANTINE_TABLE):
                publication.path(f"{table}.parquet")
        except StorageError as error:
            _log.warning("stamp_store %s gives no rows, every stamp is decoded anew: %s", publication.version, error)
            return None
        return cls(publication, known, _sound_segments(publication, workers))

    def kept(self) -> "InKeyOrder":
        """Stream key_hash, segment, segment_row and pixel_hash of its rows in sound segments."""

        def read() -> Iterator[pa.Table]:
            sound = pa.array(self.sound, pa.int32())
            for part in self._read(INDEX_TABLE, ["key_hash", "segment", "segment_row", "pixel_hash"]):
                yield part.filter(pc.is_in(part["segment"], value_set=sound))

        return InKeyOrder(read())

    def refused(self) -> "InKeyOrder":
        """Stream key_hash, reason and detail of the rows whose blob its decoder refused."""

        def read() -> Iterator[pa.Table]:
            of_the_row = pa.array(sorted(OF_THE_ROW), pa.string())
            for part in self._read(QUARANTINE_TABLE, ["task_id", "reason", "detail"]):
                part = part.filter(pc.invert(pc.is_in(part["reason"], value_set=of_the_row)))
                key_hash = as_column(hash_keys(part["task_id"].to_pylist()))
                yield pa.table({"key_hash": key_hash, "reason": part["reason"], "detail": part["detail"]})

        return InKeyOrder(read())

    def _read(self, table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        path = self.publication.path(f"{table}.parquet", verify=False)
        for batch in iterate_parquet(path, columns, rows=_READ_ROWS):
            yield pa.Table.from_batches([batch])


def find_previous(home: Home, dataset: str, stamps: Publication) -> Publication | None:
    """Find the store to take rows from: the newest that was made from these stamps, else the current one.

    One that is red, or whose run ended before its checks, will do: what its decoder found stands whatever the checks said.
    """
    try:
        for store in reversed(home.versions(dataset, "stamp_store")):
            if store.inputs.get(stamps.asset) == stamps.version:
                return store
        return home.open(dataset, "stamp_store") if home.has_current(dataset, "stamp_store") else None
    except StorageError as error:
        _log.warning("an earlier stamp_store is damaged, every stamp is decoded anew: %s", error)
        return None


class InKeyOrder:
    """Rows that come sorted by key_hash, handed out up to a limit and then on from there."""

    def __init__(self, parts: Iterator[pa.Table]) -> None:
        self._parts = parts
        self._rest: pa.Table | None = next(parts, None)

    def below(self, limit: int | None) -> pa.Table | None:
        """Return the next rows whose first 8 bytes of key_hash are below a limit, or all that are left."""
        taken = []
        while self._rest is not None:
            first = as_words(self._rest["key_hash"])[:, 0]
            end = len(first) if limit is None else int(np.searchsorted(first, np.uint64(limit)))
            taken.append(self._rest.slice(0, end))
            if end < len(first):
                self._rest = self._rest.slice(end)
                break
            self._rest = next(self._parts, None)
        return pa.concat_tables(taken).combine_chunks() if taken else None


def find(wanted: pa.Array | pa.ChunkedArray, among: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    """Place of each wanted hash among hashes that are sorted and distinct; -1 where it isn't among them."""
    if not len(among):
        return np.full(len(wanted), -1, dtype=np.int64)
    here, there = _as_bytes(wanted), _as_bytes(among)
    place = np.minimum(np.searchsorted(there, here), len(there) - 1)
    return np.where(there[place] == here, place, -1)


def _as_bytes(hashes: pa.Array | pa.ChunkedArray) -> NDArray[np.bytes_]:
    return np.ascontiguousarray(as_words(hashes).astype(">u8")).view(f"S{HASH_BYTES}").ravel()


def _known(publication: Publication, fragments: Fragments) -> frozenset[str] | str:
    """Fragments that it was made from, or why it is of no use."""
    if publication.attributes.get("decoder_version") != DECODER_VERSION:
        return (
            f"it was decoded by version {publication.attributes.get('decoder_version')}, today's is {DECODER_VERSION}."
        )
    if publication.attributes.get("dataset_contract") != fragments.contract.model_dump(mode="json"):
        return "it was made under another dataset contract."
    if f"{FRAGMENTS_TABLE}.parquet" not in publication.manifest.files:
        return "it doesn't name the fragments that it was made from."
    made_from = set(publication.read_table(FRAGMENTS_TABLE, ["sha256"])["sha256"].to_pylist())
    known = made_from & {fragment.sha256 for fragment in fragments.fragments}
    return frozenset(known) if known else "no fragment of it is among today's."


def _sound_segments(publication: Publication, workers: int) -> tuple[int, ...]:
    n_segments = int(publication.attributes["n_segments"])
    damaged: list[str] = []
    total = sum(publication.entry(segment_name(segment)).size for segment in range(n_segments))
    with progress("re-reading the current store", total, is_bytes=True) as bar, ThreadPoolExecutor(workers) as pool:

        def is_sound(segment: int) -> bool:
            try:
                for name in (segment_name(segment), stats_name(segment)):
                    publication.path(name)
            except StorageError as error:
                damaged.append(str(error))
                return False
            bar.advance(publication.entry(segment_name(segment)).size)
            return True

        sound = [segment for segment, good in enumerate(pool.map(is_sound, range(n_segments))) if good]
    if damaged:
        _log.warning(
            "%d segments of stamp_store %s are damaged, their rows are decoded anew: %s",
            len(damaged), publication.version, first_few(damaged, 3),
        )  # fmt: skip
    return tuple(sound)
