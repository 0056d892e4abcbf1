"""A compacted store holds the same rows under the same numbers, in full segments without holes; a damaged one is refused."""

import numpy as np
import pytest

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.stamps.compaction import compact, is_compact
from lens_pipeline.stamps.config import StoreConfig
from lens_pipeline.stamps.store import StampStore, verify
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline_tests.stamps.making import make_rows, make_store, publish_stamps
from lens_pipeline_tests.stamps.test_incremental import must_be_equal
from lens_pipeline_tests.stamps.test_ingest import content, spoilt

CONFIG = StoreConfig()


def grown_store(home: Home) -> Publication:
    """A store of three segments, with holes where a file has gone."""
    rows = make_rows(90)
    first, _ = make_store(home, publish_stamps(home, [rows[:30], rows[30:60]]))
    second, _ = make_store(home, publish_stamps(home, [rows[:30], rows[60:80]]), previous=first)
    third, _ = make_store(home, publish_stamps(home, [rows[:30], rows[60:80], rows[80:]]), previous=second)
    return third


def compacted(home: Home, store: Publication) -> Publication:
    stamps = home.open("tried", "stamps", version=store.inputs["stamps"])
    with home.stage("tried", "stamp_store", inputs=[stamps]) as staging:
        compact(CONFIG, store, staging)
        return staging.commit()


def test_a_grown_store_compacts_to_the_very_version_of_a_rebuild(home: Home) -> None:
    store = grown_store(home)
    assert (store.attributes["n_segments"], store.attributes["n_holes"]) == (3, 30)
    assert not is_compact(CONFIG, store)
    result = compacted(home, store)
    rebuilt, _ = make_store(
        Home(home.path / "elsewhere"), home.open("tried", "stamps", version=store.inputs["stamps"]), incremental=False
    )
    assert content(result) == content(rebuilt)
    assert result.version == rebuilt.version
    assert is_compact(CONFIG, result)
    assert verify(result) == []


def test_holes_that_the_decoder_left_go_too_and_every_row_stays_under_its_number(home: Home) -> None:
    store, result = make_store(home, publish_stamps(home, [spoilt(120)]))
    assert result.n_holes > 0
    dense = compacted(home, store)
    must_be_equal(dense, store)
    assert len(StampStore.open(dense).pixels) == result.n_stored
    assert np.array_equal(StampStore.open(dense).place, np.arange(result.n_stored))
    assert dense.attributes == {**store.attributes, "n_holes": 0}


def test_a_damaged_store_is_not_given_new_hashes(home: Home) -> None:
    store = grown_store(home)
    path = store.folder / "segment-00001.f16"
    content_ = bytearray(path.read_bytes())
    content_[-1] ^= 1
    path.write_bytes(content_)
    with pytest.raises(StorageError, match=r"segment-00001\.f16 is damaged"):
        compacted(home, store)
