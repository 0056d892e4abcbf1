"""Whatever makes the rows that reached the model others than the order's turns the check red, and it says what."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from lens_pipeline.contracts.checks import Check
from lens_pipeline.stamps.ledger import Ledger, LedgerReader
from lens_pipeline.stamps.ledger_check import verify_ledger
from lens_pipeline.stamps.orders import Ordering, Shuffled
from lens_pipeline.stamps.pairs import Paired
from lens_pipeline.stamps.sampler import GlobalSampler
from lens_pipeline.stamps.weighted import Repeated, WithReplacement

N_ROWS = 300
ROWS = np.arange(0, N_ROWS, 3)
EPOCHS = 2
GROUP = np.arange(len(ROWS)) % 3
ORDERS: dict[str, Ordering] = {
    "shuffled": Shuffled,
    "repeated": partial(Repeated, group=GROUP, weights=[1.0, 2.5, 0.3]),
    "with_replacement": partial(WithReplacement, group=GROUP, weights=[1.0, 2.5, 0.3]),
    "paired": partial(Paired, control=np.where((GROUP == 2) | (ROWS > 294), -1, ROWS // 9 * 9 + 6)),
}

# What a rank records in a step: (epoch, step, rank, world) to rows.
Part = Callable[[int, int, int, int], np.ndarray]


def sampler_of(order: str = "shuffled", seed: int = 0) -> GlobalSampler:
    return GlobalSampler(ROWS, seed=seed, global_batch=16, order=ORDERS[order])


def train(
    folder: Path, sampler: GlobalSampler, *, world: int = 2, part: Part | None = None, epochs: int = EPOCHS
) -> list[Path]:
    paths = [folder / f"rank{rank}.ledger" for rank in range(world)]
    for rank, path in enumerate(paths):
        ledger = Ledger(path, n_rows=N_ROWS)
        for epoch in range(epochs):
            for step in range(sampler.steps_per_epoch):
                ledger.append(epoch, step, (part or sampler.rank_slice)(epoch, step, rank, world))
        ledger.close()
    return paths


def names(rows: Sequence[int]) -> list[str]:
    assert len(rows) <= 5, "keys are looked up only for the few rows that are named"
    return [f"t{row}" for row in rows]


def verdict(paths: list[Path], sampler: GlobalSampler | None = None, epochs: int = EPOCHS) -> Check:
    return verify_ledger(paths, sampler or sampler_of(), epochs=epochs, n_rows=N_ROWS, names=names)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize(
    ("order", "claim"),
    [
        ("shuffled", "exactly once"),
        ("repeated", "exactly as often as its weight gives it"),
        ("with_replacement", "not every row comes"),
        ("paired", "exactly once"),
    ],
)
def test_a_sound_training_is_green_and_says_which_claim_was_proven(
    tmp_path: Path, order: str, claim: str, world: int
) -> None:
    sampler = sampler_of(order)
    finding = verdict(train(tmp_path, sampler, world=world), sampler)
    assert finding.passed
    assert claim in finding.what
    assert finding.figures["rows_read"] == 2 * sampler.order.n_places


@pytest.mark.parametrize("order", list(ORDERS))
@pytest.mark.parametrize("fault", ["row twice", "row dropped", "row of another step"])
def test_one_row_that_came_wrong_is_found_in_every_order(tmp_path: Path, order: str, fault: str) -> None:
    sampler = sampler_of(order)

    def part(epoch: int, step: int, rank: int, world: int) -> np.ndarray:
        mine = sampler.rank_slice(epoch, step, rank, world)
        if (epoch, step, rank) == (1, 2, 1):
            return {"row twice": np.append(mine, mine[0]), "row dropped": mine[1:]}.get(fault, mine)
        return mine

    paths = train(tmp_path, sampler, part=part)
    if fault == "row of another step":
        one, other = next(
            (a, b)
            for a in sampler.step(0, 2).tolist()
            for b in sampler.step(0, 3).tolist()
            if a not in sampler.step(0, 3) and b not in sampler.step(0, 2)
        )
        swap = {one: other, other: one}

        def swapped(epoch: int, step: int, rank: int, world: int) -> np.ndarray:
            mine = sampler.rank_slice(epoch, step, rank, world)
            return np.array([swap.get(row, row) if (epoch, step) in ((0, 2), (0, 3)) else row for row in mine.tolist()])

        (folder := tmp_path / "swapped").mkdir()
        paths = train(folder, sampler, part=swapped)
    finding = verdict(paths, sampler)
    assert not finding.passed
    if fault == "row of another step":
        assert finding.count == 2
        assert "reached the model in another step of epoch 0 than its own" in finding.first[0]
        assert "step 2 of epoch 0 lacks 1 of its 16 rows and holds 1 others" in finding.what
    else:
        row = sampler.rank_slice(1, 2, 1, 2)[0]
        times = int(np.count_nonzero(sampler.steps(1, 0, sampler.steps_per_epoch) == row))
        assert finding.count == 1
        wanted = f"t{row} came {times + 1 if fault == 'row twice' else times - 1} times in epoch 1, not {times}"
        assert finding.first[0] == wanted
        assert "step 2 of epoch 1" in finding.what


def test_a_row_that_is_no_training_row_is_named(tmp_path: Path) -> None:
    sampler = sampler_of()
    finding = verdict(
        train(
            tmp_path,
            sampler,
            part=lambda e, s, r, w: np.append(sampler.rank_slice(e, s, r, w), [1] * (e == s == r == 0)),
        )
    )
    assert (finding.passed, finding.count) == (False, 1)
    assert finding.first[0] == "t1 came 1 times in epoch 0, not 0"


def test_two_ranks_that_read_the_same_part_are_red(tmp_path: Path) -> None:
    sampler = sampler_of()
    finding = verdict(train(tmp_path, sampler, part=lambda e, s, r, w: sampler.rank_slice(e, s, 0, w)))
    assert finding.count == 2 * 100
    assert "step 0 of epoch 0 lacks 8 of its 16 rows and holds 8 others, 8 of them repeats" in finding.what


def test_every_rank_reading_everything_is_red(tmp_path: Path) -> None:
    sampler = sampler_of()
    finding = verdict(train(tmp_path, sampler, world=3, part=lambda e, s, r, w: sampler.step(e, s)))
    assert finding.count == 2 * 100
    assert "came 3 times in epoch 0, not 1" in finding.first[0]


def test_a_dropped_last_batch_is_named(tmp_path: Path) -> None:
    sampler = sampler_of()
    paths = train(tmp_path, sampler)
    for path in paths:
        ledger = Ledger(path, n_rows=N_ROWS)
        ledger.cut_back_to(1, 6)
        ledger.close()
    finding = verdict(paths)
    assert (finding.passed, finding.count) == (False, 4)
    assert "steps 6 to 6 of epoch 1 are in no ledger" in finding.what


@pytest.mark.parametrize("kept", [0, 1])
def test_a_dropped_rank_is_red(tmp_path: Path, kept: int) -> None:
    finding = verdict([train(tmp_path, sampler_of())[kept]])
    assert finding.count == 100
    assert "step 0 of epoch 0 lacks 8 of its 16 rows and holds 0 others" in finding.what


def test_no_ledger_at_all_is_red(tmp_path: Path) -> None:
    finding = verdict([])
    assert finding.count == 200
    assert "steps 0 to 6 of epoch 0 are in no ledger" in finding.what


def test_a_lost_epoch_and_an_epoch_too_many_are_named(tmp_path: Path) -> None:
    paths = train(tmp_path, sampler_of())
    assert "steps 0 to 6 of epoch 2 are in no ledger" in verdict(paths, epochs=3).what
    assert "steps 0 to 6 of epoch 1 are recorded though 1 epochs were trained" in verdict(paths, epochs=1).what


@pytest.mark.parametrize("ranks", [[0], [1], [0, 1]])
def test_a_step_that_a_resumed_run_repeated_is_named(tmp_path: Path, ranks: list[int]) -> None:
    sampler = sampler_of()
    paths = train(tmp_path, sampler, epochs=1)
    for rank, path in enumerate(paths):
        ledger = Ledger(path, n_rows=N_ROWS)
        ledger.cut_back_to(0, 4)
        for step in range(3 if rank in ranks else 4, sampler.steps_per_epoch):
            ledger.append(0, step, sampler.rank_slice(0, step, rank, 2))
        ledger.close()
    finding = verdict(paths, epochs=1)
    assert (finding.passed, finding.count) == (False, 8 * len(ranks))
    assert "steps 3 to " in finding.what
    assert "of epoch 0 are recorded again after step 3" in finding.what


def test_steps_that_a_resumed_run_left_out_are_named(tmp_path: Path) -> None:
    sampler = sampler_of()
    paths = train(tmp_path, sampler, epochs=1)
    for rank, path in enumerate(paths):
        ledger = Ledger(path, n_rows=N_ROWS)
        ledger.cut_back_to(0, 3)
        for step in range(5, sampler.steps_per_epoch):
            ledger.append(0, step, sampler.rank_slice(0, step, rank, 2))
        ledger.close()
    finding = verdict(paths, epochs=1)
    assert finding.count == 32
    assert "steps 3 to 4 of epoch 0 are in no ledger" in finding.what


def test_rows_of_another_epoch_are_red_though_each_came_once(tmp_path: Path) -> None:
    sampler = sampler_of()
    finding = verdict(train(tmp_path, sampler, part=lambda e, s, r, w: sampler.rank_slice(0, s, r, w)))
    assert finding.count > 50
    assert "step 0 of epoch 1 holds the rows of epoch 0" in finding.what
    assert "reached the model in another step of epoch 1 than its own" in finding.first[0]


def test_the_order_of_another_seed_is_red_though_each_row_came_once(tmp_path: Path) -> None:
    assert not verdict(train(tmp_path, sampler_of(seed=1))).passed


def test_an_epoch_that_is_taken_up_again_after_the_next_began_is_red(tmp_path: Path) -> None:
    sampler = sampler_of()
    paths = train(tmp_path, sampler)
    ledger = Ledger(paths[0], n_rows=N_ROWS)
    ledger.append(0, 6, sampler.rank_slice(0, 6, 0, 2))
    ledger.close()
    finding = verdict(paths)
    assert finding.count == 2
    assert "steps 6 to 6 of epoch 0 are recorded though epoch 1 had begun" in finding.what


def test_segments_of_a_rank_and_a_changed_world_are_one_training(tmp_path: Path) -> None:
    sampler = sampler_of()
    paths = []
    for first, end, world in ((0, 3, 2), (3, 5, 3), (5, 7, 1)):
        for rank in range(world):
            paths.append(tmp_path / f"{rank}-{first}.ledger")
            ledger = Ledger(paths[-1], n_rows=N_ROWS)
            for step in range(first, end):
                ledger.append(0, step, sampler.rank_slice(0, step, rank, world))
            ledger.close()
    assert verdict(sorted(paths), epochs=1).passed
    assert not verdict(sorted(paths)[:-1], epochs=1).passed


def test_a_torn_end_and_damage_in_the_middle_are_red_and_told_apart(tmp_path: Path) -> None:
    paths = train(tmp_path, sampler_of())
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[:-3])
    assert "rank1.ledger torn at the end" in verdict(paths).what
    # Nothing is lost, and still it isn't what a run that ended leaves.
    paths[1].write_bytes(whole + bytes(5))
    assert "0 of 100 rows" in verdict(paths).what
    assert not verdict(paths).passed
    for byte in range(16, len(whole), 37):
        damaged = bytearray(whole)
        damaged[byte] ^= 4
        paths[1].write_bytes(damaged)
        finding = verdict(paths)
        assert not finding.passed
        assert "rank1.ledger" in finding.first[0]
        assert ("is damaged at byte" in finding.first[0]) != ("torn at the end" in finding.first[0])


def test_a_ledger_that_says_its_row_is_not_in_the_store_is_red(tmp_path: Path) -> None:
    from lens_pipeline.stamps.ledger import encode_block

    paths = train(tmp_path, sampler_of())
    with open(paths[0], "ab") as file:
        file.write(encode_block(1, 7, np.array([70_000]), 3))
    assert len(list(LedgerReader(paths[0], n_rows=N_ROWS))) == 15
    assert "1 rows of epoch 1 are not in the store of 300 rows" in " ".join(verdict(paths).first)
