"""The same store with its rows elsewhere: what increments and refused rows leave behind, made on purpose."""

import itertools

import numpy as np
import pyarrow as pa

from lens_pipeline.stamps.segments import SegmentHeader, segment_name, stats_name
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication

# A NaN in every hole: a reader that touches one shows it.
_POISON = np.float16("nan")


def scatter(
    home: Home,
    publication: Publication,
    *,
    n_segments: int = 5,
    n_holes: int = 7,
    seed: int = 0,
    dataset: str | None = None,
) -> Publication:
    """Rewrite a store's rows at shuffled places of segments of uneven length, with holes; only places change.

    The first segment is a hole alone where there are holes enough, as a fragment whose rows all went leaves it.
    """
    store = StampStore.open(publication)
    rows = store.take(np.arange(store.n_rows))
    random = np.random.default_rng(seed)
    n_places = store.n_rows + n_holes
    alone = int(n_holes > 0 and n_segments > 1)
    place = alone + random.permutation(n_places - alone)[: store.n_rows]
    cuts = alone + 1 + np.sort(random.choice(n_places - alone - 1, n_segments - 1 - alone, replace=False))
    starts = np.concatenate([[0], [1] * alone, cuts, [n_places]]).astype(np.int64)
    pixels = np.full((n_places, *store.contract.stamp_shape), _POISON)
    stats = np.full((n_places, len(store.contract.bands), 2), np.nan, np.float32)
    pixels[place], stats[place, :, 0], stats[place, :, 1] = rows.pixels, rows.median, rows.mad
    with home.stage(dataset or publication.dataset, "stamp_store") as staging:
        for segment, (start, end) in enumerate(itertools.pairwise(starts)):
            header = SegmentHeader.of(
                store.contract, decoder_version=publication.attributes["decoder_version"], n_rows=int(end - start)
            )
            (staging.folder / segment_name(segment)).write_bytes(header.to_bytes() + pixels[start:end].tobytes())
            (staging.folder / stats_name(segment)).write_bytes(stats[start:end].tobytes())
        segments = np.searchsorted(starts, place, side="right") - 1
        index = store.index
        moved = {"segment": segments.astype(np.int32), "segment_row": place - starts[segments]}
        for name, values in moved.items():
            at = index.schema.get_field_index(name)
            index = index.set_column(at, index.schema.field(at), pa.array(values, index.schema.field(at).type))
        staging.write_table(None, index)
        staging.attributes.update({**publication.attributes, "n_segments": n_segments, "n_holes": n_holes})
        return staging.commit()
