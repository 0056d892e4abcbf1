"""Every row ends in the store or in the quarantine table, and the store depends on the rows alone."""

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lens_pipeline.contracts.catalogue import QUARANTINE, STAMP_STORE
from lens_pipeline.contracts.errors import ConfigError, ContractError, StorageError
from lens_pipeline.stamps import ingest
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline_tests.stamps.making import (
    OTHER_SURVEY,
    SMALL,
    Row,
    make_rows,
    make_store,
    pixels_of,
    publish_stamps,
    store_of,
)


def quarantined(store: Publication) -> dict[str | None, tuple[str, str]]:
    return {row["task_id"]: (row["reason"], row["detail"]) for row in store.read_table("quarantine").to_pylist()}


def content(store: Publication) -> dict[str, str]:
    return {name: entry.sha256 for name, entry in store.manifest.files.items()}


def without_names_of_files(store: Publication) -> dict[str, str]:
    return {k: v for k, v in content(store).items() if k not in ("quarantine.parquet", "fragments.parquet")}


def test_every_row_is_stored_once_under_its_key_with_its_own_pixels(home: Home) -> None:
    rows = make_rows(60)
    store, result = store_of(home, [rows[:33], rows[33:]])
    opened = StampStore.open(store)
    index = opened.index
    STAMP_STORE.validate(index, where="here")
    assert (result.n_in, result.n_stored, result.n_quarantined, result.n_excluded) == (60, 60, 0, 0)
    assert sorted(index["task_id"].to_pylist()) == sorted(row["task_id"] for row in rows)
    assert index["key_hash"].to_pylist() == sorted(index["key_hash"].to_pylist())
    stored = opened.take(np.arange(60))
    for place, row in enumerate(index.to_pylist()):
        pixels = pixels_of(int(row["task_id"][1:]))
        source = rows[int(row["task_id"][1:])]
        assert stored.pixels[place].tobytes() == pixels.astype(np.float16).tobytes()
        assert row["pixel_hash"] == hashlib.blake2b(stored.pixels[place].tobytes(), digest_size=16).digest()
        assert stored.median[place].tolist() == np.median(pixels.reshape(3, -1), axis=1).tolist()
        assert {k: row[k] for k in ("region_id", "galaxy_id", "pair_id", "theta_e_arcsec")} == {
            k: source[k] for k in ("region_id", "galaxy_id", "pair_id", "theta_e_arcsec")
        }
        assert row["label"] == (1 if source["lens_model"] == "SIE" else 0)
        assert row["stratum"] == SMALL.stratum(row["label"], source["lens_model"], source["theta_e_arcsec"])


def test_rows_lie_on_disk_in_logical_order_which_has_nothing_to_do_with_that_of_the_input(home: Home) -> None:
    store, _ = store_of(home, [make_rows(400)])
    index = store.read_table()
    assert index["segment_row"].to_pylist() == list(range(400))
    came = [int(key[1:]) for key in index["task_id"].to_pylist()]
    assert abs(np.corrcoef(np.arange(400), came)[0, 1]) < 0.2


BAD: dict[str, Any] = {
    "t3": {"stamp_npz": b"rubbish"},
    "t7": {"stamp_npz": None},
    "t8": {"lens_model": None},
    "t10": {"lens_model": "SlE"},
    "t12": {"theta_e_arcsec": 400.0},
    "t13": {"region_id": None},
    "t15": {"psf_fwhm_used_r": float("inf")},
    "t17": {"galaxy_id": None, "ra": None},
    "t19": {"cutout_ok": 0, "lens_model": None},
    "t21": {"cutout_ok": None},
}


def spoilt(n: int = 60) -> list[Row]:
    rows = [{**row, **BAD.get(row["task_id"], {})} for row in make_rows(n)]
    rows[30]["task_id"] = rows[41]["task_id"] = "twin"
    rows[33]["task_id"], rows[35]["task_id"] = None, ""
    for row in rows[60::4]:
        row["stamp_npz"] = row["stamp_npz"][:-1]
    return rows


def test_each_row_that_is_not_stored_has_its_reason(home: Home) -> None:
    store, result = store_of(home, [spoilt()])
    found = quarantined(store)
    QUARANTINE.validate(store.read_table("quarantine"), where="here")
    assert {key: reason for key, (reason, _) in found.items()} == {
        "t3": "not_a_zip", "t7": "null_blob", "t8": "unknown_label", "t10": "unknown_label", "t12": "bad_value",
        "t13": "bad_value", "t15": "bad_value", "t17": "no_galaxy", "t19": "cutout_not_ok", "t21": "cutout_not_ok",
        "twin": "duplicate_key", None: "null_key", "": "null_key",
    }  # fmt: skip
    assert found["t12"][1] == "theta_e_arcsec is 400.0, allowed are 0 to 60 arcsec, null is allowed"
    assert found["t10"][1] == "lens_model is 'SlE'"
    assert result.by_reason["duplicate_key"] == 2
    assert (result.n_in, result.n_stored, result.n_quarantined, result.n_excluded) == (60, 46, 12, 2)
    table = store.read_table("quarantine")
    assert table["excluded"].to_pylist() == [reason == "cutout_not_ok" for reason in table["reason"].to_pylist()]
    t12 = next(row for row in table.to_pylist() if row["task_id"] == "t12")
    assert (t12["fragment"], t12["fragment_row"]) == ("fragment-00000.parquet", 12)


