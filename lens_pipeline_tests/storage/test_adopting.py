"""A file of one version becomes a file of the next without being copied, where the disk can, and never when damaged."""

import errno
import os
from pathlib import Path

import pytest

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.storage import staging as staging_module
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def first_version(home: Home) -> Publication:
    with home.stage("sky", "stamp_store") as staging:
        staging.write_bytes("old.bin", b"pixels" * 1000)
        return staging.commit()


def next_version(home: Home, first: Publication) -> Publication:
    with home.stage("sky", "stamp_store") as staging:
        staging.adopt(first, "old.bin", "new.bin")
        return staging.commit()


def test_an_adopted_file_shares_its_bytes_and_is_not_hashed_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    first = first_version(home)
    monkeypatch.setattr(staging_module, "_describe", lambda path: pytest.fail(f"{path} was hashed again"))
    adopted = next_version(home, first)
    assert adopted.entry("new.bin") == first.entry("old.bin")
    assert (adopted.folder / "new.bin").stat().st_ino == (first.folder / "old.bin").stat().st_ino
    (first.folder / "old.bin").unlink()
    assert adopted.verify() == []


@pytest.mark.parametrize("refusal", [errno.EPERM, errno.EXDEV, errno.EMLINK])
def test_where_the_disk_links_nothing_it_is_copied(home: Home, monkeypatch: pytest.MonkeyPatch, refusal: int) -> None:
    first = first_version(home)

    def no_link(source: object, target: object) -> None:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(os, "link", no_link)
    adopted = next_version(home, first)
    assert adopted.entry("new.bin") == first.entry("old.bin")
    assert (adopted.folder / "new.bin").stat().st_ino != (first.folder / "old.bin").stat().st_ino


def test_a_damaged_file_is_not_adopted(home: Home) -> None:
    first = first_version(home)
    (first.folder / "old.bin").write_bytes(b"pixelz" * 1000)
    with pytest.raises(StorageError, match=r"old\.bin is damaged"):
        next_version(home, first)
    assert [version.version for version in home.versions("sky", "stamp_store")] == [first.version]
