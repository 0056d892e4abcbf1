"""One global order, cut into steps and into the parts of ranks, that can be taken up anywhere by any number of them."""

import json
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.stamps.orders import Ordering, Shuffled
from lens_pipeline.stamps.permutation import Permutation
from lens_pipeline.stamps.sampler import GlobalSampler
from lens_pipeline.stamps.weighted import Repeated

FIRST_STEP = [756, 522, 129, 969, 420, 748, 873, 603]


@given(n=st.integers(1, 2_000), key=st.binary(max_size=8))
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


def test_the_positives_of_a_batch_vary_as_a_binomial_says() -> None:
    # 20 % positives that stand together in the input, in 4 epochs of 400 batches of 250.
    sampler = GlobalSampler(np.arange(100_000), seed=11, global_batch=250)
    share = [np.mean(sampler.step(epoch, step) < 20_000) for epoch in range(4) for step in range(400)]
    assert np.mean(share) == pytest.approx(0.2)
    assert np.std(share) == pytest.approx(np.sqrt(0.2 * 0.8 / 250), rel=0.05)


@given(n=st.integers(1, 2_000), batch=st.integers(1, 300), world=st.integers(1, 9), seed=st.integers(0, 2**63 - 1))
@settings(max_examples=60, deadline=None)
def test_the_parts_of_ranks_tile_the_step_and_the_steps_tile_the_epoch(
    n: int, batch: int, world: int, seed: int
) -> None:
    rows = np.arange(n) * 3 + 1
    sampler = GlobalSampler(rows, seed=seed, global_batch=batch)
    seen = []
    for step in range(sampler.steps_per_epoch):
        parts = [sampler.rank_slice(1, step, rank, world) for rank in range(world)]
        assert [len(part) for part in parts] == [len(part) for part in np.array_split(sampler.step(1, step), world)]
        assert np.concatenate(parts).tolist() == sampler.step(1, step).tolist()
        assert len(sampler.step(1, step)) == batch or step == sampler.steps_per_epoch - 1
        seen += np.concatenate(parts).tolist()
    assert sorted(seen) == rows.tolist()
    assert seen == sampler.steps(1, 0, sampler.steps_per_epoch).tolist()


def test_the_order_does_not_depend_on_the_batch() -> None:
    orders = [
        GlobalSampler(np.arange(1000), seed=2, global_batch=batch).steps(3, 0, 1000).tolist() for batch in (1, 7, 64)
    ]
    assert orders[0] == orders[1] == orders[2]


def test_epochs_and_seeds_differ_and_are_repeatable() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return GlobalSampler(np.arange(1000), seed=seed, global_batch=1000).step(epoch, 0).tolist()

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_the_first_steps_of_a_seed_are_these() -> None:
    # A change here is another training for everyone who has one.
    assert GlobalSampler(np.arange(1000), seed=0, global_batch=8).step(0, 0).tolist() == FIRST_STEP


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


def test_rows_are_held_once_in_four_bytes_each() -> None:
    sampler = GlobalSampler(np.arange(100_000), seed=0, global_batch=256)
    assert sampler.rows.dtype == np.int32
    held = [value for part in (sampler, sampler.order) for value in vars(part).values()]
    assert sum(value.nbytes for value in held if isinstance(value, np.ndarray)) == 400_000


def test_a_row_that_stands_twice_or_no_row_or_an_impossible_number_is_refused() -> None:
    with pytest.raises(ValueError, match="3 rows were given, 2 of them distinct"):
        GlobalSampler(np.array([1, 2, 2]), seed=0, global_batch=4)
    with pytest.raises(ValueError, match="0 rows"):
        GlobalSampler(np.array([], dtype=np.int64), seed=0, global_batch=4)
    with pytest.raises(ValueError, match="0 to 2\\*\\*31 - 1 are possible"):
        GlobalSampler(np.array([1, 2**31]), seed=0, global_batch=4)
    with pytest.raises(ValueError, match="global batch of 0"):
        GlobalSampler(np.array([1]), seed=0, global_batch=0)


@pytest.mark.parametrize(("step", "rank", "world"), [(4, 0, 1), (-1, 0, 1), (0, 2, 2), (0, -1, 2)])
def test_a_step_or_rank_that_is_not_there_is_refused(step: int, rank: int, world: int) -> None:
    with pytest.raises(ValueError, match="was asked for"):
        GlobalSampler(np.arange(13), seed=0, global_batch=4).rank_slice(0, step, rank, world)


def _weighted(weight: float) -> Ordering:
    return partial(Repeated, group=np.arange(100) % 2, weights=[1.0, weight])


def _state(**changes: Any) -> dict[str, Any]:
    made = {"rows": np.arange(100), "seed": 5, "global_batch": 16, "order": _weighted(2.5), **changes}
    return json.loads(json.dumps(GlobalSampler(made.pop("rows"), **made).state(3, 4).to_json()))


def test_a_state_that_went_through_json_is_taken_up_again() -> None:
    sampler = GlobalSampler(np.arange(100), seed=5, global_batch=16, order=_weighted(2.5))
    assert sampler.resume(_state()) == sampler.state(3, 4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 6}, "order, seed differ"),
        ({"global_batch": 8}, "global_batch differ"),
        ({"rows": np.arange(100) + 1}, "order differ"),
        ({"order": _weighted(2.25)}, "order differ"),
        ({"order": Shuffled}, "order differ"),
    ],
    ids=["seed", "batch", "rows", "weights", "kind"],
)
def test_the_state_of_another_order_is_refused(change: dict[str, Any], said: str) -> None:
    sampler = GlobalSampler(np.arange(100), seed=5, global_batch=16, order=_weighted(2.5))
    with pytest.raises(TrainingError, match=said):
        sampler.resume(_state(**change))


@pytest.mark.parametrize("change", [{"step": 99}, {"step": -1}, {"epoch": -1}, {"step": None}, {"more": 1}])
def test_a_state_that_no_run_can_have_is_refused(change: dict[str, Any]) -> None:
    sampler = GlobalSampler(np.arange(100), seed=5, global_batch=16, order=_weighted(2.5))
    with pytest.raises(TrainingError, match="can't go on"):
        sampler.resume({**_state(), **change})
    with pytest.raises(TrainingError, match="can't go on"):
        sampler.resume({})
