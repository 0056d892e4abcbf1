"""Variants of an injection differ from it in the arc and in nothing else."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from scipy.ndimage import gaussian_filter

from lens_pipeline.audits.variants import (
    DISPLACED,
    FAKE_VARIANTS,
    HALF_TURN,
    INJECTION,
    REMOVED,
    SCALED,
    Variants,
    choose_injections,
    render_variants,
)
from lens_pipeline.contracts.catalogue import SCORES
from lens_pipeline.contracts.errors import PipelineError
from lens_pipeline.stamps.config import StoreConfig
from lens_pipeline.stamps.ingest import build_store
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline_tests.survey.conftest import SMALL, Survey


@dataclass(frozen=True)
class Made:
    survey: Survey
    parent: Publication
    manifest: Publication
    stamps: Publication
    store: Publication
    scores: Publication

    def rendered(self, **settings: Any) -> Variants:
        chosen = choose_injections(self.scores, self.store, **{"n": 100, "min_arc_snr": 5.0, **settings})
        return render_variants(chosen, self.stamps, self.parent, self.manifest, StampStore.open(self.store))


def scores_of(survey: Survey, store: Publication, split: str = "val_calibrate") -> Publication:
    index = store.read_table(columns=["task_id", "logical", "label"])
    n = index.num_rows
    columns = {**dict(zip(index.column_names, index.columns, strict=True)), "split": pa.array([split] * n)}
    columns["logit"] = pa.array(np.arange(n, dtype=np.float32))
    table = pa.table({name: columns[name] for name in SCORES.schema.names if name in columns})
    return survey._publish("scores", [store], lambda staging: staging.write_table(None, table, SCORES))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    survey = Survey(Home(tmp_path_factory.mktemp("asked")))
    parent = survey.parents(SMALL)
    manifest = survey.manifest(parent, injections_per_galaxy=3)
    stamps = survey.stamps(parent, manifest)
    store = survey._publish(
        "stamp_store", [stamps], lambda staging: build_store(StoreConfig(workers=1), stamps, staging)
    )
    return Made(survey, parent, manifest, stamps, store, scores_of(survey, store))


@pytest.fixture(scope="module")
def variants(made: Made) -> Variants:
    return made.rendered()


def test_one_injection_of_each_galaxy_is_asked_about_whose_arc_can_be_seen(made: Made) -> None:
    chosen = choose_injections(made.scores, made.store, n=100, min_arc_snr=5.0)
    assert 4 < chosen.height == chosen["galaxy_id"].n_unique() <= 12
    assert chosen["arc_snr"].min() >= 5  # type: ignore[operator]
    assert choose_injections(made.scores, made.store, n=3, min_arc_snr=5.0).equals(chosen.head(3))
    assert choose_injections(made.scores, made.store, n=100, min_arc_snr=1000.0).is_empty()


def test_rows_of_test_are_never_asked_about(made: Made) -> None:
    sealed = scores_of(made.survey, made.store, "test")
    assert choose_injections(sealed, made.store, n=100, min_arc_snr=0.0).is_empty()


def test_the_injection_made_again_is_the_stored_one_to_the_bit(made: Made, variants: Variants) -> None:
    stored = StampStore.open(made.store).take(variants.rows["logical"].to_numpy()).pixels
    assert variants.pixels[INJECTION].astype(np.float16).tobytes() == stored.tobytes()


def test_without_its_arc_a_stamp_is_darker_where_the_arc_was_and_the_same_elsewhere(variants: Variants) -> None:
    light = variants.pixels[INJECTION] - variants.pixels[REMOVED]
    total = light.sum(axis=(1, 2, 3))
    assert (total > 0).all()
    faint = np.abs(light[:, :, 0, 0]) <= 1e-3
    assert faint.mean() > 0.8


def test_scaled_arcs_have_their_share_of_the_light_and_fakes_all_of_it(variants: Variants) -> None:
    def added(name: str) -> np.ndarray:
        return (variants.pixels[name] - variants.pixels[REMOVED]).astype(float).sum(axis=(2, 3))

    arc = added(INJECTION)
    for name, factor in SCALED.items():
        assert added(name) == pytest.approx(factor * arc, rel=0.1)
    for name in FAKE_VARIANTS:
        there = np.isfinite(added(name)).all(axis=1)
        assert there.sum() > 2
        assert added(name)[there] == pytest.approx(arc[there], rel=0.1)


def test_a_half_turn_puts_each_image_opposite_and_a_displaced_arc_is_gone_from_its_host(
    made: Made, variants: Variants
) -> None:
    added = {
        name: gaussian_filter(variants.pixels[name] - variants.pixels[REMOVED], (0, 0, 1, 1))[:, 1]
        for name in (INJECTION, HALF_TURN, DISPLACED)
    }
    axis = (np.arange(64) - 31.5) * 0.262
    for place, row in enumerate(variants.rows.iter_rows(named=True)):
        where = {}
        for name, light in added.items():
            bright = np.where(light[place] > 0.3 * light[place].max(), light[place], 0)
            x, y = (float((bright * along).sum() / bright.sum()) for along in (axis, axis[:, None]))
            where[name] = np.array([x - row["host_x_arcsec"], y - row["host_y_arcsec"]])
        assert where[HALF_TURN] == pytest.approx(-where[INJECTION], abs=0.15)
        away = np.hypot(*(where[DISPLACED] - where[INJECTION]))
        assert away == pytest.approx(64 * 0.262 / 4, abs=0.3)


def test_no_ring_is_turned(made: Made, variants: Variants) -> None:
    rows = pl.DataFrame(made.manifest.read_table()).join(variants.rows.select("task_id"), on="task_id", how="inner")
    offset = {row["task_id"]: np.hypot(row["src_x_arcsec"], row["src_y_arcsec"]) for row in rows.iter_rows(named=True)}
    turned = np.isfinite(variants.pixels["fake_turned"]).all(axis=(1, 2, 3))
    for row, is_turned in zip(variants.rows.iter_rows(named=True), turned, strict=True):
        if offset[row["task_id"]] < 0.3 * row["theta_e_arcsec"]:
            assert not is_turned


def test_stamps_of_another_seed_are_refused(made: Made) -> None:
    stamps = made.survey.stamps(made.parent, made.manifest, seed=5)
    store = made.survey._publish(
        "stamp_store", [stamps], lambda staging: build_store(StoreConfig(workers=1), stamps, staging)
    )
    with pytest.raises(PipelineError, match="rendered again, aren't the stored ones"):
        Made(made.survey, made.parent, made.manifest, stamps, store, scores_of(made.survey, store)).rendered()
