"""Stamps: the manifest's rows rendered into parquet fragments, or a survey's own files as they are.

Belongs here: what the asset publishes. How rows are cut into fragments is in `parts.py`, which of them must be made in
`rendering.py`, who makes them in `engines.py`, and what a fragment holds in `fragment_worker.py`.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.stamps.journal import Journal
from lens_pipeline.stamps.work import available_cpus
from lens_pipeline.storage.pace import Pace, Tell
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging
from lens_pipeline.survey.config import Source, StampsConfig
from lens_pipeline.survey.cutouts import BAD_FILE, CUTOUTS_FILE, PSFS_FILE
from lens_pipeline.survey.design_report import TABLE as DESIGN_TABLE
from lens_pipeline.survey.drawing import NULL_FLUX_TABLE
from lens_pipeline.survey.engines import Engine
from lens_pipeline.survey.parts import cut
from lens_pipeline.survey.real_sources import sources_path
from lens_pipeline.survey.rendering import Files, Rendering, rendering_code

_FRAGMENT, _ARCS = "fragment", "noiseless_arcs"
# They say who renders and into how many files, and change no stamp.
_NOT_OF_THE_STAMPS = {"workers", "engine", "rows_per_fragment"}


@dataclass(frozen=True)
class StampsResult:
    """What was made, or found.

    Attributes
    ----------
    n_taken_over : int
        Rows whose stamps stood already, in the current version or in an interrupted run's work.
    """

    n_rows: int
    n_fragments: int
    n_taken_over: int = 0


def build_stamps(
    config: StampsConfig,
    parent: Publication,
    manifest: Publication,
    staging: Staging,
    previous: Publication | None = None,
    tell: Tell | None = None,
) -> StampsResult:
    """Make the stamps of a manifest.

    Each row's pixels depend on the seeds and its keys only, not on how the manifest is cut or on the number of processes.
    A survey's own files are listed by absolute path or address with the SHA-256 that they had when first read; nothing is copied.

    Parameters
    ----------
    parent : Publication
        The parent sample that the manifest was made from.
    manifest : Publication
        The injection manifest.
    previous : Publication, optional
        Stamps to take fragments over from that are made of the same.
    tell : callable, optional
        Takes a line about every ten seconds that says how far it has come; by default the log.

    Raises
    ------
    ConfigError
        If the galaxies come from catalogues, without pixels.
    PipelineError
        If a rendering process failed; what it said is in the message.
    StorageError
        If another process is at work on the same stamps.
    """
    source = Source(manifest.attributes["source"])
    if source is Source.legacy_catalogue and _published(parent, CUTOUTS_FILE) is None:
        n_rows = manifest.entry(f"{manifest.asset}.parquet").rows or 0
        raise ConfigError(
            f"the parent sample of {parent.dataset!r} comes from catalogues, which hold no pixels: its {n_rows:,} "
            "stamps can't be rendered. Set parent_sample.images to the folder or s3:// address of the survey's coadds that "
            "these galaxies are to be cut out of, and materialize parent_sample and what follows."
        )
    staging.attributes["source"] = source.value
    staging.attributes["dataset_contract"] = manifest.attributes["dataset_contract"]
    if source is Source.external_stamps:
        staging.attributes["schemas"] = parent.attributes["schemas"]
        fragments = [{"file": file["path"], **file} for file in parent.attributes["files"]]
        for fragment in fragments:
            del fragment["path"]
        staging.attributes["fragments"] = fragments
        return StampsResult(sum(fragment["rows"] for fragment in fragments), len(fragments))
    return _render(config, parent, manifest, staging, previous, tell)


def _render(
    config: StampsConfig,
    parent: Publication,
    manifest: Publication,
    staging: Staging,
    previous: Publication | None,
    tell: Tell | None,
) -> StampsResult:
    """Render the manifest's own table, and the probes without flux beside it, which no store takes in."""
    settings = worker_settings(config, parent, manifest)
    made_with = _made_with(config, manifest)
    tables = {name: manifest.manifest.files.get(f"{name}.parquet") for name in (manifest.asset, NULL_FLUX_TABLE)}
    sizes = {name: entry.rows or 0 for name, entry in tables.items() if entry is not None}
    stems = {
        manifest.asset: {"path": _FRAGMENT, **({"arcs": _ARCS} if config.noiseless_arcs else {})},
        NULL_FLUX_TABLE: {"path": NULL_FLUX_TABLE},
    }
    pace = Pace("rendering", sum(sizes.values()), tell)
    made: dict[str, list[Files]] = {NULL_FLUX_TABLE: []}
    taken_over: dict[str, int] = {}
    name = hashlib.sha256(repr((made_with, parent.version, manifest.version, config.rows_per_fragment)).encode())
    work = staging.work_folder(name.hexdigest()[:16]).path
    with Journal(work / "journal") as journal:
        rendering = Rendering.of(staging, work, journal, previous)
        for table, n_rows in sizes.items():
            found_before = pace.n_found
            parts = cut(manifest.path(f"{table}.parquet"), parent, config.rows_per_fragment, made_with)
            made[table] = rendering.render(
                parts,
                stems[table],
                settings,
                pace,
                workers=_workers(config, n_rows),
                engine=config.engine,
            )
            taken_over[table] = pace.n_found - found_before
    pace.end()
    fragments = [files["path"] for files in made[manifest.asset]]
    staging.attributes["fragments"] = fragments
    staging.attributes["null_flux"] = [files["path"] for files in made[NULL_FLUX_TABLE]]
    if config.noiseless_arcs:
        staging.attributes["noiseless_arcs"] = [files["arcs"] for files in made[manifest.asset]]
    return StampsResult(sizes[manifest.asset], len(fragments), taken_over[manifest.asset])


def worker_settings(config: StampsConfig, parent: Publication, manifest: Publication) -> dict[str, Any]:
    """Return what a worker must know to render any fragment of a manifest, as JSON holds it."""
    return {
        "config": config.model_dump(mode="json"),
        "dataset_contract": manifest.attributes["dataset_contract"],
        "source": manifest.attributes["source"],
        "cutouts": _published(parent, CUTOUTS_FILE),
        "bad": _published(parent, BAD_FILE),
        "psfs": _published(parent, PSFS_FILE),
        "sources": sources_path(manifest),
    }


def _workers(config: StampsConfig, n_rows: int) -> int:
    """Return how many share a table: none that would find no fragment left. A cluster's size only Ray knows."""
    if config.engine is Engine.ray:
        return config.workers
    return max(1, min(config.workers or available_cpus(), -(-n_rows // config.rows_per_fragment)))


def _published(parent: Publication, name: str) -> str | None:
    return str(parent.path(name)) if name in parent.manifest.files else None


def _made_with(config: StampsConfig, manifest: Publication) -> str:
    """Say what all fragments depend on: settings, code, and what the manifest publishes beside its rows and their report."""
    rows = {f"{name}.parquet" for name in (manifest.asset, NULL_FLUX_TABLE, DESIGN_TABLE)}
    return json.dumps(
        {
            "config": config.model_dump(mode="json", exclude=_NOT_OF_THE_STAMPS),
            "source": manifest.attributes["source"],
            "dataset_contract": manifest.attributes["dataset_contract"],
            "files": {name: entry.sha256 for name, entry in manifest.manifest.files.items() if name not in rows},
            "code": rendering_code(),
        },
        sort_keys=True,
    )
