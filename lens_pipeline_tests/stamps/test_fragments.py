"""Fragments are read only when they are what was published, and a wrong column is refused by name before any work."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lens_pipeline.contracts.errors import ContractError, StorageError
from lens_pipeline.stamps.fragments import Fragments
from lens_pipeline.storage.home import Home
from lens_pipeline_tests.stamps.making import OTHER_SURVEY, Row, make_rows, make_store, publish_stamps


def without(rows: list[Row], name: str) -> list[Row]:
    return [{k: v for k, v in row.items() if k != name} for row in rows]


def renamed(rows: list[Row], name: str, to: str) -> list[Row]:
    return [{to if k == name else k: v for k, v in row.items()} for row in rows]


def test_batches_come_in_order_and_say_where_they_stand(home: Home) -> None:
    rows = make_rows(40)
    fragments = Fragments.open(publish_stamps(home, [rows[:25], rows[25:]]))
    seen = []
    for fragment, start, batch in fragments.batches(["task_id"], rows=4):
        assert batch.num_rows <= 4
        seen += [(fragment.name, start + i, key) for i, key in enumerate(batch["task_id"].to_pylist())]
    assert [key for _, _, key in seen] == [row["task_id"] for row in rows]
    assert seen[25][:2] == ("fragment-00001.parquet", 0)
    assert fragments.n_rows == 40


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: without(rows, "theta_e_arcsec"), "'theta_e_arcsec' is missing"),
        (lambda rows: renamed(rows, "psf_fwhm_used_r", "psf_used_r"), "'psf_fwhm_used_r' is missing"),
        (lambda rows: [{**row, "ra": str(row["ra"])} for row in rows], "'ra' is string, wanted double"),
        (lambda rows: [{**row, "cutout_ok": "yes"} for row in rows], "'cutout_ok' is string, wanted int64"),
    ],
)
def test_a_column_missing_renamed_or_retyped_in_any_file_is_refused_naming_both(
    home: Home, change: Any, said: str
) -> None:
    dtypes = {"ra": pa.string()} if "'ra'" in said else {}
    stamps = publish_stamps(home, [change(make_rows(4))], dtypes=dtypes)
    with pytest.raises(ContractError, match=said) as caught:
        make_store(home, stamps)
    assert "fragment-00000.parquet" in str(caught.value)


def test_a_second_file_is_checked_too(home: Home) -> None:
    stamps = publish_stamps(home, [make_rows(4), without(make_rows(4), "region_id")])
    with pytest.raises(ContractError, match=r"fragment-00001\.parquet.*'region_id' is missing"):
        Fragments.open(stamps)


def test_another_surveys_column_names_are_read_under_ours(home: Home) -> None:
    rows = renamed(renamed(make_rows(4, OTHER_SURVEY, lens_model="RING"), "task_id", "object"), "lens_model", "kind")
    fragments = Fragments.open(publish_stamps(home, [rows], contract=OTHER_SURVEY, dtypes={"kind": pa.string()}))
    (_, _, batch), *_ = fragments.batches(["task_id", "lens_model"])
    assert batch.to_pylist()[0] == {"task_id": "t0", "lens_model": "RING"}
    with pytest.raises(ContractError, match="'object' as 'task_id'"):
        Fragments.open(publish_stamps(home, [without(rows, "object")], contract=OTHER_SURVEY))
    both = [{**row, "lens_model": "SIE"} for row in rows]
    with pytest.raises(ContractError, match="more than one column for lens_model"):
        Fragments.open(publish_stamps(home, [both], contract=OTHER_SURVEY))


def test_a_flipped_bit_in_our_own_fragment_is_noticed_though_it_reads_as_another_key(home: Home) -> None:
    stamps = publish_stamps(home, [make_rows(20)])
    path = stamps.path("fragment-00000.parquet")
    content = bytearray(path.read_bytes())
    page = pq.read_metadata(path).row_group(2).column(0).data_page_offset
    content[content.index(b"t17", page)] ^= 1
    path.write_bytes(content)
    assert "u17" in pq.read_table(path)["task_id"].to_pylist()
    with pytest.raises(StorageError, match=r"fragment-00000\.parquet has changed since the stamps were published"):
        make_store(home, stamps)


def test_a_page_of_our_own_that_was_damaged_after_its_file_was_proven_is_noticed_by_its_checksum(home: Home) -> None:
    stamps = publish_stamps(home, [make_rows(20)])
    (fragment,) = Fragments.open(stamps).fragments
    batches = fragment.batches(["task_id"], rows=4)
    next(batches)
    path = stamps.path("fragment-00000.parquet")
    page = pq.read_metadata(path).row_group(2).column(0).data_page_offset
    place = path.read_bytes().index(b"t17", page)
    with open(path, "r+b") as file:
        file.seek(place)
        file.write(b"u")
    with pytest.raises(StorageError, match=r"fragment-00000\.parquet can't be read.*CRC"):
        list(batches)


@pytest.mark.parametrize("place", [4, -5, -20])
def test_our_own_fragment_is_hashed_whole_before_it_is_opened_even_where_no_page_checksum_reaches(
    home: Home, place: int
) -> None:
    stamps = publish_stamps(home, [make_rows(20)])
    path = stamps.path("fragment-00000.parquet")
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageError, match="has changed since the stamps were published"):
        Fragments.open(stamps)


def test_a_users_file_that_changed_is_refused_though_its_size_is_the_same(home: Home, tmp_path: Path) -> None:
    stamps = publish_stamps(home, [make_rows(20)], external=tmp_path)
    make_store(home, stamps)
    path = tmp_path / "fragment-00000.parquet"
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageError, match="has changed since the stamps were published"):
        make_store(home, stamps)


def test_a_users_files_are_left_as_they_are(home: Home, tmp_path: Path) -> None:
    stamps = publish_stamps(home, [make_rows(20)], external=tmp_path)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.glob("*.parquet")}
    store, _ = make_store(home, stamps)
    assert before == {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.glob("*.parquet")}
    assert store.attributes["n_stored"] == 20


def test_a_link_a_lost_file_and_other_rows_than_published_are_refused(home: Home, tmp_path: Path) -> None:
    stamps = publish_stamps(home, [make_rows(20)], external=tmp_path)
    path = tmp_path / "fragment-00000.parquet"
    moved = path.rename(tmp_path / "elsewhere.parquet")
    with pytest.raises(StorageError, match="is gone"):
        Fragments.open(stamps)
    path.symlink_to(moved)
    with pytest.raises(StorageError, match="symbolic link"):
        Fragments.open(stamps)
    path.unlink()
    pq.write_table(pq.read_table(moved).slice(1), path)
    with pytest.raises(StorageError, match="has changed since the stamps were published"):
        Fragments.open(stamps)


@pytest.mark.parametrize("all_at_once", [True, False], ids=["over all", "of one"])
def test_a_file_replaced_while_it_is_read_is_noticed(home: Home, tmp_path: Path, all_at_once: bool) -> None:
    fragments = Fragments.open(publish_stamps(home, [make_rows(20)], external=tmp_path))
    over_all = fragments.batches(["task_id"], rows=4)
    of_one = fragments.fragments[0].batches(["task_id"], rows=4)
    batches: Iterator[Any] = over_all if all_at_once else of_one
    next(batches)
    path = tmp_path / "fragment-00000.parquet"
    copy = path.read_bytes()
    path.unlink()
    path.write_bytes(copy)
    with pytest.raises(StorageError, match="changed while it was being read"):
        list(batches)
