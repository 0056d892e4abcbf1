"""The store, opened: rows of float16 stamps by logical number, from as many processes and threads as wanted.

Belongs here: reading a committed store. Making one is in `ingest.py`, the file format in `segments.py`. No torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import StorageError, first_few
from lens_pipeline.stamps.places import read_places
from lens_pipeline.stamps.segments import map_segment, segment_name, stats_name
from lens_pipeline.storage.publication import Publication

if TYPE_CHECKING:
    from lens_pipeline.stamps.gather import Joined

Floats = NDArray[np.float32]
Halves = NDArray[np.float16]
Logical = NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Some rows of a store.

    Attributes
    ----------
    pixels : (n, band, y, x) float16 array
        Unclipped fluxes in the contract's unit (nanomaggy).
    median, mad : (n, band) float32 array
        Of the float32 pixels, per band, in the same unit; the MAD is raw.
    """

    pixels: Halves
    median: Floats
    mad: Floats

    def __len__(self) -> int:
        return len(self.pixels)

    def head(self, n: int) -> "Rows":
        """Return the first n rows, as views: the last batch of an epoch is shorter than its buffer."""
        return Rows(self.pixels[:n], self.median[:n], self.mad[:n])


@dataclass(frozen=True)
class StampStore:
    """A committed store. Read-only and without state, so threads may share one.

    Attributes
    ----------
    pixels, stats : Joined
        Of all segments: rows (band, y, x) float16, and (band, 2) float32 median and MAD, by place; mapped read-only.
    place : (n_rows,) int32 array, int64 in a store of more than 2**31 places
        Place of each logical number, counted over all segments. A place that no row owns is a hole and is never read.
    """

    publication: Publication
    contract: DatasetContract
    pixels: "Joined"
    stats: "Joined"
    place: NDArray[np.signedinteger[Any]]

    @classmethod
    def open(cls, publication: Publication) -> "StampStore":
        """Open a committed store, checking every header and size; hashing every byte is for `verify`.

        The index is streamed: what stays in memory is four bytes a row.

        Raises
        ------
        StorageError
            If a segment is missing, damaged in its header, of the wrong size, or the index points outside, twice at the
            same place, or leaves more or fewer places empty than the store says of itself.
        """
        # Here and not at the top: numba takes half a second, which whoever opens no store shouldn't pay.
        from lens_pipeline.stamps.gather import Joined

        publication.fetch()
        contract = DatasetContract.model_validate(publication.attributes["dataset_contract"])
        mapped = [
            map_segment(
                publication.path(segment_name(segment), verify=False),
                publication.path(stats_name(segment), verify=False),
                contract,
            )
            for segment in range(publication.attributes["n_segments"])
        ]
        pixels = Joined([pixels for pixels, _ in mapped], contract.stamp_shape, np.float16)
        stats = Joined([stats for _, stats in mapped], (len(contract.bands), 2), np.float32)
        return cls(
            publication=publication,
            contract=contract,
            pixels=pixels,
            stats=stats,
            place=read_places(publication, pixels.starts),
        )

    @property
    def version(self) -> str:
        """Version that the logical numbers mean something within."""
        return self.publication.version

    @property
    def n_rows(self) -> int:
        """Stored rows; logical numbers are 0 to n_rows - 1."""
        return len(self.place)

    @cached_property
    def index(self) -> pa.Table:
        """The whole index (STAMP_STORE), in logical order; read when first asked for."""
        return self.columns()

    def columns(self, names: Sequence[str] | None = None) -> pa.Table:
        """Read some columns of the index, in logical order."""
        return self.publication.read_table(columns=names)

    def empty(self, n: int) -> Rows:
        """Allocate a buffer of n rows to `take` into, again and again."""
        from lens_pipeline.stamps.gather import aligned

        n_bands = len(self.contract.bands)
        return Rows(
            pixels=aligned((n, *self.contract.stamp_shape), np.float16),
            median=np.empty((n, n_bands), np.float32),
            mad=np.empty((n, n_bands), np.float32),
        )

    @property
    def row_bytes(self) -> int:
        """Bytes of one row's pixels, medians and MADs."""
        return 2 * int(np.prod(self.contract.stamp_shape)) + 8 * len(self.contract.bands)

    def take(self, logical: Logical, out: Rows | None = None) -> Rows:
        """Gather rows by logical number, in the order given.

        Parameters
        ----------
        logical : (n,) integer array
            0 to n_rows - 1, repeats allowed.
        out : Rows, optional
            Filled and returned; must have exactly n rows (see `Rows.head`).

        Raises
        ------
        IndexError
            If a number is outside the store.
        ValueError
            If `out` has another number of rows, dtype or order.
        """
        places = self.places_of(logical)
        out = self.empty(len(places)) if out is None else out
        if len(out) != len(places):
            raise ValueError(
                f"{len(places)} rows don't go into a buffer of {len(out)}; hand in buffer.head({len(places)})"
            )
        self.pixels.take(places, out.pixels)
        self.take_stats(places, out)
        return out

    def expect(self, logical: Logical) -> None:
        """Hear which rows will be taken soon (see `RowSource`); rows that are mapped need no preparation."""

    def take_stats(self, places: Logical, out: Rows) -> None:
        """Gather medians and MADs alone, by place, into rows."""
        stats = np.empty((len(places), *self.stats.row_shape), np.float32)
        self.stats.take(places, stats)
        out.median[:], out.mad[:] = stats[..., 0], stats[..., 1]

    def mads(self, logical: Logical) -> Floats:
        """Raw MADs (n, band) of some rows, in the contract's unit, without reading a pixel."""
        places = self.places_of(logical)
        stats = np.empty((len(places), *self.stats.row_shape), np.float32)
        self.stats.take(places, stats)
        return stats[..., 1]

    def places_of(self, logical: Logical) -> Logical:
        """Return where rows lie, counted over all segments.

        Raises
        ------
        IndexError
            If a number is outside the store.
        """
        logical = np.asarray(logical)
        if logical.size and not (logical.min() >= 0 and logical.max() < self.n_rows):
            raise IndexError(
                f"rows {logical.min()} to {logical.max()} were asked for, the store has 0 to {self.n_rows - 1}"
            )
        return self.place[logical].astype(np.int64, copy=False)


