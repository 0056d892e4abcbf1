"""What each order promises of how often a row comes and of what stands beside it."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_pipeline.stamps.orders import Order, Shuffled
from lens_pipeline.stamps.pairs import Paired
from lens_pipeline.stamps.sampler import GlobalSampler
from lens_pipeline.stamps.weighted import Repeated, WithReplacement

KINDS = ("shuffled", "repeated", "with_replacement", "paired")


def make(kind: str, n: int, seed: int, *, shuffled_input: bool = False) -> Order:
    """An order of rows 5, 7, 9, ...: three groups, and controls (every fourth row) of 0 to 3 injections each."""
    rows = 2 * np.arange(n) + 5
    number = np.arange(n)
    group = number % 3
    control = np.where((number % 4 > 0) & (number % 4 <= number // 4 % 4), rows[number // 4 * 4], -1)
    if shuffled_input:
        given = np.random.default_rng(0).permutation(n)
        rows, group, control = rows[given], group[given], control[given]
    weights = [1.0, 2.6, 0.35]
    return {
        "shuffled": Shuffled,
        "repeated": partial(Repeated, group=group, weights=weights),
        "with_replacement": partial(WithReplacement, group=group, weights=weights),
        "paired": partial(Paired, control=control),
    }[kind](rows, seed)


def whole(order: Order, epoch: int) -> list[int]:
    return order.at(epoch, np.arange(order.n_places)).tolist()


@pytest.mark.parametrize("kind", KINDS)
@given(n=st.integers(1, 2_000), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_every_row_comes_as_often_as_the_order_says_it_does(kind: str, n: int, seed: int, epoch: int) -> None:
    order = make(kind, n, seed)
    counts = np.bincount(whole(order, epoch), minlength=2 * n + 5)
    wanted = np.zeros_like(counts)
    wanted[order.rows] = order.times(epoch)
    assert counts.tolist() == wanted.tolist()
    assert sorted(order.rows.tolist()) == (2 * np.arange(n) + 5).tolist()
    if kind in ("shuffled", "paired"):
        assert sorted(whole(order, epoch)) == (2 * np.arange(n) + 5).tolist()


@pytest.mark.parametrize("kind", KINDS)
@given(n=st.integers(1, 500), data=st.data())
@settings(max_examples=20, deadline=None)
def test_any_places_are_found_alone(kind: str, n: int, data: st.DataObject) -> None:
    order = make(kind, n, 7)
    places = data.draw(st.lists(st.integers(0, order.n_places - 1), max_size=20))
    epoch = whole(order, 3)
    assert order.at(3, np.array(places, np.int64)).tolist() == [epoch[place] for place in places]


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_in_which_rows_are_given_changes_nothing(kind: str) -> None:
    first, second = make(kind, 333, 1), make(kind, 333, 1, shuffled_input=True)
    assert whole(first, 2) == whole(second, 2)
    assert first.sha256() == second.sha256()


@pytest.mark.parametrize("kind", KINDS)
def test_every_epoch_and_every_seed_has_its_own_order(kind: str) -> None:
    orders = {tuple(whole(make(kind, 300, seed), epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_where_is_not_where_it_stood_in_the_input(kind: str) -> None:
    order = np.array(whole(make(kind, 20_000, 0), 0), np.float64)
    assert abs(np.corrcoef(np.arange(len(order)), order)[0, 1]) < 0.03
    if kind != "paired":
        assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.03


@pytest.mark.parametrize("weight", [0.01, 0.3, 0.5, 1.0, 1.75, 2.0, 7.9])
def test_over_epochs_every_row_of_a_group_comes_as_often_as_any_other_within_one(weight: float) -> None:
    n, epochs = 230, 40
    order = Repeated(np.arange(n), 3, group=np.arange(n) % 2, weights=[weight, 1.0])
    times = np.zeros(n, np.int64)
    for epoch in range(epochs):
        here = order.times(epoch)
        assert set(here[:115].tolist()) <= {int(weight), int(weight) + 1}
        times[order.rows] += here
        assert np.ptp(times[::2]) <= 1
    assert times[1::2].tolist() == [epochs] * 115
    # The share of a group is a whole number of its 115 rows: the mean is off by at most half a row.
    assert abs(times[::2].sum() / epochs - weight * 115) <= 0.5


def test_which_rows_come_once_more_is_not_the_same_for_every_seed_nor_their_number() -> None:
    chosen = [frozenset(np.flatnonzero(Repeated(np.arange(500), s, group=np.zeros(500, int), weights=[0.2]).times(0)))
              for s in range(5)]  # fmt: skip
    assert len(set(chosen)) == 5
    assert {len(one) for one in chosen} == {100}


def test_copies_of_a_row_do_not_stand_together() -> None:
    order = np.array(whole(Repeated(np.arange(2_000), 0, group=np.zeros(2_000, int), weights=[4.0]), 0))
    # 8000 places: by chance a place and the next hold the same row 8000 x 3/7999 = 3 times.
    assert np.count_nonzero(order[:-1] == order[1:]) < 15


def test_draws_with_replacement_follow_the_weights_as_chance_does() -> None:
    n, epochs = 30_000, 4
    order = WithReplacement(np.arange(n), 9, group=np.arange(n) % 3, weights=[1.0, 2.0, 0.5])
    drawn = np.concatenate([np.array(whole(order, epoch)) for epoch in range(epochs)])
    assert len(drawn) == n * epochs
    expected = np.array([1.0, 2.0, 0.5]) / 3.5
    share = np.bincount(drawn % 3, minlength=3) / len(drawn)
    assert np.all(np.abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / len(drawn)))
    # Within a group, rows are drawn as often as a Poisson of the same mean says: variance equals mean.
    for group in range(3):
        counts = np.bincount(drawn[drawn % 3 == group] // 3, minlength=n // 3)
        assert counts.var() / counts.mean() == pytest.approx(1, abs=4 * np.sqrt(2 / (n // 3)))


def control_of(order: Paired) -> dict[int, int]:
    n = len(order.rows)
    return {2 * i + 5: 2 * (i // 4 * 4) + 5 for i in range(n) if 0 < i % 4 <= i // 4 % 4}


@given(n=st.integers(1, 1_000), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_every_control_stands_behind_one_of_its_injections_from_an_even_place_on(n: int, seed: int, epoch: int) -> None:
    order = make("paired", n, seed)
    assert isinstance(order, Paired)
    mates, epoch_rows = control_of(order), whole(order, epoch)
    controls = set(mates.values())
    for place, row in enumerate(epoch_rows):
        if row in controls:
            assert place % 2 == 1
            assert mates[epoch_rows[place - 1]] == row


def test_a_control_of_three_injections_goes_with_each_of_them_in_turn_by_chance() -> None:
    order = make("paired", 400, 0)
    assert isinstance(order, Paired)
    mates = control_of(order)
    partners: dict[int, list[int]] = {}
    for epoch in range(60):
        rows = whole(order, epoch)
        for place, row in enumerate(rows):
            if row in mates.values():
                partners.setdefault(row, []).append((rows[place - 1] - row) // 2)
    three = [number for row, numbers in partners.items() if (row - 5) // 8 % 4 == 3 for number in numbers]
    assert len(three) == 25 * 60
    assert np.all(np.abs(np.bincount(three)[1:] - 500) < 4 * np.sqrt(1500 * 2 / 9))


def test_pairs_are_spread_evenly_over_the_epoch() -> None:
    order = make("paired", 4_000, 0)
    assert isinstance(order, Paired)
    is_control = np.isin(np.array(whole(order, 0)), list(control_of(order).values()))
    per_hundred = is_control.reshape(40, 100).sum(axis=1)
    assert np.ptp(per_hundred) <= 1


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("n", [97, 128, 331])
def test_no_pair_is_torn_in_full_steps_of_even_parts_and_few_are_in_the_short_last_step(world: int, n: int) -> None:
    order = make("paired", n, 2)
    assert isinstance(order, Paired)
    number = np.arange(n)
    control = np.where((number % 4 > 0) & (number % 4 <= number // 4 % 4), 2 * (number // 4 * 4) + 5, -1)
    sampler = GlobalSampler(2 * number + 5, seed=2, global_batch=6 * world, order=partial(Paired, control=control))
    mates, controls = control_of(order), set(control_of(order).values())
    for epoch in range(3):
        for step in range(sampler.steps_per_epoch):
            torn = 0
            for rank in range(world):
                rows = sampler.rank_slice(epoch, step, rank, world).tolist()
                torn += sum(row in controls and (place == 0 or mates.get(rows[place - 1]) != row)
                            for place, row in enumerate(rows))  # fmt: skip
            full = len(sampler.step(epoch, step)) == 6 * world
            assert torn <= (0 if full else world - 1)


@pytest.mark.parametrize(
    ("control", "said"),
    [([-1, 8, -1], "1 are not among the rows and 0"), ([1, 2, -1], "0 are not among the rows and 1 have a control")],
)
def test_controls_that_are_not_there_or_have_controls_themselves_are_refused(control: list[int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Paired(np.arange(3), 0, control=np.array(control))


@pytest.mark.parametrize("kind", [Repeated, WithReplacement])
def test_weights_out_of_range_and_rows_without_a_group_are_refused(kind: type[Repeated | WithReplacement]) -> None:
    with pytest.raises(ValueError, match=r"0\.01 to 100 are possible"):
        kind(np.arange(3), 0, group=np.zeros(3, int), weights=[0.0])
    with pytest.raises(ValueError, match="of 1 kinds were given for 3 rows"):
        kind(np.arange(3), 0, group=np.array([0, 1, 0]), weights=[1.0])
    with pytest.raises(ValueError, match="3 rows were given, 2 of them distinct"):
        kind(np.array([1, 2, 1]), 0, group=np.array([0, 0, 1]), weights=[1.0, 2.0])
