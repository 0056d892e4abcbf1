import time

import numpy as np
import pytest
import torch

from lens_pipeline.batches import loader as module
from lens_pipeline.batches.augment import DihedralAugmentation
from lens_pipeline.batches.loader import FORWARD_MULTIPLE, Loader
from lens_pipeline.contracts.errors import ContractError
from lens_pipeline.stamps.sampler import GlobalSampler
from lens_pipeline.stamps.store import StampStore

AUGMENTATION = DihedralAugmentation(1)


def _sampler(store: StampStore, batch: int = 24) -> GlobalSampler:
    return GlobalSampler(np.arange(0, store.n_rows, 2), seed=1, global_batch=batch)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_training_row_comes_exactly_once_an_epoch_over_all_ranks(
    store: StampStore, world: int, threads: int
) -> None:
    sampler = _sampler(store)
    seen = [
        batch.logical.copy()
        for rank in range(world)
        for batch in Loader(store, threads=threads).training_batches(
            sampler, AUGMENTATION, epoch=2, rank=rank, world=world
        )
    ]
    assert sorted(np.concatenate(seen).tolist()) == list(range(0, store.n_rows, 2))


def test_what_a_step_trains_on_does_not_depend_on_the_number_of_ranks(store: StampStore) -> None:
    sampler = _sampler(store)

    def steps(world: int) -> list[list[tuple[int, int]]]:
        found: list[list[tuple[int, int]]] = [[] for _ in range(sampler.steps_per_epoch)]
        for rank in range(world):
            for batch in Loader(store, threads=1).training_batches(
                sampler, AUGMENTATION, epoch=0, rank=rank, world=world
            ):
                assert batch.elements is not None
                found[batch.step] += zip(batch.logical.tolist(), batch.elements[: batch.n].tolist(), strict=True)
        return [sorted(step) for step in found]

    assert steps(1) == steps(2) == steps(3)


def test_a_resumed_epoch_goes_on_where_it_stood(store: StampStore) -> None:
    sampler = _sampler(store)
    whole = [
        b.logical.tolist()
        for b in Loader(store, threads=2).training_batches(sampler, AUGMENTATION, epoch=1, rank=1, world=2)
    ]
    rest = [
        batch.logical.tolist()
        for batch in Loader(store, threads=1).training_batches(
            sampler, AUGMENTATION, epoch=1, start_step=2, rank=1, world=2
        )
    ]
    assert rest == whole[2:]


def test_a_batch_holds_the_pixels_of_its_rows_while_later_ones_are_being_gathered(store: StampStore) -> None:
    for batch in Loader(store, threads=3).training_batches(_sampler(store, 8), AUGMENTATION, epoch=0, rank=0, world=1):
        time.sleep(0.005)
        rows = store.take(batch.logical)
        assert np.array_equal(batch.pixels[: batch.n].numpy(), rows.pixels)
        assert np.array_equal(batch.median[: batch.n].numpy(), rows.median)
        assert np.array_equal(batch.mad[: batch.n].numpy(), rows.mad)


def test_a_rank_without_rows_in_a_short_last_step_still_takes_it(store: StampStore) -> None:
    sampler = GlobalSampler(np.arange(49), seed=1, global_batch=24)
    batches = list(Loader(store, threads=1).training_batches(sampler, AUGMENTATION, epoch=0, rank=1, world=2))
    assert [batch.step for batch in batches] == [0, 1, 2]
    assert batches[-1].n == 0
    assert batches[-1].n_global == 1
    assert batches[-1].pixels.shape[0] == 1
    assert not batches[-1].pixels.any()


@pytest.mark.parametrize("batch_size", [1, 7, 16, 33])
@pytest.mark.parametrize("world", [1, 2])
def test_evaluation_takes_every_row_once_in_order(store: StampStore, batch_size: int, world: int) -> None:
    rows = np.arange(5, 88)
    shares = [
        [
            (batch.step, batch.logical.tolist())
            for batch in Loader(store, threads=2).evaluation_batches(
                rows, batch_size=batch_size, rank=rank, world=world
            )
        ]
        for rank in range(world)
    ]
    together = [row for _, batch in sorted(batch for share in shares for batch in share) for row in batch]
    assert together == rows.tolist()


def test_evaluation_pads_with_nobody_to_sizes_that_keep_every_bit(store: StampStore) -> None:
    # More batches than there are buffers, so that the short last one is gathered into one that was full before.
    for batch in Loader(store, threads=1).evaluation_batches(np.arange(105), batch_size=20):
        assert len(batch.pixels) % FORWARD_MULTIPLE == 0
        assert torch.count_nonzero(batch.pixels[batch.n :]) == 0
        assert batch.elements is None


def test_a_row_that_is_to_be_evaluated_twice_is_refused(store: StampStore) -> None:
    with pytest.raises(ContractError, match="1 of 3 rows"):
        list(Loader(store, threads=1).evaluation_batches(np.array([1, 2, 1]), batch_size=8))


def test_an_error_while_gathering_reaches_the_reader(store: StampStore) -> None:
    with pytest.raises(IndexError, match="were asked for"):
        list(Loader(store, threads=1).evaluation_batches(np.array([1, 10_000]), batch_size=8))


def test_leaving_in_the_middle_of_an_epoch_leaves_no_thread_waiting(store: StampStore) -> None:
    batches = Loader(store, threads=2).training_batches(_sampler(store, 8), AUGMENTATION, epoch=0, rank=0, world=1)
    next(batches)
    batches.close()  # type: ignore[attr-defined]


def test_buffers_are_kept_from_one_epoch_to_the_next(store: StampStore, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    make = module._Buffer.__init__
    monkeypatch.setattr(module._Buffer, "__init__", lambda buffer, *given: made.append(make(buffer, *given)))
    loader = Loader(store, threads=2)
    for epoch in range(3):
        list(loader.training_batches(_sampler(store, 8), AUGMENTATION, epoch=epoch, rank=0, world=1))
        left_early = loader.training_batches(_sampler(store, 8), AUGMENTATION, epoch=epoch, rank=0, world=1)
        next(left_early)
        left_early.close()  # type: ignore[attr-defined]
    assert len(made) == 5
    for _ in range(2):  # Padded to 16 rows: larger buffers take their place.
        list(loader.evaluation_batches(np.arange(32), batch_size=8))
        list(loader.training_batches(_sampler(store, 8), AUGMENTATION, epoch=4, rank=0, world=1))
    assert len(made) == 10


def test_two_epochs_under_way_at_once_don_t_share_a_buffer(store: StampStore) -> None:
    loader, sampler = Loader(store, threads=2), _sampler(store, 8)
    list(loader.training_batches(sampler, AUGMENTATION, epoch=0, rank=0, world=1))
    training = loader.training_batches(sampler, AUGMENTATION, epoch=1, rank=0, world=1)
    validating = loader.evaluation_batches(np.arange(1, store.n_rows, 2), batch_size=16)
    for batch, held in zip(training, validating, strict=False):
        for each in (batch, held):
            assert np.array_equal(each.pixels[: each.n].numpy(), store.take(each.logical).pixels)
