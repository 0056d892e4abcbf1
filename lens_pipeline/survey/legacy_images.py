"""Pixels of galaxies that a catalogue's selection kept, cut out of the survey's images, so that arcs can be injected into them.

Belongs here: putting together what the catalogue says and what the images show. Both are read elsewhere. The sample is in memory,
some 4 kB a galaxy; pixels are not.
"""

import pyarrow as pa
import pyarrow.parquet as pq

from lens_pipeline.contracts.catalogue import PARENT_LEFT_OUT, PARENT_SAMPLE
from lens_pipeline.storage.staging import Staging
from lens_pipeline.survey.config import ParentSampleConfig
from lens_pipeline.survey.cutout_places import left_out_rows
from lens_pipeline.survey.galaxy_table import Known, places_of
from lens_pipeline.survey.image_parents import absolute, cut_sample
from lens_pipeline.survey.legacy_catalogue import Tally


def add_images(config: ParentSampleConfig, tally: Tally, staging: Staging) -> None:
    """Cut every galaxy of the staged sample; those that can't be cut go over to ``left_out``, and the tally says so.

    A number that both give, such as the seeing, is the image's. Regions stay the catalogue's.

    Raises
    ------
    ConfigError
        If there are no images in that folder.
    ContractError
        If the images can't be used, or no galaxy could be cut.
    """
    catalogue: list[Known] = _take(staging, staging.asset).to_pylist()
    galaxies = places_of(catalogue, config.folder)
    found = cut_sample(config, config.images, galaxies, catalogue, staging)
    rows = [_joined(catalogue[row["cutout_row"]], row) for row in found.rows]
    staging.write_table(None, _typed(rows), PARENT_SAMPLE)
    left_out = pa.concat_tables(
        [_take(staging, "left_out"), left_out_rows(found.quarantine, catalogue, absolute(config.images))]
    )
    staging.write_table("left_out", left_out, PARENT_LEFT_OUT)
    tally.n_kept = len(rows)
    tally.left_out.update(found.quarantine.counts)
    staging.attributes["images"] = absolute(config.images)
    staging.attributes["assumptions"] = found.assumptions


def _take(staging: Staging, name: str) -> pa.Table:
    """Read a staged table and remove its file, so that another can take its place."""
    path = staging.folder / f"{name}.parquet"
    table = pq.read_table(path)
    path.unlink()
    return table


def _joined(known: Known, measured: Known) -> Known:
    return known | {name: value for name, value in measured.items() if value is not None or name not in known}


def _typed(rows: list[Known]) -> pa.Table:
    """Return the rows with the contract's columns in its types, and the further ones after."""
    own = set(PARENT_SAMPLE.schema.names)
    table = pa.Table.from_pylist([{name: row.get(name) for name in own} for row in rows], schema=PARENT_SAMPLE.schema)
    further = pa.Table.from_pylist([{name: value for name, value in row.items() if name not in own} for row in rows])
    for name in further.column_names:
        table = table.append_column(name, further[name])
    return table
