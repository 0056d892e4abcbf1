"""Several models as one: the mean of their logits, who may be a member, and what a cross-validation says."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from lens_pipeline.contracts.catalogue import METRICS, OUT_OF_FOLD, SCORES
from lens_pipeline.contracts.errors import EvaluationError, ScoringError, StorageError
from lens_pipeline.evaluation.scored_rows import refuse_other
from lens_pipeline.scoring.checks import score_conservation
from lens_pipeline.scoring.config import ScoringConfig
from lens_pipeline.scoring.ensemble import mean_logits, refuse_strangers
from lens_pipeline.scoring.logits import score_rows
from lens_pipeline.scoring.model import open_classifier
from lens_pipeline.scoring.out_of_fold import MEAN, POOLED, cross_validated, out_of_fold_is_whole
from lens_pipeline.scoring.run import score_store
from lens_pipeline.splits.region_splits import read_split_rows
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.rows import read_rows
from lens_pipeline_tests.scoring.conftest import Folded


def score(folded: Folded, classifiers: list[Publication]) -> Publication:
    config = ScoringConfig(members=[classifier.model for classifier in classifiers])
    inputs = [*classifiers, folded.store, folded.splits]
    with folded.home.stage("tried", "scores", model="main.folds-2", inputs=inputs) as staging:
        score_store(config, classifiers, folded.store, folded.splits, staging)
        return staging.commit()


@pytest.fixture(scope="module")
def scores(folded: Folded) -> Publication:
    return folded.scored()


@pytest.fixture(scope="module")
def each(folded: Folded) -> list[np.ndarray]:
    """Logits of each fold's model by itself, by logical number."""
    store = StampStore.open(folded.store)
    return [score_rows(open_classifier(fold), store, ScoringConfig())[:, 0] for fold in folded.folds]


def by_number(scores: Publication) -> np.ndarray:
    table = scores.read_table(None, ["logical", "logit"]).sort_by("logical")
    return table["logit"].to_numpy()


def test_the_score_of_an_ensemble_is_the_mean_of_its_members_logits(
    folded: Folded, scores: Publication, each: list[np.ndarray]
) -> None:
    wanted = ((each[0].astype(np.float64) + each[1]) / 2).astype(np.float32)
    assert np.array_equal(by_number(scores), wanted)
    assert not np.array_equal(each[0], each[1])
    SCORES.validate(scores.read_table(), where="the test")
    assert score_conservation(
        scores.read_table(), folded.store.read_table(None, ["task_id", "logical", "label"])
    ).passed


def test_members_in_another_order_give_the_same_version(folded: Folded, scores: Publication) -> None:
    assert score(folded, [*reversed(folded.folds)]).version == scores.version


def test_the_mean_of_logits_has_the_same_bits_in_every_order_and_of_one_is_that_one() -> None:
    ramp = np.linspace(-1, 1, 96, dtype=np.float32)[:, None]
    # Of opposite signs and so unlike that float64 forgets the small ones in some orders.
    logits = [np.float32(scale) * ramp for scale in (1e20, -1e20, 1, 3)]
    found = {mean_logits(order).tobytes() for order in itertools.permutations(logits)}
    assert len(found) == 1
    assert mean_logits(logits[:1]).tobytes() == logits[0].tobytes()


def test_each_member_stands_in_the_version_by_name_version_and_hash(folded: Folded, scores: Publication) -> None:
    for number, fold in enumerate(folded.folds):
        assert scores.inputs[f"lens_classifier@main.fold-{number}-of-2"] == fold.version
        assert scores.attributes["members"][number] == {
            "model": fold.model,
            "version": fold.version,
            "weights_sha256": fold.entry("model.safetensors").sha256,
        }
        refuse_other(scores, "scores", fold)
    with pytest.raises(EvaluationError, match="was made from lens_classifier None"):
        refuse_other(
            scores, "scores", replace(folded.folds[0], manifest=replace(folded.folds[0].manifest, model="main.fold-9"))
        )


def test_a_member_whose_weights_are_not_as_written_is_refused(folded: Folded) -> None:
    path = folded.folds[1].path("model.safetensors")
    sound = path.read_bytes()
    path.write_bytes(sound[:-5] + bytes([sound[-5] ^ 1]) + sound[-4:])
    try:
        with pytest.raises((ScoringError, StorageError), match=r"(?s)model\.safetensors is damaged"):
            score(folded, [*folded.folds])
    finally:
        path.write_bytes(sound)


