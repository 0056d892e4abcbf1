"""Batches for people without torch."""

import doctest
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lens_pipeline.stamps import iterate
from lens_pipeline.stamps.iterate import NumberedRows, iter_batches
from lens_pipeline.stamps.row_sources import FileRows
from lens_pipeline.stamps.sampler import GlobalSampler
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.storage.home import Home
from lens_pipeline_tests.stamps.making import make_rows, store_of
from lens_pipeline_tests.stamps.scattered import scatter


@pytest.fixture
def store(home: Home) -> StampStore:
    return StampStore.open(scatter(home, store_of(home, [make_rows(40)])[0]))


def same_as_the_store(batches: list[NumberedRows], store: StampStore) -> None:
    for batch in batches:
        wanted = store.take(batch.logical)
        assert batch.rows.pixels.tobytes() == wanted.pixels.tobytes()
        assert batch.rows.median.tobytes() == wanted.median.tobytes()
        assert batch.rows.mad.tobytes() == wanted.mad.tobytes()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("from_files", [False, True])
def test_every_row_comes_once_and_stays_what_it_is(store: StampStore, threads: int, from_files: bool) -> None:
    source = FileRows(store) if from_files else None
    batches = list(iter_batches(store, batch_size=7, threads=threads, source=source))
    assert [len(batch.logical) for batch in batches] == [7, 7, 7, 7, 7, 5]
    assert np.concatenate([batch.logical for batch in batches]).tolist() == list(range(40))
    same_as_the_store(batches, store)


def test_a_shuffled_epoch_is_the_order_that_training_has(store: StampStore) -> None:
    rows = np.arange(3, 33)
    batches = list(iter_batches(store, rows, batch_size=8, seed=5, epoch=2))
    sampler = GlobalSampler(rows, seed=5, global_batch=8)
    assert [batch.logical.tolist() for batch in batches] == [sampler.step(2, step).tolist() for step in range(4)]
    same_as_the_store(batches, store)


def test_rows_come_in_the_order_given(store: StampStore) -> None:
    rows = np.array([9, 0, 30, 4])
    assert [batch.logical.tolist() for batch in iter_batches(store, rows, batch_size=3)] == [[9, 0, 30], [4]]
    assert list(iter_batches(store, np.array([], dtype=np.int64), seed=1)) == []


def test_what_cant_be_read_is_refused_before_the_first_batch(store: StampStore) -> None:
    with pytest.raises(ValueError, match="3 rows were given, 2 of them distinct"):
        iter_batches(store, np.array([1, 2, 1]))
    with pytest.raises(IndexError, match="the store has 0 to 39"):
        iter_batches(store, np.array([1, 40]))
    with pytest.raises(ValueError, match="batch size of 0"):
        iter_batches(store, batch_size=0)


def test_it_needs_no_torch(store: StampStore) -> None:
    folder = store.publication.folder
    script = (
        "import sys; from pathlib import Path; from lens_pipeline.stamps.iterate import iter_batches; "
        "from lens_pipeline.stamps.store import StampStore; from lens_pipeline.storage.publication import Publication; "
        f"store = StampStore.open(Publication.open(Path({str(folder)!r}))); "
        "print(sum(len(batch.logical) for batch in iter_batches(store, seed=1, batch_size=9)), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.split() == ["40", "False"]


def test_the_example_in_the_module_runs() -> None:
    home = Home.from_environment()
    home.conclude(scatter(home, store_of(home, [make_rows(40)])[0], dataset="simulated"), [])
    assert doctest.testmod(iterate).attempted > 3
    assert doctest.testmod(iterate).failed == 0
