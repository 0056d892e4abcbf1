"""A small published chain (store, splits, manifest, classifier, scores) with scores drawn from a known law."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lens_pipeline.contracts.catalogue import (
    HISTORY,
    MATCHED_FILTER,
    OUT_OF_FOLD,
    PARENT_COMPLETENESS,
    REGION_SPLITS,
    SCORES,
    SPLIT_ROWS,
)
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.splits.config import SplitConfig
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging

DATASET = "synthetic"
SPLITS = ("train", "val_select", "val_calibrate", "test")


@dataclass(frozen=True)
class Chain:
    """The publications that evaluation reads."""

    home: Home
    store: Publication
    splits: Publication
    parent: Publication
    manifest: Publication
    classifier: Publication
    scores: Publication

    def stage(self, asset: str, *inputs: Publication) -> Staging:
        """Start a new version of an asset."""
        return self.home.stage(DATASET, asset, inputs=inputs)


@dataclass
class Stamps:
    """Rows of a synthetic survey; every array has one entry a stamp and may be changed before `publish`."""

    columns: dict[str, Any]
    split: list[str]
    logit: np.ndarray
    lost: list[dict[str, Any]] = field(default_factory=list)
    without: tuple[str, ...] = ()
    n_folds: int = 0
    kept: pa.Table | None = None
    snr: np.ndarray | None = None


def draw(galaxies: dict[str, int], *, injections_per_galaxy: int = 1, separation: float = 2.5, seed: int = 0) -> Stamps:
    """Draw one control and some injections per galaxy; brighter arcs score higher, invisible ones like controls."""
    rng = np.random.default_rng(seed)
    columns: dict[str, list[Any]] = {name: [] for name in _NAMES}
    split_of_row, logits = [], []
    for split, n in galaxies.items():
        for number in range(n):
            galaxy, region = f"{split}-{number:05d}", f"{split}-r{number // 5}"
            taste = rng.normal(0, 0.5)
            for copy in range(injections_per_galaxy + 1):
                lens = copy > 0
                matched = float(rng.lognormal(1.5, 1.2)) if lens else None
                seen = 0.0 if matched is None or matched < 0.5 else separation * np.log1p(matched) / 1.5
                row = _row(galaxy, region, copy, matched, rng)
                for name, value in row.items():
                    columns[name].append(value)
                split_of_row.append(split)
                logits.append(taste + rng.normal(0, 1) + seen - 1)
    return Stamps(columns, split_of_row, np.array(logits, dtype=np.float32))


def publish(stamps: Stamps, folder: Path) -> Chain:
    """Publish the chain up to the scores."""
    home = Home(folder)
    names = [name for name in stamps.columns if name not in stamps.without]
    index = pa.table({name: pa.array(stamps.columns[name], type=(_NAMES | _FURTHER)[name]) for name in names})
    index = index.append_column("logical", pa.array(range(index.num_rows), pa.int64()))
    keyed = {
        "task_id": index["task_id"],
        "logical": index["logical"],
        "split": pa.array(stamps.split),
        "label": index["label"],
    }
    with home.stage(DATASET, "stamp_store") as staging:
        staging.write_table(None, index)
        quarantine = {
            "task_id": pa.array([row["task_id"] for row in stamps.lost], pa.string()),
            "reason": pa.array(["bad_crc"] * len(stamps.lost), pa.string()),
            "excluded": pa.array([False] * len(stamps.lost), pa.bool_()),
        }
        staging.write_table("quarantine", pa.table(quarantine))
        staging.attributes.update(dataset_contract=DatasetContract().model_dump(mode="json"))
        store = staging.commit()
    with home.stage(DATASET, "region_splits", inputs=[store]) as staging:
        staging.write_table(None, _regions(stamps), REGION_SPLITS)
        staging.write_table("rows", pa.table(keyed), SPLIT_ROWS)
        settings = SplitConfig().model_dump(
            include={"train", "validation", "calibrate_share", "seed", "honour_survey_split"}
        )
        staging.attributes.update(seed=0, settings=settings, by_survey=True)
        splits = staging.commit()
    with home.stage(DATASET, "parent_sample") as staging:
        staging.attributes["source"] = "simulated" if stamps.kept is None else "legacy_catalogue"
        if stamps.kept is not None:
            staging.write_table("completeness", stamps.kept, PARENT_COMPLETENESS)
        parent = staging.commit()
    with home.stage(DATASET, "injection_manifest") as staging:
        attempted = index.select(["task_id", "region_id", "lens_model", "theta_e_arcsec"])
        attempted = attempted.append_column("region_split", pa.array(stamps.split))
        lost = pa.Table.from_pylist(stamps.lost, schema=attempted.schema)
        staging.write_table(None, pa.concat_tables([attempted, lost]))
        manifest = staging.commit()
    with home.stage(DATASET, "lens_classifier", inputs=[store, splits]) as staging:
        staging.write_table(None, _history(), HISTORY)
        staging.attributes.update(architecture="test_resnet", parameters=470_000, best_epoch=2)
        classifier = staging.commit()
    with home.stage(DATASET, "scores", inputs=[store, splits, classifier]) as staging:
        logit = pa.array(stamps.logit, pa.float32())
        staging.write_table(None, pa.table(keyed | {"logit": logit}), SCORES)
        if stamps.snr is not None:
            snr = pa.array(stamps.snr, pa.float32())
            staging.write_table("matched_filter", pa.table(keyed | {"snr": snr}), MATCHED_FILTER)
        if stamps.n_folds:
            staging.write_table("out_of_fold", _out_of_fold(stamps, pa.table(keyed | {"logit": logit})), OUT_OF_FOLD)
        scores = staging.commit()
    return Chain(home, store, splits, parent, manifest, classifier, scores)


class Pixels:
    """Stamps made up on demand."""

    @dataclass(frozen=True)
    class Rows:
        """Decoded rows."""

        pixels: np.ndarray
        median: np.ndarray
        mad: np.ndarray

    def take(self, logical: np.ndarray) -> "Pixels.Rows":
        """Make a galaxy with a ring on noise for each row."""
        rng = np.random.default_rng(int(logical.sum()))
        y, x = np.mgrid[:64, :64] - 31.5
        radius = np.hypot(x, y)
        galaxy = 3 * np.exp(-radius / 5)[None, None] * np.array([0.3, 1, 1.6])[None, :, None, None]
        ring = 0.4 * np.exp(-(((radius - 9) / 2) ** 2)) * (x > 0)
        shape = (logical.size, 3, 64, 64)
        image = rng.normal(0, 0.05, shape) + galaxy + ring * np.array([1.2, 0.9, 0.6])[None, :, None, None]
        return self.Rows(
            image.astype(np.float16),
            np.median(image, axis=(2, 3)).astype(np.float32),
            np.full(shape[:2], 0.034, np.float32),
        )


# Columns that a test adds.
_FURTHER = {
    "source_id": pa.string(),
    "is_held_out": pa.bool_(),
    "src_mag_g": pa.float64(),
    "src_reff_arcsec": pa.float64(),
    "src_x_arcsec": pa.float64(),
    "src_y_arcsec": pa.float64(),
    "psfdepth_r": pa.float64(),
    "role": pa.string(),
    "ra": pa.float64(),
    "dec": pa.float64(),
}
_NAMES = {
    "task_id": pa.string(),
    "region_id": pa.string(),
    "galaxy_id": pa.string(),
    "label": pa.int8(),
    "pixel_hash": pa.binary(16),
    "lens_model": pa.string(),
    "theta_e_arcsec": pa.float64(),
    "weight": pa.float64(),
    "psf_fwhm_used_r": pa.float64(),
    "arc_snr": pa.float64(),
    "arc_snr_matched": pa.float64(),
    "src_mag_r": pa.float64(),
    "magnification": pa.float64(),
}


def _row(galaxy: str, region: str, copy: int, matched: float | None, rng: np.random.Generator) -> dict[str, Any]:
    lens = copy > 0
    return {
        "task_id": f"{galaxy}-{copy}",
        "region_id": region,
        "galaxy_id": galaxy,
        "label": int(lens),
        "pixel_hash": f"{galaxy}-{copy}".encode().ljust(16, b"\0")[-16:],
        "lens_model": ("SIE" if copy % 2 else "SIS") if lens else "CONTROL",
        "theta_e_arcsec": float(rng.uniform(0.3, 2.5)) if lens else 0.0,
        "weight": 1.0,
        "psf_fwhm_used_r": float(rng.normal(1.25, 0.1)),
        "arc_snr": matched / 6 if matched is not None else None,
        "arc_snr_matched": matched,
        "src_mag_r": 24.0 if lens else None,
        "magnification": 10.0 if lens else None,
    }


def _regions(stamps: Stamps) -> pa.Table:
    split_of = dict(zip(stamps.columns["region_id"], stamps.split, strict=True))
    galaxies: dict[str, set[str]] = {}
    for region, galaxy in zip(stamps.columns["region_id"], stamps.columns["galaxy_id"], strict=True):
        galaxies.setdefault(region, set()).add(galaxy)
    rows = [
        {"region_id": r, "split": s, "n_rows": 1, "n_galaxies": len(galaxies[r]), "ra": None, "dec": None}
        for r, s in split_of.items()
    ]
    return pa.Table.from_pylist(rows, schema=REGION_SPLITS.schema)


def _out_of_fold(stamps: Stamps, scores: pa.Table) -> pa.Table:
    """Deal the galaxies of train and val_select into folds, in turn; each row's logit is the mean's plus its fold."""
    galaxies = {name: number for number, name in enumerate(dict.fromkeys(stamps.columns["galaxy_id"]))}
    fold = np.array([galaxies[name] % stamps.n_folds for name in stamps.columns["galaxy_id"]], np.int8)
    table = scores.drop_columns(["split", "logit"]).append_column("fold", pa.array(fold))
    table = table.append_column("logit", pa.array(stamps.logit + fold.astype(np.float32)))
    return table.filter(pa.array([split in ("train", "val_select") for split in stamps.split]))


def _history() -> pa.Table:
    epochs = [0, 1, 2, 3]
    return pa.table(
        {
            "epoch": pa.array(epochs, pa.int64()),
            "train_loss": [0.6, 0.4, 0.3, 0.28],
            "val_loss": [0.55, 0.38, 0.33, 0.34],
            "val_auroc": [0.8, 0.9, 0.93, 0.93],
            "learning_rate": [1e-3, 8e-4, 4e-4, 1e-5],
            "seconds": [1.0, 1.0, 1.0, 1.0],
        }
    )
