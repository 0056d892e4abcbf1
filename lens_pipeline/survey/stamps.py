"""Stamps: the manifest's rows rendered into parquet fragments by a pool of processes, or a survey's own files as they are.

Belongs here: cutting the manifest into fragments and handing them out. What a fragment holds is made in `fragment_worker.py`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import Any

from lens_pipeline.contracts.errors import ConfigError, PipelineError
from lens_pipeline.storage.parquet import iterate_parquet
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging
from lens_pipeline.survey.config import Source, StampsConfig
from lens_pipeline.survey.cutouts import CUTOUTS_FILE, PSFS_FILE
from lens_pipeline.survey.manifest import NULL_FLUX_TABLE
from lens_pipeline.survey.real_sources import sources_path

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")

Job = dict[str, Any]


@dataclass(frozen=True)
class StampsResult:
    """What was made, or found."""

    n_rows: int
    n_fragments: int


def build_stamps(config: StampsConfig, parent: Publication, manifest: Publication, staging: Staging) -> StampsResult:
    """Make the stamps of a manifest.

    Each row's pixels depend on the seeds and its keys only, not on how the manifest is cut or on the number of processes.
    A survey's own files are listed by absolute path or address with the SHA-256 that they had when first read; nothing is copied.

    Parameters
    ----------
    parent : Publication
        The parent sample that the manifest was made from.
    manifest : Publication
        The injection manifest.

    Raises
    ------
    ConfigError
        If the galaxies come from catalogues, without pixels.
    PipelineError
        If a rendering process failed; what it said is in the message.
    """
    source = Source(manifest.attributes["source"])
    if source is Source.legacy_catalogue:
        n_rows = manifest.entry(f"{manifest.asset}.parquet").rows or 0
        raise ConfigError(
            f"the parent sample of {parent.dataset!r} comes from catalogues, which hold no pixels: its {n_rows:,} "
            "stamps can't be rendered. Cut the galaxies of read_table('parent_sample') out of the survey's images into FITS "
            "cubes, g.fits, r.fits and z.fits, and name these in presets/real_cutouts.yaml with the table as its catalogue."
        )
    staging.attributes["source"] = source.value
    staging.attributes["dataset_contract"] = manifest.attributes["dataset_contract"]
    if source is Source.external_stamps:
        staging.attributes["schemas"] = parent.attributes["schemas"]
        fragments = [{"file": file["path"], **file} for file in parent.attributes["files"]]
        for fragment in fragments:
            del fragment["path"]
    else:
        fragments = _render(config, parent, manifest, staging, source)
        # Not among the fragments, so that no store takes them in.
        probes = f"{NULL_FLUX_TABLE}.parquet" in manifest.manifest.files
        staging.attributes["null_flux"] = (
            _render(config, parent, manifest, staging, source, NULL_FLUX_TABLE) if probes else []
        )
    staging.attributes["fragments"] = fragments
    return StampsResult(n_rows=sum(fragment["rows"] for fragment in fragments), n_fragments=len(fragments))


def _render(
    config: StampsConfig,
    parent: Publication,
    manifest: Publication,
    staging: Staging,
    source: Source,
    table: str | None = None,
) -> list[dict[str, Any]]:
    """Render the rows of one of the manifest's tables, by default its own."""
    path = manifest.path(f"{table or manifest.asset}.parquet")
    n_rows = manifest.entry(path.name).rows or 0
    if n_rows == 0:
        return []
    settings = {
        "config": config.model_dump(mode="json"),
        "dataset_contract": manifest.attributes["dataset_contract"],
        "source": source.value,
        "cutouts": str(parent.path(CUTOUTS_FILE)) if source is Source.real_cutouts else None,
        "psfs": str(parent.path(PSFS_FILE)) if PSFS_FILE in parent.manifest.files else None,
        "sources": sources_path(manifest),
    }
    jobs = _jobs(config, parent, path, staging.folder, table or "fragment")
    n_workers = min(config.workers or os.cpu_count() or 1, -(-n_rows // config.rows_per_fragment))
    if n_workers == 1:
        from lens_pipeline.survey.fragment_worker import Renderer

        renderer = Renderer.of(settings)
        return [renderer.write_fragment(job) for job in jobs]
    made = _in_processes(n_workers, settings, jobs)
    return sorted(made, key=lambda fragment: str(fragment["file"]))


def _jobs(config: StampsConfig, parent: Publication, path: Path, folder: Path, stem: str) -> Iterator[Job]:
    """Cut a table, in its order, into fragments with the galaxies that each needs; streamed."""
    galaxies = {row["galaxy_id"]: row for row in parent.read_table().to_pylist()}
    rows: list[dict[str, Any]] = []
    number = 0

    def job() -> Job:
        needed = {row["galaxy_id"]: galaxies[row["galaxy_id"]] for row in rows}
        return {"path": str(folder / f"{stem}-{number:05d}.parquet"), "rows": rows, "galaxies": needed}

    for batch in iterate_parquet(path):
        for row in batch.to_pylist():
            rows.append(row)
            if len(rows) == config.rows_per_fragment:
                yield job()
                rows, number = [], number + 1
    if rows:
        yield job()


class _Worker:
    """A rendering process and its two pipes."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lens_pipeline.survey.fragment_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **_ONE_THREAD},
        )
        self._say(settings)

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def write_fragment(self, job: Job) -> dict[str, Any]:
        """Have a fragment written and return what the process says of it."""
        self._say(job)
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise PipelineError(
                f"a rendering process ended with code {self._process.wait()} while it made {Path(job['path']).name}; its "
                f"traceback is in this step's log. Nothing was published. If it was killed for memory, set a smaller "
                f"stamps.rows_per_fragment or fewer stamps.workers."
            )
        return dict(json.loads(answer))

    def _say(self, what: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(what, allow_nan=False) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            # The process is gone; the missing answer will say so with its exit code.
            return


def _in_processes(n_workers: int, settings: dict[str, Any], jobs: Iterator[Job]) -> list[dict[str, Any]]:
    """Share jobs out to processes, a thread each; only as many jobs are in memory as there are processes."""
    taking, stop = Lock(), Event()

    def take() -> Job | None:
        with taking:
            return None if stop.is_set() else next(jobs, None)

    def serve() -> list[dict[str, Any]]:
        with _Worker(settings) as worker:
            return [worker.write_fragment(job) for job in iter(take, None)]

    with ThreadPoolExecutor(n_workers) as threads:
        try:
            served = [threads.submit(serve) for _ in range(n_workers)]
            wait(served, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
    return [fragment for future in served for fragment in future.result()]
