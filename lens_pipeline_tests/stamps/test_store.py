"""Rows come back in the order asked for, from any number of segments and threads; a damaged store doesn't open."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.stamps import places
from lens_pipeline.stamps.segments import SegmentHeader, read_header
from lens_pipeline.stamps.store import StampStore, verify
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline_tests.stamps.making import SMALL, make_rows, pixels_of, store_of
from lens_pipeline_tests.stamps.scattered import scatter
from lens_pipeline_tests.stamps.test_ingest import limit_segments


@pytest.fixture(params=["one segment", "four segments", "scattered with holes"])
def store(home: Home, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Publication:
    if request.param == "four segments":
        limit_segments(monkeypatch, rows_each=12)
    publication, _ = store_of(home, [make_rows(40)])
    return scatter(home, publication) if request.param == "scattered with holes" else publication


def expected(opened: StampStore, logical: np.ndarray) -> np.ndarray:
    keys = opened.index["task_id"].to_pylist()
    return np.stack([pixels_of(int(keys[row][1:])) for row in logical]).astype(np.float16)


def test_rows_come_in_the_order_asked_for_with_repeats(store: Publication) -> None:
    opened = StampStore.open(store)
    logical = np.array([39, 0, 7, 7, 20])
    rows = opened.take(logical)
    assert rows.pixels.tobytes() == expected(opened, logical).tobytes()
    assert rows.median.shape == rows.mad.shape == (5, 3)
    assert (rows.mad > 0).all()


def test_a_buffer_is_filled_and_returned_and_a_short_batch_takes_its_head(store: Publication) -> None:
    opened = StampStore.open(store)
    buffer = opened.empty(8)
    for logical in (np.arange(8), np.arange(30, 33)):
        room = buffer.head(len(logical))
        rows = opened.take(logical, out=room)
        assert rows is room
        assert buffer.pixels[: len(logical)].tobytes() == expected(opened, logical).tobytes()
    with pytest.raises(ValueError, match=r"buffer\.head\(3\)"):
        opened.take(np.arange(3), out=buffer)


@pytest.mark.parametrize("logical", [[-1], [40], [0, 41]])
def test_a_number_outside_the_store_is_refused(store: Publication, logical: list[int]) -> None:
    with pytest.raises(IndexError, match="the store has 0 to 39"):
        StampStore.open(store).take(np.array(logical))


def test_threads_share_a_store(store: Publication) -> None:
    opened = StampStore.open(store)
    orders = [np.random.default_rng(seed).permutation(40) for seed in range(50)]
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(opened.take, orders))
    assert all(
        rows.pixels.tobytes() == expected(opened, order).tobytes() for rows, order in zip(taken, orders, strict=True)
    )


def test_the_pixels_cant_be_changed_through_the_store(store: Publication) -> None:
    with pytest.raises(ValueError, match="read-only"):
        StampStore.open(store).pixels.arrays[0][0] = 1


def test_a_header_says_what_the_segment_holds(store: Publication) -> None:
    header, length = read_header(store.path("segment-00000.f16"))
    assert header == SegmentHeader.of(SMALL, decoder_version=store.attributes["decoder_version"], n_rows=header.n_rows)
    assert header.flux_unit == "nanomaggy"
    assert length == 4096


def damage(store: Publication, name: str, at: int) -> None:
    path = store.folder / name
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("at", "said"), [(0, "no segment of format"), (8, "no segment of format"), (60, "header of .* is damaged")]
)
def test_a_damaged_header_doesnt_open(store: Publication, at: int, said: str) -> None:
    damage(store, "segment-00000.f16", at)
    with pytest.raises(StorageError, match=said):
        StampStore.open(store)


def test_verify_finds_one_flipped_bit_in_pixels_stats_or_index(store: Publication) -> None:
    assert verify(store) == []
    for name, at in (("segment-00000.f16", 4400), ("segment-00000.stats.f32", 8), ("stamp_store.parquet", 900)):
        damage(store, name, at)
        assert any(name in problem for problem in verify(store))
        damage(store, name, at)
    assert verify(store) == []


def test_a_segment_that_is_cut_off_or_gone_doesnt_open(store: Publication) -> None:
    path = Path(store.folder / "segment-00000.f16")
    whole = path.read_bytes()
    path.write_bytes(whole[:-2])
    with pytest.raises(StorageError, match="were published"):
        StampStore.open(store)
    path.unlink()
    with pytest.raises(StorageError, match="is gone"):
        StampStore.open(store)


def altered(home: Home, first: Publication, index: pa.Table, **attributes: object) -> Publication:
    """Publish the segments of a store with another index."""
    with home.stage("tried", "stamp_store") as staging:
        for name in first.manifest.files:
            (staging.folder / name).write_bytes((first.folder / name).read_bytes())
        staging.write_table(None, index)
        staging.attributes.update({**first.attributes, **attributes})
        return staging.commit()


@pytest.mark.parametrize(
    ("column", "row", "value"),
    [
        ("segment_row", 39, None),
        ("segment_row", 3, -1),
        ("segment_row", 3, 10**6),
        ("segment_row", 3, 2**40),
        ("segment", 3, -1),
        ("segment", 3, 9),
        ("logical", 3, 4),
    ],
)
def test_an_index_that_points_outside_or_twice_at_one_place_doesnt_open(
    home: Home, store: Publication, column: str, row: int, value: int | None
) -> None:
    index = store.read_table()
    at = index.schema.get_field_index(column)
    values = index[column].to_pylist()
    if value is None:  # The place of row 0, in row 0's segment.
        where = index.schema.get_field_index("segment")
        segments = index["segment"].to_pylist()
        segments[row], value = segments[0], values[0]
        index = index.set_column(where, index.schema.field(where), pa.array(segments, pa.int32()))
    values[row] = value
    index = index.set_column(at, index.schema.field(at), pa.array(values, index.schema.field(at).type))
    with pytest.raises(StorageError, match="don't belong together"):
        StampStore.open(altered(home, store, index))


def test_an_index_with_fewer_rows_or_another_number_of_holes_doesnt_open(home: Home, store: Publication) -> None:
    index = store.read_table()
    n_holes = store.attributes.get("n_holes", 0)
    for broken in (altered(home, store, index.slice(0, 39)), altered(home, store, index, n_holes=n_holes + 1)):
        with pytest.raises(StorageError, match="don't belong together"):
            StampStore.open(broken)
    fewer = altered(home, store, index.slice(0, 39), n_holes=n_holes + 1)
    assert StampStore.open(fewer).n_rows == 39


def test_a_place_named_twice_is_found_across_batches_of_the_stream(
    home: Home, store: Publication, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_READ_ROWS", 7)
    index = store.read_table()
    assert StampStore.open(store).n_rows == 40
    twice = pa.array([*range(39), 0])
    for name in ("segment", "segment_row"):
        at = index.schema.get_field_index(name)
        index = index.set_column(at, index.schema.field(at), index[name].take(twice))
    with pytest.raises(StorageError, match="don't belong together"):
        StampStore.open(altered(home, store, index))


def test_where_a_row_lies_changes_nothing_that_is_read(home: Home) -> None:
    publication, _ = store_of(home, [make_rows(40)])
    plain, moved = StampStore.open(publication), StampStore.open(scatter(home, publication))
    logical = np.random.default_rng(3).integers(0, 40, 64)
    for one, other in zip(vars(plain.take(logical)).values(), vars(moved.take(logical)).values(), strict=True):
        assert one.tobytes() == other.tobytes()
    assert plain.mads(logical).tobytes() == moved.mads(logical).tobytes()
    assert not np.array_equal(plain.place, moved.place)