def verify(publication: Publication) -> list[str]:
    """Re-read and hash every byte of a store, and check that index and segments agree.

    Returns
    -------
    list of str
        What is wrong, a sentence each; empty when all is well.
    """
    problems = publication.verify()
    try:
        StampStore.open(publication)
    except StorageError as error:
        problems.append(str(error))
    return list(dict.fromkeys(problems))


def refuse_damaged(publication: Publication) -> None:
    """Re-read every byte of a store before it is trained on or scored.

    A store is opened without hashing its segments, which many processes do; a job that rests on its pixels asks for it once.

    Raises
    ------
    StorageError
        Naming the damaged files.
    """
    problems = verify(publication)
    if problems:
        raise StorageError(
            f"stamp_store {publication.version} is not what was published, in {len(problems):,} places: "
            f"{first_few(problems, 3)} Nothing was trained or scored."
        )


class DamageWatch:
    """Refuses a damaged store like `refuse_damaged`, for a process that asks again and again.

    Every byte is read at the first asking, and again only after a file was touched: written, replaced or given another time.
    """

    def __init__(self) -> None:
        self._sound: list[tuple[int, ...] | None] = []

    def refuse_damaged(self, publication: Publication) -> None:
        """Refuse a store whose bytes aren't as published.

        Raises
        ------
        StorageError
            Naming the damaged files.
        """
        publication.fetch()
        # Taken before the reading: what is written meanwhile is noticed at the next asking.
        found = [_trace(publication.folder / name) for name in publication.manifest.files]
        if not self._sound or found != self._sound:
            refuse_damaged(publication)
            self._sound = found


def _trace(path: Path) -> tuple[int, ...] | None:
    """Return what no write leaves alone: nobody can set ctime back. None where there is no file."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
