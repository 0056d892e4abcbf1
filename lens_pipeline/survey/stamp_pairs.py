"""Stamps side by side with the control of their galaxy, read from what was published.

Belongs here: which rows are compared, at a cost that doesn't grow with the survey. What is asked of them is in `fingerprints.py`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.survey_tables import MAGNITUDES
from lens_pipeline.stamps.decode import decode_pixels
from lens_pipeline.stamps.fragments import BLOB, Fragment, Fragments, open_fragment
from lens_pipeline.storage.parquet import iterate_parquet
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.sources import LocalFile
from lens_pipeline.survey.randomness import stream
from lens_pipeline.survey.roles import FAKES, HARD_NEGATIVES
from lens_pipeline.survey.stamp_files import files_to_look_at, with_all_columns

MOST_ROWS = 8192
_BATCH = 64
# What is asked of galaxies needs one stamp of each; where every stamp is asked, so many times as many are read.
_STAMPS_A_GALAXY = 4
_TOLD_BY = ("task_id", "pair_id", "galaxy_id", "ra", "dec", "lens_model", "role", "cutout_ok")

Row = dict[str, Any]


class Kind(StrEnum):
    """What is held against the control of its galaxy."""

    injections = "injections"
    probes = "probes without flux"
    fakes = "fakes"
    hard_negatives = "hard negatives"


@dataclass(frozen=True)
class StampPair:
    """A row and the control of its galaxy.

    Attributes
    ----------
    stands_for_galaxy : bool
        Whether it is the one of its kind that a hash of the keys picks of its galaxy's.
    row, control : dict
        Their columns, without pixels.
    pixels : (2, band, y, x) float32 array
        Of the row and of its control.
    blobs : tuple of bytes
        Of the same.
    """

    kind: Kind
    stands_for_galaxy: bool
    row: Row
    control: Row
    pixels: NDArray[np.float32]
    blobs: tuple[bytes, bytes]


class _Plan(NamedTuple):
    """A pair that is to be read: keys of its row and of its control."""

    kind: Kind
    stands_for_galaxy: bool
    first: str
    control: str


@dataclass
class PairReader:
    """Reads one pair of each kind from each galaxy, or every pair there is; at most so many.

    Fragments come in an order that their names give, so that the first file of a survey isn't the only one looked at. One writer
    made them all; a user's own may have had many, so galaxies and rows are dealt out over these, and files of which nothing
    could be asked are counted. Which of a galaxy's stamps stands for it a hash of their keys says, not their order.

    Attributes
    ----------
    most : int
        Galaxies of a kind to read.
    every : bool
        Whether all pairs of a galaxy are read, up to four times `most`.
    most_rows : int
        Rows to look at for them.
    undeclared : bool
        Whether rows of a user's own have the columns that no contract declares, as rows of ours always do.
    n_rows : int
        Rows looked at so far.
    unusable : Counter
        Pairs so far of each kind that were left out: a blob that can't be decoded, or is null.
    seen : Counter
        Rows looked at so far of each kind.
    n_files, n_asked : int
        A user's own files, and those of which pairs of an injection were read, or of which all rows were looked at and none is an
        injection; once all pairs are read. 0 of ours.
    """

    stamps: Publication
    most: int
    every: bool = False
    most_rows: int = MOST_ROWS
    undeclared: bool = False
    n_rows: int = 0
    unusable: Counter[Kind] = field(default_factory=Counter)
    seen: Counter[Kind] = field(default_factory=Counter)
    n_files: int = 0
    n_asked: int = 0
    contract: DatasetContract = field(init=False)

    def __post_init__(self) -> None:
        self.contract = DatasetContract.model_validate(self.stamps.attributes["dataset_contract"])

    def pairs(self) -> Iterator[StampPair]:
        """Read the pairs: a control and the row that names it, or is of its galaxy, in one fragment."""
        probes = self._probes()
        left = {
            (kind, stands): self.most * (1 if stands else _STAMPS_A_GALAXY - 1)
            for kind in Kind
            for stands in (True, False)
        }
        for fragment, until, among in self._turns():
            room = {key: _share(n, among) for key, n in left.items()}
            before, seen, n_injections = self.n_rows, self.seen[Kind.injections], 0
            plans = []
            for plan in self._plans(fragment, probes, until):
                key = plan.kind, plan.stands_for_galaxy
                if room[key]:
                    room[key], left[key] = room[key] - 1, left[key] - 1
                    plans.append(plan)
            looked_at = self.n_rows - before
            for pair in self._read(fragment, plans, probes, looked_at):
                n_injections += pair.kind is Kind.injections
                yield pair
            nothing_to_ask = looked_at == fragment.n_rows and self.seen[Kind.injections] == seen
            self.n_asked += not fragment.is_own and (n_injections > 0 or nothing_to_ask)
            if not left[Kind.injections, True]:
                return

    def left_out(self) -> str | None:
        """Say how many of a user's own files nothing could be asked of, once all pairs are read; None where there is none."""
        if self.n_asked == self.n_files:
            return None
        return (
            f"{self.n_asked:,} of {self.n_files:,} files were asked; in what was looked at of the others no injection stands "
            "with a control of its galaxy"
        )

    def rows(self) -> Iterator[tuple[Row, bytes]]:
        """Read usable rows with their blobs, whatever they are; at most `most_rows`."""
        for fragment, until, _ in self._turns():
            yield from self._rows(fragment, until - self.n_rows, counted=True)

    def has(self, role: str) -> bool:
        """Whether any of the rows that can be looked at has a role."""
        return any(
            row.get("role") == role for fragment, until, _ in self._turns() for row in self._told(fragment, until)
        )

    def is_control(self, row: Row) -> bool:
        """Whether a row is a galaxy as it is: no arc, and no fake of one."""
        return bool(row["lens_model"] == self.contract.classes[0].label_values[0])

    def is_injection(self, row: Row) -> bool:
        """Whether a row is of a class other than the negative one."""
        return bool(self.contract.label_of.get(row["lens_model"]))

    def kind_of(self, row: Row) -> Kind | None:
        """Return which kind a row of the stamps is, beside controls."""
        if self.is_injection(row):
            return Kind.injections
        role = row.get("role")
        return Kind.fakes if role in FAKES else Kind.hard_negatives if role in HARD_NEGATIVES else None

    def _plans(self, fragment: Fragment, probes: dict[str, tuple[Row, bytes]], until: int) -> list[_Plan]:
        """Say which pairs a fragment has, from what its rows are; its galaxies in the order of their first rows."""
        controls: dict[str, str] = {}
        stamps: dict[tuple[str, Kind], list[Row]] = {}
        for row in self._told(fragment, until):
            galaxy, kind = galaxy_of(row), self.kind_of(row)
            if kind is not None:
                stamps.setdefault((galaxy, kind), []).append(row)
                self.seen[kind] += 1
            elif self.is_control(row):
                controls[galaxy] = min(row["task_id"], controls.get(galaxy, row["task_id"]), key=_place)
                if row["task_id"] in probes:
                    stamps[galaxy, Kind.probes] = [row]
                    self.seen[Kind.probes] += 1
        plans = []
        for (galaxy, kind), rows in stamps.items():
            if galaxy in controls:
                first = min(rows, key=lambda row: _place(row["task_id"]))
                wanted = rows if self.every else [first]
                plans += [_Plan(kind, row is first, row["task_id"], controls[galaxy]) for row in wanted]
        return plans

    def _told(self, fragment: Fragment, until: int) -> Iterator[Row]:
        """Read what usable rows are, without their pixels, until so many rows were looked at in all."""
        for batch in self._whole(fragment).batches(_TOLD_BY, rows=max(1, until - self.n_rows)):
            rows = batch.slice(0, until - self.n_rows).to_pylist()
            self.n_rows += len(rows)
            yield from (row for row in rows if row.get("cutout_ok") == 1)
            if self.n_rows >= until:
                return

    def _read(
        self, fragment: Fragment, plans: Iterable[_Plan], probes: dict[str, tuple[Row, bytes]], most: int
    ) -> Iterator[StampPair]:
        """Read the pairs of the first so many rows; of their blobs those are held that a pair still waits for."""
        waiting: dict[str, list[_Plan]] = {}
        for plan in plans:
            for key in {plan.first, plan.control}:
                waiting.setdefault(key, []).append(plan)
        held: dict[str, tuple[Row, bytes]] = {}
        for row, blob in self._rows(fragment, most):
            key = row["task_id"]
            if key in waiting:
                held[key] = row, blob
            for plan in list(waiting.get(key, ())):
                first = probes.get(plan.first) if plan.kind is Kind.probes else held.get(plan.first)
                if first is not None and plan.control in held:
                    yield from self._pair(plan, first, held[plan.control])
                    for part in {plan.first, plan.control}:
                        waiting[part].remove(plan)
                        if not waiting[part]:
                            del waiting[part], held[part]
            if not waiting:
                return
        self.unusable.update(plan.kind for plan in {plan for plans in waiting.values() for plan in plans})

    def _pair(self, plan: _Plan, first: tuple[Row, bytes], control: tuple[Row, bytes]) -> Iterator[StampPair]:
        blobs = (first[1], control[1])
        pixels = np.zeros((2, *self.contract.stamp_shape), np.float32)
        if any(verdict is not None for verdict in decode_pixels(blobs, self.contract, pixels)):
            self.unusable[plan.kind] += 1
            return
        yield StampPair(plan.kind, plan.stands_for_galaxy, first[0], control[0], pixels, blobs)

    def _turns(self) -> Iterator[tuple[Fragment, int, int]]:
        """Each fragment to look at, with the rows looked at in all when it is done, and among how many what is left is dealt."""
        there = Fragments.open(self.stamps)
        chosen = files_to_look_at(there, self.most_rows)
        self.n_files = sum(not fragment.is_own for fragment in there.fragments)
        for place, fragment in enumerate(chosen):
            if self.n_rows >= self.most_rows:
                return
            among = 1 if fragment.is_own else len(chosen) - place
            yield fragment, self.n_rows + _share(self.most_rows - self.n_rows, among), among

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
                    row["pair_id"]: (row, blob)
                    for row, blob in self._rows(fragment, fragment.n_rows)
                    if row["pair_id"] in wanted
                }
        return probes

    def _first_keys(self) -> set[str]:
        """Keys of the rows that will be looked at."""
        keys: set[str] = set()
        for fragment in files_to_look_at(Fragments.open(self.stamps), self.most_rows):
            for batch in fragment.batches(("task_id",), rows=self.most_rows):
                keys.update(batch["task_id"].to_pylist())
            if len(keys) >= self.most_rows:
                break
        return keys

    def _rows(self, fragment: Fragment, most: int, *, counted: bool = False) -> Iterator[tuple[Row, bytes]]:
        whole = self._whole(fragment)
        for batch in whole.batches(list(whole.columns), rows=_BATCH):
            batch = batch.slice(0, most)
            plain = [name for name in batch.schema.names if name != BLOB]
            most -= batch.num_rows
            self.n_rows += batch.num_rows if counted else 0
            for row, blob in zip(batch.select(plain).to_pylist(), batch[BLOB], strict=True):
                if row.get("cutout_ok") == 1 and blob.is_valid:
                    yield row, blob.as_py()
            if not most:
                return

    def _whole(self, fragment: Fragment) -> Fragment:
        return with_all_columns(fragment, undeclared=self.undeclared)


def _share(whole: int, among: int) -> int:
    """Return the share of the next of so many, rounded up."""
    return -(-whole // among)


def _place(task_id: str) -> float:
    """Place of a key among all keys, by a hash."""
    return float(stream(0, "looked at", task_id).random())


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


def source_mag(row: Row, band: str) -> float | None:
    """Return the magnitude of a row's source; None where it is null, NaN or beyond what the contract allows."""
    mag = row.get(f"src_mag_{band}")
    return mag if mag is not None and MAGNITUDES[0] <= mag <= MAGNITUDES[1] else None


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
