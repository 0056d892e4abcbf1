"""A score that isn't the one that the model gave to its row is seen, whatever moved it."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import load_file

from lens_pipeline.scoring.checks import scores_match_their_digests
from lens_pipeline.storage.publication import Publication
from lens_pipeline_tests.scoring.conftest import Folded, Trained, republished

N_SWAPS = 200


@pytest.fixture(scope="module")
def scores(trained: Trained) -> pa.Table:
    return trained.scored().read_table()


def _with(scores: pa.Table, **columns: np.ndarray) -> pa.Table:
    for name, values in columns.items():
        scores = scores.set_column(scores.column_names.index(name), name, pa.array(values))
    return scores


def test_scores_as_the_model_gave_them_match_in_any_order_of_rows(trained: Trained, scores: pa.Table) -> None:
    shuffled = scores.take(np.random.default_rng(1).permutation(scores.num_rows))
    assert scores_match_their_digests(shuffled, trained.store, [trained.classifier]).passed


def test_each_class_of_another_survey_is_in_the_digest(trained_elsewhere: Trained) -> None:
    made, scores = trained_elsewhere, trained_elsewhere.scored().read_table()
    assert scores_match_their_digests(scores, made.store, [made.classifier]).passed
    spirals = scores["logit_spiral"].to_numpy().copy()
    spirals[3] = np.nextafter(spirals[3], np.float32(9))
    check = scores_match_their_digests(_with(scores, logit_spiral=spirals), made.store, [made.classifier])
    assert (check.passed, check.count, check.first) == (False, 1, (scores["task_id"][3].as_py(),))


def test_the_mean_of_several_models_has_digests_of_all_their_weights(folded: Folded) -> None:
    scores = folded.scored().read_table()
    assert scores_match_their_digests(scores, folded.store, folded.folds).passed
    assert not scores_match_their_digests(scores, folded.store, folded.folds[:1]).passed


def test_any_two_scores_that_changed_places_are_both_seen(trained: Trained, scores: pa.Table) -> None:
    rng = np.random.default_rng(0)
    for _ in range(N_SWAPS):
        logit = scores["logit"].to_numpy().copy()
        pair = rng.choice(len(logit), 2, replace=False)
        logit[pair] = logit[pair[::-1]]
        check = scores_match_their_digests(_with(scores, logit=logit), trained.store, [trained.classifier])
        assert (check.passed, check.count) == (False, 2)


Order = Callable[[np.ndarray], np.ndarray]


@pytest.mark.parametrize(
    "order",
    [
        pytest.param(lambda logit: np.roll(np.arange(len(logit)), 1), id="rolled by one"),
        pytest.param(np.argsort, id="sorted"),
        pytest.param(
            lambda logit: np.r_[len(logit) - 9 : len(logit), 9 : len(logit)], id="of the last rows, on the first"
        ),
    ],
)
def test_scores_that_moved_are_seen_even_where_their_digests_moved_with_them(
    trained: Trained, scores: pa.Table, order: Order
) -> None:
    logit, digest = scores["logit"].to_numpy(), scores["digest"].to_numpy()
    places = order(logit)
    alone, together = _with(scores, logit=logit[places]), _with(scores, logit=logit[places], digest=digest[places])
    for moved in (alone, together):
        assert not scores_match_their_digests(moved, trained.store, [trained.classifier]).passed


def test_scores_of_other_weights_are_seen(trained: Trained, scores: pa.Table) -> None:
    tensors = load_file(trained.classifier.path("model.safetensors"))
    name = next(name for name in tensors if tensors[name].dtype == np.float32)
    tensors[name] = np.nextafter(tensors[name], np.float32(np.inf))
    other: Publication = republished(trained, tensors)
    assert not scores_match_their_digests(scores, trained.store, [other]).passed
