"""An existing unified parquet set, as a survey would have written it: with numpy and pyarrow alone, nothing of ours."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SIZE = 64
BANDS = "grz"


def blob(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{f"image_{band}": plane for band, plane in zip(BANDS, pixels, strict=True)})
    return buffer.getvalue()


def pixels(galaxy: int, *, theta_e: float, replicate: int = 0) -> np.ndarray:
    """A red blob, for an injection with a blue ring around it, and noise; shape (3, 64, 64), nanomaggy."""
    random = np.random.default_rng([galaxy, replicate, int(theta_e * 1000)])
    axis = (np.arange(SIZE) - (SIZE - 1) / 2) * 0.262
    radius = np.hypot(axis[:, None], axis)
    host = np.exp(-radius / 0.8)
    ring = np.exp(-((radius - theta_e) ** 2) / 0.18) if theta_e else np.zeros_like(radius)
    planes = [
        flux * host + arc * ring + random.normal(0, sigma, radius.shape)
        for flux, arc, sigma in ((0.03, 0.012, 0.002), (0.1, 0.01, 0.003), (0.2, 0.008, 0.008))
    ]
    return np.asarray(planes, dtype=np.float32)


def rows(n_galaxies: int = 240, n_regions: int = 60) -> list[dict[str, Any]]:
    """A control and an injection of each galaxy; the survey's own split by region, and no galaxy_id."""
    made = []
    for galaxy in range(n_galaxies):
        region = galaxy % n_regions
        split = ("train", "train", "val", "test", "test")[region % 5]
        theta_e = 0.5 + 1.5 * ((galaxy * 0.618) % 1)
        common = {
            "region_id": f"region-{region:03d}",
            "region_split": split,
            "ra": 150.0 + (galaxy % 100) * 0.01,
            "dec": 2.0 + (galaxy // 100) * 0.01,
            "psf_fwhm_used_r": 1.1 + 0.01 * (galaxy % 40),
            "cutout_ok": 1,
            "bandset": "grz",
        }
        for lens_model, radius in (("CONTROL", 0.0), ("SIE", theta_e)):
            arc = lens_model != "CONTROL"
            made.append(
                {
                    "task_id": f"{lens_model}-{galaxy:05d}",
                    **common,
                    "lens_model": lens_model,
                    "theta_e_arcsec": radius,
                    "arc_snr": 12.0 + galaxy % 7 if arc else None,
                    "src_dmag": 1.5 if arc else None,
                    "stamp_npz": blob(pixels(galaxy, theta_e=radius)),
                }
            )
    return made


def write(folder: Path, made: list[dict[str, Any]], *, n_files: int = 5, row_group: int = 37) -> Path:
    """Write rows over several files of several row groups, compressed and without page checksums."""
    folder.mkdir(parents=True, exist_ok=True)
    size = math.ceil(len(made) / n_files)
    for number in range(n_files):
        part = pa.Table.from_pylist(made[number * size : (number + 1) * size])
        pq.write_table(part, folder / f"part-{number:03d}.parquet", compression="snappy", row_group_size=row_group)
    return folder
