"""The drawing of some galaxies' rows: a task of `engines.py`.

Belongs here: rows of the parent sample to a piece of each of the manifest's tables. A piece depends on its galaxies and on the
settings alone.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from lens_pipeline.contracts.catalogue import INJECTION_MANIFEST, NULL_FLUX
from lens_pipeline.storage.parquet import read_parquet, write_parquet
from lens_pipeline.survey.design import Design
from lens_pipeline.survey.injection_config import InjectionConfig
from lens_pipeline.survey.manifest import null_flux_rows, rows_of_galaxy
from lens_pipeline.survey.population import Hosts


def worker(settings: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return what draws the rows of a job's galaxies.

    Settings are the ``config`` and what the population knows of all ``hosts``. A job names the file of its ``galaxies``, and the
    files to write: ``rows`` and ``probes``, those without flux.
    """
    config = InjectionConfig.model_validate(settings["config"])
    design = Design.of(config, Hosts.from_attributes(settings["hosts"]))

    def draw(job: dict[str, Any]) -> dict[str, Any]:
        galaxies = read_parquet(Path(job["galaxies"])).to_pylist()
        pieces = (("rows", rows_of_galaxy, INJECTION_MANIFEST), ("probes", null_flux_rows, NULL_FLUX))
        for name, rows_of, contract in pieces:
            rows = [row for galaxy in galaxies for row in rows_of(design, galaxy)]
            piece = pa.Table.from_pylist(rows, schema=contract.schema)
            contract.validate(piece, where=f"the table {contract.name} that is about to be published")
            write_parquet(piece, Path(job[name]))
        return {}

    return draw
