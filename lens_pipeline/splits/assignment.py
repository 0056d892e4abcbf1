"""Region to split: a pure function of (region, seed), so that new regions join without moving an old one."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lens_pipeline.splits.config import SplitConfig

TRAIN, VAL_SELECT, VAL_CALIBRATE, TEST = "train", "val_select", "val_calibrate", "test"
SPLITS: tuple[str, ...] = (TRAIN, VAL_SELECT, VAL_CALIBRATE, TEST)
# What a row's split is called where its galaxy is a known lens, which is neither trained on nor counted among controls.
KNOWN_LENS = "known_lens"
# What a row's split is called for a reader who may not know it (`lens_pipeline.splits.withholding`).
WITHHELD = "withheld"


def region_uniform(region_id: str, seed: int) -> float:
    """Map a region and a seed to a number uniform in [0, 1), from BLAKE2b: the same on every machine."""
    digest = hashlib.blake2b(f"{seed}:{region_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2.0**64


def deal(regions: Sequence[str], seed: int, n_folds: int) -> npt.NDArray[np.int8]:
    """Deal regions into folds, shape (n_regions,), by a hash that knows nothing of the one that gave them their split."""
    return np.array([int(region_uniform(f"fold of {region}", seed) * n_folds) for region in regions], dtype=np.int8)


def shares(config: SplitConfig) -> npt.NDArray[np.float64]:
    """Return the asked share of each of `SPLITS`, shape (4,), summing to 1."""
    calibrate = config.validation * config.calibrate_share
    return np.array([config.train, config.validation - calibrate, calibrate, 1 - config.train - config.validation])


def assign(regions: Sequence[str], seed: int, config: SplitConfig) -> npt.NDArray[np.int8]:
    """Return each region's place in `SPLITS`, shape (n_regions,)."""
    uniform = np.array([region_uniform(region, seed) for region in regions])
    edges = np.cumsum(shares(config))[:-1]
    return np.searchsorted(edges, uniform, side="right").astype(np.int8)


def assign_within_survey_split(
    regions: Sequence[str], survey_split: Sequence[str], seed: int, config: SplitConfig
) -> npt.NDArray[np.int8]:
    """Keep the survey's train and test; cut its val into val_select and val_calibrate by the same hash."""
    places = np.empty(len(regions), dtype=np.int8)
    for i, (region, split) in enumerate(zip(regions, survey_split, strict=True)):
        if split == "val":
            place = VAL_CALIBRATE if region_uniform(region, seed) < config.calibrate_share else VAL_SELECT
        else:
            place = split
        places[i] = SPLITS.index(place)
    return places
