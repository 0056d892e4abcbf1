from dataclasses import replace

import numpy as np
import pytest
import torch

from lens_pipeline.batches.augment import apply_elements
from lens_pipeline.batches.preprocessing import MAD_TO_SIGMA, Preprocessing, fit_preprocessing
from lens_pipeline.contracts.errors import ContractError
from lens_pipeline.stamps.gather import Joined
from lens_pipeline.stamps.store import StampStore

FIXED = Preprocessing("asinh_v1", ("g", "r", "z"), (0.004, 0.006, 0.015), 1.0)


def _stamps(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(seed)
    pixels = random.normal(0.01, 0.01, (n, 3, 16, 16)).astype(np.float16)
    pixels[:, :, 8, 8] = 30.0
    flat = pixels.astype(np.float32).reshape(n, 3, -1)
    median = np.median(flat, axis=2)
    mad = np.median(np.abs(flat - median[..., None]), axis=2)
    return torch.from_numpy(pixels), torch.from_numpy(median), torch.from_numpy(mad)


def test_it_is_the_inverse_hyperbolic_sine_of_the_flux_above_the_sky_in_noise_units() -> None:
    pixels, median, mad = _stamps(4)
    wanted = np.arcsinh(
        (pixels.double().numpy() - median.double().numpy()[:, :, None, None])
        / np.array(FIXED.noise_nanomaggy)[:, None, None]
    )
    assert np.allclose(FIXED(pixels, median, mad).numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_the_same_flux_in_a_brighter_stamp_is_seen_as_the_same_flux() -> None:
    # A scale per stamp would divide flux and colour away.
    pixels, median, mad = _stamps(1)
    noisier = mad * 3
    assert torch.equal(FIXED(pixels, median, mad), FIXED(pixels, median, noisier))


def test_the_constants_come_from_training_rows_only(store: StampStore) -> None:
    train = np.arange(0, store.n_rows, 3)
    fitted = fit_preprocessing(store, train, name="asinh_v1", softening=1.0)
    mad = store.take(train).mad
    assert np.allclose(fitted.noise_nanomaggy, np.median(mad.astype(np.float64) * MAD_TO_SIGMA, axis=0), rtol=0, atol=0)
    assert fitted != fit_preprocessing(store, np.arange(1, store.n_rows, 3), name="asinh_v1", softening=1.0)


def test_the_order_of_the_training_rows_does_not_matter(store: StampStore) -> None:
    rows = np.random.default_rng(0).permutation(store.n_rows)
    one = fit_preprocessing(store, rows, name="asinh_v1", softening=1.0)
    assert one.sha256() == fit_preprocessing(store, np.sort(rows), name="asinh_v1", softening=1.0).sha256()


def test_an_empty_training_split_is_refused(store: StampStore) -> None:
    with pytest.raises(ContractError, match="the train split is empty"):
        fit_preprocessing(store, np.array([], dtype=np.int64), name="asinh_v1", softening=1.0)


def test_a_band_without_noise_is_refused_by_name(store: StampStore) -> None:
    stats = [np.where(np.arange(3)[:, None] == 1, np.float32(0), stats) for stats in store.stats.arrays]
    blank = replace(store, stats=Joined(stats, (3, 2), np.float32))
    with pytest.raises(ContractError, match="band r has a median absolute deviation of 0"):
        fit_preprocessing(blank, np.arange(9), name="asinh_v1", softening=1.0)


def test_every_constant_changes_the_hash() -> None:
    spec = FIXED.spec()
    others = [
        {**spec, "softening": 2.0},
        {**spec, "noise_nanomaggy": [0.004, 0.006, 0.0150001]},
        {**spec, "name": "robust_clip_v1"},
        {**spec, "bands": ["g", "r", "i"]},
    ]
    assert len({Preprocessing.from_spec(other).sha256() for other in [spec, *others]}) == 5


def test_it_survives_the_journey_through_a_checkpoint() -> None:
    assert Preprocessing.from_spec(FIXED.spec()) == FIXED


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "asinh_v9"}, "not known"),
        ({"noise_nanomaggy": [0.004, 0.0, 0.015]}, "unusable constants"),
        ({"noise_nanomaggy": [0.004, float("nan"), 0.015]}, "unusable constants"),
        ({"noise_nanomaggy": [0.004]}, "unusable constants"),
        ({"clip": 10}, "another version"),
    ],
)
def test_one_that_this_package_cannot_run_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ContractError, match=said):
        Preprocessing.from_spec({**FIXED.spec(), **change})


@pytest.mark.parametrize("name", ["asinh_v1", "robust_clip_v1"])
def test_a_row_is_seen_the_same_bit_for_bit_whatever_stands_beside_it(name: str) -> None:
    preprocessing = Preprocessing(name, FIXED.bands, FIXED.noise_nanomaggy, 1.0)
    stamps = _stamps(33)
    together = preprocessing(*stamps)
    alone = torch.cat([preprocessing(*(part[i : i + 1] for part in stamps)) for i in range(33)])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("name", ["asinh_v1", "robust_clip_v1"])
def test_turning_a_stamp_before_or_after_it_is_the_same(name: str) -> None:
    preprocessing = Preprocessing(name, FIXED.bands, FIXED.noise_nanomaggy, 1.0)
    pixels, median, mad = _stamps(8)
    elements = torch.arange(8)
    before = preprocessing(apply_elements(pixels, elements), median, mad)
    assert torch.equal(before, apply_elements(preprocessing(pixels, median, mad), elements))


def test_a_stamp_without_any_noise_is_finite_under_the_robust_scaling() -> None:
    preprocessing = Preprocessing("robust_clip_v1", FIXED.bands, FIXED.noise_nanomaggy, 1.0)
    seen = preprocessing(torch.full((1, 3, 8, 8), 0.5).half(), torch.full((1, 3), 0.5), torch.zeros(1, 3))
    assert torch.isfinite(seen).all()
