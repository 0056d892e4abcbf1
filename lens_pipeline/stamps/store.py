"""The store, opened: rows of float16 stamps by logical number, from as many processes and threads as wanted.

Belongs here: reading a committed store. Making one is in `ingest.py`, the file format in `segments.py`. No torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import StorageError, first_few
from lens_pipeline.stamps.segments import map_segment, segment_name, stats_name
from lens_pipeline.storage.publication import Publication

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
    segment_of, row_of : (n_rows,) arrays
        Segment, and row within it, of each logical number.
    """

    publication: Publication
    contract: DatasetContract
    pixels: tuple[Halves, ...]
    stats: tuple[Floats, ...]
    segment_of: NDArray[np.int32]
    row_of: NDArray[np.int64]

    @classmethod
    def open(cls, publication: Publication) -> "StampStore":
        """Open a committed store, checking every header and size; hashing every byte is for `verify`.

        Raises
        ------
        StorageError
            If a segment is missing, damaged in its header, of the wrong size, or the index points outside.
        """
        publication.fetch()
        contract = DatasetContract.model_validate(publication.attributes["dataset_contract"])
        places = publication.read_table(columns=["logical", "segment", "segment_row"])
        segment_of = places["segment"].to_numpy().astype(np.int32, copy=False)
        row_of = places["segment_row"].to_numpy().astype(np.int64, copy=False)
        mapped = [
            map_segment(
                publication.path(segment_name(segment), verify=False),
                publication.path(stats_name(segment), verify=False),
                contract,
            )
            for segment in range(publication.attributes["n_segments"])
        ]
        _must_point_inside(places, [len(pixels) for pixels, _ in mapped], publication)
        return cls(
            publication=publication,
            contract=contract,
            pixels=tuple(pixels for pixels, _ in mapped),
            stats=tuple(stats for _, stats in mapped),
            segment_of=segment_of,
            row_of=row_of,
        )

    @property
    def version(self) -> str:
        """Version that the logical numbers mean something within."""
        return self.publication.version

    @property
    def n_rows(self) -> int:
        """Stored rows; logical numbers are 0 to n_rows - 1."""
        return len(self.row_of)

    @cached_property
    def index(self) -> pa.Table:
        """The whole index (STAMP_STORE), in logical order; read when first asked for."""
        return self.columns()

    def columns(self, names: Sequence[str] | None = None) -> pa.Table:
        """Read some columns of the index, in logical order."""
        return self.publication.read_table(columns=names)

    def empty(self, n: int) -> Rows:
        """Allocate a buffer of n rows to `take` into, again and again."""
        n_bands = len(self.contract.bands)
        return Rows(
            pixels=np.empty((n, *self.contract.stamp_shape), np.float16),
            median=np.empty((n, n_bands), np.float32),
            mad=np.empty((n, n_bands), np.float32),
        )

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
            If `out` has another number of rows.
        """
        logical = np.asarray(logical)
        if logical.size and not (logical.min() >= 0 and logical.max() < self.n_rows):
            raise IndexError(
                f"rows {logical.min()} to {logical.max()} were asked for, the store has 0 to {self.n_rows - 1}"
            )
        out = self.empty(len(logical)) if out is None else out
        if len(out) != len(logical):
            raise ValueError(
                f"{len(logical)} rows don't go into a buffer of {len(out)}; hand in buffer.head({len(logical)})"
            )
        rows = self.row_of[logical]
        if len(self.pixels) == 1:
            # mode="clip" spares numpy a copy of the whole batch; the numbers were checked above.
            np.take(self.pixels[0], rows, axis=0, out=out.pixels, mode="clip")
            stats = self.stats[0][rows]
            out.median[:], out.mad[:] = stats[..., 0], stats[..., 1]
            return out
        segments = self.segment_of[logical]
        for segment in np.unique(segments):
            where = np.flatnonzero(segments == segment)
            out.pixels[where] = self.pixels[segment][rows[where]]
            stats = self.stats[segment][rows[where]]
            out.median[where], out.mad[where] = stats[..., 0], stats[..., 1]
        return out


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


def _must_point_inside(places: pa.Table, lengths: Sequence[int], publication: Publication) -> None:
    logical = places["logical"].to_numpy()
    segment = places["segment"].to_numpy().astype(np.int64)
    row = places["segment_row"].to_numpy()
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    sound = np.array_equal(logical, np.arange(len(logical))) and len(logical) == starts[-1]
    if sound and len(logical):
        sound = bool(segment.min() >= 0 and segment.max() < len(lengths) and row.min() >= 0)
    if sound and len(logical):
        inside = row < np.asarray(lengths)[segment]
        sound = bool(inside.all() and np.bincount(starts[segment] + row, minlength=len(logical)).max() == 1)
    if not sound:
        raise StorageError(
            f"the index of stamp_store {publication.version} and its {len(lengths)} segments of {starts[-1]:,} rows don't "
            "belong together: a row without a place, or a place without a row. Materialize stamp_store again."
        )
