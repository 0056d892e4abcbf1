"""Nothing knows that there are two classes, three bands or 64 pixels: three classes, five bands and 48 pixels go through."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lens_pipeline.evaluation.completeness import build_completeness
from lens_pipeline.evaluation.config import CompletenessConfig, OperatingPointConfig, ReportConfig
from lens_pipeline.evaluation.operating_point import fit_operating_point
from lens_pipeline.evaluation.report import build_report
from lens_pipeline.scoring.checks import score_conservation
from lens_pipeline.scoring.config import ScoringConfig
from lens_pipeline.scoring.run import score_store
from lens_pipeline.splits.checks import leak_checks, split_balance
from lens_pipeline.splits.config import SplitConfig
from lens_pipeline.splits.region_splits import build_region_splits
from lens_pipeline.stamps.checks import store_checks
from lens_pipeline.stamps.config import StoreConfig
from lens_pipeline.stamps.encode import encode_stamp
from lens_pipeline.stamps.ingest import build_store
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging
from lens_pipeline.training.checks import no_duplicated_fragments, validation_is_whole
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.run import collect, launch, prepare_run
from lens_pipeline_tests.stamps.making import OTHER_SURVEY, publish_stamps

KINDS = ("STAR", "RING", "SPIRAL")


def rows(n: int) -> list[dict[str, Any]]:
    """Stars are points, rings are rings, spirals are broad; one of each a galaxy."""
    axis = np.arange(OTHER_SURVEY.stamp_size) - 23.5
    radius = np.hypot(axis[:, None], axis)
    shapes = {
        "STAR": np.exp(-((radius / 2) ** 2)),
        "RING": np.exp(-(((radius - 9) / 2) ** 2)),
        "SPIRAL": 0.5 * np.exp(-((radius / 8) ** 2)),
    }
    made = []
    for i in range(n):
        kind = KINDS[i % 3]
        noise = np.random.default_rng(i).normal(0, 0.05, OTHER_SURVEY.stamp_shape)
        made.append(
            {
                "object": f"t{i}",
                "region_id": f"region {i // 3 % 24}",
                "galaxy_id": f"g{i}",
                "ra": 10.0 + 0.01 * i,
                "dec": -5.0,
                "kind": kind,
                "theta_e_arcsec": 0.0 if kind == "STAR" else 1.1,
                "cutout_ok": 1,
                "psf_fwhm_used_r": 1.2,
                "stamp_npz": encode_stamp((noise + shapes[kind]).astype(np.float32), OTHER_SURVEY),
            }
        )
    return made


def test_three_classes_five_bands_and_48_pixels_go_from_stamps_to_report(tmp_path: Path) -> None:
    home = Home(tmp_path)

    def make(asset: str, inputs: Sequence[Publication], build: Callable[[Staging], object]) -> Publication:
        with home.stage("tried", asset, inputs=inputs) as staging:
            build(staging)
            return staging.commit()

    stamps = publish_stamps(home, [rows(288)], contract=OTHER_SURVEY)
    store = make("stamp_store", [stamps], lambda s: build_store(StoreConfig(), stamps, s))
    split_config = SplitConfig(floor_rows=1, share_tolerance=0.2)
    splits = make("region_splits", [store], lambda s: build_region_splits(split_config, store, s))
    config = TrainingConfig(epochs=4, batch_size=16, world_size=1, learning_rate=5e-3)

    def train(staging: Staging) -> None:
        prepare_run(config, store, splits, tmp_path / "run")
        launch(tmp_path / "run")
        collect(tmp_path / "run", staging)

    classifier = make("lens_classifier", [store, splits], train)
    scores = make(
        "scores", [classifier, store, splits], lambda s: score_store(ScoringConfig(), [classifier], store, splits, s)
    )
    point = make(
        "operating_point",
        [scores, store],
        lambda s: fit_operating_point(OperatingPointConfig(), scores=scores, store=store, staging=s),
    )
    manifest = make("injection_manifest", [], lambda s: s.write_table(None, store.read_table()))
    parent = make("parent_sample", [], lambda s: s.write_table(None, store.read_table()))
    completeness = make(
        "completeness",
        [scores, point, store, splits, manifest],
        lambda s: build_completeness(
            CompletenessConfig(),
            scores=scores,
            operating_point=point,
            store=store,
            splits=splits,
            manifest=manifest,
            parent=parent,
            staging=s,
        ),
    )
    report = make(
        "evaluation_report",
        [scores, point, completeness, store, splits, classifier],
        lambda s: build_report(
            ReportConfig(),
            scores=scores,
            operating_point=point,
            completeness=completeness,
            store=store,
            splits=splits,
            classifiers=[classifier],
            pixels=StampStore.open(store),
            staging=s,
        ),
    )
    table = scores.read_table()
    checks = [
        *store_checks(store, stamps, StoreConfig()),
        split_balance(splits, store, floor_rows=1),
        *leak_checks(splits, store),
        no_duplicated_fragments(classifier, store, splits),
        validation_is_whole(classifier, store, splits),
        score_conservation(table, store.read_table(columns=["task_id", "logical", "label"])),
    ]
    assert [check.message() for check in checks if not check.passed] == []
    assert StampStore.open(store).take(np.arange(3)).pixels.shape == (3, 5, 48, 48)
    logits = np.stack([table[f"logit_{name}"].to_numpy() for name in OTHER_SURVEY.class_names], axis=1)
    labels = table["label"].to_numpy()
    assert set(labels) == {0, 1, 2}
    assert np.mean(np.argmax(logits, axis=1) == labels) > 0.6
    auroc = {r["split"]: r["value"] for r in report.read_table().to_pylist() if r["metric"] == "auroc"}
    assert auroc["test"] > 0.7
