"""Small stamps publications to try the store on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lens_pipeline.contracts.dataset import DatasetContract, StampClass
from lens_pipeline.stamps.config import StoreConfig
from lens_pipeline.stamps.encode import encode_stamp
from lens_pipeline.stamps.ingest import StoreResult, build_store
from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.parquet import write_parquet
from lens_pipeline.storage.publication import Publication

SMALL = DatasetContract(stamp_size=8)
OTHER_SURVEY = DatasetContract(
    name="another_survey",
    key="object",
    bands=("u", "g", "r", "i", "z"),
    stamp_size=48,
    label_column="kind",
    classes=(
        StampClass(name="other", label_values=("STAR", "GALAXY")),
        StampClass(name="ring", label_values=("RING",)),
        StampClass(name="spiral", label_values=("SPIRAL",)),
    ),
)

Row = dict[str, Any]
Pixels = npt.NDArray[np.float32]


def pixels_of(number: int, contract: DatasetContract = SMALL) -> Pixels:
    """Pixels that differ from number to number."""
    return np.random.default_rng(number).normal(0.01, 1, contract.stamp_shape).astype(np.float32)


def make_rows(n: int, contract: DatasetContract = SMALL, **changes: Any) -> list[Row]:
    """Rows 0 to n - 1: injections at even places, their controls after them, two rows a galaxy."""
    return [
        {
            "task_id": f"t{i}",
            "region_id": f"region {i // 2 % 5}",
            "galaxy_id": f"g{i // 2}",
            "pair_id": None if i % 2 else f"t{i + 1}",
            "ra": 10.0 + 0.1 * (i // 2),
            "dec": -5.0,
            "lens_model": "CONTROL" if i % 2 else "SIE",
            "theta_e_arcsec": 0.0 if i % 2 else 1.1,
            "cutout_ok": 1,
            "psf_fwhm_used_r": 1.2,
            "stamp_npz": encode_stamp(pixels_of(i, contract), contract),
            **changes,
        }
        for i in range(n)
    ]


def publish_stamps(
    home: Home,
    files: Sequence[Sequence[Row]],
    *,
    contract: DatasetContract = SMALL,
    row_group_size: int = 7,
    external: Path | None = None,
    dtypes: dict[str, pa.DataType] | None = None,
) -> Publication:
    """Publish rows cut into files: our own fragments, or a user's files in a folder of theirs."""
    with home.stage("tried", "stamps") as staging:
        listed = []
        for number, rows in enumerate(files):
            name = f"fragment-{number:05d}.parquet"
            path = (external or staging.folder) / name
            types = {
                "galaxy_id": pa.string(), "pair_id": pa.string(), "ra": pa.float64(), "dec": pa.float64(),
                "lens_model": pa.string(), "stamp_npz": pa.binary(), **(dtypes or {}),
            }  # fmt: skip
            columns = list(rows[0])
            table = pa.table({c: pa.array([row[c] for row in rows], types.get(c)) for c in columns})
            options = {"compression": "none", "use_dictionary": False, "write_page_checksum": external is None}
            write_parquet(table, path, row_group_size=row_group_size, **options)
            listed.append(
                {"file": name if external is None else str(path), "rows": len(rows), "sha256": sha256_of(path)}
            )
        staging.attributes.update(
            source="simulated", dataset_contract=contract.model_dump(mode="json"), fragments=listed
        )
        return staging.commit()


def make_store(
    home: Home, stamps: Publication, *, previous: Publication | None = None, **settings: Any
) -> tuple[Publication, StoreResult]:
    """Build and commit a store."""
    with home.stage("tried", "stamp_store", inputs=[stamps]) as staging:
        result = build_store(StoreConfig(**{"workers": 1, **settings}), stamps, staging, previous)
        return staging.commit(), result


def store_of(home: Home, files: Sequence[Sequence[Row]], **settings: Any) -> tuple[Publication, StoreResult]:
    """Publish stamps and build their store."""
    return make_store(home, publish_stamps(home, files), **settings)