@pytest.mark.parametrize("weight", [None, float("nan"), float("inf"), -float("inf"), -0.5])
def test_a_weight_that_is_none_is_never_taken_for_one(home: Home, weight: float | None) -> None:
    rows = [row | {"weight": 2.0} for row in make_rows(20)]
    rows[4]["weight"], rows[6]["weight"] = weight, 0.0
    store, result = store_of(home, [rows])
    found = quarantined(store)
    assert {key: reason for key, (reason, _) in found.items()} == {"t4": "bad_value"}
    assert found["t4"][1].startswith("weight is ")
    assert (result.n_stored, min(store.read_table(columns=["weight"])["weight"].to_pylist())) == (19, 0.0)


def test_refused_rows_leave_holes_and_those_that_stay_keep_their_pixels(home: Home) -> None:
    rows = make_rows(300)
    for row in rows[::3]:
        row["stamp_npz"] = row["stamp_npz"][:-9]
    store, result = store_of(home, [rows])
    opened = StampStore.open(store)
    assert [len(pixels) for pixels in opened.pixels.arrays] == [300]
    assert result.n_holes == store.attributes["n_holes"] == 100
    holes = np.setdiff1d(np.arange(300), opened.index["segment_row"].to_numpy())
    assert not opened.pixels.arrays[0][holes].any()
    stored = opened.take(np.arange(200))
    for place, key in enumerate(opened.index["task_id"].to_pylist()):
        assert stored.pixels[place].tobytes() == pixels_of(int(key[1:])).astype(np.float16).tobytes()


def test_the_store_is_the_same_however_the_rows_were_cut_ordered_and_worked_on(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = spoilt(120)
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(120)]
    first, _ = make_store(home, publish_stamps(home, [rows]))
    monkeypatch.setattr("lens_pipeline.stamps.work.UNIT_ROWS", 10)
    finely_cut = publish_stamps(home, [shuffled[i : i + 17] for i in range(0, 120, 17)], row_group_size=5)
    in_two = publish_stamps(home, [shuffled[:50], shuffled[50:]], row_group_size=100)
    for stamps, settings in (
        (finely_cut, {"workers": 1, "batch_rows": 3}),
        (finely_cut, {"workers": 3}),
        (in_two, {"workers": 5, "batch_rows": 7}),  # two units, so two processes
    ):
        other, _ = make_store(home, stamps, **settings)
        assert without_names_of_files(other) == without_names_of_files(first)
        assert {k: v[0] for k, v in quarantined(other).items()} == {k: v[0] for k, v in quarantined(first).items()}


