"""The injection manifest: one row per stamp to make, with its key, its galaxy and its lens, or CONTROL.

Belongs here: which rows there are and how they are named. What is drawn for a row is in `priors.py`; a survey's own rows are
read in `external_manifest.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lens_pipeline.contracts.catalogue import INJECTION_DESIGN, INJECTION_MANIFEST
from lens_pipeline.storage.parquet import parquet_writer
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging
from lens_pipeline.survey.config import InjectionConfig, Source
from lens_pipeline.survey.design import Design
from lens_pipeline.survey.design_report import TABLE, DesignTally
from lens_pipeline.survey.external_manifest import write_external_manifest
from lens_pipeline.survey.population import Hosts
from lens_pipeline.survey.priors import CONTROL, control_row, draw_injection

INJECTION = "injection"
_ROWS_PER_GROUP = 8192


@dataclass(frozen=True)
class ManifestResult:
    """What a manifest holds."""

    n_rows: int
    n_injections: int
    n_controls: int
    n_unlabelled: int


def build_manifest(config: InjectionConfig, parent: Publication, staging: Staging) -> ManifestResult:
    """Write the manifest of a parent sample: a control and its injections for each galaxy, or a survey's own rows.

    Parameters
    ----------
    parent : Publication
        The parent sample; its source says which way is taken.

    Raises
    ------
    ContractError
        If a survey's own rows don't follow the contract.
    ConfigError
        If a density can't be normalised or a cell's floor can't be met.
    """
    for name in ("source", "dataset_contract"):
        staging.attributes[name] = parent.attributes[name]
    path = staging.folder / f"{staging.asset}.parquet"
    if parent.attributes["source"] == Source.external_stamps.value:
        counts = write_external_manifest(parent, path)
    else:
        hosts = Hosts.of(config, parent.read_table(columns=["z_lens"])["z_lens"].to_pylist())
        design = Design.of(config, hosts)
        staging.attributes["population"] = design.population.describe()
        staging.attributes["hosts"] = hosts.as_attributes()
        counts, tally = _write_drawn_manifest(design, parent, path)
        staging.write_table(TABLE, tally.table(), INJECTION_DESIGN)
    unlabelled = sum(n for label, n in counts.items() if label is None)
    controls = counts.get(CONTROL, 0)
    total = sum(counts.values())
    return ManifestResult(total, total - controls - unlabelled, controls, unlabelled)


def _write_drawn_manifest(design: Design, parent: Publication, path: Any) -> tuple[dict[str | None, int], DesignTally]:
    schema = pa.schema(list(INJECTION_MANIFEST.schema))
    counts: dict[str | None, int] = {}
    tally = DesignTally(design, parent.read_table(columns=["psf_fwhm_r"])["psf_fwhm_r"].to_pylist())
    with parquet_writer(path, schema) as writer:
        for galaxies in parent.read_table().to_batches(max_chunksize=_galaxies_per_group(design.config)):
            rows = [row for galaxy in galaxies.to_pylist() for row in rows_of_galaxy(design, galaxy)]
            table = pa.Table.from_pylist(rows, schema=schema)
            INJECTION_MANIFEST.validate(table, where="the injection manifest that is about to be published")
            writer.write_table(table)
            seeing = dict(zip(galaxies["galaxy_id"].to_pylist(), galaxies["psf_fwhm_r"].to_pylist(), strict=True))
            tally.add([row for row in rows if row["role"] == INJECTION], seeing)
            for row in rows:
                counts[row["lens_model"]] = counts.get(row["lens_model"], 0) + 1
    return counts, tally


def _galaxies_per_group(config: InjectionConfig) -> int:
    return max(1, _ROWS_PER_GROUP // (config.injections_per_galaxy + 1))


def rows_of_galaxy(design: Design | InjectionConfig, galaxy: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Name and draw the stamps of one galaxy: its control first, then its injections, which share that control.

    Parameters
    ----------
    design : Design or InjectionConfig
        Settings stand for the design of a survey of this galaxy alone.
    galaxy : dict
        A row of the parent sample.
    """
    if isinstance(design, InjectionConfig):
        design = Design.of(design, Hosts.of(design, [galaxy.get("z_lens")]))
    host = {name: galaxy[name] for name in ("region_id", "galaxy_id", "ra", "dec")} | {
        "z_lens": design.population.redshift_of(galaxy),
        "region_split": design.split_of(galaxy["region_id"]),
    }
    control_id = f"{galaxy['galaxy_id']}-c"
    yield {"task_id": control_id, **host, "pair_id": None, "role": "control", **control_row()}
    for number in range(design.config.injections_per_galaxy):
        task_id = f"{galaxy['galaxy_id']}-i{number:04d}"
        drawn = draw_injection(design, galaxy, task_id)
        yield {"task_id": task_id, **host, "pair_id": control_id, "role": INJECTION, **drawn}