def test_a_member_that_learned_from_other_splits_is_refused_by_its_name(folded: Folded) -> None:
    first, second = folded.folds
    with folded.home.stage("tried", "lens_classifier", model="stranger", inputs=[folded.store, first]) as staging:
        for name in ("model.json", "model.safetensors"):
            staging.adopt(second, name, name)
        stranger = staging.commit()
    with pytest.raises(ScoringError, match=r"model stranger .* was trained on region_splits None"):
        refuse_strangers([first, stranger], folded.store, folded.splits)


def test_one_model_under_two_names_is_no_ensemble(folded: Folded) -> None:
    first = folded.folds[0]
    with pytest.raises(ScoringError, match="one and the same"):
        refuse_strangers([first, first], folded.store, folded.splits)
    with pytest.raises(ValidationError, match="more than once"):
        ScoringConfig(members=["a", "b", "a"])


def test_the_out_of_fold_logit_of_a_row_is_that_of_the_model_which_was_validated_on_it(
    folded: Folded, scores: Publication, each: list[np.ndarray]
) -> None:
    table = scores.read_table("out_of_fold")
    OUT_OF_FOLD.validate(table, where="the test")
    for fold, classifier in enumerate(folded.folds):
        config = TrainingConfig.model_validate(classifier.attributes["config"])
        own = read_rows(folded.splits, folded.store, config).validation
        mine = table.filter(pa.array(table["fold"].to_numpy() == fold))
        assert np.array_equal(mine["logical"].to_numpy(), own)
        assert np.array_equal(mine["logit"].to_numpy(), each[fold][own])
        # As the run itself saw them after its best epoch.
        then = classifier.read_table("validation_logits")
        best = then["epoch"].to_numpy() == classifier.attributes["best_epoch"]
        assert np.array_equal(then["logit_0"].to_numpy()[best], each[fold][own])


def test_out_of_fold_logits_are_of_all_open_rows_and_of_no_sealed_one(folded: Folded, scores: Publication) -> None:
    rows = read_split_rows(folded.splits, folded.store)
    split = dict(zip(rows["task_id"].to_pylist(), rows["split"].to_pylist(), strict=True))
    keys = scores.read_table("out_of_fold")["task_id"].to_pylist()
    assert sorted(keys) == sorted(key for key, name in split.items() if name in ("train", "val_select"))
    assert out_of_fold_is_whole(scores, folded.store, folded.splits).passed


def test_an_out_of_fold_table_that_lacks_a_row_or_has_a_sealed_one_is_red(
    folded: Folded, scores: Publication, tmp_path: Path
) -> None:
    table = scores.read_table("out_of_fold")
    rows = read_split_rows(folded.splits, folded.store)
    sealed = rows.filter(pa.array([name == "test" for name in rows["split"].to_pylist()]))["logical"][0]
    numbers = pa.array([sealed.as_py(), *table["logical"].to_pylist()[1:]])
    with folded.home.stage("tried", "scores", model="broken") as staging:
        staging.write_table("out_of_fold", table.set_column(1, "logical", numbers))
        broken = staging.commit()
    check = out_of_fold_is_whole(broken, folded.store, folded.splits)
    assert not check.passed
    assert check.count == 2


def test_a_cross_validation_states_each_fold_the_pooled_value_and_the_mean_with_its_spread(scores: Publication) -> None:
    table = scores.read_table("out_of_fold_metrics")
    METRICS.validate(table, where="the test")
    auroc = {row["split"]: row for row in table.to_pylist() if row["metric"] == "auroc"}
    assert set(auroc) == {POOLED, MEAN, "fold 0", "fold 1"}
    values = [auroc[f"fold {fold}"]["value"] for fold in range(2)]
    assert auroc[MEAN]["value"] == pytest.approx(np.mean(values))
    assert f"standard deviation over 2 folds {np.std(values, ddof=1):.3g}" in auroc[MEAN]["reason"]
    assert auroc[MEAN]["low"] <= auroc[MEAN]["value"] <= auroc[MEAN]["high"]
    assert auroc[POOLED]["n_positives"] == sum(auroc[f"fold {fold}"]["n_positives"] for fold in range(2)) == 72


def test_members_that_are_not_all_folds_of_one_partition_are_no_cross_validation(folded: Folded) -> None:
    first, second = folded.folds
    assert cross_validated([second, first])
    assert not cross_validated([first])
    assert not cross_validated([first, first])


def test_folds_of_other_settings_are_no_cross_validation(folded: Folded) -> None:
    first, second = folded.folds

    def changed(**settings: object) -> Publication:
        attributes = {**second.attributes, "config": {**second.attributes["config"], **settings}}
        return replace(second, manifest=replace(second.manifest, attributes=attributes))

    assert cross_validated([first, changed(attempts=7, hang_seconds=50.0)])
    assert not cross_validated([first, changed(epochs=3)])
    assert not cross_validated([first, changed(model="resnet10t")])