def test_small_segments_are_filled_one_after_the_other(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_rows(60)
    rows[5]["stamp_npz"] = b""
    one, _ = store_of(home, [rows])
    limit_segments(monkeypatch, rows_each=13)
    store, result = store_of(home, [rows])
    opened = StampStore.open(store)
    assert [len(pixels) for pixels in opened.pixels.arrays] == [13, 13, 13, 13, 8]
    assert result.n_segments == 5
    every = np.arange(59)
    assert opened.take(every).pixels.tobytes() == StampStore.open(one).take(every).pixels.tobytes()
    assert opened.take(every).mad.tobytes() == StampStore.open(one).take(every).mad.tobytes()


def test_a_segment_emptied_by_refusals_is_left_out(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_rows(20)
    order = StampStore.open(store_of(home, [rows])[0]).index["task_id"].to_pylist()
    limit_segments(monkeypatch, rows_each=4)
    for key in order[4:8] + order[13:15]:
        rows[int(key[1:])]["stamp_npz"] = b""
    store, result = store_of(home, [rows])
    assert (result.n_segments, result.n_holes) == (4, 2)
    assert len([name for name in store.manifest.files if name.endswith(".f16")]) == 4
    opened = StampStore.open(store)
    stored = opened.take(np.arange(14))
    for place, key in enumerate(opened.index["task_id"].to_pylist()):
        assert stored.pixels[place].tobytes() == pixels_of(int(key[1:])).astype(np.float16).tobytes()


def limit_segments(monkeypatch: pytest.MonkeyPatch, rows_each: int) -> None:
    """Segments of a few rows; the smallest size that may be set holds thousands of these small stamps."""
    whole = ingest.SegmentLayout.of

    class Limited:
        @staticmethod
        def of(contract: Any, segment_bytes: int) -> ingest.SegmentLayout:
            return whole(contract, 4096 + rows_each * 2 * 3 * 64)

    monkeypatch.setattr(ingest, "SegmentLayout", Limited)


def test_nothing_but_refused_rows_is_a_store_of_no_rows_and_no_row_at_all_is_refused(home: Home) -> None:
    store, result = store_of(home, [make_rows(5, cutout_ok=0)])
    assert (result.n_stored, result.n_excluded, result.n_segments) == (0, 5, 0)
    assert StampStore.open(store).take(np.array([], np.int64)).pixels.shape == (0, 3, 8, 8)
    with pytest.raises(ContractError, match="holds no row"):
        make_store(home, publish_stamps(home, []))


def test_three_classes_five_bands_and_48_pixels_go_the_same_way(home: Home) -> None:
    kinds = ["STAR", "RING", "SPIRAL", "NOVA"]
    rows = make_rows(8, OTHER_SURVEY)
    for i, row in enumerate(rows):
        row["object"], row["kind"] = row.pop("task_id"), kinds[i % 4]
        del row["lens_model"]
    stamps = publish_stamps(home, [rows], contract=OTHER_SURVEY)
    store, result = make_store(home, stamps)
    opened = StampStore.open(store)
    assert opened.contract == OTHER_SURVEY
    assert result.by_reason == {"unknown_label": 2}
    labels = dict(zip(opened.index["task_id"].to_pylist(), opened.index["label"].to_pylist(), strict=True))
    assert labels == {"t0": 0, "t1": 1, "t2": 2, "t4": 0, "t5": 1, "t6": 2}
    stored = opened.take(np.array([0]))
    number = int(opened.index["task_id"][0].as_py()[1:])
    assert stored.pixels.shape == (1, 5, 48, 48)
    assert stored.pixels[0].tobytes() == pixels_of(number, OTHER_SURVEY).astype(np.float16).tobytes()


def test_columns_that_only_some_files_have_are_null_in_the_others_and_nan_is_null(home: Home) -> None:
    rows = make_rows(8)
    with_snr = [{**row, "arc_snr": float("nan") if i else 9.5} for i, row in enumerate(rows[:4])]
    store, result = store_of(home, [with_snr, rows[4:]])
    index = store.read_table()
    values = dict(zip(index["task_id"].to_pylist(), index["arc_snr"].to_pylist(), strict=True))
    assert values == {"t0": 9.5, **{f"t{i}": None for i in range(1, 8)}}
    assert "magnification" not in index.column_names
    assert result.n_stored == 8


def test_galaxies_are_matched_on_the_sky_where_no_file_names_them(home: Home) -> None:
    rows = [{k: v for k, v in row.items() if k != "galaxy_id"} for row in make_rows(10)]
    store, _ = store_of(home, [rows])
    index = store.read_table()
    galaxies = dict(zip(index["task_id"].to_pylist(), index["galaxy_id"].to_pylist(), strict=True))
    assert all(galaxies[f"t{i}"] == galaxies[f"t{i + 1}"] for i in range(0, 10, 2))
    assert len(set(galaxies.values())) == 5


def test_strings_and_numbers_of_other_widths_are_read_as_ours(home: Home) -> None:
    rows = make_rows(6)
    dtypes = {
        "ra": pa.float32(), "cutout_ok": pa.int8(), "task_id": pa.large_string(), "stamp_npz": pa.large_binary(),
        "lens_model": pa.dictionary(pa.int8(), pa.string()), "region_id": pa.string_view(),
    }  # fmt: skip
    store, result = make_store(home, publish_stamps(home, [rows], dtypes=dtypes))
    assert result.n_stored == 6
    assert store.read_table().schema.field("task_id").type == pa.string()


def test_a_disk_too_small_is_said_before_any_stamp_is_decoded_and_leaves_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocate = os.posix_fallocate

    def full(descriptor: int, offset: int, length: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(".stats.f32"):
            raise OSError(errno.ENOSPC, "no space")
        allocate(descriptor, offset, length)

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr("lens_pipeline.stamps.work.run_units", lambda *_: pytest.fail("decoded"))
    with pytest.raises(StorageError, match="Nothing was published"):
        store_of(home, [make_rows(6)])
    assert not any(path.name.startswith("segment") for path in Path(home.path).rglob("*"))


def test_a_stamp_larger_than_a_segment_is_refused(home: Home) -> None:
    wide = SMALL.model_copy(update={"stamp_size": 1024})
    stamps = publish_stamps(home, [make_rows(2)], contract=wide)
    with pytest.raises(ConfigError, match=r"doesn't fit.*segment_bytes"):
        make_store(home, stamps, segment_bytes=1 << 20)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_fault_in_one_unit_ends_the_whole_and_publishes_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr("lens_pipeline.stamps.placing._write_all", broken)
    with pytest.raises(StorageError, match="Nothing was published"):
        store_of(
            home, [make_rows(6), [{**row, "task_id": f"x{row['task_id']}"} for row in make_rows(6)]], workers=workers
        )
