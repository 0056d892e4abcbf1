"""A manifest drawn at survey size: galaxies handed out in lots, their rows written in the galaxies' order.

Belongs here: lots, order and counting; memory holds a few lots. What a galaxy's rows are is in `manifest.py`; a lot's rows are
drawn by `manifest_worker.py`.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lens_pipeline.contracts.catalogue import INJECTION_MANIFEST, NULL_FLUX
from lens_pipeline.stamps.work import available_cpus
from lens_pipeline.storage.pace import Pace, Tell
from lens_pipeline.storage.parquet import iterate_parquet, parquet_writer, read_parquet, write_parquet
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging
from lens_pipeline.storage.work_folder import temporary_folder
from lens_pipeline.survey.design import Design
from lens_pipeline.survey.design_report import DesignTally
from lens_pipeline.survey.engines import Job, do_jobs
from lens_pipeline.survey.injection_config import InjectionConfig
from lens_pipeline.survey.population import Hosts
from lens_pipeline.survey.roles import INJECTION

NULL_FLUX_TABLE = "null_flux"
TASK = "lens_pipeline.survey.manifest_worker"
_ROWS_A_LOT = 8192
# Fewer are drawn before another process has loaded.
_ROWS_WORTH_A_PROCESS = 100_000
_COUNTED = ("galaxy_id", "lens_model", "theta_e_arcsec", "src_mag_r", "weight", "region_split", "source_id")


@dataclass
class Drawn:
    """What was drawn.

    Attributes
    ----------
    labels, roles : Counter
        Rows by lens_model, of the manifest; by role, with those without flux.
    n_of_no_weight : int
        Injections that the population doesn't have in their galaxy: they are made, and count for nothing.
    """

    tally: DesignTally
    labels: Counter[str | None] = field(default_factory=Counter)
    roles: Counter[str] = field(default_factory=Counter)
    n_of_no_weight: int = 0


def draw_manifest(
    design: Design, hosts: Hosts, parent: Publication, staging: Staging, tell: Tell | None = None
) -> Drawn:
    """Draw the rows of a parent sample's galaxies, in as many processes as are worth it, and write them in order.

    The same bytes come out for any number of processes.
    """
    config, n_galaxies = design.config, hosts.n_galaxies
    drawn = Drawn(DesignTally(design, parent.read_table(columns=["psf_fwhm_r"])["psf_fwhm_r"].to_pylist()))
    worth = 1 + n_galaxies * (1 + config.injections_per_galaxy) // _ROWS_WORTH_A_PROCESS
    settings = {"config": config.model_dump(mode="json"), "hosts": hosts.as_attributes()}
    pace = Pace("drawing", n_galaxies, tell, unit="galaxies")
    with (
        temporary_folder(staging.folder.parent) as folder,
        parquet_writer(staging.folder / f"{staging.asset}.parquet", INJECTION_MANIFEST.schema) as manifest,
        parquet_writer(staging.folder / f"{NULL_FLUX_TABLE}.parquet", NULL_FLUX.schema) as probes,
    ):
        waiting: dict[int, Job] = {}
        n_written = 0
        workers = min(config.workers or available_cpus(), worth)
        for job, _ in do_jobs(TASK, settings, _lots(parent, config, folder), workers=workers):
            waiting[job["number"]] = job
            while n_written in waiting:
                pace.advance(_write(waiting.pop(n_written), manifest, probes, drawn))
                n_written += 1
    pace.end()
    return drawn


def _lots(parent: Publication, config: InjectionConfig, folder: Path) -> Iterator[Job]:
    galaxies = max(1, _ROWS_A_LOT // (config.injections_per_galaxy + 1))
    path = parent.path(f"{parent.asset}.parquet")
    for number, batch in enumerate(iterate_parquet(path, rows=galaxies)):
        job = {name: str(folder / f"{number:06d}.{name}") for name in ("galaxies", "rows", "probes")}
        write_parquet(pa.Table.from_batches([batch]), Path(job["galaxies"]))
        yield {"name": f"the rows of lot {number} of galaxies", "number": number, **job}


def _write(job: Job, manifest: pq.ParquetWriter, probes: pq.ParquetWriter, drawn: Drawn) -> int:
    """Write a lot's rows behind those of the lots before it, count them, and return of how many galaxies they are."""
    galaxies, rows, without_flux = (read_parquet(Path(job[name])) for name in ("galaxies", "rows", "probes"))
    for name in ("galaxies", "rows", "probes"):
        Path(job[name]).unlink()
    manifest.write_table(rows)
    if without_flux.num_rows:
        probes.write_table(without_flux)
    seeing = dict(zip(galaxies["galaxy_id"].to_pylist(), galaxies["psf_fwhm_r"].to_pylist(), strict=True))
    drawn.tally.add(rows.filter(pc.equal(rows["role"], INJECTION)).select(_COUNTED).to_pylist(), seeing)
    drawn.n_of_no_weight += pc.sum(pc.equal(rows["weight"], 0)).as_py() or 0
    drawn.labels.update(rows["lens_model"].to_pylist())
    drawn.roles.update([*rows["role"].to_pylist(), *without_flux["role"].to_pylist()])
    return len(seeing)
