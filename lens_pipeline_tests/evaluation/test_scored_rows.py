from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from lens_pipeline.contracts.errors import ContractError, EvaluationError
from lens_pipeline.evaluation.config import OperatingPointConfig
from lens_pipeline.evaluation.operating_point import fit_operating_point
from lens_pipeline.evaluation.scored_rows import join_store, open_rows
from lens_pipeline.storage.publication import Publication
from lens_pipeline_tests.evaluation.conftest import Evaluated

Logits = npt.NDArray[np.floating]


def _scores_with(survey: Evaluated, name: str, values: pa.Array) -> Publication:
    table = survey.chain.scores.read_table()
    changed = table.set_column(table.schema.get_field_index(name), name, values)
    with survey.chain.stage("scores", survey.chain.store, survey.chain.classifier) as staging:
        staging.write_table(None, changed)
        return staging.commit()


def test_logits_kept_in_half_precision_are_refused(survey: Evaluated) -> None:
    logits = survey.chain.scores.read_table()["logit"].cast(pa.float16())
    with pytest.raises(EvaluationError, match="stores logits in 16 bits"):
        open_rows(_scores_with(survey, "logit", logits), "val_select")


def test_logits_that_were_rounded_to_16_bits_are_refused_though_stored_in_32_and_a_few_coarse_ones_are_not(
    survey: Evaluated,
) -> None:
    logits = np.array(survey.chain.scores.read_table()["logit"].to_pylist())
    rounded = pa.array(logits.astype(np.float16).astype(np.float32))
    with pytest.raises(EvaluationError, match=r"all 3,040 logits of scores \w+ are numbers of float16"):
        open_rows(_scores_with(survey, "logit", rounded), "val_select")
    # A model that learned nothing says the same of every stamp, or nearly.
    coarse = pa.array(np.round(logits).astype(np.float32))
    assert open_rows(_scores_with(survey, "logit", coarse), "val_select").height


def test_probabilities_where_logits_belong_are_refused_and_small_logits_are_not(survey: Evaluated) -> None:
    logits = np.array(survey.chain.scores.read_table()["logit"].to_pylist())
    probabilities = pa.array((1 / (1 + np.exp(-logits))).astype(np.float32))
    with pytest.raises(EvaluationError, match="they are probabilities"):
        open_rows(_scores_with(survey, "logit", probabilities), "val_select")
    small = pa.array((0.2 + 0.1 * np.tanh(logits)).astype(np.float32))
    assert open_rows(_scores_with(survey, "logit", small), "val_select").height


def _as_percents(logits: Logits) -> Logits:
    return 100 / (1 + np.exp(-logits))


@pytest.mark.parametrize(
    ("spoiled", "says"),
    [
        (lambda logits: logits.astype(np.float16), "are numbers of float16"),
        (lambda logits: 1 / (1 + np.exp(-logits)), "they are probabilities"),
        (_as_percents, "they are per cent"),
    ],
)
def test_one_split_that_was_rounded_or_squashed_is_told_among_sound_ones_and_named(
    survey: Evaluated, spoiled: Callable[[Logits], Logits], says: str
) -> None:
    table = survey.chain.scores.read_table()
    logits, there = table["logit"].to_numpy(), np.array(table["split"].to_pylist()) == "test"
    changed = np.where(there, spoiled(logits), logits).astype(np.float32)
    with pytest.raises(EvaluationError, match=rf"all {there.sum():,} logits of split test of scores \w+ .*{says}"):
        open_rows(_scores_with(survey, "logit", pa.array(changed)), "val_select")


def test_percents_where_logits_belong_are_refused(survey: Evaluated) -> None:
    percents = _as_percents(survey.chain.scores.read_table()["logit"].to_numpy()).astype(np.float32)
    with pytest.raises(EvaluationError, match=r"all 3,040 logits of scores \w+ .*they are per cent"):
        open_rows(_scores_with(survey, "logit", pa.array(percents)), "val_select")


@pytest.mark.parametrize("scale_and_shift", [(0.2, 0.0), (0.05, 0.5), (1.0, -30.0), (1.0, 30.0), (20.0, 200.0)])
def test_raw_logits_of_models_that_learned_little_or_lean_to_one_side_pass(
    survey: Evaluated, scale_and_shift: tuple[float, float]
) -> None:
    scale, shift = scale_and_shift
    logits = np.tanh(survey.chain.scores.read_table()["logit"].to_numpy() / 3) * scale + shift
    assert open_rows(_scores_with(survey, "logit", pa.array(logits.astype(np.float32))), "val_select").height


def test_a_logit_that_is_not_a_number_is_refused_and_named(survey: Evaluated) -> None:
    logits = survey.chain.scores.read_table()["logit"].to_pylist()
    logits[0] = float("nan")
    with pytest.raises(ContractError, match=r"1 of .* rows of 'scores' have a logit that is not finite"):
        open_rows(_scores_with(survey, "logit", pa.array(logits, pa.float32())), "val_select")


def test_a_scored_row_that_the_store_does_not_know_is_refused_and_named(survey: Evaluated) -> None:
    names = survey.chain.scores.read_table()["task_id"].to_pylist()
    names[survey.chain.scores.read_table()["split"].to_pylist().index("val_select")] = "stranger"
    scores = _scores_with(survey, "task_id", pa.array(names))
    with pytest.raises(EvaluationError, match=r"1 of 120 scored rows are not in stamp_store .*stranger"):
        join_store(open_rows(scores, "val_select"), scores=scores, store=survey.chain.store)


def test_a_row_that_the_store_calls_another_class_is_refused_and_named(survey: Evaluated) -> None:
    table = survey.chain.scores.read_table()
    labels, place = table["label"].to_pylist(), table["split"].to_pylist().index("val_select")
    labels[place] = 1 - labels[place]
    scores = _scores_with(survey, "label", pa.array(labels, table.schema.field("label").type))
    named = table["task_id"][place].as_py()
    with pytest.raises(EvaluationError, match=rf"1 of 120 scored rows have another label in stamp_store .*{named}"):
        join_store(open_rows(scores, "val_select"), scores=scores, store=survey.chain.store)


@pytest.mark.parametrize(
    ("split", "says"),
    [
        ("val_calibrate", "val_calibrate of scores .* has no row, so no rate can be stated"),
        ("train", "train of scores .* has no row, so what odds the model's logits start from isn't known"),
    ],
)
def test_scores_without_a_split_that_thresholds_need_are_refused(survey: Evaluated, split: str, says: str) -> None:
    chain = survey.chain
    with chain.stage("scores", chain.store, chain.classifier) as staging:
        staging.write_table(None, chain.scores.read_table().filter(pc.not_equal(pc.field("split"), split)))
        scores = staging.commit()
    with chain.stage("operating_point", scores, chain.store) as staging, pytest.raises(EvaluationError, match=says):
        fit_operating_point(OperatingPointConfig(), scores=scores, store=chain.store, staging=staging)


def test_rows_are_joined_by_key_and_never_by_place(survey: Evaluated) -> None:
    chain = survey.chain
    table = chain.scores.read_table()
    with chain.stage("scores", chain.store, chain.classifier) as staging:
        staging.write_table(None, table.take(pa.array(range(table.num_rows))[::-1]))
        scores = staging.commit()
    rows = join_store(open_rows(scores, "val_select"), scores=scores, store=chain.store)
    assert all(key.startswith(galaxy) for key, galaxy in rows.select("task_id", "galaxy_id").iter_rows())
    assert rows["is_lens"].equals(rows["lens_model"] != "CONTROL", null_equal=True, check_names=False)
