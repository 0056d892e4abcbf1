"""Injections, or probes without flux, side by side with the control of their galaxy, read from published stamps.

Belongs here: which rows are compared, at a cost that doesn't grow with the survey. What is asked of them is in `fingerprints.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.stamps.decode import decode_pixels
from lens_pipeline.stamps.fragments import BLOB, Fragment, Fragments, open_fragment
from lens_pipeline.storage.parquet import iterate_parquet
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.sources import LocalFile
from lens_pipeline.survey.randomness import stream

MOST_ROWS = 8192
_BATCH = 64

Row = dict[str, Any]


@dataclass(frozen=True)
class StampPair:
    """A row and the control of its galaxy.

    Attributes
    ----------
    of_flux : bool
        Whether the first is an injection; else it is a probe without flux.
    row, control : dict
        Their columns, without pixels.
    pixels : (2, band, y, x) float32 array
        Of the row and of its control.
    blobs : tuple of bytes
        Of the same.
    """

    of_flux: bool
    row: Row
    control: Row
    pixels: NDArray[np.float32]
    blobs: tuple[bytes, bytes]


@dataclass
class PairReader:
    """Reads at most one pair of each kind from each galaxy.

    Fragments come in an order that their names give, so that the first file of a survey isn't the only one looked at; of a user's
    own files only the first is read.

    Attributes
    ----------
    most : int
        Pairs of a kind to read.
    most_rows : int
        Rows to look at for them; the batch in which they are reached is read to its end.
    n_rows : int
        Rows looked at so far.
    n_unusable : int
        Pairs so far that were left out: a blob that can't be decoded.
    """

    stamps: Publication
    most: int
    most_rows: int = MOST_ROWS
    n_rows: int = 0
    n_unusable: int = 0
    contract: DatasetContract = field(init=False)

    def __post_init__(self) -> None:
        self.contract = DatasetContract.model_validate(self.stamps.attributes["dataset_contract"])

    def pairs(self) -> Iterator[StampPair]:
        """Read the pairs: a control and the row that names it, or is of its galaxy, in one fragment."""
        probes = self._probes()
        found = {True: 0, False: 0}
        for fragment in self._chosen():
            controls: dict[str, tuple[Row, bytes]] = {}
            waiting: dict[str, tuple[Row, bytes]] = {}
            done: set[str] = set()
            for row, blob in self._rows(fragment):
                is_control, galaxy = self.is_control(row), galaxy_of(row)
                if (is_control or self.is_injection(row)) and galaxy not in done:
                    (controls if is_control else waiting).setdefault(galaxy, (row, blob))
                    if galaxy in controls and galaxy in waiting:
                        done.add(galaxy)
                        yield from self._pair(waiting.pop(galaxy), controls[galaxy], found, of_flux=True)
                if is_control and (probe := probes.pop(row["task_id"], None)):
                    yield from self._pair(probe, (row, blob), found, of_flux=False)
                if galaxy in done:
                    controls.pop(galaxy, None)
                if found[True] >= self.most or self.n_rows >= self.most_rows:
                    return

    def rows(self) -> Iterator[tuple[Row, bytes]]:
        """Read usable rows with their blobs, whatever they are; at most about `most_rows`."""
        for fragment in self._chosen():
            for row in self._rows(fragment):
                yield row
                if self.n_rows >= self.most_rows:
                    return

    def is_control(self, row: Row) -> bool:
        """Whether a row is a galaxy as it is: no arc, and no fake of one."""
        return bool(row["lens_model"] == self.contract.classes[0].label_values[0])

    def is_injection(self, row: Row) -> bool:
        """Whether a row is of a class other than the negative one."""
        return bool(self.contract.label_of.get(row["lens_model"]))

    def _pair(
        self, first: tuple[Row, bytes], control: tuple[Row, bytes], found: dict[bool, int], *, of_flux: bool
    ) -> Iterator[StampPair]:
        if found[of_flux] >= self.most:
            return
        blobs = (first[1], control[1])
        pixels = np.zeros((2, *self.contract.stamp_shape), np.float32)
        if any(verdict is not None for verdict in decode_pixels(blobs, self.contract, pixels)):
            self.n_unusable += 1
            return
        found[of_flux] += 1
        yield StampPair(of_flux, first[0], control[0], pixels, blobs)

    def _chosen(self) -> list[Fragment]:
        fragments = Fragments.open(self.stamps).fragments
        if not fragments or not fragments[0].is_own:
            return list(fragments[:1])
        return sorted(fragments, key=lambda fragment: float(stream(0, "looked at", fragment.name).random()))

    def _probes(self) -> dict[str, tuple[Row, bytes]]:
        """Probes without flux of the galaxies that will be looked at, by the control that each names."""
        entries = self.stamps.attributes.get("null_flux", [])
        wanted = self._first_keys() if entries else set()
        probes: dict[str, tuple[Row, bytes]] = {}
        for entry in entries:
            source = LocalFile(self.stamps.path(entry["file"], verify=False))
            fragment = open_fragment(source, self.contract, (), entry)
            named = fragment.batches(("pair_id",), rows=self.most_rows)
            if any(wanted.intersection(batch["pair_id"].to_pylist()) for batch in named):
                probes |= {
                    row["pair_id"]: (row, blob) for row, blob in self._rows(fragment) if row["pair_id"] in wanted
                }
        self.n_rows = 0
        return probes

    def _first_keys(self) -> set[str]:
        """Keys of the rows that will be looked at."""
        keys: set[str] = set()
        for fragment in self._chosen():
            for batch in fragment.batches(("task_id",), rows=self.most_rows):
                keys.update(batch["task_id"].to_pylist())
            if len(keys) >= self.most_rows:
                break
        return keys

    def _rows(self, fragment: Fragment) -> Iterator[tuple[Row, bytes]]:
        whole = _with_all_columns(fragment)
        for batch in whole.batches(list(whole.columns), rows=_BATCH):
            plain = [name for name in batch.schema.names if name != BLOB]
            self.n_rows += batch.num_rows
            for row, blob in zip(batch.select(plain).to_pylist(), batch[BLOB], strict=True):
                if row.get("cutout_ok") == 1 and blob.is_valid:
                    yield row, blob.as_py()


def galaxy_of(row: Row) -> str:
    """Name the galaxy of a row: as it says, else by its control; where rows name no controls by its place, else by itself.

    A place is taken to 1e-6 degrees: an injection stands where its control does.
    """
    named = row.get("galaxy_id") or row.get("pair_id")
    if named:
        return str(named)
    ra, dec = row.get("ra"), row.get("dec")
    if "pair_id" in row or ra is None or dec is None or np.isnan(ra + dec):
        return str(row["task_id"])
    return f"J{ra:010.6f}{dec:+010.6f}"


def parents_of(parent: Publication, names: Sequence[str | None], columns: Sequence[str]) -> dict[str, Row]:
    """Return what the parent sample knows of some galaxies, by name; a column that it lacks is left out."""
    file = f"{parent.asset}.parquet"
    there = parent.entry(file).schema or {}
    wanted = pa.array([name for name in names if name is not None], pa.string())
    return {
        row["galaxy_id"]: row
        for batch in iterate_parquet(parent.path(file), ["galaxy_id", *(name for name in columns if name in there)])
        for row in batch.filter(pc.is_in(pc.cast(batch["galaxy_id"], pa.string()), value_set=wanted)).to_pylist()
    }


def _with_all_columns(fragment: Fragment) -> Fragment:
    """Let a fragment of ours be read with the columns that no contract declares as well."""
    if not fragment.is_own:
        return fragment
    with fragment.source.lend(fragment.sha256) as path:
        names = pq.read_schema(path).names
    return replace(fragment, columns={name: name for name in names} | fragment.columns)
