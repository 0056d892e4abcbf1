"""What a survey's side costs in core-hours, from its parts: rows drawn, stamps rendered, the store made of them.

Writes docs/survey-cost.md. Each part is the CPU time of its real step in one process, files and hashes included, less nothing;
what a part takes besides (the start of a step, a second or two) is in it as far as a round's rows share it.
"""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from benchmarks.harness import RESULTS, Result, summarise
from lens_pipeline.stamps.config import StoreConfig
from lens_pipeline.stamps.ingest import build_store
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging
from lens_pipeline.survey.config import InjectionConfig, ParentSampleConfig, Source, StampsConfig
from lens_pipeline.survey.manifest import build_manifest
from lens_pipeline.survey.parent_sample import build_parent_sample
from lens_pipeline.survey.parts import cut
from lens_pipeline.survey.stamps import build_stamps

PAGE = Path(__file__).parent.parent / "docs" / "survey-cost.md"
_AGAINST = "nothing: CPU time of one core"
_ROWS = (1_300_000, 10_600_000)
_CORES = (16, 64)
_DESIGNED: dict[str, Any] = {"population": "velocity_dispersion", "design": "stratified", "floor_per_cell": 5}


@dataclass(frozen=True)
class _Part:
    """A line of the page: the result file's name, and what it is."""

    name: str
    meaning: str
    unit: str = "us a row"


_PARTS = (
    _Part("cost_rows", "manifest, priors as in `simulated`"),
    _Part("cost_rows_designed", "manifest, velocity dispersion function and stratified design"),
    _Part("cost_stamps", "stamps, simulated: one injection and one control a galaxy"),
    _Part("cost_stamps_of_many", "stamps, simulated: 50 injections a galaxy"),
    _Part("cost_stamps_real", "stamps, real cutouts: 50 injections a galaxy"),
    _Part("cost_stamps_and_arcs", "the same with `noiseless_arcs`"),
    _Part("cost_handing_out", "of the stamps' time, what their one caller spends on cutting and handing out"),
    _Part("cost_store", "store"),
)
_TOTALS = (
    ("simulated, one injection a galaxy", ("cost_rows", "cost_stamps", "cost_store")),
    ("simulated, 50 a galaxy, designed", ("cost_rows_designed", "cost_stamps_of_many", "cost_store")),
    ("real cutouts, 50 a galaxy, designed", ("cost_rows_designed", "cost_stamps_real", "cost_store")),
    ("the same with noiseless arcs", ("cost_rows_designed", "cost_stamps_and_arcs", "cost_store")),
)


def run(quick: bool) -> list[Result]:
    rounds = 1 if quick else 5
    few, many = (20, 2) if quick else (400, 16)
    took: dict[str, list[float]] = {part.name: [] for part in _PARTS}
    sizes: dict[str, list[float]] = {}
    for turn in range(rounds + 1):
        found, bytes_a_stamp = _round(turn, few, many)
        if turn:
            for name, value in found.items():
                took[name].append(value)
            for name, value in bytes_a_stamp.items():
                sizes.setdefault(name, []).append(value)
    results = [
        summarise(part.name, took[part.name], against=_AGAINST, goal=None, n=2 * few, unit=part.unit) for part in _PARTS
    ]
    results += [
        summarise(name, values, against="nothing: bytes of files", goal=None, n=2 * few, unit="bytes a stamp")
        for name, values in sizes.items()
    ]
    if not quick:
        for result in results:
            result.write()
        write_page()
    return results


