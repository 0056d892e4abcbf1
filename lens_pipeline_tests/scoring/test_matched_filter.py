from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from lens_pipeline.contracts.catalogue import MATCHED_FILTER
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.scoring.baseline import write_matched_filter
from lens_pipeline.scoring.config import ScoringConfig
from lens_pipeline.scoring.matched_filter import MatchedFilter, filter_rows
from lens_pipeline.scoring.run import score_store
from lens_pipeline.stamps.store import Rows, StampStore
from lens_pipeline.storage.home import Home
from lens_pipeline_tests.scoring.conftest import Trained
from lens_pipeline_tests.stamps.making import OTHER_SURVEY, make_rows, make_store, publish_stamps

CONTRACT = DatasetContract()
FWHM, NOISE = 1.4, np.array([0.002, 0.003, 0.008])
Exact = npt.NDArray[np.float64]


def _grid(contract: DatasetContract = CONTRACT) -> tuple[Exact, Exact]:
    offsets = (np.arange(contract.stamp_size) - (contract.stamp_size - 1) / 2) * contract.pixel_scale_arcsec
    y, x = np.meshgrid(offsets, offsets, indexing="ij")
    return y, x


def _host(axis_ratio: float = 1.0, angle: float = 0.6) -> Exact:
    """A red galaxy, (band, y, x)."""
    y, x = _grid()
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    radius = np.sqrt(axis_ratio * along**2 + across**2 / axis_ratio)
    return np.array([0.1, 0.5, 1.0])[:, None, None] * np.exp(-radius / 0.8)


def _arc(radius_arcsec: float, angle: float) -> Exact:
    """A blue arc of 100 degrees, (band, y, x), brightest pixel 1 in every band."""
    y, x = _grid()
    points = angle + np.deg2rad(np.linspace(-50, 50, 21))
    sigma = FWHM / 2.355
    light = sum(
        np.exp(-((x - radius_arcsec * np.cos(p)) ** 2 + (y - radius_arcsec * np.sin(p)) ** 2) / (2 * sigma**2))
        for p in points
    )
    return np.broadcast_to(light / light.max(), (3, *light.shape))


def _noise(n: int, seed: int = 0) -> Exact:
    return np.random.default_rng(seed).normal(0, NOISE[:, None, None], (n, 3, 64, 64))


def _snr(images: Exact, contract: DatasetContract = CONTRACT) -> npt.NDArray[np.float32]:
    median = np.median(images, axis=(2, 3)).astype(np.float32)
    mad = np.median(np.abs(images - median[:, :, None, None]), axis=(2, 3)).astype(np.float32)
    matched = MatchedFilter(contract)
    fwhm = np.full(len(images), FWHM)
    matched.prepare(fwhm)
    return matched.snr(Rows(images.astype(np.float16), median, mad), fwhm)


def test_an_arc_stands_out_of_its_host_at_every_radius_and_angle() -> None:
    empty = _snr(_noise(100) + _host(0.7))
    for radius in (0.6, 1.0, 1.6, 2.4):
        for angle in (0.2, 1.9, 4.0):
            found = _snr(_noise(10, seed=1) + _host(0.7) + 0.01 * _arc(radius, angle))
            assert found.min() > empty.max(), (radius, angle)


def test_the_score_of_an_arc_is_its_signal_to_noise() -> None:
    arc = 0.02 * _arc(1.6, np.pi / 3)
    ideal = np.linalg.norm(arc[0] - 0.1 * arc[2]) / np.hypot(NOISE[0], 0.1 * NOISE[2])
    found = _snr(_noise(100) + _host() + arc).mean()
    # Of an arc of 100 degrees a third or so looks like light of a host.
    assert 0.6 * ideal < found < ideal


@pytest.mark.parametrize("axis_ratio", [1.0, 0.85, 0.7])
def test_a_red_galaxy_of_any_flattening_leaves_next_to_nothing(axis_ratio: float) -> None:
    without = _snr(_noise(100))
    with_host = _snr(_noise(100) + _host(axis_ratio))
    assert abs(np.median(with_host) - np.median(without)) < 0.5


def test_without_a_second_band_to_tell_its_colour_a_flat_galaxy_leaves_little() -> None:
    contract = DatasetContract(bands=("g",))
    flat = _noise(100)[:, :1] + _host(0.7)[:1]
    assert np.median(_snr(flat, contract)) < np.median(_snr(_noise(100)[:, :1], contract)) + 0.5


