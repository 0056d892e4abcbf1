"""A parent sample from catalogues: rows that a core-pair judges and writes; reading them; and memory against their number."""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from astropy.table import Table

from benchmarks.harness import Result, compare, summarise
from lens_pipeline.storage.home import Home
from lens_pipeline.survey.conditions import EXTINCTION_PER_EBV
from lens_pipeline.survey.config import ParentSampleConfig, Source
from lens_pipeline.survey.legacy_catalogue import LegacyParents
from lens_pipeline.survey.parent_sample import build_parent_sample
from lens_pipeline.survey.regions import brick_ids
from lens_pipeline.survey.tractor import Catalogue

_CORES = 2
_BANDS = ("G", "R", "Z", "W1")


def run(quick: bool) -> list[Result]:
    n, rounds = (50_000, 2) if quick else (400_000, 5)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write_sweep(folder / "one", n, part=0)
        few, many = folder / "few", folder / "many"
        for part in range(8):
            write_sweep(many, n // 4, part)
            if part < 2:
                write_sweep(few, n // 4, part)
        return [
            summarise("catalogue_rows", [_rate(folder, path, n) for _ in range(rounds)], against="nothing: after reading",
                      goal=1.0, n=n, unit="M rows/s a core-pair"),
            _reading(path, n, rounds),
            summarise("catalogue_memory", [_peak(few) / _peak(many) for _ in range(min(rounds, 3))],
                      against="the peak with 4 times the rows", goal=0.9, n=n // 2),
        ]  # fmt: skip


def write_sweep(folder: Path, n: int, part: int) -> Path:
    """Write a sweep file of faint galaxies, a few in a hundred of which are LRGs, somewhere on 10 square degrees."""
    rng = np.random.default_rng(part)
    folder.mkdir(exist_ok=True)
    lrg = rng.random(n) < 0.03
    z = np.where(lrg, rng.uniform(18.5, 20.3, n), rng.normal(22.5, 1.0, n))
    r = z + np.where(lrg, rng.normal(1.4, 0.1, n), rng.normal(0.5, 0.3, n))
    g, w1 = r + rng.normal(1.5, 0.3, n), z - np.where(lrg, 1.4, 0.3)
    ra, dec = rng.uniform(150, 155, n), rng.uniform(2 * part, 2 * part + 2, n)
    columns = {"RELEASE": np.full(n, 9010, np.int16), "BRICKID": brick_ids(ra, dec).astype(np.int32),
               "OBJID": np.arange(n, dtype=np.int32), "TYPE": np.full(n, "DEV"), "RA": ra, "DEC": dec}  # fmt: skip
    for band, mag in zip(_BANDS, (g, r, z, w1), strict=True):
        columns |= {f"FLUX_{band}": (10 ** ((22.5 - mag) / 2.5)).astype(np.float32)}
        columns |= {
            f"FLUX_IVAR_{band}": np.full(n, 50, np.float32),
            f"MW_TRANSMISSION_{band}": np.ones(n, np.float32),
        }
    for name in ("EBV", "SERSIC", "SHAPE_R", "SHAPE_E1", "SHAPE_E2", "GAIA_PHOT_G_MEAN_MAG"):
        columns[name] = rng.uniform(0, 0.1, n).astype(np.float32)
    columns["GAIA_PHOT_G_MEAN_MAG"][:] = 0
    for band, per_ebv in EXTINCTION_PER_EBV.items():
        dust = 10 ** (-0.4 * per_ebv * columns["EBV"])
        columns[f"MW_TRANSMISSION_{band.upper()}"] = dust
        columns[f"FLUX_{band.upper()}"] *= dust
    for band in "GRZ":
        columns |= {f"{name}_{band}": np.full(n, 1.3, np.float32) for name in ("PSFSIZE", "PSFDEPTH")}
        columns |= {f"NOBS_{band}": np.full(n, 3, np.int16)}
    columns |= {"FIBERFLUX_Z": 0.5 * columns["FLUX_Z"], "FIBERTOTFLUX_Z": 0.5 * columns["FLUX_Z"]}
    columns["MASKBITS"] = np.zeros(n, np.int32)
    # What a sweep has beside: read, as rows stand together, and not used.
    columns |= {f"OTHER_{number}": np.zeros(n, np.float32) for number in range(60)}
    path = folder / f"sweep-{part:03d}.fits"
    Table(columns).write(path)
    return path


def _config(folder: Path) -> ParentSampleConfig:
    return ParentSampleConfig(source=Source.legacy_catalogue, folder=str(folder))


def _rate(folder: Path, path: Path, n: int) -> float:
    parents = LegacyParents.of(_config(path))
    batches = list(parents._batches(parents.catalogues[0]))
    with Home(folder / "home").stage("bench", "parent_sample", inputs=[]) as staging:
        parents._batches = lambda _: iter(batches)  # type: ignore[method-assign]
        began = time.process_time()
        parents.write_rows(staging)
        return n / (time.process_time() - began) * _CORES / 1e6


def _reading(path: Path, n: int, rounds: int) -> Result:
    names = ("RELEASE", "BRICKID", "OBJID", "RA", "DEC", *(f"FLUX_{band}" for band in _BANDS))

    def ours() -> None:
        for batch in Catalogue.open(path).batches(names):
            pl.DataFrame(batch)

    def astropy() -> None:
        table = Table.read(path)
        pl.DataFrame(
            pa.table({name: np.asarray(table[name]).astype(table[name].dtype.newbyteorder("=")) for name in names})
        )

    return compare("catalogue_reading", ours, astropy, against="astropy's Table.read", goal=None, n=n, rounds=rounds)


def _peak(folder: Path) -> float:
    """Peak memory of a process that makes the parent sample of a folder, MiB."""
    command = [sys.executable, "-m", "benchmarks.catalogue", str(folder)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    """Make the parent sample of the folder that is named and print the peak memory, MiB."""
    with tempfile.TemporaryDirectory() as home, Home(Path(home)).stage("bench", "parent_sample", inputs=[]) as staging:
        build_parent_sample(_config(Path(sys.argv[1])), staging)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
