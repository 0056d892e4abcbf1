"""Publishing while something goes wrong: the same cases as `python -m reliability`, without a compiler and fewer of them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.storage.home import Home
from reliability.faults import Server, serving
from reliability.paths import try_name
from reliability.publications import publish_scores
from reliability.publishing import disturb
from reliability.races import race


@pytest.fixture(scope="module")
def faulty() -> Iterator[tuple[Server, Path]]:
    with serving(compiled=False) as server_and_folder:
        yield server_and_folder


@pytest.mark.parametrize(
    ("scenario", "fault"),
    [
        ("new_version", "kill"),
        ("new_version", "EIO once"),
        ("new_version", "ENOSPC from then on"),
        ("first_version", "kill"),
        ("turned_red", "kill"),
        ("was_damaged", "EIO once"),
    ],
)
def test_whichever_change_to_the_disk_fails_a_reader_sees_whole_versions_and_a_rerun_mends_it(
    faulty: tuple[Server, Path], scenario: str, fault: str
) -> None:
    case = disturb(*faulty, scenario, fault)
    assert case.problem is None
    assert case.n > 20


@pytest.mark.parametrize("kind", ["first", "same_over_damaged", "same_half_red"])
def test_four_writers_on_one_shelf_at_once_all_succeed_and_leave_it_whole(kind: str) -> None:
    assert [problem for _ in range(5) if (problem := race(kind, 4).problem)] == []


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../../outside/secret.parquet",
        "../outside",
        "/dev/null",
        "a/../../x",
        "a\x00b",
        "a\nb",
        "..\\x",
        "%2e%2e/x",
        "x" * 4096,
    ],
)
def test_a_name_from_data_never_leads_out_of_the_home(name: str) -> None:
    assert try_name(name).problem is None


def test_a_file_that_lies_behind_a_linked_folder_is_not_read_as_published(tmp_path: Path) -> None:
    publication = publish_scores(Home(tmp_path / "home"), 3)
    (publication.folder / "part").rename(tmp_path / "elsewhere")
    (publication.folder / "part").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match=r"part/00000.bin was published and is gone"):
        publication.path("part/00000.bin")


@pytest.mark.parametrize("kind", ["link", "pipe", "hidden"])
def test_what_is_no_plain_file_is_not_published(tmp_path: Path, kind: str) -> None:
    def publish() -> None:
        with Home(tmp_path / "home").stage("sky", "scores") as staging:
            if kind == "link":
                (staging.folder / "passwords").symlink_to("/etc/passwd")
            elif kind == "pipe":
                os.mkfifo(staging.folder / "pipe")
            else:
                (staging.folder / ".hidden").write_bytes(b"x")
            staging.commit()

    with pytest.raises(StorageError, match=r"is a link or a device|can't be part of a published file's name"):
        publish()
    assert Home(tmp_path / "home").versions("sky", "scores") == []
