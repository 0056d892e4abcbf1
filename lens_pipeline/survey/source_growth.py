"""What became of a survey's files between two parent samples: new ones are welcome, gone or changed ones are not.

Belongs here: comparing two lists of files. Which files there are is found in `external_files.py`.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.contracts.errors import first_few
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.sources import LocalFile, RemoteFile, SourceFile

_NAME = "source_only_grew"


@dataclass(frozen=True)
class Listing:
    """A folder's files as they stand at a moment, told apart without reading them.

    Attributes
    ----------
    entries : tuple of (name, size, mark)
        The mark is an object's ETag; a local file's time of change in ns, as text.
    """

    entries: tuple[tuple[str, int, str], ...]

    @classmethod
    def of(cls, files: Sequence[SourceFile]) -> "Listing":
        """Ask each local file for its size and time; objects were listed with theirs."""
        return cls(tuple(sorted(_entry(file) for file in files)))

    @property
    def digest(self) -> str:
        """Hash of the whole listing: equal as long as no file comes, goes or changes."""
        return hashlib.sha256(json.dumps(self.entries).encode()).hexdigest()

    def is_as_published(self, files: Sequence[dict[str, Any]]) -> bool:
        """Whether these are the files that a parent sample lists, by name, size and, where they have one, ETag."""
        known = {file["path"]: (file.get("size"), file.get("etag")) for file in files}
        return len(known) == len(self.entries) and all(
            name in known and known[name] in ((size, mark), (size, None)) for name, size, mark in self.entries
        )


def _entry(file: SourceFile) -> tuple[str, int, str]:
    if isinstance(file, RemoteFile):
        return (file.name, file.info.size, file.info.etag)
    assert isinstance(file, LocalFile)
    status = file.path.lstat()
    return (file.name, status.st_size, str(status.st_mtime_ns))


def source_only_grew(parent: Publication, before: Publication | None, accept_changes_from: str) -> Check:
    """Red where a file that the parent sample before this one was made from is gone or has other bytes.

    A file under another name with the same bytes counts as renamed, which changes no row.

    Parameters
    ----------
    before : Publication or None
        The version that was current until now.
    accept_changes_from : str
        Version of `before` whose files may be gone or changed; empty accepts no change.
    """
    now, then = (_files(publication) for publication in (parent, before))
    if before is None or not then or not now:
        return green(_NAME, f"{len(now):,} files, and no version before to hold them against", files=len(now))
    if _folder(now) != _folder(then):
        return green(
            _NAME, f"the files are in another folder than before: {_folder(now)}, not {_folder(then)}", files=len(now)
        )
    contents = {file["sha256"] for file in now.values()}
    gone = [name for name in then if name not in now]
    lost = [f"{name} is gone" for name in gone if then[name]["sha256"] not in contents]
    changed = [
        f"{name} {_how(then[name], now[name])}"
        for name in then
        if name in now and now[name]["sha256"] != then[name]["sha256"]
    ]
    renamed = len(gone) - len(lost)
    added = [name for name in now if name not in then]
    n_rows = sum(_rows(file) for file in now.values()) - sum(_rows(file) for file in then.values())
    figures: dict[str, Any] = {"files": len(now), "new_files": len(added) - renamed, "row_difference": n_rows}
    grown = f"{len(added) - renamed:,} files came" + (f", {renamed:,} were renamed" if renamed else "")
    if not lost and not changed:
        return green(
            _NAME, f"{grown}: {n_rows:,} rows more than in {before.version}, and no file is gone or changed", **figures
        )
    what = (
        f"{len(lost):,} of {len(then):,} files are gone and {len(changed):,} have other bytes than in {before.version}"
    )
    if accept_changes_from == before.version:
        return green(
            _NAME,
            f"{what}, accepted by parent_sample.accept_changes_from: {first_few([*lost, *changed])}. {grown}",
            **figures,
        )
    return red(
        _NAME,
        what,
        wrong=[*lost, *changed],
        why="Rows that models were trained and judged on are gone or others now: a figure before and after can't be compared, "
        "and a file may have been cut or overwritten by accident.",
        next_step="restore these files from where they came and materialize parent_sample again; or, if this is how the survey "
        f"is meant to be, accept it once: set parent_sample.accept_changes_from: {before.version}",
        **figures,
    )


def _files(publication: Publication | None) -> dict[str, dict[str, Any]]:
    listed = publication.attributes.get("files", []) if publication is not None else []
    return {file["path"]: file for file in listed}


def _folder(files: dict[str, dict[str, Any]]) -> str:
    return next(iter(files)).rpartition("/")[0]


def _rows(file: dict[str, Any]) -> int:
    # Cubes of cutouts are listed without rows.
    return int(file.get("rows", 0))


def _how(then: dict[str, Any], now: dict[str, Any]) -> str:
    if _rows(now) < _rows(then):
        return f"shrank from {_rows(then):,} to {_rows(now):,} rows"
    if "size" in now and now["size"] != then.get("size", now["size"]):
        return f"changed from {then['size']:,} to {now['size']:,} bytes"
    return "has other bytes under the same name"
