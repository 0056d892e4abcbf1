"""The ledger shows every row that came twice, never, or where it should not; and survives a kill."""

from pathlib import Path

import numpy as np
import pytest

from lens_pipeline.contracts.checks import Check
from lens_pipeline.stamps.ledger import Ledger, read_ledger, verify_ledger
from lens_pipeline.stamps.sampler import GlobalSampler

ROWS = np.arange(0, 300, 3)
TASK_IDS = [f"t{i}" for i in range(300)]


def train(folder: Path, *, world: int = 2, epochs: int = 2) -> list[Path]:
    sampler = GlobalSampler(ROWS, seed=0, global_batch=16)
    paths = [folder / f"rank{rank}.ledger" for rank in range(world)]
    for rank, path in enumerate(paths):
        ledger = Ledger(path)
        for epoch in range(epochs):
            for step in range(sampler.steps_per_epoch):
                ledger.append(epoch, step, sampler.rank_slice(epoch, step, rank, world))
        ledger.close()
    return paths


def verdict(paths: list[Path], epochs: int = 2) -> Check:
    return verify_ledger(paths, ROWS, epochs=epochs, task_ids=TASK_IDS)


def test_a_sound_training_is_green(tmp_path: Path) -> None:
    finding = verdict(train(tmp_path))
    assert finding.passed
    assert finding.figures["rows_read"] == 200


def test_every_worker_reading_everything_is_red(tmp_path: Path) -> None:
    paths = train(tmp_path, world=1)
    finding = verdict([paths[0], paths[0]])
    assert not finding.passed
    assert finding.count == 200
    assert "came 2 times in epoch 0, not 1" in finding.first[0]


@pytest.mark.parametrize("extra", [[3], [1]])
def test_one_row_too_many_is_named(tmp_path: Path, extra: list[int]) -> None:
    paths = train(tmp_path)
    ledger = Ledger(paths[0])
    ledger.append(1, 99, np.array(extra))
    ledger.close()
    finding = verdict(paths)
    assert (finding.passed, finding.count) == (False, 1)
    assert finding.first[0].startswith(f"t{extra[0]} came")


def test_a_lost_rank_a_lost_epoch_and_an_epoch_too_many_are_red(tmp_path: Path) -> None:
    paths = train(tmp_path)
    assert verdict(paths[:1]).count == 100
    assert not verdict(paths, epochs=3).passed
    assert not verdict(paths, epochs=1).passed


def test_a_torn_last_block_is_red_and_is_cut_off_on_reopening(tmp_path: Path) -> None:
    paths = train(tmp_path)
    whole = paths[0].read_bytes()
    paths[0].write_bytes(whole[:-3])
    assert "torn ledgers: rank0.ledger" in verdict(paths).what
    before = len(list(read_ledger(paths[0])))
    Ledger(paths[0]).close()
    assert len(list(read_ledger(paths[0]))) == before
    assert len(paths[0].read_bytes()) < len(whole) - 3


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    paths = train(tmp_path)
    damaged = bytearray(paths[1].read_bytes())
    damaged[200] ^= 4
    paths[1].write_bytes(damaged)
    assert not verdict(paths).passed


def test_a_resumed_run_forgets_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    paths = train(tmp_path)
    sampler = GlobalSampler(ROWS, seed=0, global_batch=16)
    for rank, path in enumerate(paths):
        ledger = Ledger(path)
        ledger.cut_back_to(1, 4)
        assert max((b.epoch, b.step) for b in read_ledger(path)) == (1, 3)
        for step in range(4, sampler.steps_per_epoch):
            ledger.append(1, step, sampler.rank_slice(1, step, rank, 2))
        ledger.close()
    assert verdict(paths).passed
