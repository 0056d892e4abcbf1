"""Every row once an epoch, in one global order, for any number of ranks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_pipeline.stamps.sampler import GlobalSampler, Permutation


@given(n=st.integers(1, 5_000), key=st.binary(max_size=8))
@settings(max_examples=60, deadline=None)
def test_a_permutation_is_exact_for_every_size_and_key(n: int, key: bytes) -> None:
    assert sorted(Permutation(n, key)(np.arange(n)).tolist()) == list(range(n))


def test_a_permutation_shuffles_like_chance() -> None:
    n = 100_000
    values = Permutation(n, b"k")(np.arange(n))
    assert abs(np.corrcoef(np.arange(n), values)[0, 1]) < 0.01
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.01
    labels = np.arange(n) % 2
    fractions = labels[values].reshape(-1, 250).mean(axis=1)
    assert fractions.std() == pytest.approx(np.sqrt(0.25 / 250), rel=0.12)


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6])
@pytest.mark.parametrize(("n", "batch"), [(97, 16), (96, 16), (5, 8), (1, 4)])
def test_each_row_comes_once_an_epoch_and_the_global_order_ignores_the_world(world: int, n: int, batch: int) -> None:
    rows = np.arange(n) * 3 + 1
    sampler = GlobalSampler(rows, seed=7, global_batch=batch)
    seen = []
    for step in range(sampler.steps_per_epoch):
        parts = [sampler.rank_slice(0, step, rank, world) for rank in range(world)]
        whole = sampler.step(0, step)
        assert sorted(np.concatenate(parts).tolist()) == sorted(whole.tolist())
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        seen += whole.tolist()
    assert sorted(seen) == rows.tolist()


def test_epochs_and_seeds_differ_and_are_repeatable() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return GlobalSampler(np.arange(1000), seed=seed, global_batch=1000).step(epoch, 0).tolist()

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_a_sampler_that_was_asked_for_other_steps_before_gives_the_same_rows() -> None:
    used = GlobalSampler(np.arange(1000), seed=3, global_batch=64)
    for epoch, step in ((0, 3), (1, 3), (0, 3), (0, 15), (2, 0)):
        fresh = GlobalSampler(np.arange(1000), seed=3, global_batch=64)
        assert used.step(epoch, step).tolist() == fresh.step(epoch, step).tolist()
        used.step(epoch, step)[:] = 0  # what a caller does to its rows is its own affair


def test_the_order_in_which_rows_are_given_changes_nothing() -> None:
    rows = np.arange(500)
    shuffled = np.random.default_rng(0).permutation(rows)
    first, second = (GlobalSampler(r, seed=1, global_batch=64).step(0, 3) for r in (rows, shuffled))
    assert first.tolist() == second.tolist()


def test_a_row_that_stands_twice_or_no_row_is_refused() -> None:
    with pytest.raises(ValueError, match="3 rows were given, 2 of them distinct"):
        GlobalSampler(np.array([1, 2, 2]), seed=0, global_batch=4)
    with pytest.raises(ValueError, match="0 rows"):
        GlobalSampler(np.array([], dtype=np.int64), seed=0, global_batch=4)
