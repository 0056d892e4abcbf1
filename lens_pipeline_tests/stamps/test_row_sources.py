"""Rows from files and from memory are the rows that the memory map gives, bit for bit, holes and odd places or not."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.stamps import segment_files
from lens_pipeline.stamps.row_sources import FileRows, MemoryRows
from lens_pipeline.stamps.segment_files import SegmentFiles
from lens_pipeline.stamps.segments import segment_name
from lens_pipeline.stamps.store import Rows, StampStore
from lens_pipeline.storage.home import Home
from lens_pipeline_tests.stamps.making import make_rows, store_of
from lens_pipeline_tests.stamps.scattered import scatter


@pytest.fixture(params=["as built", "scattered with holes"])
def store(home: Home, request: pytest.FixtureRequest) -> StampStore:
    publication, _ = store_of(home, [make_rows(90)])
    return StampStore.open(scatter(home, publication, n_holes=20) if "holes" in request.param else publication)


def content(rows: Rows) -> list[bytes]:
    return [rows.pixels.tobytes(), rows.median.tobytes(), rows.mad.tobytes()]


ORDERS = {
    "in order": np.arange(90),
    "backwards": np.arange(90)[::-1],
    "shuffled": np.random.default_rng(0).permutation(90),
    "with repeats": np.random.default_rng(1).integers(0, 90, 200),
    "one row many times": np.full(40, 7),
    "none": np.array([], dtype=np.int64),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("at_once", [1, 5, 256])
def test_files_and_memory_give_what_the_map_gives(
    store: StampStore, order: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment_files, "READ_ROWS", at_once)
    logical = ORDERS[order]
    wanted = content(store.take(logical))
    for source in (FileRows(store), MemoryRows(store, np.arange(90)), MemoryRows(store, logical)):
        out = store.empty(len(logical))
        out.pixels[:], out.median[:], out.mad[:] = -1, -1, -1
        source.expect(logical)
        source.take(logical, out)
        assert content(out) == wanted


def test_threads_share_a_source(store: StampStore) -> None:
    orders = [np.random.default_rng(seed).integers(0, 90, 64) for seed in range(24)]
    for source in (FileRows(store), MemoryRows(store, np.arange(90))):
        with ThreadPoolExecutor(6) as pool:
            taken = list(pool.map(lambda order, s=source: content(s.take(order, store.empty(64))), orders))
        assert taken == [content(store.take(order)) for order in orders]


def test_a_source_refuses_rows_that_it_does_not_hold_or_the_store_does_not_have(store: StampStore) -> None:
    some = MemoryRows(store, np.arange(10, 20))
    with pytest.raises(IndexError, match="rows 9, 20 are not among those"):
        some.take(np.array([9, 12, 20]), store.empty(3))
    for source in (some, FileRows(store)):
        for wrong in (-1, 90):
            with pytest.raises(IndexError, match="the store has 0 to 89"):
                source.take(np.array([12, wrong]), store.empty(2))


def test_room_of_another_size_is_refused(store: StampStore) -> None:
    for source in (FileRows(store), MemoryRows(store, np.arange(90))):
        with pytest.raises(ValueError, match="rows"):
            source.take(np.arange(3), store.empty(4))


def test_neighbours_are_one_read_and_holes_are_never_read(store: StampStore) -> None:
    files = SegmentFiles(store, in_order=True)
    places = np.unique(store.places_of(np.arange(90)))
    runs = files.runs(places)
    read = [(run.segment, run.row + i) for run in runs for i in range(run.n)]
    segments = np.searchsorted(store.pixels.starts, places, side="right") - 1
    assert read == list(zip(segments.tolist(), (places - store.pixels.starts[segments]).tolist(), strict=True))
    gaps = int((np.diff(places) > 1).sum() + ((np.diff(segments) > 0) & (np.diff(places) == 1)).sum())
    assert len(runs) == gaps + 1


def test_a_segment_cut_off_while_it_is_open_is_a_typed_error_not_old_bytes(store: StampStore) -> None:
    source = FileRows(store)
    last = len(store.pixels.arrays) - 1
    path = store.publication.folder / segment_name(last)
    path.write_bytes(path.read_bytes()[:4096])
    with pytest.raises(StorageError, match="it was cut off after it was opened"):
        source.take(np.arange(90), store.empty(90))