def test_a_host_whose_seeing_differs_between_bands_leaves_next_to_nothing() -> None:
    host = _host()
    host[0] *= 1 + 0.1 * np.exp(-(np.hypot(*_grid()) ** 2))
    assert abs(np.median(_snr(_noise(100) + host)) - np.median(_snr(_noise(100)))) < 0.5


def test_light_of_the_hosts_own_colour_is_no_blue_arc() -> None:
    red = _host(0.7) + 0.05 * _arc(1.6, 1.0) * np.array([0.1, 0.5, 1.0])[:, None, None]
    assert np.median(_snr(_noise(100) + red)) < np.median(_snr(_noise(100))) + 1


def test_the_unit_of_the_pixels_moves_no_score() -> None:
    images = _noise(20) + _host()
    assert _snr(images) == pytest.approx(_snr(images * 8), rel=1e-3)


def test_padding_far_from_the_centre_is_not_taken_for_a_stamp_without_noise() -> None:
    images = _noise(20) + _host()
    whole = _snr(images)
    images[:, :, np.hypot(*_grid()) > 7] = 0
    padded = _snr(images)
    assert 0.5 < (padded / whole).min() < (padded / whole).max() < 3


@pytest.mark.parametrize(
    "contract",
    [DatasetContract(bands=("r",)), OTHER_SURVEY, DatasetContract(stamp_size=8, pixel_scale_arcsec=0.05)],
    ids=["one band", "five bands", "a stamp smaller than the smallest arc"],
)
def test_other_surveys_have_scores_too(contract: DatasetContract) -> None:
    images = np.random.default_rng(0).normal(0, 1, (50, *contract.stamp_shape))
    found = _snr(images, contract)
    assert np.isfinite(found).all()
    assert 0 < found.min() < found.max() < 6


def test_threads_and_the_company_of_other_rows_move_no_bit(tmp_path: Path) -> None:
    store, _ = make_store(Home(tmp_path), publish_stamps(Home(tmp_path), [make_rows(600)]))
    opened, rows = StampStore.open(store), np.arange(600)
    fwhm = np.random.default_rng(0).uniform(1, 2, 600)
    first = filter_rows(opened, rows, fwhm, 1)
    assert np.array_equal(first, filter_rows(opened, rows, fwhm, 4))


def test_every_row_of_the_splits_that_thresholds_need_has_a_score_and_no_other(trained: Trained) -> None:
    made = trained.scored()
    table = made.read_table("matched_filter")
    MATCHED_FILTER.validate(table, where="the test")
    scores = made.read_table().to_pylist()
    wanted = {row["task_id"]: row["label"] for row in scores if row["split"] in ("val_calibrate", "test")}
    assert dict(zip(table["task_id"].to_pylist(), table["label"].to_pylist(), strict=True)) == wanted
    assert made.attributes["matched_filter"] == {
        "bands": ["g", "z"],
        "seeing": "psf_fwhm_used_r",
        "n_without_seeing": 0,
        "fwhm_arcsec_where_unknown": pytest.approx(1.2),
    }


def test_rows_without_a_seeing_are_looked_at_with_that_of_the_others(tmp_path: Path) -> None:
    home, rows = Home(tmp_path), make_rows(40)
    for row in rows[::2]:
        row["psf_fwhm_used_r"] = None
    store, _ = make_store(home, publish_stamps(home, [rows]))
    index = store.read_table(columns=["task_id", "logical", "label"])
    splits = index.append_column("split", [["test"] * index.num_rows])
    with home.stage("tried", "scores", inputs=[store]) as staging:
        write_matched_filter(splits, store, staging, 1)
        made = staging.commit()
    said, table = made.attributes["matched_filter"], made.read_table("matched_filter")
    known = filter_rows(StampStore.open(store), table["logical"].to_numpy(), np.full(40, 1.2), 1)
    assert np.array_equal(table["snr"].to_numpy(), known)
    assert (said["n_without_seeing"], said["fwhm_arcsec_where_unknown"]) == (20, pytest.approx(1.2))


def test_the_classical_finder_can_be_left_out(trained: Trained) -> None:
    with trained.home.stage("tried", "scores", inputs=[trained.classifier, trained.store, trained.splits]) as staging:
        config = ScoringConfig(matched_filter=False)
        score_store(config, [trained.classifier], trained.store, trained.splits, staging)
        made = staging.commit()
    assert "matched_filter.parquet" not in made.manifest.files
    assert "matched_filter" not in made.attributes
