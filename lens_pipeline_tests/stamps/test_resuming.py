"""A build that was stopped anywhere is gone on with, and ends in the bytes of one that was never stopped."""

from pathlib import Path

import pytest

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.stamps import work
from lens_pipeline.stamps.journal import Journal
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.work_folder import WorkFolder
from lens_pipeline_tests.stamps.making import make_rows, make_store, publish_stamps
from reliability.ingest_kills import stop_at


# A few of the cases that `python -m reliability ingest_kills` takes: in each pass, while units are journalled, at the commit.
@pytest.mark.parametrize(("operation", "manner"), [(30, "kill"), (100, "kill"), (150, "ENOSPC"), (230, "kill")])
def test_a_killed_or_starved_build_is_gone_on_with_and_ends_in_the_same_bytes(operation: int, manner: str) -> None:
    assert stop_at(operation, manner).problem is None


def test_finished_units_are_not_decoded_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "UNIT_ROWS", 7)
    stamps = publish_stamps(home, [make_rows(70)])
    decode, decoded = work.decode_unit, []

    def failing(unit: work.Unit) -> work.UnitResult:
        if len(decoded) == 6:
            raise RuntimeError("pulled the plug")
        decoded.append(unit.first_row)
        return decode(unit)

    monkeypatch.setattr(work, "decode_unit", failing)
    with pytest.raises(RuntimeError, match="pulled the plug"):
        make_store(home, stamps)
    monkeypatch.setattr(work, "decode_unit", lambda unit: decoded.append(unit.first_row) or decode(unit))
    _, result = make_store(home, stamps)
    assert sorted(decoded) == list(range(0, 70, 7))
    assert (result.decoding.n_resumed, result.decoding.n_decoded) == (42, 28)


def interrupted(home: Home, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work folder whose journal calls some units done."""
    monkeypatch.setattr(work, "UNIT_ROWS", 7)
    stamps = publish_stamps(home, [make_rows(70)])
    with home.stage("tried", "stamp_store", inputs=[stamps]), monkeypatch.context() as patch:
        patch.setattr("lens_pipeline.stamps.ingest.write_tables", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make_store(home, stamps)
    (folder,) = home.shelf("tried", "stamp_store").glob(".work/*")
    return folder


@pytest.mark.parametrize(
    "harm",
    [
        "segment gone",
        "segment cut",
        "hashes lost",
        "places swapped",
        "bucket flipped",
        "plan flipped",
        "pixel flipped",
        "median flipped",
        "hash flipped",
    ],
)
def test_a_work_folder_that_lost_rows_is_refused_with_what_to_do(
    home: Home, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    folder = interrupted(home, monkeypatch)
    segment = folder / "segment-00000.f16"
    if harm == "segment gone":
        segment.unlink()
    elif harm == "segment cut":
        segment.write_bytes(segment.read_bytes()[:-1])
    elif harm == "places swapped":
        content = (folder / "places").read_bytes()
        (folder / "places").write_bytes(content[8:16] + content[:8] + content[16:])
    elif harm.endswith("flipped"):
        kind = harm.removesuffix(" flipped")
        names = {"bucket": "planned-*", "plan": "plan", "pixel": "*.f16", "median": "*.f32", "hash": "pixel-hashes"}
        (path,) = folder.glob(names[kind])
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        (folder / "pixel-hashes").write_bytes(bytes(16 * 70))
    with pytest.raises(StorageError, match="Remove that folder and run again"):
        make_store(home, publish_stamps(home, [make_rows(70)]))


def test_a_torn_or_flipped_line_of_the_journal_and_what_follows_it_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    entries = [{"first_row": row} for row in range(5)]
    with Journal(path) as journal:
        journal.append(entries[:3])
        journal.append(entries[3:])
    whole = path.read_bytes()
    ends = [0, *(place + 1 for place, byte in enumerate(whole) if byte == ord("\n"))]
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with Journal(path) as journal:
            kept = sum(end <= length for end in ends) - 1
            assert list(journal) == entries[:kept]
            journal.append(entries[kept:])
        assert path.read_bytes() == whole
    for place in range(ends[2], ends[3]):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with Journal(path) as journal:
            assert list(journal) == entries[:2]


def test_two_builds_of_one_store_do_not_work_in_one_folder(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = interrupted(home, monkeypatch)
    held = WorkFolder(folder)
    with pytest.raises(StorageError, match=r"process \d+ is at work in"):
        make_store(home, publish_stamps(home, [make_rows(70)]))
    held.close()
    make_store(home, publish_stamps(home, [make_rows(70)]))
    assert not folder.exists()


def test_work_on_another_store_that_nobody_goes_on_with_is_removed_but_not_what_somebody_works_on(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    abandoned = interrupted(home, monkeypatch)
    held = WorkFolder(abandoned.with_name("held"))
    make_store(home, publish_stamps(home, [make_rows(8)]))
    assert [path.name for path in abandoned.parent.iterdir()] == ["held"]
    held.close()


def test_a_folder_whose_removal_was_interrupted_is_not_gone_on_with_and_is_removed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = WorkFolder(tmp_path / "done")
    (folder.path / "journal").touch()
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_, **__: None)
        folder.remove()
    assert not folder.path.exists()
    other = WorkFolder(tmp_path / "other")
    other.remove_others()
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    other.close()
