"""Stamps that cost what real ones cost: sky noise and a galaxy, in nanomaggy, as np.savez_compressed writes them."""

import io

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.parquet import write_parquet
from lens_pipeline.storage.publication import Publication

CONTRACT = DatasetContract()


def stamps(n: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Noise of DECaLS's depth and one bright galaxy, (n, band, y, x)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[-32:32, -32:32]
    radius = np.hypot(y, x)
    flux = random.uniform(0.5, 5, (n, 1, 1, 1))
    galaxy = flux * np.exp(-radius / random.uniform(2, 6, (n, 1, 1, 1)))
    noise = random.normal(0, 1, (n, *CONTRACT.stamp_shape)) * np.array([0.004, 0.006, 0.015])[:, None, None]
    made: npt.NDArray[np.float32] = (galaxy + noise).astype(np.float32)
    return made


def blobs(pixels: npt.NDArray[np.float32]) -> list[bytes]:
    """Write each stamp as np.savez_compressed does."""
    written = []
    for stamp in pixels:
        file = io.BytesIO()
        np.savez_compressed(file, **dict(zip(CONTRACT.members, stamp, strict=True)))
        written.append(file.getvalue())
    return written


def publish(home: Home, n: int, rows_per_file: int = 512) -> Publication:
    """Publish n stamps as fragments of our own."""
    with home.stage("bench", "stamps") as staging:
        listed = []
        for start in range(0, n, rows_per_file):
            rows = range(start, min(start + rows_per_file, n))
            name = f"fragment-{start // rows_per_file:05d}.parquet"
            write_parquet(
                _table(rows), staging.folder / name, compression="none", use_dictionary=False, row_group_size=256
            )
            listed.append({"file": name, "rows": len(rows), "sha256": sha256_of(staging.folder / name)})
        staging.attributes.update(dataset_contract=CONTRACT.model_dump(mode="json"), fragments=listed)
        return staging.commit()


def _table(rows: range) -> pa.Table:
    return pa.table(
        {
            "task_id": [f"t{row:08d}" for row in rows],
            "region_id": [f"r{row % 97}" for row in rows],
            "galaxy_id": [f"g{row // 2}" for row in rows],
            "ra": [0.01 * row % 360 for row in rows],
            "dec": [0.0 for _ in rows],
            "lens_model": ["CONTROL" if row % 2 else "SIE" for row in rows],
            "theta_e_arcsec": [0.0 if row % 2 else 1.2 for row in rows],
            "cutout_ok": [1 for _ in rows],
            "psf_fwhm_used_r": [1.3 for _ in rows],
            "stamp_npz": pa.array(blobs(stamps(len(rows), rows.start)), pa.binary()),
        }
    )
