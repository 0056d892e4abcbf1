"""The parent sample from Legacy Surveys catalogues: which rows of the files become galaxies, and where the others went.

Belongs here: the stream from files to the published tables. The published cuts are in `selections.py`, those of the
settings in `legacy_cuts.py`, what a kept row says of a galaxy in `legacy_rows.py`. Memory holds one batch of rows, and of the
galaxies that were kept 8 bytes each.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from lens_pipeline.contracts.catalogue import KNOWN_LENSES, PARENT_COMPLETENESS, PARENT_LEFT_OUT, PARENT_SAMPLE
from lens_pipeline.contracts.errors import ContractError
from lens_pipeline.splits.known_lenses import KnownLenses, read_known_lenses
from lens_pipeline.storage.staging import Staging
from lens_pipeline.survey.config import ParentSampleConfig
from lens_pipeline.survey.files_read import FilesRead
from lens_pipeline.survey.host_sample import HostSample
from lens_pipeline.survey.legacy_cuts import judge, own_cuts
from lens_pipeline.survey.legacy_rows import (
    OPTIONAL,
    REQUIRED,
    galaxy_ids,
    galaxy_rows,
    target_ids,
    unlike_dust,
    unlike_seeing,
)
from lens_pipeline.survey.parent_completeness import ARC_COLOURS, parent_completeness
from lens_pipeline.survey.regions import N_BRICKS, Regions, brick_area_deg2, brick_ids
from lens_pipeline.survey.seen_ids import SeenIds
from lens_pipeline.survey.selections import Cut, Selection, selection_named
from lens_pipeline.survey.tractor import BATCH_ROWS, Catalogue, catalogue_files

# In this order: a row has the first reason that holds.
NO_IDENTITY, NO_POSITION, NOT_PRIMARY, REPEATED = "no_identity", "no_position", "not_primary", "repeated"
KNOWN_LENS, WRONG_SEEING, WRONG_EXTINCTION = "known_lens", "wrong_seeing", "wrong_extinction"
NEAR_BORDER = "near_border"

_LENS_COLUMNS = ("lens_name", "lens_ra", "lens_dec", "grade", "methods", "independent_of_networks", "references")


@dataclass
class Tally:
    """What was read and what became of it."""

    n_rows: int = 0
    n_kept: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    bricks: set[int] = field(default_factory=set)
    regions: set[int] = field(default_factory=set)
    imaging: set[tuple[int, str]] = field(default_factory=set)


@dataclass
class LegacyParents:
    """A pass over catalogue files.

    Attributes
    ----------
    hosts : HostSample
        Catalogue rows of some of the parents, to ask what an arc would do to their colours.
    """

    config: ParentSampleConfig
    selection: Selection
    own_cuts: tuple[Cut, ...]
    catalogues: list[Catalogue]
    lenses: KnownLenses
    read: FilesRead
    tally: Tally = field(default_factory=Tally)
    seen: SeenIds = field(default_factory=SeenIds)
    hosts: HostSample = field(default_factory=HostSample)

    @classmethod
    def of(cls, config: ParentSampleConfig) -> "LegacyParents":
        """Look at every file's head before any row is read.

        Raises
        ------
        ConfigError
            If the folder, a catalogue in it or the table of lenses isn't there.
        ContractError
            If a file lacks a column that is needed, or holds one of another kind, naming all of them.
        """
        selection, own = selection_named(config.selection.value), own_cuts(config)
        needed = dict.fromkeys([*REQUIRED, *selection.columns, *(name for cut in own for name in cut.columns)])
        paths, read = catalogue_files(config.folder), FilesRead()
        read.see(str(path) for path in paths)
        catalogues = [Catalogue.open(path) for path in paths]
        for catalogue in catalogues:
            catalogue.require(tuple(needed), why=f"the selection {selection.name} with these settings")
            catalogue.refuse_other_kinds(tuple(dict.fromkeys([*needed, *OPTIONAL])))
        lenses = read_known_lenses(config.known_lenses) if config.known_lenses else KnownLenses([], {})
        return cls(config, selection, own, catalogues, lenses, read)

    @property
    def regions(self) -> Regions:
        """How the sky is cut."""
        return Regions(self.config.region, self.config.healpix_nside)

    def write(self, staging: Staging) -> None:
        """Stream the files into the parent sample and the tables beside it: rows left out, known lenses, completeness.

        Raises
        ------
        ContractError
            If a file is damaged, files are of more than one release, or no galaxy is left.
        """
        self.write_rows(staging)
        if not self.tally.n_kept:
            raise ContractError(self._nothing_left())
        staging.write_table("completeness", parent_completeness(self._keeps, self.hosts.table), PARENT_COMPLETENESS)

    def write_rows(self, staging: Staging) -> None:
        """Stream the files into the three tables of rows."""
        tables = {None: PARENT_SAMPLE, "left_out": PARENT_LEFT_OUT, "known_lenses": KNOWN_LENSES}
        with (
            staging.table_writer(None, PARENT_SAMPLE, PARENT_SAMPLE.schema) as parents,
            staging.table_writer("left_out", PARENT_LEFT_OUT, PARENT_LEFT_OUT.schema) as left_out,
            staging.table_writer("known_lenses", KNOWN_LENSES, KNOWN_LENSES.schema) as known,
        ):
            writers = {None: parents, "left_out": left_out, "known_lenses": known}
            for catalogue in self.catalogues:
                for batch in self._batches(catalogue):
                    for name, rows in self._take(batch, catalogue.path).items():
                        tables[name].validate_stream(rows.schema, [rows], where=str(catalogue.path))
                        writers[name].write(rows)

    def describe(self) -> dict[str, Any]:
        """Return what is published of the pass: files, cuts with how many rows fail each, and what was left out why.

        Raises
        ------
        StorageError
            If a file was replaced or rewritten since its head was looked at.
        """
        tally, config = self.tally, self.config
        rows = {str(catalogue.path): catalogue.n_rows for catalogue in self.catalogues}
        area = float(brick_area_deg2(np.array(sorted(tally.bricks), dtype=np.int64)).sum())
        return {
            "folder": config.folder,
            "files": [{**file, "rows": rows[str(file["path"])]} for file in self.read.entries()],
            "selection": {
                "name": self.selection.name,
                "source": self.selection.source,
                "lacks": self.selection.lacks,
                "cuts": [
                    {"name": cut.name, "meaning": cut.meaning, "rows_that_fail": tally.failed[cut.name]}
                    for cut in (*self.selection.cuts, *self.own_cuts)
                ],
            },
            "rows_read": tally.n_rows,
            "rows_selected": tally.n_kept + sum(tally.left_out.values()),
            "left_out": dict(sorted(tally.left_out.items())),
            "region": {
                "kind": config.region.value,
                "nside": config.healpix_nside if config.region == "healpix" else None,
                "margin_arcsec": config.region_margin_arcsec,
            },
            "known_lenses": self.lenses.report or None,
            "arc_colours": [asdict(colour) for colour in ARC_COLOURS],
            "area_deg2": area,
            "area_is": "the unique area of every brick that a row was read of; masked sky isn't taken off",
            "has_pixels": bool(config.images),
        }

    def _keeps(self, rows: pl.DataFrame) -> pl.Series:
        return judge(rows, self.selection, self.own_cuts).select(pl.all_horizontal(pl.all()).alias("kept"))["kept"]

    def _batches(self, catalogue: Catalogue) -> Iterator[pl.DataFrame]:
        wanted = {
            *REQUIRED,
            *OPTIONAL,
            *self.selection.columns,
            *(name for cut in self.own_cuts for name in cut.columns),
        }
        names = [name for name in catalogue.columns if name in wanted]
        self.read.add([str(catalogue.path)])
        for batch in catalogue.batches(names, rows=BATCH_ROWS):
            yield pl.DataFrame(batch)

    def _take(self, rows: pl.DataFrame, path: Path) -> dict[str | None, pa.Table]:
        """Judge a batch and sort what the selection keeps into the three tables."""
        tally = self.tally
        judged = judge(rows, self.selection, self.own_cuts)
        tally.n_rows += rows.height
        tally.failed.update(
            {name: rows.height - met for name, met in judged.sum().to_dicts()[0].items()} if rows.height else {}
        )
        bricks = rows["BRICKID"].drop_nulls().unique().to_numpy()
        tally.bricks.update(bricks[(bricks >= 1) & (bricks <= N_BRICKS)].tolist())
        chosen = rows.filter(judged.select(pl.all_horizontal(pl.all()).alias("kept"))["kept"])
        self._refuse_mixed_imaging(chosen, path)
        reason, lens = self._reasons(chosen)
        parents = chosen.filter(reason == "")
        tally.n_kept += parents.height
        tally.left_out.update(name for name in reason.to_list() if name)
        cells = self.regions.cells(parents["RA"].to_numpy(), parents["DEC"].to_numpy())
        tally.regions.update(np.unique(cells).tolist())
        self.hosts.add(parents)
        return {
            None: galaxy_rows(parents, self.regions, cells),
            "left_out": _left_out_rows(chosen.filter(reason != ""), reason.filter(reason != ""), path),
            "known_lenses": self._lens_rows(chosen.filter(reason == KNOWN_LENS), lens.filter(reason == KNOWN_LENS)),
        }

    def _reasons(self, chosen: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
        """Why each chosen row is no parent, empty where it is one; and the known lens that it is, by its place."""
        ra, dec = (chosen[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in ("RA", "DEC"))
        on_sky = (ra >= 0) & (ra <= 360) & (dec >= -90) & (dec <= 90)
        east, north = np.where(on_sky, ra, 0.0), np.where(on_sky, dec, 0.0)
        known = chosen.select(pl.all_horizontal(pl.col("RELEASE", "BRICKID", "OBJID").is_not_null()))[:, 0].to_numpy()
        primary = brick_ids(east, north) == chosen["BRICKID"].fill_null(-1).to_numpy()
        if "BRICK_PRIMARY" in chosen.columns:
            primary &= chosen["BRICK_PRIMARY"].fill_null(False).to_numpy()
        good = known & on_sky & primary
        new = np.zeros(chosen.height, dtype=bool)
        new[good] = self.seen.first_time(target_ids(chosen.filter(good)))
        lens, _ = self.lenses.match(east, north, self.config.known_lens_radius_arcsec)
        margin = self.config.region_margin_arcsec
        seeing, dust = unlike_seeing(chosen).to_numpy(), unlike_dust(chosen).to_numpy()
        near = self.regions.near_border(east, north, margin) if margin else np.zeros(chosen.height, dtype=bool)
        reason = np.select(
            [~known, ~on_sky, ~primary, ~new, lens >= 0, seeing, dust, near],
            [NO_IDENTITY, NO_POSITION, NOT_PRIMARY, REPEATED, KNOWN_LENS, WRONG_SEEING, WRONG_EXTINCTION, NEAR_BORDER],
            default="",
        )
        return pl.Series(reason.astype(str), dtype=pl.String), pl.Series(lens)

    def _lens_rows(self, galaxies: pl.DataFrame, lens: pl.Series) -> pa.Table:
        ra, dec = galaxies["RA"].to_numpy(), galaxies["DEC"].to_numpy()
        _, distance = self.lenses.match(ra, dec, self.config.known_lens_radius_arcsec)
        columns = {"galaxy_id": galaxy_ids(galaxies).to_list(), "ra": ra, "dec": dec, "separation_arcsec": distance}
        found = [self.lenses.rows[place] for place in lens.to_list()]
        return _table(columns | {name: [row[name] for row in found] for name in _LENS_COLUMNS}, KNOWN_LENSES.schema)

    def _refuse_mixed_imaging(self, chosen: pl.DataFrame, path: Path) -> None:
        """Refuse files of two releases: each images the same galaxies anew, under other numbers."""
        releases = chosen["RELEASE"].drop_nulls().unique().to_list()
        self.tally.imaging.update((number // 1000, "BASS/MzLS" if number % 2 else "DECam") for number in releases)
        if len(self.tally.imaging) > 1:
            said = ", ".join(f"DR{number} {imaging}" for number, imaging in sorted(self.tally.imaging))
            raise ContractError(
                f"{path}: the files hold rows of {said}. Where these overlap a galaxy stands in both under two names, and could "
                f"come into two splits as one. Make a dataset of each."
            )

    def _nothing_left(self) -> str:
        tally = self.tally
        most = ", ".join(f"{name} ({n:,} fail it)" for name, n in tally.failed.most_common(3))
        left_out = ", ".join(f"{n:,} {reason}" for reason, n in tally.left_out.most_common()) or "none"
        return (
            f"of {tally.n_rows:,} rows in {len(self.catalogues):,} files no galaxy is left. Cuts that most rows fail: {most}; "
            f"left out after the cuts: {left_out}. Look whether the files are of the survey and release that the selection "
            f"{self.selection.name} is for, or loosen the cuts in parent_sample."
        )


def _left_out_rows(rows: pl.DataFrame, reason: pl.Series, path: Path) -> pa.Table:
    position = {name: rows[name.upper()].cast(pl.Float64).fill_nan(None).to_list() for name in ("ra", "dec")}
    columns = {"galaxy_id": galaxy_ids(rows).to_list(), **position, "reason": reason.to_list()}
    told = {"file": [str(path)] * rows.height, "detail": [None] * rows.height}
    return _table(columns | told, PARENT_LEFT_OUT.schema)


def _table(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    return pa.table([pa.array(columns[item.name], item.type) for item in schema], schema=schema)
