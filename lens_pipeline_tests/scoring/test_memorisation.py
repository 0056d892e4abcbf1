"""The probe for memorised rows: what was trained on against what was not, by the same weights and at the same balance."""

import numpy as np
import pytest

from lens_pipeline.contracts.checks import Check
from lens_pipeline.scoring import memorisation
from lens_pipeline.scoring.memorisation import balanced_loss, training_rows_score_like_unseen_ones
from lens_pipeline.storage.publication import Publication
from lens_pipeline_tests.scoring.conftest import Folded, Trained


def with_logits(trained: Trained, spoil: dict[str, float]) -> Check:
    """Take the scores; rows of the named splits get their right answer with this logit, all others one that is unsure."""
    scores = trained.scored()
    table = scores.read_table()
    sure = np.array([spoil.get(name, 0.0) for name in table["split"].to_pylist()])
    # Unsure by a little, and by another little for each row, so that galaxies differ.
    sure += 0.3 * np.random.default_rng(0).normal(size=len(sure))
    right = np.where(table["label"].to_numpy() > 0, 1, -1)
    with trained.home.stage("tried", "scores", model="spoiled") as staging:
        staging.write_table(None, table.set_column(4, "logit", [(right * sure).astype(np.float32)]))
        staging.attributes.update(scores.attributes)
        spoiled = staging.commit()
    return training_rows_score_like_unseen_ones(spoiled, [trained.classifier], trained.store, trained.splits)


def test_a_model_that_is_sure_of_its_training_rows_alone_is_red_and_blocks_nothing(trained: Trained) -> None:
    check = with_logits(trained, {"train": 8.0, "val_select": 8.0})
    assert not check.passed
    assert not check.blocking
    assert check.figures["loss_on_training_rows"] == pytest.approx(0.0, abs=1e-3)
    assert check.figures["loss_on_val_calibrate"] == pytest.approx(np.log(2), abs=0.2)


@pytest.mark.parametrize("sure", [{}, {"train": 8.0, "val_calibrate": 8.0}, {"val_calibrate": 8.0}, {"test": 8.0}])
def test_a_model_that_is_as_sure_of_rows_that_it_has_not_seen_is_green(
    trained: Trained, sure: dict[str, float]
) -> None:
    assert with_logits(trained, sure).passed


def test_the_scores_of_a_short_training_are_green_and_state_both_losses_with_their_rows(folded: Folded) -> None:
    classifiers: list[Publication] = [*folded.folds]
    scores = folded.scored()
    check = training_rows_score_like_unseen_ones(scores, classifiers, folded.store, folded.splits)
    assert check.passed
    # Of two folds each row of train and val_select was trained on by one: 72 galaxies of 96, each a lens and a control.
    assert (check.figures["n_training_rows"], check.figures["n_val_calibrate_rows"]) == (144, 24)
    alone = training_rows_score_like_unseen_ones(scores, classifiers[:1], folded.store, folded.splits)
    assert 0 < int(alone.figures["n_training_rows"] or 0) < 144


def test_of_a_large_survey_a_sample_is_looked_at_the_same_each_time(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memorisation, "CANARIES", 20)
    check = with_logits(trained, {"train": 8.0})
    assert (check.figures["n_training_rows"], check.figures["n_val_calibrate_rows"]) == (20, 20)
    assert not check.passed
    assert with_logits(trained, {"train": 8.0}).figures == check.figures


def test_sides_without_the_same_classes_are_not_judged(trained: Trained) -> None:
    index = trained.store.read_table(None, ["task_id", "label"])
    labels = dict(zip(index["task_id"].to_pylist(), index["label"].to_pylist(), strict=True))
    scores = trained.scored()
    whole = scores.read_table()
    kept = [
        not (split == "val_calibrate" and labels[key])
        for key, split in zip(whole["task_id"].to_pylist(), whole["split"].to_pylist(), strict=True)
    ]
    with trained.home.stage("tried", "scores", model="halved") as staging:
        staging.write_table(None, whole.filter(kept))
        staging.attributes.update(scores.attributes)
        halved = staging.commit()
    check = training_rows_score_like_unseen_ones(halved, [trained.classifier], trained.store, trained.splits)
    assert check.passed
    assert "not judged: there are 2 classes among seen rows and 1 classes among unseen rows" in check.what


def test_the_balance_of_the_classes_moves_no_loss() -> None:
    rng = np.random.default_rng(0)
    lens, control = rng.normal(2, 0.1, 400), rng.normal(1, 0.1, 400)
    even = balanced_loss(np.r_[lens, control], np.repeat([1, 0], 400), np.arange(800))
    uneven = balanced_loss(np.r_[lens[:20], control], np.repeat([1, 0], [20, 400]), np.arange(420))
    assert even.value == pytest.approx(1.5, abs=0.02)
    assert uneven.value == pytest.approx(even.value, abs=0.03)


def test_rows_that_repeat_a_galaxy_make_nothing_surer() -> None:
    losses, labels = np.random.default_rng(0).exponential(size=100), np.arange(100) % 2
    once = balanced_loss(losses, labels, np.arange(100))
    five = balanced_loss(np.tile(losses, 5), np.tile(labels, 5), np.tile(np.arange(100), 5))
    taken_as_new = balanced_loss(np.tile(losses, 5), np.tile(labels, 5), np.arange(500))
    assert once.standard_error is not None
    assert five.standard_error == pytest.approx(once.standard_error)
    assert taken_as_new.standard_error is not None
    assert taken_as_new.standard_error < 0.5 * once.standard_error
    assert balanced_loss(losses, labels, np.zeros(100, int)).standard_error is None
