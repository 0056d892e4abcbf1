"""Rows of the injection manifest made again, alone and in any order, in processes of their own.

A manifest of each design is published; a case then takes a lot of its rows in random order and makes each anew from the settings,
from what the manifest says of all its hosts, and from its own galaxy: in this process, in two, or in three. The rows must come
back with the same bytes.
"""

import json
import random
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa

from lens_pipeline.contracts.catalogue import INJECTION_MANIFEST
from lens_pipeline.storage.home import Home
from lens_pipeline.survey.config import InjectionConfig, ParentSampleConfig
from lens_pipeline.survey.design import Design
from lens_pipeline.survey.manifest import build_manifest, rows_of_galaxy
from lens_pipeline.survey.parent_sample import build_parent_sample
from lens_pipeline.survey.population import Hosts
from reliability.subject import Case, Subject

ROWS_A_CASE = 850
_FAKES = {"fake_turned_share": 0.2, "fake_unlensed_share": 0.2, "fake_blob_share": 0.2, "unpaired_control_share": 0.1}
_VDF = {"population": "velocity_dispersion"}
DESIGNS: tuple[dict[str, Any], ...] = (
    {"injections_per_galaxy": 4},
    {"injections_per_galaxy": 8, "share_epl": 0.3, **_VDF, **_FAKES},
    {"injections_per_galaxy": 12, "design": "stratified", "floor_per_cell": 20, **_VDF, **_FAKES},
    {"injections_per_galaxy": 6, "design": "grid", "hold_out_lens_models": ["SIS"]},
)
_PARENTS = ParentSampleConfig(n_galaxies=200, n_bricks=20)

# Settings, hosts, the galaxies' rows by name, and the task_ids asked for.
Work = tuple[dict[str, Any], dict[str, Any], dict[str, dict[str, Any]], list[str]]


def case(number: int) -> Case:
    settings = DESIGNS[number % len(DESIGNS)]
    n_processes = 1 + number // len(DESIGNS) % 3
    hosts, galaxies, published = _published(number % len(DESIGNS))
    chosen = random.Random(number).sample(sorted(published), min(ROWS_A_CASE, len(published)))
    parts = [chosen[i::n_processes] for i in range(n_processes)]
    work = [(settings, hosts, {galaxy: galaxies[galaxy] for galaxy in map(_galaxy_of, p)}, p) for p in parts]
    if n_processes == 1:
        made = [_make(work[0])]
    else:
        with ProcessPoolExecutor(n_processes, mp_context=get_context("spawn")) as pool:
            made = list(pool.map(_make, work))
    again = {task_id: row for part in made for task_id, row in part.items()}
    differing = [task_id for task_id in chosen if again.get(task_id) != published[task_id]]
    problem = f"{len(differing)} of {len(chosen)} rows differ, first {differing[:3]}" if differing else None
    return Case(problem, n=len(chosen), counts={f"in {n_processes} processes": len(chosen)})


def row_bytes(row: dict[str, Any]) -> bytes:
    """Return a row as an Arrow stream under the manifest's schema."""
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist([row], schema=INJECTION_MANIFEST.schema)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _galaxy_of(task_id: str) -> str:
    """Name of a row's galaxy: galaxies of the simulated survey are BRICK-NUMBER."""
    return "-".join(task_id.split("-")[:2])


def _make(work: Work) -> dict[str, bytes]:
    settings, hosts, galaxies, wanted = work
    design = Design.of(InjectionConfig(**settings), Hosts.from_attributes(hosts))
    made = {}
    for task_id in wanted:
        rows = rows_of_galaxy(design, galaxies[_galaxy_of(task_id)])
        made[task_id] = row_bytes(next(row for row in rows if row["task_id"] == task_id))
    return made


@cache
def _published(number: int) -> tuple[dict[str, Any], dict[str, dict[str, Any]], dict[str, bytes]]:
    """Publish a manifest, and return what it says of its hosts, its galaxies, and the bytes of each of its rows."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        with home.stage("trial", "parent_sample") as staging:
            build_parent_sample(_PARENTS, staging)
            parent = staging.commit()
        with home.stage("trial", "injection_manifest", inputs=[parent]) as staging:
            build_manifest(InjectionConfig(**DESIGNS[number]), parent, staging)
            manifest = staging.commit()
        galaxies = {row["galaxy_id"]: row for row in parent.read_table().to_pylist()}
        rows = {row["task_id"]: row_bytes(row) for row in manifest.read_table().to_pylist()}
        # As JSON, since that is how a reader finds it.
        return json.loads(json.dumps(manifest.attributes["hosts"])), galaxies, rows


SUBJECT = Subject(
    name="manifest_rows",
    question="A row of the injection manifest made again alone, in random order and in 1, 2 or 3 processes, has the same bytes",
    unit="rows",
    goal=10_000,
    case=case,
)
