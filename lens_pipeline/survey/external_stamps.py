"""A survey's own parquet files as the source: found, checked, hashed whole, and never written or copied.

Belongs here: what is done before any row counts (every footer against the contract, every file's SHA-256), and the galaxies that
the rows are about. Their rows without pixels are read by `external_manifest.py`.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lens_pipeline.contracts.catalogue import STAMPS
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import ConfigError, ContractError, first_few
from lens_pipeline.stamps.galaxies import Positions
from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline.storage.staging import Staging
from lens_pipeline.survey.config import ParentSampleConfig

POSITIONS = "positions"
_BATCH = 16384
_HASHERS = 4
# What a row says of its galaxy, under the parent sample's names.
_FROM_ROWS = {"ra": "ra", "dec": "dec", "psfsize_r": "psf_fwhm_r", "psfdepth_r": "psfdepth_r"}


@dataclass(frozen=True)
class ExternalFile:
    """One of a survey's own files, as found."""

    path: Path
    sha256: str
    rows: int
    row_groups: int

    def describe(self) -> dict[str, Any]:
        """Return what is published of it."""
        return {"path": str(self.path), "sha256": self.sha256, "rows": self.rows, "row_groups": self.row_groups}


def external_parents(config: ParentSampleConfig, contract: DatasetContract, staging: Staging) -> pa.Table:
    """Check and hash every file, and list the distinct galaxies with position and region.

    Publishes ``files`` and ``folder`` as attributes, and a table ``positions`` that names the galaxy at each position of a
    row without galaxy_id.

    Raises
    ------
    ConfigError
        If the folder isn't there or holds no parquet file.
    ContractError
        If a file is a symbolic link, isn't parquet, or lacks or retypes a column: every such file is named at once.
    """
    paths = find_files(Path(config.folder).expanduser().absolute())
    footers = check_footers(paths, contract)
    with ThreadPoolExecutor(_HASHERS) as pool:
        hashes = list(pool.map(sha256_of, paths))
    files = [
        ExternalFile(path, sha256, footer.num_rows, footer.num_row_groups)
        for path, sha256, footer in zip(paths, hashes, footers, strict=True)
    ]
    staging.attributes["folder"] = config.folder
    staging.attributes["files"] = [file.describe() for file in files]
    positions = _name_positions(paths, config.match_radius_arcsec)
    staging.write_table(POSITIONS, positions)
    galaxies, torn = _galaxies(paths, GalaxyNames(positions))
    staging.attributes["galaxies_in_more_than_one_region"] = torn
    return galaxies


def find_files(folder: Path) -> list[Path]:
    """List a folder's parquet files by name.

    Raises
    ------
    ConfigError
        If there is no such folder, or no parquet file in it.
    ContractError
        If the folder or one of them is a symbolic link.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"there is no folder {folder}. Set parent_sample.folder to the folder that holds your parquet files (*.parquet)."
        )
    paths = sorted(folder.glob("*.parquet"))
    links = [path for path in (folder, *paths) if path.is_symlink()]
    if links:
        raise ContractError(
            f"{first_few(links)} is a symbolic link, which can come to mean other data unseen; {len(links)} were found. Name "
            f"the folder itself, and put the files in it."
        )
    if not paths:
        there = first_few(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise ConfigError(
            f"{folder} holds no *.parquet file; it holds {there}. Set parent_sample.folder to the files' folder."
        )
    return paths


def check_footers(paths: Sequence[Path], contract: DatasetContract) -> list[pq.FileMetaData]:
    """Hold every file's columns against the contract STAMPS, reading footers only.

    Raises
    ------
    ContractError
        Naming the files and columns that don't follow it.
    """
    footers, problems = [], []
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                footers.append(file.metadata)
                STAMPS.check_schema(file.schema_arrow, where=str(path))
        except (pa.ArrowException, OSError) as error:
            problems.append(f"{path} can't be read as parquet: {error}. Restore it from where it came.")
        except ContractError as error:
            problems.append(str(error))
    if problems:
        raise ContractError(
            f"{len(problems)} of {len(paths)} files can't be used; nothing was read. First: " + " | ".join(problems[:3])
        )
    return footers


def stream_rows(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Stream columns of a file, those that it has; memory doesn't grow with the file."""
    with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
        there = [name for name in columns if name in file.schema_arrow.names]
        yield from file.iter_batches(batch_size=_BATCH, columns=there)


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

    def of(self, batch: pa.RecordBatch) -> pa.StringArray:
        """Name the galaxy of every row of a batch that has task_id and, where known, galaxy_id, ra and dec."""
        names = pc.binary_join_element_wise(pa.scalar("unplaced"), pc.cast(batch["task_id"], pa.string()), "-")
        if "ra" in batch.schema.names and len(self._keys):
            key = _complex_position(batch)
            place = np.minimum(np.searchsorted(self._keys, key), len(self._keys) - 1)
            found = pa.array(self._keys[place] == key)
            names = pc.if_else(found, self._names.take(pa.array(self._order[place])), names)
        return pc.coalesce(_given_names(batch), names)