def _round(turn: int, few: int, many: int) -> tuple[dict[str, float], dict[str, float]]:
    """Take each part once, in microseconds of CPU a row; and bytes a stamp."""
    with tempfile.TemporaryDirectory() as name:
        chain = _Chain(Home(Path(name) / "home"), turn)
        simulated = chain.parents(ParentSampleConfig(n_galaxies=few, n_bricks=10))
        hosts = chain.parents(ParentSampleConfig(n_galaxies=many, n_bricks=4))
        crowd = chain.parents(ParentSampleConfig(n_galaxies=10 * few, n_bricks=10))
        real = chain.parents(_real(Path(name), many))
        took: dict[str, float] = {}
        manifest, _ = chain.manifest(simulated)
        _, took["cost_rows"] = chain.manifest(crowd)
        _, took["cost_rows_designed"] = chain.manifest(simulated, injections_per_galaxy=50, **_DESIGNED)
        stamps, took["cost_stamps"] = chain.stamps(simulated, manifest)
        _, took["cost_stamps_of_many"] = chain.stamps(hosts, chain.manifest(hosts, injections_per_galaxy=50)[0])
        injected, _ = chain.manifest(real, injections_per_galaxy=50)
        _, took["cost_stamps_real"] = chain.stamps(real, injected)
        arcs, took["cost_stamps_and_arcs"] = chain.stamps(real, injected, noiseless_arcs=True)
        took["cost_handing_out"] = chain.handing_out(simulated, manifest)
        store, took["cost_store"] = chain.store(stamps)
        n_arcs = sum(file["rows"] for file in arcs.attributes["noiseless_arcs"])
        return took, {
            "cost_bytes_stamps": _bytes(stamps, "fragment") / _rows(stamps),
            "cost_bytes_arcs": _bytes(arcs, "noiseless_arcs") / n_arcs,
            "cost_bytes_store": _bytes(store, "") / _rows(stamps),
        }


class _Chain:
    """The steps, each in a home of its own, with the CPU time that it took a row."""

    def __init__(self, home: Home, seed: int) -> None:
        self._home, self._seed = home, seed

    def _publish(
        self, asset: str, inputs: list[Publication], build: Callable[[Staging], Any]
    ) -> tuple[Publication, float]:
        began = time.process_time()
        with self._home.stage("bench", asset, inputs=inputs) as staging:
            build(staging)
            made = staging.commit()
        return made, 1e6 * (time.process_time() - began)

    def parents(self, config: ParentSampleConfig) -> Publication:
        return self._publish("parent_sample", [], lambda staging: build_parent_sample(config, staging))[0]

    def manifest(self, parent: Publication, **settings: Any) -> tuple[Publication, float]:
        config = InjectionConfig(seed=self._seed, workers=1, **settings)
        made, took = self._publish(
            "injection_manifest", [parent], lambda staging: build_manifest(config, parent, staging)
        )
        return made, took / _rows(made)

    def stamps(self, parent: Publication, manifest: Publication, **settings: Any) -> tuple[Publication, float]:
        config = StampsConfig(workers=1, **settings)
        made, took = self._publish(
            "stamps", [parent, manifest], lambda staging: build_stamps(config, parent, manifest, staging)
        )
        return made, took / _rows(made)

    def handing_out(self, parent: Publication, manifest: Publication) -> float:
        began = time.process_time()
        for part in cut(manifest.path("injection_manifest.parquet"), parent, 512, "benchmark"):
            json.dumps({"rows": part.rows, "galaxies": part.galaxies})
        return 1e6 * (time.process_time() - began) / _rows(manifest)

    def store(self, stamps: Publication) -> tuple[Publication, float]:
        made, took = self._publish(
            "stamp_store", [stamps], lambda staging: build_store(StoreConfig(workers=1), stamps, staging)
        )
        return made, took / _rows(stamps)


def _rows(publication: Publication) -> int:
    if publication.asset == "stamps":
        return sum(fragment["rows"] for fragment in publication.attributes["fragments"])
    return publication.entry(f"{publication.asset}.parquet").rows or 0


def _bytes(publication: Publication, stem: str) -> int:
    return sum(entry.size for name, entry in publication.manifest.files.items() if name.startswith(stem))


