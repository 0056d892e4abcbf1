"""A manifest's table cut into parts, one a fragment, each with all that it is made from.

A part ends where the hash of a row's key says so, or where it is full. So rows that are added to a manifest, or taken from it,
change the parts that they stand in and leave the others as they were (content-defined chunking; Muthitacharoen, Chen &
Mazieres 2001), and each part is known by its *key*, a hash of all that its bytes depend on.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.storage.parquet import iterate_parquet
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.cutouts import BAD_FILE, CUTOUTS_FILE, PSFS_FILE, open_cutouts

# Of borders that keys set, in a part at its largest: few parts are cut for being full, and those after one fall into step again.
_BORDERS_A_PART = 2
# Where a galaxy's pixels stand among all cutouts says nothing of what they are.
_PLACE = "cutout_row"

Row = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """Some rows of the manifest that stand together.

    Attributes
    ----------
    number : int
        Its place among the table's parts.
    key : str
        SHA-256 of all that its fragment's bytes depend on.
    galaxies : dict
        galaxy_id to the row of the parent sample, of those that the rows name.
    """

    number: int
    key: str
    rows: list[Row]
    galaxies: dict[str, Row]


def cut(table: Path, parent: Publication, most_rows: int, made_with: str) -> Iterator[Part]:
    """Cut a table of the manifest into parts; streamed.

    Parameters
    ----------
    table : Path
        Galaxies come in the order of the parent sample, as the manifest writes them.
    most_rows : int
        Of a part; on average it has 0.43 times as many.
    made_with : str
        Says everything that is the same for all parts and that their bytes depend on: settings, code.

    Raises
    ------
    StorageError
        If a row names a galaxy that the parent sample hasn't, or has elsewhere.
    """
    parents, pixels_of = _Galaxies(parent), _pixels_of(parent)
    number = 0
    rows: list[Row] = []
    galaxies: dict[str, Row] = {}

    def part() -> Part:
        shown = [{name: value for name, value in galaxy.items() if name != _PLACE} for galaxy in galaxies.values()]
        content = json.dumps([made_with, rows, shown, [pixels_of(galaxy) for galaxy in galaxies.values()]])
        return Part(number, hashlib.sha256(content.encode()).hexdigest(), rows, galaxies)

    for batch in iterate_parquet(table):
        for row in batch.to_pylist():
            if rows and (len(rows) == most_rows or is_border(row["task_id"], most_rows)):
                yield part()
                number, rows, galaxies = number + 1, [], {}
            rows.append(row)
            galaxies[row["galaxy_id"]] = parents.find(row["galaxy_id"])
    if rows:
        yield part()


def is_border(task_id: str, most_rows: int) -> bool:
    """Whether a part begins at a row: by a hash of its key, for one row in half a part's most."""
    place = int.from_bytes(hashlib.blake2b(task_id.encode(), digest_size=8).digest(), "little") / 2**64
    return place < _BORDERS_A_PART / most_rows


class _Galaxies:
    """The parent sample's rows, read along with a table that names them in the same order; one is in memory at a time."""

    def __init__(self, parent: Publication) -> None:
        self._where = f"parent_sample {parent.version}"
        path = parent.path(f"{parent.asset}.parquet")
        self._coming = (row for batch in iterate_parquet(path) for row in batch.to_pylist())
        self._now: Row = {"galaxy_id": None}

    def find(self, galaxy_id: str) -> Row:
        while self._now["galaxy_id"] != galaxy_id:
            found = next(self._coming, None)
            if found is None:
                raise StorageError(
                    f"the manifest names galaxy {galaxy_id}, which {self._where} has not, or not in the manifest's order. "
                    "Materialize injection_manifest again."
                )
            self._now = found
        return self._now


def _pixels_of(parent: Publication) -> Callable[[Row], str]:
    """Return a function from a galaxy to a hash of its published pixels, flags and PSFs; empty where there are none."""
    files = [
        open_cutouts(parent.path(name, verify=False))
        for name in (CUTOUTS_FILE, BAD_FILE, PSFS_FILE)
        if name in parent.manifest.files
    ]

    def digest(galaxy: Row) -> str:
        pixels = hashlib.sha256()
        for file in files:
            pixels.update(file[galaxy[_PLACE]].tobytes())
        return pixels.hexdigest() if files else ""

    return digest
