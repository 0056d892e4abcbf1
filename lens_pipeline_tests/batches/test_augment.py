import inspect

import numpy as np
import torch

from lens_pipeline.batches.augment import N_ELEMENTS, DihedralAugmentation, apply_elements
from lens_pipeline.batches.hashing import seed_of
from lens_pipeline.batches.loader import Loader

STAMP = torch.arange(2 * 5 * 5, dtype=torch.float32).reshape(1, 2, 5, 5)


def test_the_eight_elements_are_the_eight_symmetries_of_the_square() -> None:
    turned = apply_elements(STAMP.expand(N_ELEMENTS, -1, -1, -1), torch.arange(N_ELEMENTS))
    found = {tuple(stamp[0].flatten().tolist()) for stamp in turned}
    square = STAMP[0, 0]
    wanted = {tuple(torch.rot90(side, k).flatten().tolist()) for k in range(4) for side in (square, square.flip(1))}
    assert found == wanted


def test_every_band_is_turned_alike() -> None:
    turned = apply_elements(STAMP.expand(N_ELEMENTS, -1, -1, -1), torch.arange(N_ELEMENTS))
    assert torch.equal(turned[:, 1] - turned[:, 0], torch.full((N_ELEMENTS, 5, 5), 25.0))


def test_element_zero_leaves_every_bit_alone() -> None:
    noise = torch.randn(7, 3, 8, 8).half()
    assert torch.equal(apply_elements(noise, torch.zeros(7, dtype=torch.int64)), noise)


def test_the_eight_elements_are_drawn_equally_often() -> None:
    drawn = DihedralAugmentation(3).elements(0, np.arange(80_000))
    counts = np.bincount(drawn, minlength=N_ELEMENTS)
    # Chi-square of 7 degrees of freedom, 99.9 % quantile.
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 24.3
    assert len(counts) == N_ELEMENTS


def test_a_row_is_turned_the_same_way_in_any_batch_and_another_way_in_another_epoch_or_seed() -> None:
    rows = np.arange(1000)
    augmentation = DihedralAugmentation(3)
    whole = augmentation.elements(5, rows)
    parts = np.concatenate([augmentation.elements(5, rows[start::7]) for start in range(7)])
    assert np.array_equal(parts, np.concatenate([whole[start::7] for start in range(7)]))
    for other in (augmentation.elements(6, rows), DihedralAugmentation(4).elements(5, rows)):
        assert 0.05 < np.mean(other == whole) < 0.2


def test_evaluation_has_no_place_for_an_augmentation() -> None:
    assert not [name for name in inspect.signature(Loader.evaluation_batches).parameters if "augment" in name]


def test_seeds_of_different_places_differ() -> None:
    places = [(s, e, t, r) for s in range(3) for e in range(5) for t in range(20) for r in range(4)]
    assert len({seed_of(*place) for place in places}) == len(places)
    assert seed_of(1, 2) != seed_of(2, 1)
