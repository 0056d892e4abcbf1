"""A store grown from the one before equals one that was built from nothing, and only what is new was decoded."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from lens_pipeline.contracts.catalogue import STORED_FRAGMENTS
from lens_pipeline.stamps import work
from lens_pipeline.stamps.checks import store_checks
from lens_pipeline.stamps.config import StoreConfig
from lens_pipeline.stamps.ingest import StoreResult, build_store
from lens_pipeline.stamps.previous import find_previous
from lens_pipeline.stamps.store import StampStore, verify
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline_tests.stamps.making import SMALL, Row, make_rows, make_store, publish_stamps
from lens_pipeline_tests.stamps.test_ingest import limit_segments, spoilt, without_names_of_files

PLACE = ("segment", "segment_row")


def grown(
    home: Home, files: Sequence[Sequence[Row]], previous: Publication | None, **settings: Any
) -> tuple[Publication, StoreResult]:
    """Build a store of these files on the one before, and check it."""
    stamps = publish_stamps(home, files)
    config = StoreConfig(**{"workers": 1, "quarantine_budget": 1, **settings})
    with home.stage("tried", "stamp_store", inputs=[stamps]) as staging:
        result = build_store(config, stamps, staging, previous)
        store = staging.commit()
    assert [check.message() for check in store_checks(store, stamps, config) if not check.passed] == []
    return store, result


def must_be_equal(store: Publication, rebuilt: Publication) -> None:
    """Equal row for row: index but for the place, quarantine, and every byte of the rows."""
    assert store.read_table().drop_columns(PLACE) == rebuilt.read_table().drop_columns(PLACE)
    assert store.read_table("quarantine") == rebuilt.read_table("quarantine")
    one, other = StampStore.open(store), StampStore.open(rebuilt)
    every = np.arange(one.n_rows)
    for name in ("pixels", "median", "mad"):
        assert getattr(one.take(every), name).tobytes() == getattr(other.take(every), name).tobytes()


def clean(n: int = 60) -> list[Row]:
    """Rows of which some are refused by the decoder, some before it, and none is a copy."""
    rows = spoilt(n)
    for row, key in ((30, "t30"), (41, "t41"), (33, "t33"), (35, "t35")):
        rows[row]["task_id"] = key
    return rows


def test_new_files_are_decoded_and_the_rest_is_kept(home: Home) -> None:
    rows = clean(90)
    first, before = grown(home, [rows[:30], rows[30:60]], None)
    store, result = grown(home, [rows[60:], rows[30:60], rows[:30]], first)
    rebuilt, whole = grown(home, [rows[60:], rows[30:60], rows[:30]], first, incremental=False)
    must_be_equal(store, rebuilt)
    assert (result.n_reused, whole.n_reused) == (before.n_stored, 0)
    assert result.decoding.n_decoded == 30
    assert (result.n_stored, result.by_reason, result.n_segments) == (whole.n_stored, whole.by_reason, 2)
    assert store.manifest.provenance["reused_rows"] == before.n_stored
    shared = (store.folder / "segment-00000.f16", first.folder / "segment-00000.f16")
    assert shared[0].stat().st_ino == shared[1].stat().st_ino
    assert verify(store) == []
    STORED_FRAGMENTS.validate(store.read_table("fragments"), where="here")


def test_a_file_that_is_gone_or_has_changed_leaves_holes_and_a_segment_that_nobody_is_left_in_goes(
    home: Home,
) -> None:
    rows = make_rows(60)
    first, _ = grown(home, [rows[:20], rows[20:40]], None)
    second, _ = grown(home, [rows[:20], rows[20:40], rows[40:]], first)
    changed = [{**row, "psf_fwhm_used_r": 1.7} for row in rows[20:40]]
    third, result = grown(home, [rows[:20], changed], second)
    must_be_equal(third, grown(home, [rows[:20], changed], None)[0])
    assert (result.n_reused, result.decoding.n_decoded, result.n_holes, result.n_segments) == (20, 20, 20, 2)
    fourth, result = grown(home, [rows[40:]], third)
    assert (result.n_reused, result.n_segments) == (0, 1)
    must_be_equal(fourth, grown(home, [rows[40:]], None)[0])


def test_a_copy_that_comes_or_goes_changes_what_is_stored_as_in_a_rebuild(home: Home) -> None:
    rows, more = make_rows(30), [{**row, "task_id": f"x{row['task_id']}"} for row in make_rows(40)[30:]]
    more[3]["task_id"] = "t4"
    alone, _ = make_store(home, publish_stamps(home, [rows]))
    both, result = make_store(home, publish_stamps(home, [rows, more]), previous=alone)
    assert result.by_reason == {"duplicate_key": 2}
    assert result.n_reused == 29
    must_be_equal(both, make_store(home, publish_stamps(home, [rows, more]))[0])
    again, result = make_store(home, publish_stamps(home, [rows]), previous=both)
    assert (result.n_reused, result.decoding.n_decoded) == (29, 1)
    must_be_equal(again, alone)


def test_the_same_input_again_is_the_same_version_and_decodes_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_segments(monkeypatch, rows_each=13)
    rows = clean(60)
    first, _ = grown(home, [rows], None)
    monkeypatch.setattr(work, "decode_unit", lambda unit: pytest.fail("decoded"))
    again, result = grown(home, [rows], first)
    assert again.version == first.version
    assert result.decoding.n_decoded == 0


def test_galaxies_without_names_are_matched_over_old_and_new_rows(home: Home) -> None:
    rows = [{**row, "galaxy_id": None} for row in make_rows(20)]
    named = [{**row, "task_id": f"n{row['task_id']}", "galaxy_id": f"name{i}"} for i, row in enumerate(make_rows(4))]
    for number, row in enumerate(named):
        row["stamp_npz"] = make_rows(30)[20 + number]["stamp_npz"]
    first, _ = make_store(home, publish_stamps(home, [rows]))
    store, result = make_store(home, publish_stamps(home, [rows, named]), previous=first)
    assert result.n_reused == 20
    must_be_equal(store, make_store(home, publish_stamps(home, [rows, named]))[0])
    galaxy = dict(zip(*(store.read_table()[name].to_pylist() for name in ("task_id", "galaxy_id")), strict=True))
    assert galaxy["t0"] == "name0"


@pytest.mark.parametrize("name", ["segment-00001.f16", "segment-00001.stats.f32"])
def test_a_damaged_segment_is_not_kept_its_rows_are_decoded_anew(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    limit_segments(monkeypatch, rows_each=13)
    rows = clean(60)
    first, _ = grown(home, [rows], None)
    rebuilt = make_store(Home(home.path / "elsewhere"), publish_stamps(home, [rows]))[0]
    path = first.folder / name
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        healed, result = grown(home, [rows], first)
    assert "1 segments" in caplog.text
    assert name in caplog.text
    assert 0 < result.decoding.n_decoded <= 13
    assert verify(healed) == []
    must_be_equal(healed, rebuilt)


@pytest.mark.parametrize("name", ["stamp_store.parquet", "quarantine.parquet", "fragments.parquet"])
def test_a_store_with_a_damaged_table_gives_nothing_and_is_replaced(
    home: Home, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    rows = clean(60)
    first, _ = grown(home, [rows], None)
    path = first.folder / name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with caplog.at_level(logging.WARNING):
        healed, result = grown(home, [rows], first)
    assert "every stamp is decoded anew" in caplog.text
    assert result.n_reused == 0
    assert healed.version == first.version
    assert verify(healed) == []


def test_rows_of_another_contract_or_decoder_are_not_kept(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = grown(home, [make_rows(10)], None)
    other = publish_stamps(home, [make_rows(10)], contract=SMALL.model_copy(update={"name": "another"}))
    assert make_store(home, other, previous=first)[1].n_reused == 0
    for module in ("previous", "ingest"):
        monkeypatch.setattr(f"lens_pipeline.stamps.{module}.DECODER_VERSION", 10**6)
    assert make_store(home, publish_stamps(home, [make_rows(10)]), previous=first)[1].n_reused == 0


def test_many_increments_in_any_order_equal_one_build(home: Home) -> None:
    random = np.random.default_rng(3)
    rows = clean(200)
    order = random.permutation(200)
    files = [[rows[i] for i in part] for part in np.array_split(order, 7)]
    store: Publication | None = None
    for n in range(1, 8):
        shuffled = [files[i] for i in random.permutation(n)]
        store, result = grown(home, shuffled, store, workers=1 + n % 3)
        assert result.n_segments == n
    assert store is not None
    rebuilt, _ = grown(home, [rows[:90], rows[90:]], None)
    table = store.read_table("quarantine").drop_columns(["fragment", "fragment_row"])
    assert table == rebuilt.read_table("quarantine").drop_columns(["fragment", "fragment_row"])
    assert store.read_table().drop_columns(PLACE) == rebuilt.read_table().drop_columns(PLACE)
    every = np.arange(StampStore.open(store).n_rows)
    assert StampStore.open(store).take(every).pixels.tobytes() == StampStore.open(rebuilt).take(every).pixels.tobytes()


def test_what_is_taken_from_is_a_store_of_these_stamps_be_it_red_else_the_current_one(home: Home) -> None:
    rows = make_rows(40)
    assert find_previous(home, "tried", publish_stamps(home, [rows])) is None
    current, _ = make_store(home, publish_stamps(home, [rows[:20]]))
    home.conclude(current, [])
    unchecked, _ = make_store(home, publish_stamps(home, [rows]))
    for stamps, expected in (([rows], unchecked), ([rows[:30]], current)):
        found = find_previous(home, "tried", publish_stamps(home, stamps))
        assert found is not None
        assert found.version == expected.version
    (unchecked.folder / "manifest.json").write_bytes(b"{}")
    assert find_previous(home, "tried", publish_stamps(home, [rows])) is None


@pytest.mark.parametrize("bucket_rows", [3, 40])
def test_a_store_made_in_many_buckets_equals_one_made_in_one(
    home: Home, monkeypatch: pytest.MonkeyPatch, bucket_rows: int
) -> None:
    rows = spoilt(120)
    for row in rows[50:60]:
        row["galaxy_id"] = None
    files = [rows[:70], rows[70:]]
    elsewhere = Home(home.path / "elsewhere")
    one, expected = make_store(elsewhere, publish_stamps(elsewhere, files))
    before, _ = make_store(elsewhere, publish_stamps(elsewhere, [rows[:70]]))
    monkeypatch.setattr("lens_pipeline.stamps.buckets.BUCKET_ROWS", bucket_rows)
    many, result = make_store(home, publish_stamps(home, files))
    assert without_names_of_files(many) == without_names_of_files(one)
    assert result.by_reason == expected.by_reason
    assert many.read_table("quarantine").sort_by([("fragment", "ascending"), ("fragment_row", "ascending")]) == (
        one.read_table("quarantine").sort_by([("fragment", "ascending"), ("fragment_row", "ascending")])
    )
    grown_, result = make_store(home, publish_stamps(home, files), previous=before)
    assert result.n_reused == before.attributes["n_stored"]
    assert result.decoding.n_decoded <= 50
    assert grown_.read_table().drop_columns(PLACE) == one.read_table().drop_columns(PLACE)
    every = np.arange(result.n_stored)
    assert StampStore.open(grown_).take(every).pixels.tobytes() == StampStore.open(one).take(every).pixels.tobytes()