def _given_names(batch: pa.RecordBatch) -> pa.Array:
    """Galaxy names as the rows give them, null where they give none."""
    if "galaxy_id" not in batch.schema.names:
        return pa.nulls(batch.num_rows, pa.string())
    given = pc.cast(batch["galaxy_id"], pa.string())
    return pc.if_else(pc.equal(given, ""), pa.scalar(None, pa.string()), given)


def _complex_position(table: pa.Table | pa.RecordBatch) -> NDArray[np.complex128]:
    """(ra, dec) as one number that sorts; NaN, which equals nothing, where either is unknown."""
    ra, dec = (np.asarray(pc.cast(table[name], pa.float64()).fill_null(np.nan)) for name in ("ra", "dec"))
    return np.asarray(ra + 1j * dec, dtype=np.complex128)


def _name_positions(paths: Sequence[Path], radius_arcsec: float) -> pa.Table:
    """Name the galaxy at each distinct position of a row that names none: a named one within the radius, else a new one."""
    seen = None
    for path in paths:
        for batch in stream_rows(path, ("galaxy_id", "ra", "dec")):
            columns = {"galaxy_id": _given_names(batch)}
            columns |= {name: pc.cast(batch[name], pa.float64()) for name in ("ra", "dec")}
            rows = pa.table(columns)
            rows = rows.filter(pc.and_(pc.is_finite(rows["ra"]), pc.is_finite(rows["dec"])))
            seen = rows if seen is None else pa.concat_tables([seen, rows])
            seen = seen.group_by(seen.column_names, use_threads=False).aggregate([])
    assert seen is not None, "a folder without files was refused before"
    unnamed = pc.is_null(seen["galaxy_id"])
    where = (seen["ra"].to_numpy(), seen["dec"].to_numpy())
    positions = Positions()
    positions.add(seen["galaxy_id"], *where)
    names = positions.match(radius_arcsec).complete(seen["galaxy_id"], *where)
    named = pa.table({"ra": seen["ra"], "dec": seen["dec"], "galaxy_id": names})
    return named.filter(unnamed)


def _galaxies(paths: Sequence[Path], names: GalaxyNames) -> tuple[pa.Table, list[str]]:
    """Return one row a galaxy, and the galaxies that stand in more than one region, each with its regions."""
    seen = None
    for path in paths:
        for batch in stream_rows(path, ("task_id", "region_id", "galaxy_id", *_FROM_ROWS)):
            columns: dict[str, Any] = {
                "galaxy_id": names.of(batch),
                "region_id": pc.cast(batch["region_id"], pa.string()),
            }
            for theirs, ours in _FROM_ROWS.items():
                known = theirs in batch.schema.names
                columns[ours] = (
                    pc.cast(batch[theirs], pa.float64()) if known else pa.nulls(batch.num_rows, pa.float64())
                )
            rows = pa.table(columns)
            seen = _distinct(rows if seen is None else pa.concat_tables([seen, rows]))
    assert seen is not None, "a folder without files was refused before"
    galaxies = seen.group_by("galaxy_id", use_threads=False).aggregate(
        [("region_id", "first"), ("region_id", "count"), *((ours, "first") for ours in _FROM_ROWS.values())]
    )
    several = galaxies.filter(pc.greater(galaxies["region_id_count"], 1))["galaxy_id"].combine_chunks()
    both = seen.filter(pc.is_in(seen["galaxy_id"], value_set=several)).group_by("galaxy_id", use_threads=False)
    regions = both.aggregate([("region_id", "distinct")]).to_pylist()
    torn = [f"{row['galaxy_id']} in {' and '.join(sorted(row['region_id_distinct']))}" for row in regions]
    renamed = {name: galaxies[f"{name}_first"] for name in ("region_id", *_FROM_ROWS.values())}
    return pa.table({"galaxy_id": galaxies["galaxy_id"], **renamed}), torn


def _distinct(rows: pa.Table) -> pa.Table:
    """Keep the first row of each (galaxy, region)."""
    values = list(_FROM_ROWS.values())
    kept = rows.group_by(["galaxy_id", "region_id"], use_threads=False).aggregate([(name, "first") for name in values])
    return kept.rename_columns(["galaxy_id", "region_id", *values])
