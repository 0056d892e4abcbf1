"""Stamps for people with their own training loop, through torch's own DataLoader."""

import doctest
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lens_pipeline.batches import dataset as module
from lens_pipeline.batches.dataset import StampDataset, as_tensors
from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline_tests.stamps.making import make_rows, store_of
from lens_pipeline_tests.stamps.scattered import scatter

ROWS = np.random.default_rng(0).permutation(40)[:30]


@pytest.fixture
def publication(home: Home) -> Publication:
    return scatter(home, store_of(home, [make_rows(40)])[0])


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def same_as_the_store(batches: list[dict[str, torch.Tensor]], publication: Publication) -> None:
    store = StampStore.open(publication)
    logical = np.concatenate([batch["logical"].numpy() for batch in batches])
    rows = store.take(logical)
    for name, wanted in (("pixels", rows.pixels), ("median", rows.median), ("mad", rows.mad)):
        assert torch.cat([batch[name] for batch in batches]).numpy().tobytes() == wanted.tobytes()
    labels = store.columns(["label"])["label"].to_numpy()[logical]
    assert np.array_equal(torch.cat([batch["label"] for batch in batches]).numpy(), labels)


@pytest.mark.parametrize("collate", [as_tensors, None], ids=["one gather", "torch's own collate"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_the_rows_asked_for_with_their_numbers_and_labels(
    publication: Publication, collate: object, workers: int
) -> None:
    dataset = StampDataset(publication, ROWS)
    assert len(dataset) == 30
    loader = DataLoader(dataset, batch_size=8, num_workers=workers, collate_fn=collate)  # type: ignore[arg-type]
    batches = list(loader)
    assert [len(batch["logical"]) for batch in batches] == [8, 8, 8, 6]
    assert torch.cat([batch["logical"] for batch in batches]).tolist() == ROWS.tolist()
    same_as_the_store(batches, publication)


def test_a_spawned_worker_opens_the_store_again(publication: Publication) -> None:
    dataset = StampDataset(publication, ROWS)
    loader = DataLoader(dataset, batch_size=16, num_workers=1, multiprocessing_context="spawn", collate_fn=as_tensors)
    same_as_the_store(list(loader), publication)


def test_what_goes_to_a_spawned_worker_is_where_the_store_is_and_not_its_pixels(publication: Publication) -> None:
    state = StampDataset(publication, ROWS).__getstate__()
    assert set(state) == {"folder", "version", "rows"}
    again = StampDataset.__new__(StampDataset)
    again.__setstate__(state)
    assert again[3]["pixels"].numpy().tobytes() == StampDataset(publication, ROWS)[3]["pixels"].numpy().tobytes()
    shutil.rmtree(publication.folder)
    shutil.copytree(store_of(Home(publication.folder.parent / "x"), [make_rows(9)])[0].folder, publication.folder)
    with pytest.raises(StorageError, match="the dataset was made of"):
        again.__setstate__(state)


def test_one_row_is_the_row_of_its_place_and_the_end_is_an_end(publication: Publication) -> None:
    dataset = StampDataset(publication, ROWS)
    sample = dataset[4]
    assert sample["logical"].item() == ROWS[4]
    assert sample["pixels"].shape == (3, 8, 8)
    assert len(list(iter(dataset))) == 30  # type: ignore[call-overload]
    with pytest.raises(IndexError):
        dataset[30]
    with pytest.raises(IndexError, match="the store has 0 to 39"):
        StampDataset(publication, np.array([40]))


def test_the_example_in_the_module_runs() -> None:
    home = Home.from_environment()
    home.conclude(scatter(home, store_of(home, [make_rows(40)])[0], dataset="simulated"), [])
    assert doctest.testmod(module).attempted > 3
    assert doctest.testmod(module).failed == 0
