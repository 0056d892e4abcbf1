"""Of a user's own stamps: what an injection and its control say about the arc, and what they don't."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from lens_pipeline.audits.pair_variants import pair_variants
from lens_pipeline.audits.variants import DISPLACED, HALF_TURN, INJECTION, REMOVED, SCALED, Variants
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.stamps.encode import encode_stamp
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.storage.home import Home
from lens_pipeline_tests.stamps.making import make_rows, make_store, publish_stamps, store_of

CONTRACT = DatasetContract(stamp_size=32)
AXIS = np.arange(32) - 15.5


def arc_light() -> np.ndarray:
    """An image at (x, y) = (6.5, 2.5) pixels from the centre, longer down than across, of colours of its own."""
    image = np.exp(-0.5 * (((AXIS[:, None] - 2.5) / 2.5) ** 2 + ((AXIS - 6.5) / 1.2) ** 2))
    return np.stack([3 * image, 5 * image, 8 * image])


def made(home: Home, *, share: bool) -> Variants:
    """Four pairs; the noise of a pair is one and the same, or drawn for each stamp."""
    rows = make_rows(8, CONTRACT)
    for number, row in enumerate(rows):
        seed = number // 2 if share else number
        pixels = np.random.default_rng(seed).normal(0, 1, CONTRACT.stamp_shape)
        is_arc = row["lens_model"] != "CONTROL"
        row["stamp_npz"] = encode_stamp((pixels + arc_light() * is_arc).astype(np.float32), CONTRACT)
    store, _ = make_store(home, publish_stamps(home, [rows], contract=CONTRACT))
    index = pl.DataFrame(store.read_table(columns=["task_id", "logical", "pair_id", "label"]))
    chosen = index.filter(pl.col("label") > 0).sort("logical").drop("label")
    return pair_variants(chosen, StampStore.open(store))


@pytest.fixture
def home(tmp_path: Any) -> Home:
    return Home(tmp_path / "home")


def test_where_the_noise_is_shared_the_arc_is_scaled_turned_moved_and_spread(home: Home) -> None:
    variants = made(home, share=True)
    light = {name: pixels.astype(float) - variants.pixels[REMOVED] for name, pixels in variants.pixels.items()}
    arc = arc_light()
    close = {"abs": 0.02}
    for name, factor in SCALED.items():
        assert light[name][0] == pytest.approx(factor * arc, **close)
    assert light[HALF_TURN][0] == pytest.approx(arc[:, ::-1, ::-1], **close)
    assert light[DISPLACED][0] == pytest.approx(np.roll(arc, 8, axis=2), **close)
    # An image that is like itself turned about its own centroid stays where it is.
    assert light["fake_turned"][0] == pytest.approx(arc, **close)
    blob = light["fake_blob"][0]
    assert blob.sum(axis=(1, 2)) == pytest.approx(arc.sum(axis=(1, 2)), rel=0.01)
    total = blob.sum(axis=0)
    assert (total * AXIS).sum() / total.sum() == pytest.approx(6.5, abs=0.2)
    assert (total * AXIS[:, None]).sum() / total.sum() == pytest.approx(2.5, abs=0.2)
    assert np.isnan(variants.pixels["fake_unlensed"]).all()


def test_where_noise_was_drawn_anew_only_the_control_stands_for_the_stamp_without_its_arc(home: Home) -> None:
    variants = made(home, share=False)
    assert np.isfinite(variants.pixels[INJECTION]).all()
    assert np.isfinite(variants.pixels[REMOVED]).all()
    others = [pixels for name, pixels in variants.pixels.items() if name not in (INJECTION, REMOVED)]
    assert all(np.isnan(pixels).all() for pixels in others)


def test_an_injection_without_a_stored_control_is_left_out(home: Home) -> None:
    store, _ = store_of(home, [make_rows(4)])
    chosen = pl.DataFrame(store.read_table(columns=["task_id", "logical", "pair_id"])).filter(pl.col("task_id") == "t0")
    alone = chosen.with_columns(pair_id=pl.lit("nobody"))
    assert pair_variants(chosen, StampStore.open(store)).rows.height == 1
    assert pair_variants(alone, StampStore.open(store)).rows.is_empty()
