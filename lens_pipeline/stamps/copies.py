"""Stored rows that have the same pixels, found over all rows with a bucket of them in memory."""

from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from lens_pipeline.contracts.errors import FIRST_FEW
from lens_pipeline.stamps.buckets import Buckets, as_words, bucket_of, n_buckets_for
from lens_pipeline.stamps.previous import INDEX_TABLE
from lens_pipeline.storage.parquet import iterate_parquet
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.work_folder import temporary_folder

_COLUMNS = ["pixel_hash", "task_id", "galaxy_id", "label"]
_READ_ROWS = 16_384


@dataclass
class SharedPixels:
    """Groups of rows that share pixels.

    Attributes
    ----------
    n : int
        Groups that mustn't be: more than one galaxy or label, or an injection that is there twice.
    first : list of str
        The first few of them, with their rows.
    n_control_repeats : int
        Rows beyond the first of a galaxy's own control: its injections may each have brought it.
    """

    n: int = 0
    first: list[str] = field(default_factory=list)
    n_control_repeats: int = 0


def shared_pixels(store: Publication) -> SharedPixels:
    """Find the rows of a store that share pixels; some 100 bytes a row go through a temporary file beside the store."""
    found = SharedPixels()
    with temporary_folder(store.folder.parent) as folder:
        buckets = Buckets(folder, "pixels", n_buckets_for(store.entry(f"{INDEX_TABLE}.parquet").rows or 0))
        with buckets:
            index = store.path(f"{INDEX_TABLE}.parquet", verify=False)
            for batch in iterate_parquet(index, _COLUMNS, rows=_READ_ROWS):
                buckets.spread(
                    pa.Table.from_batches([batch]), bucket_of(as_words(batch.column("pixel_hash"))[:, 0], buckets.n)
                )
        for bucket in range(buckets.n):
            rows = buckets.read(bucket)
            if rows is not None:
                _add(rows, found)
    return found


def _add(rows: pa.Table, found: SharedPixels) -> None:
    groups = rows.group_by("pixel_hash", use_threads=False).aggregate(
        [([], "count_all"), ("label", "max"), ("galaxy_id", "count_distinct")]
    )
    groups = groups.filter(pc.greater(groups["count_all"], 1))
    if not groups.num_rows:
        return
    is_control = pc.and_(pc.equal(groups["label_max"], 0), pc.equal(groups["galaxy_id_count_distinct"], 1))
    controls, wrong = groups.filter(is_control), groups.filter(pc.invert(is_control))
    found.n_control_repeats += (pc.sum(controls["count_all"]).as_py() or 0) - controls.num_rows
    found.n += wrong.num_rows
    for pixel_hash in wrong["pixel_hash"].slice(0, FIRST_FEW + 1 - len(found.first)):
        members = rows.filter(pc.equal(rows["pixel_hash"], pixel_hash)).slice(0, 3).to_pylist()
        found.first.append(
            " = ".join(f"{row['task_id']} (galaxy {row['galaxy_id']}, label {row['label']})" for row in members)
        )
