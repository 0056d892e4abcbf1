"""Where galaxies of a user's table stand, and what follows: their regions, and which of them can't be parents.

Belongs here: what is known before any pixel is read. A region is the unit of splitting, so that the same sky must not be seen
from two of them; a known lens must be neither host nor control.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.spatial import cKDTree

from lens_pipeline.contracts.catalogue import KNOWN_LENSES, PARENT_LEFT_OUT
from lens_pipeline.contracts.errors import ConfigError, ContractError, first_few
from lens_pipeline.splits.known_lenses import on_sphere, read_known_lenses
from lens_pipeline.storage.staging import Staging
from lens_pipeline.survey.config import ParentSampleConfig
from lens_pipeline.survey.galaxy_images import CutoutRefusedError, Quarantine
from lens_pipeline.survey.galaxy_table import Known
from lens_pipeline.survey.regions import Regions

# Settings that need to know where galaxies stand.
_OF_PLACES = ("region", "healpix_nside", "region_margin_arcsec", "known_lenses")
_OF_LENS = ("lens_name", "lens_ra", "lens_dec", "grade", "methods", "independent_of_networks", "references")


@dataclass
class Placed:
    """Galaxies that may be parents, each with a region, and those that can't be for where they stand.

    Attributes
    ----------
    numbers : list of int
        Place of each galaxy of `rows` in the table.
    """

    rows: list[Known] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    quarantine: Quarantine = field(default_factory=Quarantine)


def place_galaxies(config: ParentSampleConfig, galaxies: Sequence[Known], staging: Staging) -> Placed:
    """Give every galaxy its region and leave out known lenses and those near a region's border.

    A galaxy's own ``region_id`` is kept; otherwise its region is the brick or HEALPix cell that holds it. One without a place
    is its own region. With ``known_lenses`` set, the table of that name is written.

    Parameters
    ----------
    galaxies : sequence of dict
        galaxy_id, and ra, dec, region_id where known.

    Raises
    ------
    ConfigError
        If a setting needs places and no galaxy has one, or the margin is less than half a stamp's diagonal.
    ContractError
        If some galaxies without a region_id have a place and others none.
    """
    placed = [number for number, row in enumerate(galaxies) if has_place(row)]
    _refuse_settings_without_places(config, len(placed))
    regions = Regions(config.region, config.healpix_nside)
    ra, dec = (np.array([galaxies[number][name] for number in placed], dtype=float) for name in ("ra", "dec"))
    names = dict(zip(placed, regions.names(regions.cells(ra, dec)), strict=True))
    margin = config.region_margin_arcsec
    near = dict(
        zip(placed, regions.near_border(ra, dec, margin).tolist() if margin else [False] * len(ra), strict=True)
    )
    lenses = _known_lenses(config, [galaxies[number] for number in placed], ra, dec, staging)
    lens_of = dict(zip(placed, lenses, strict=True))
    found = Placed()
    by_place = 0
    for number, row in enumerate(galaxies):
        galaxy_id, own = str(row["galaxy_id"]), row.get("region_id")
        if lens_of.get(number):
            found.quarantine.add(galaxy_id, CutoutRefusedError("known_lens", lens_of[number]))
            continue
        by_place += own is None and number in names
        if own is None and near.get(number):
            detail = f"less than {margin:g} arcsec from the border of {names[number]}"
            found.quarantine.add(galaxy_id, CutoutRefusedError("near_border", detail))
            continue
        region = names.get(number, galaxy_id) if own is None else str(own)
        found.rows.append({**row, "galaxy_id": galaxy_id, "region_id": region})
        found.numbers.append(number)
    if by_place:
        if config.narrow_margin:
            raise ConfigError(f"{config.narrow_margin}.")
        staging.attributes["region"] = {
            "kind": config.region.value,
            "nside": config.healpix_nside if config.region == "healpix" else None,
            "margin_arcsec": margin,
        }
    return found


def has_place(row: Mapping[str, Any]) -> bool:
    """Whether it is known where a galaxy stands."""
    return all(row.get(name) is not None and np.isfinite(row[name]) for name in ("ra", "dec"))


def regions_must_not_overlap(rows: Sequence[Known], stamp_size: int) -> None:
    """Refuse galaxies of different regions that are so near to each other that their stamps may show the same sky.

    Parameters
    ----------
    rows : sequence of dict
        galaxy_id, region_id, pixel_scale_arcsec, and ra, dec where known.

    Raises
    ------
    ContractError
        If two of them are within a stamp's diagonal of each other, naming the first few pairs.
    """
    placed = [row for row in rows if has_place(row)]
    if not placed:
        return
    diagonal = stamp_size * 2**0.5 * max(float(row["pixel_scale_arcsec"]) for row in placed)
    tree = cKDTree(on_sphere([row["ra"] for row in placed], [row["dec"] for row in placed]))
    near = tree.query_pairs(2 * np.sin(np.radians(diagonal / 3600) / 2), output_type="ndarray")
    region = np.unique([row["region_id"] for row in placed], return_inverse=True)[1]
    torn = near[region[near[:, 0]] != region[near[:, 1]]]
    if len(torn):
        named = (
            " and ".join(f"{placed[i]['galaxy_id']} ({placed[i]['region_id']})" for i in pair)
            for pair in sorted(torn.tolist())
        )
        raise ContractError(
            f"{len(torn):,} pairs of galaxies are nearer than a stamp's diagonal ({diagonal:.1f} arcsec) and in different "
            f"regions: {first_few(named)}. The same sky could come into two splits. Give such galaxies one region_id, or leave "
            f"region_id out and parent_sample.region_margin_arcsec above 0."
        )


def left_out_rows(quarantine: Quarantine, galaxies: Sequence[Known], file: str) -> pa.Table:
    """Return PARENT_LEFT_OUT of galaxies that can't be parents; a place that isn't known is null."""
    known = {str(row["galaxy_id"]): row for row in galaxies}
    rows = []
    for left in quarantine.rows:
        row = known[left["galaxy_id"]]
        place = {name: float(row[name]) if has_place(row) else None for name in ("ra", "dec")}
        rows.append({**left, **place, "file": file})
    return pa.Table.from_pylist(rows, schema=PARENT_LEFT_OUT.schema)


def _refuse_settings_without_places(config: ParentSampleConfig, n_placed: int) -> None:
    fields = type(config).model_fields
    if not n_placed and (unread := [name for name in _OF_PLACES if getattr(config, name) != fields[name].default]):
        raise ConfigError(
            f"parent_sample.{first_few(unread)}: no galaxy has a place, so that this can't be heeded. Add ra and dec to "
            f"parent_sample.catalogue, or leave the setting out."
        )


def _known_lenses(
    config: ParentSampleConfig, galaxies: Sequence[Known], ra: Any, dec: Any, staging: Staging
) -> list[str]:
    """Say of each galaxy which known lens it is, empty where none; and write the table of those."""
    if not config.known_lenses:
        return [""] * len(galaxies)
    lenses = read_known_lenses(config.known_lenses)
    which, distance = lenses.match(ra, dec, config.known_lens_radius_arcsec)
    rows, said = [], []
    for galaxy, place, arcsec in zip(galaxies, which.tolist(), distance.tolist(), strict=True):
        if place < 0:
            said.append("")
            continue
        lens = lenses.rows[place]
        said.append(f"{arcsec:.2g} arcsec from {lens['lens_name']} ({lens['grade']})")
        rows.append(
            {"galaxy_id": str(galaxy["galaxy_id"]), "ra": float(galaxy["ra"]), "dec": float(galaxy["dec"])}
            | {"separation_arcsec": arcsec}
            | {name: lens[name] for name in _OF_LENS}
        )
    staging.write_table("known_lenses", pa.Table.from_pylist(rows, schema=KNOWN_LENSES.schema), KNOWN_LENSES)
    staging.attributes["known_lenses"] = lenses.report
    return said
