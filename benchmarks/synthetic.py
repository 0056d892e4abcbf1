"""Stamps that cost what real ones cost: sky noise and a galaxy, in nanomaggy, as np.savez_compressed writes them."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lens_pipeline.contracts.catalogue import STAMP_STORE
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.stamps.config import StoreConfig
from lens_pipeline.stamps.decode import DECODER_VERSION
from lens_pipeline.stamps.ingest import build_store
from lens_pipeline.stamps.segments import SegmentHeader, segment_name, stats_name
from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.parquet import parquet_writer, write_parquet
from lens_pipeline.storage.publication import Publication

CONTRACT = DatasetContract()
_INDEX_ROWS = 65_536


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


def publish_splits(home: Home, n: int) -> tuple[Publication, Publication]:
    """Publish a store of n training rows and a quarter as many to validate on, and its splits."""
    stamps = publish(home, n + n // 4)
    with home.stage("bench", "stamp_store", inputs=[stamps]) as staging:
        build_store(StoreConfig.model_validate({}), stamps, staging)
        store = staging.commit()
    rows = store.read_table(None, ["task_id", "logical", "label"])
    split = ["train" if row < n else "val_select" for row in range(rows.num_rows)]
    with home.stage("bench", "region_splits", inputs=[store]) as staging:
        staging.write_table("rows", rows.append_column("split", pa.array(split)))
        return store, staging.commit()


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


def publish_store(home: Home, n: int, n_segments: int = 1) -> Publication:
    """Publish a store of n stamps as it is on disk, without decoding anything."""
    with home.stage("bench", "stamp_store") as staging:
        write_store(staging.folder, n, n_segments)
        staging.attributes.update(store_attributes(n, n_segments))
        return staging.commit()


def write_store(folder: Path, n: int, n_segments: int, *, sparse: bool = False) -> None:
    """Write segments and index of n rows, which stand on disk in logical order.

    Parameters
    ----------
    sparse : bool
        Segments of the right size that take no room on the disk: every pixel is 0.
    """
    halves = stamps(min(n, 512)).astype(np.float16)
    shares = np.array_split(np.arange(n), n_segments)
    for segment, rows in enumerate(shares):
        header = SegmentHeader.of(CONTRACT, decoder_version=DECODER_VERSION, n_rows=len(rows)).to_bytes()
        with open(folder / segment_name(segment), "wb") as file:
            file.write(header)
            if sparse:
                file.truncate(len(header) + len(rows) * halves[0].nbytes)
            else:
                for start in range(0, len(rows), len(halves)):
                    file.write(halves[: len(rows) - start].tobytes())
        with open(folder / stats_name(segment), "wb") as file:
            file.truncate(len(rows) * 8 * len(CONTRACT.bands))
    starts = np.cumsum([0, *map(len, shares)])
    with parquet_writer(folder / "stamp_store.parquet", STAMP_STORE.schema) as writer:
        for first in range(0, n, _INDEX_ROWS):
            writer.write_table(
                _index(np.arange(first, min(first + _INDEX_ROWS, n)), starts), row_group_size=_INDEX_ROWS
            )


def store_attributes(n: int, n_segments: int) -> dict[str, Any]:
    """Return what such a store says of itself."""
    return {
        "dataset_contract": CONTRACT.model_dump(mode="json"), "decoder_version": DECODER_VERSION, "n_in": n,
        "n_stored": n, "n_quarantined": 0, "n_excluded": 0, "n_segments": n_segments, "by_reason": {}, "n_holes": 0,
    }  # fmt: skip


def _index(logical: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> pa.Table:
    """Return the index of some rows: places as they are, hashes of the right width, what an epoch never reads constant."""
    segment = np.searchsorted(starts, logical, side="right") - 1
    hashes = pa.Array.from_buffers(
        pa.binary(16),
        len(logical),
        [None, pa.py_buffer(np.random.default_rng(int(logical[0])).bytes(16 * len(logical)))],
    )
    known = {
        "logical": logical, "key_hash": hashes, "segment": segment, "segment_row": logical - starts[segment],
        "label": logical % 2, "pixel_hash": hashes, "task_id": logical,
    }  # fmt: skip
    return pa.table(
        [
            pa.array(known[field.name]).cast(field.type)
            if field.name in known
            else pa.array(np.zeros(len(logical), np.int8)).cast(field.type)
            for field in STAMP_STORE.schema
        ],
        schema=STAMP_STORE.schema,
    )
