"""Resident memory of making and checking a store, from ten thousand to ten million rows.

The rows are synthetic: all columns of a survey, but stamps of 8 x 8 pixels in one band, each of its own noise, so that ten
million fit a disk and an hour. What is measured is the largest anonymous resident memory (RssAnon, sampled from outside every
20 ms) of a process that does nothing but make the store (two decoders at work) and run its checks; mapped files don't count, as
the system takes their pages back when it needs them. Case i has 10,000 x 10**i rows and is compared with ten thousand.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.stamps.checks import store_checks
from lens_pipeline.stamps.config import StoreConfig
from lens_pipeline.stamps.encode import encode_stamp
from lens_pipeline.stamps.ingest import build_store
from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.parquet import parquet_writer
from lens_pipeline.storage.publication import Publication
from reliability.subject import Case, Subject

CONTRACT = DatasetContract(bands=("r",), stamp_size=8)
_SMALLEST = 10_000
_SAMPLE_S = 0.02
_GROUP_ROWS = 8192


def grow(number: int) -> Case:
    """Make and check a store of 10,000 x 10**number rows, and one of 10,000."""
    n_rows = _SMALLEST * 10**number
    with tempfile.TemporaryDirectory() as folder:
        small = peak_bytes(Path(folder) / "small", _SMALLEST)
        large = peak_bytes(Path(folder) / "large", n_rows)
    above = (large - small) / 1e6
    return Case(n=n_rows, largest={"MB above 10,000 rows": above, f"MB at {n_rows:,} rows": large / 1e6})


def peak_bytes(home: Path, n_rows: int) -> int:
    """Peak RssAnon of a process that makes and checks a store of so many rows."""
    publish(Home(home), n_rows)
    process = subprocess.Popen([sys.executable, "-m", "reliability.memory", str(home)])
    peak = 0
    while process.poll() is None:
        peak = max(peak, _rss_anon(process.pid))
        time.sleep(_SAMPLE_S)
    if process.returncode:
        raise RuntimeError(f"the process that made the store of {n_rows:,} rows ended with {process.returncode}")
    return peak


def publish(home: Home, n_rows: int) -> Publication:
    """Publish stamps of so many rows in at most 100 fragments."""
    per_fragment = max(1000, -(-n_rows // 100))
    with home.stage("grown", "stamps") as staging:
        listed = []
        for start in range(0, n_rows, per_fragment):
            path = staging.folder / f"fragment-{start // per_fragment:05d}.parquet"
            end = min(start + per_fragment, n_rows)
            schema = _rows(range(1)).schema
            with parquet_writer(path, schema, compression="none", use_dictionary=False) as writer:
                for first in range(start, end, _GROUP_ROWS):
                    writer.write_table(_rows(range(first, min(first + _GROUP_ROWS, end))))
            listed.append({"file": path.name, "rows": end - start, "sha256": sha256_of(path)})
        staging.attributes.update(dataset_contract=CONTRACT.model_dump(mode="json"), fragments=listed)
        return staging.commit()


def _rows(rows: range) -> pa.Table:
    n = len(rows)
    number = np.arange(rows.start, rows.stop)
    is_lens = number % 2 == 0
    random = np.random.default_rng(rows.start)
    pixels = random.normal(0, 1, (n, *CONTRACT.stamp_shape)).astype(np.float32)
    measured = (
        "src_dmag",
        "src_reff_arcsec",
        "src_n",
        "src_phi_rad",
        "src_x_arcsec",
        "src_y_arcsec",
        "arc_snr",
        "magnification",
    )
    return pa.table(
        {
            "task_id": [f"task-{row:012d}-SIE-r0" for row in rows],
            "region_id": [f"{row % 9973:06d}p{row % 7:03d}" for row in rows],
            "galaxy_id": [f"galaxy-{row // 2:012d}" for row in rows],
            "pair_id": pa.array([f"task-{row + 1:012d}-SIE-r0" if row % 2 == 0 else None for row in rows], pa.string()),
            "ra": random.uniform(0, 360, n),
            "dec": random.uniform(-30, 30, n),
            "lens_model": ["SIE" if lens else "CONTROL" for lens in is_lens],
            "theta_e_arcsec": np.where(is_lens, random.uniform(0.5, 3, n), 0.0),
            "cutout_ok": np.ones(n, np.int64),
            "psf_fwhm_used_r": random.uniform(0.9, 1.6, n),
            **{name: pa.array(random.uniform(0.1, 3, n), mask=~is_lens) for name in measured},
            "stamp_npz": pa.array([encode_stamp(stamp, CONTRACT) for stamp in pixels], pa.binary()),
        }
    )  # fmt: skip


def _rss_anon(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return 1024 * int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def _make(home: Home) -> None:
    (stamps,) = home.versions("grown", "stamps")
    config = StoreConfig(workers=2)
    with home.stage("grown", "stamp_store", inputs=[stamps]) as staging:
        build_store(config, stamps, staging)
        store = staging.commit()
    red = [check.message() for check in store_checks(store, stamps, config) if not check.passed]
    if red:
        raise SystemExit("\n".join(red))


SUBJECT = Subject(
    name="memory",
    question="memory of making and checking a store is flat, within 200 MB, from ten thousand to ten million rows",
    unit="synthetic rows of 8 x 8 pixels",
    goal=11_110_000,
    case=grow,
    n_cases=4,
    bounds={"MB above 10,000 rows": 200.0},
)

if __name__ == "__main__":
    _make(Home(Path(sys.argv[1])))