def _real(folder: Path, n: int) -> ParentSampleConfig:
    """Write cubes of galaxies as large as the shared ones."""
    axis = np.arange(91) - 45.0
    galaxy = np.exp(-np.hypot(axis[:, None], axis) / 4)
    for number, band in enumerate("grz"):
        noise = np.random.default_rng(number).normal(0, 0.003, (n, 91, 91))
        hdu = fits.PrimaryHDU((noise + (1 + number) * 0.1 * galaxy).astype(np.float32))
        hdu.header["BUNIT"], hdu.header["PIXSCALE"] = "nanomaggy", 0.263
        hdu.writeto(folder / f"{band}.fits")
    return ParentSampleConfig(source=Source.real_cutouts, folder=str(folder))


def write_page() -> Path:
    """Work the page out from the measured figures."""
    measured = {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("cost_*.json")}
    parts = [
        f"| {part.meaning} | {measured[part.name]['ratio'] / 1e3:.3f} | {measured[part.name]['low'] / 1e3:.3f} - "
        f"{measured[part.name]['high'] / 1e3:.3f} | "
        + " | ".join(f"{_hours(measured[part.name]['ratio'], rows):.2f}" for rows in _ROWS)
        + " |"
        for part in _PARTS
    ]
    totals = []
    for meaning, names in _TOTALS:
        per_row = sum(measured[name]["ratio"] for name in names)
        hours = [_hours(per_row, rows) for rows in _ROWS]
        walls = [f"{60 * hour / cores:,.0f}" for hour in hours for cores in _CORES]
        totals.append(f"| {meaning} | {hours[0]:.1f} | {hours[1]:.1f} | " + " | ".join(walls) + " |")
    handing = measured["cost_handing_out"]["ratio"]
    busy = measured["cost_stamps"]["ratio"] / handing
    sizes = {name: measured[f"cost_bytes_{name}"]["ratio"] for name in ("stamps", "arcs", "store")}
    gigabytes = [", ".join(f"{rows * size / 1e9:,.0f} GB" for rows in _ROWS) for size in sizes.values()]
    first = measured["cost_stamps"]
    minutes = ", ".join(f"{rows / 1e6:g} M on {cores} cores" for rows in _ROWS for cores in _CORES)
    PAGE.write_text(
        "# What 1.3 M and 10.6 M stamps cost\n\n"
        "Made by `python -m benchmarks survey_cost`; do not edit. CPU time of each real step in one process, files, hashes and "
        f"fsync included: the median of {first['rounds']} rounds and their 10th to 90th percentile; "
        f"{first['machine']}. Hours are core-hours.\n\n"
        "| part | ms a row | spread | 1.3 M rows | 10.6 M rows |\n|---|---|---|---|---|\n" + "\n".join(parts) + "\n\n"
        "Together, in core-hours; and, worked out and not measured, in minutes if all cores were busy all the time "
        f"({minutes}):\n\n"
        "| survey | 1.3 M | 10.6 M | " + " | ".join(f"{r / 1e6:g} M, {c} cores" for r in _ROWS for c in _CORES) + " |\n"
        "|---|---|---|" + "---|" * 4 + "\n" + "\n".join(totals) + "\n\n"
        f"On disk: stamps {sizes['stamps'] / 1e3:.1f} kB a row ({gigabytes[0]}), noiseless arcs {sizes['arcs'] / 1e3:.1f} kB an "
        f"arc ({gigabytes[1]} if every row had one), store {sizes['store'] / 1e3:.1f} kB a row ({gigabytes[2]}).\n\n"
        f"The one process that cuts the manifest and hands parts out spends {handing:.0f} microseconds a row, so it keeps up "
        f"with about {busy:.0f} rendering processes; more of them wait. A fragment is rendered by one process: set "
        "`stamps.rows_per_fragment` so that there are many more fragments than processes (8,192 gives some 3,000 fragments of "
        "10.6 M rows). Memory is that of one fragment's rows a process; the manifest keeps two numbers a galaxy.\n\n"
        "A row's cost depends on its arc: bright compact sources need finer grids. A run that was killed costs the fragments "
        "that were under way; a survey that grew the fragments with new galaxies "
        "([ADR 0009](adr/0009-fragments-by-content.md)).\n"
    )
    return PAGE


def _hours(microseconds: float, rows: int) -> float:
    return microseconds * rows / 3.6e9
