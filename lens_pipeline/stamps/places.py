"""Where each stored row lies, read from the index as a stream: a few bytes a row, whatever the index weighs."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.storage.parquet import iterate_parquet
from lens_pipeline.storage.publication import Publication

_READ_ROWS = 65_536

Places = NDArray[np.signedinteger[Any]]


def read_places(publication: Publication, starts: NDArray[np.int64]) -> Places:
    """Read the place of every logical number, counted over all segments.

    Parameters
    ----------
    publication : Publication
        Of a stamp_store.
    starts : (n_segments + 1,) int64 array
        Place at which each segment starts, and the number of places.

    Returns
    -------
    (n_rows,) int32 array
        int64 if there are more than 2**31 places.

    Raises
    ------
    StorageError
        If the index is damaged; if a row points outside its segment or to a place that another row owns; or if the places
        that no row owns are not as many as the store's `n_holes`.
    """
    name = f"{publication.asset}.parquet"
    n_rows, n_places = publication.entry(name).rows or 0, int(starts[-1])
    places: Places = np.empty(n_rows, np.int32 if n_places <= 2**31 - 1 else np.int64)
    owned = np.zeros(n_places, dtype=bool)
    read = 0
    for batch in iterate_parquet(
        publication.path(name), ["logical", "segment", "segment_row"], rows=_READ_ROWS
    ):  # The file was hashed just now, so its rows are those that were published.
        found = _places_of(batch, read, starts)
        if found is None or read + len(found) > n_rows or owned[found].any():
            raise _not_together(publication, starts)
        owned[found] = True
        places[read : read + len(found)] = found
        read += len(found)
    # A place named twice within one batch is counted once here.
    n_holes = publication.attributes.get("n_holes", 0)
    if read != n_rows or np.count_nonzero(owned) != n_rows or n_places - n_rows != n_holes:
        raise _not_together(publication, starts)
    return places


def _places_of(batch: pa.RecordBatch, first: int, starts: NDArray[np.int64]) -> NDArray[np.int64] | None:
    if any(column.null_count for column in batch.columns):
        return None
    logical, segment, row = (_longs(column) for column in batch.columns)
    if not len(logical):
        return logical
    if not np.array_equal(logical, np.arange(first, first + len(logical))):
        return None
    if not (segment.min() >= 0 and segment.max() < len(starts) - 1 and row.min() >= 0):
        return None
    if not (row < np.diff(starts)[segment]).all():
        return None
    found: NDArray[np.int64] = starts[segment] + row
    return found


def _longs(column: pa.Array) -> NDArray[np.int64]:
    values: NDArray[np.int64] = column.to_numpy().astype(np.int64, copy=False)
    return values


def _not_together(publication: Publication, starts: NDArray[np.int64]) -> StorageError:
    return StorageError(
        f"the index of stamp_store {publication.version} and its {len(starts) - 1} segments of {starts[-1]:,} places, "
        f"{publication.attributes.get('n_holes', 0):,} of them empty, don't belong together: a row without a place of its own, "
        "or a place without its row. Materialize stamp_store again."
    )
