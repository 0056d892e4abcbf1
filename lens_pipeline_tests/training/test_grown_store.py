"""Splits, order of rows, ledger and weights are the same from a store grown by increments and from one built at once."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.splits.config import SplitConfig
from lens_pipeline.splits.region_splits import build_region_splits
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.checkpoint import newest_checkpoint
from lens_pipeline.training.folder import RunFolder
from lens_pipeline.training.spec import RunSpec
from lens_pipeline_tests.stamps.making import make_rows, make_store, publish_stamps
from lens_pipeline_tests.training.making import prepared, run_ranks

CONTRACT = DatasetContract(stamp_size=16)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, Publication, Publication]:
    """One store built at once, and one grown file by file, of other sizes and order, with holes and three segments."""
    home = Home(tmp_path_factory.mktemp("grown"))
    rows = make_rows(240, CONTRACT)
    for number, row in enumerate(rows):
        row["region_id"] = f"region {number // 2 % 60}"
    rows[7]["stamp_npz"] = b"refused"
    shuffled = [rows[i] for i in np.random.default_rng(5).permutation(240)]
    extra = make_rows(250, CONTRACT)[240:]
    grown: Publication | None = None
    for files in (
        [shuffled[:100], extra],
        [shuffled[:100], shuffled[100:170], extra],
        [shuffled[170:], shuffled[:100], shuffled[100:170]],
    ):
        stamps = publish_stamps(home, files, contract=CONTRACT, row_group_size=13)
        grown, _ = make_store(home, stamps, previous=grown, workers=2)
    assert grown is not None
    assert (grown.attributes["n_segments"], grown.attributes["n_holes"]) == (3, 11)
    whole, _ = make_store(home, publish_stamps(home, [rows], contract=CONTRACT))
    assert whole.attributes["n_segments"] == 1
    return home, whole, grown


@pytest.fixture(scope="module")
def splits(stores: tuple[Home, Publication, Publication]) -> list[Publication]:
    home, *both = stores
    made = []
    for store in both:
        with home.stage("tried", "region_splits", inputs=[store]) as staging:
            build_region_splits(SplitConfig(floor_rows=1), store, staging)
            made.append(staging.commit())
    return made


def test_the_splits_are_the_same_files(splits: list[Publication]) -> None:
    one, other = ({name: entry.sha256 for name, entry in made.manifest.files.items()} for made in splits)
    assert one == other
    assert len(one) > 1


def test_the_ledger_and_the_weights_are_the_same_bits(
    stores: tuple[Home, Publication, Publication], splits: list[Publication], tmp_path: Path
) -> None:
    runs = []
    for store, made in zip(stores[1:], splits, strict=True):
        folder = prepared(tmp_path / store.version, (store, made), epochs=1, world_size=1)
        assert run_ranks(folder, world=1) == [0]
        runs.append(folder)
    one, other = runs
    assert one.ledger(0).read_bytes() == other.ledger(0).read_bytes()
    weights = [load_file(_last(folder)) for folder in runs]
    assert weights[0].keys() == weights[1].keys()
    assert all(weights[0][name].tobytes() == weights[1][name].tobytes() for name in weights[0])


def _last(folder: RunFolder) -> Path:
    found, _ = newest_checkpoint(folder.checkpoints, run=RunSpec.read(folder.specification).sha256())
    assert found is not None
    return found.file("model")
