"""A survey's own parquet files as the source: the galaxies that their rows are about. The files are never written or copied.

Belongs here: naming galaxies and listing each once. Finding and inspecting the files is for `external_files.py`; their rows
without pixels are read by `external_manifest.py`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.stamps.fragments import pack_schema
from lens_pipeline.stamps.galaxies import Positions
from lens_pipeline.storage.staging import Staging
from lens_pipeline.survey.config import ParentSampleConfig
from lens_pipeline.survey.external_files import find_files, stream_rows, take_in

POSITIONS = "positions"
# What a row says of its galaxy, under the parent sample's names.
_FROM_ROWS = {"ra": "ra", "dec": "dec", "psfsize_r": "psf_fwhm_r", "psfdepth_r": "psfdepth_r"}
_WHO = {
    "task_id": pa.string(),
    "region_id": pa.string(),
    "galaxy_id": pa.string(),
    "ra": pa.float64(),
    "dec": pa.float64(),
}
_SEEN = pa.schema([*_WHO.items(), ("psf_fwhm_r", pa.float64()), ("psfdepth_r", pa.float64())])


def external_parents(config: ParentSampleConfig, contract: DatasetContract, staging: Staging) -> pa.Table:
    """Inspect and hash every file, and list the distinct galaxies with position and region.

    Publishes ``files``, their ``schemas`` and ``folder`` as attributes, and a table ``positions`` that names the galaxy at
    each position of a row without galaxy_id.

    Raises
    ------
    ConfigError
        If the folder isn't there or holds no parquet file.
    ContractError
        If a file is a symbolic link, isn't sound parquet, takes too much to read, or lacks or retypes a column: every such
        file is named at once.
    StorageError
        If an object at s3:// can't be read, or a file changes while it is read.
    """
    taken = take_in(find_files(config.folder), contract, distinct_rows)
    schemas = [pack_schema(file.inspection.schema) for file, _ in taken]
    distinct = list(dict.fromkeys(schemas))
    staging.attributes["folder"] = config.folder
    staging.attributes["schemas"] = distinct
    staging.attributes["files"] = [
        file.describe(distinct.index(schema)) for (file, _), schema in zip(taken, schemas, strict=True)
    ]
    seen = pa.concat_tables([_SEEN.empty_table(), *(rows for _, rows in taken)]).combine_chunks()
    positions = _name_positions(seen, config.match_radius_arcsec)
    staging.write_table(POSITIONS, positions)
    galaxies, torn = _galaxies(seen, GalaxyNames(positions))
    staging.attributes["galaxies_in_more_than_one_region"] = torn
    return galaxies


class GalaxyNames:
    """Names the galaxy of rows: by their galaxy_id, else by position on the sky, else the row is a galaxy of its own.

    Parameters
    ----------
    positions : pyarrow.Table
        ra, dec and galaxy_id of each position, from `external_parents`.
    """

    def __init__(self, positions: pa.Table) -> None:
        key = _complex_position(positions)
        self._order = np.argsort(key)
        self._keys = key[self._order]
        self._names = positions["galaxy_id"].combine_chunks()

    def of(self, batch: pa.RecordBatch | pa.Table) -> pa.Array:
        """Name the galaxy of every row that has task_id and, where known, galaxy_id, ra and dec."""
        names = pc.binary_join_element_wise(pa.scalar("unplaced"), pc.cast(batch["task_id"], pa.string()), "-")
        if "ra" in batch.schema.names and len(self._keys):
            key = _complex_position(batch)
            place = np.minimum(np.searchsorted(self._keys, key), len(self._keys) - 1)
            found = pa.array(self._keys[place] == key)
            names = pc.if_else(found, self._names.take(pa.array(self._order[place])), names)
        return pc.coalesce(_given_names(batch), names)


def _given_names(batch: pa.RecordBatch | pa.Table) -> pa.Array:
    """Galaxy names as the rows give them, null where they give none."""
    if "galaxy_id" not in batch.schema.names:
        return pa.nulls(batch.num_rows, pa.string())
    given = pc.cast(batch["galaxy_id"], pa.string())
    return pc.if_else(pc.equal(given, ""), pa.scalar(None, pa.string()), given)


def _complex_position(table: pa.Table | pa.RecordBatch) -> NDArray[np.complex128]:
    """(ra, dec) as one number that sorts; NaN, which equals nothing, where either is unknown."""
    ra, dec = (np.asarray(pc.cast(table[name], pa.float64()).fill_null(np.nan)) for name in ("ra", "dec"))
    return np.asarray(ra + 1j * dec, dtype=np.complex128)


def distinct_rows(path: Path) -> pa.Table:
    """Keep the first row of each named galaxy or position in each region, and each row that has neither name nor position."""
    seen = _SEEN.empty_table()
    for batch in stream_rows(path, ("task_id", "region_id", "galaxy_id", *_FROM_ROWS)):
        columns: dict[str, Any] = {"region_id": pc.cast(batch["region_id"], pa.string())}
        columns["galaxy_id"] = _given_names(batch)
        for theirs, ours in _FROM_ROWS.items():
            known = theirs in batch.schema.names
            columns[ours] = pc.cast(batch[theirs], pa.float64()) if known else pa.nulls(batch.num_rows, pa.float64())
        placed = pc.fill_null(pc.and_(pc.is_finite(columns["ra"]), pc.is_finite(columns["dec"])), False)
        known_by_itself = pc.or_(placed, pc.is_valid(columns["galaxy_id"]))
        own_name = pc.cast(batch["task_id"], pa.string())
        columns["task_id"] = pc.if_else(known_by_itself, pa.scalar(None, pa.string()), own_name)
        rows = pa.table([columns[name] for name in _SEEN.names], schema=_SEEN)
        grouped = pa.concat_tables([seen, rows]).group_by(list(_WHO), use_threads=False)
        seen = grouped.aggregate([("psf_fwhm_r", "first"), ("psfdepth_r", "first")]).rename_columns(_SEEN.names)
    return seen


def _name_positions(seen: pa.Table, radius_arcsec: float) -> pa.Table:
    """Name the galaxy at each distinct position of a row that names none: a named one within the radius, else a new one."""
    rows = seen.select(["galaxy_id", "ra", "dec"])
    rows = rows.filter(pc.and_(pc.is_finite(rows["ra"]), pc.is_finite(rows["dec"])))
    rows = rows.group_by(rows.column_names, use_threads=False).aggregate([])
    where = (rows["ra"].to_numpy(), rows["dec"].to_numpy())
    positions = Positions()
    positions.add(rows["galaxy_id"], *where)
    names = positions.match(radius_arcsec).complete(rows["galaxy_id"], *where)
    named = pa.table({"ra": rows["ra"], "dec": rows["dec"], "galaxy_id": names})
    return named.filter(pc.is_null(rows["galaxy_id"]))


def _galaxies(seen: pa.Table, names: GalaxyNames) -> tuple[pa.Table, list[str]]:
    """Return one row a galaxy, and the galaxies that stand in more than one region, each with its regions."""
    values = list(_FROM_ROWS.values())
    named = pa.table({"galaxy_id": names.of(seen), **{name: seen[name] for name in ("region_id", *values)}})
    each = named.group_by(["galaxy_id", "region_id"], use_threads=False).aggregate([(name, "first") for name in values])
    each = each.rename_columns(["galaxy_id", "region_id", *values])
    galaxies = each.group_by("galaxy_id", use_threads=False).aggregate(
        [("region_id", "first"), ("region_id", "count"), *((name, "first") for name in values)]
    )
    several = galaxies.filter(pc.greater(galaxies["region_id_count"], 1))["galaxy_id"].combine_chunks()
    both = each.filter(pc.is_in(each["galaxy_id"], value_set=several)).group_by("galaxy_id", use_threads=False)
    regions = both.aggregate([("region_id", "distinct")]).to_pylist()
    torn = [f"{row['galaxy_id']} in {' and '.join(sorted(row['region_id_distinct']))}" for row in regions]
    renamed = {name: galaxies[f"{name}_first"] for name in ("region_id", *values)}
    return pa.table({"galaxy_id": galaxies["galaxy_id"], **renamed}), torn
