from dataclasses import replace

import numpy as np
import pytest

from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.training.choices import ClassWeighting, StratumWeighting
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.rows import read_rows
from lens_pipeline.training.weights import Strata, class_weights, read_strata, refuse_focal_alpha, stratum_weights
from lens_pipeline_tests.training.conftest import Survey

STRATA = Strata(
    names=("control", "small arc", "large arc", "ring, not in train"),
    labels=(0, 1, 1, 0),
    counts=(30, 8, 2, 0),
    of_row=np.array([0, 1, 2, 3, 0], np.int32),
)


def test_balanced_weights_give_classes_the_same_say_and_rows_a_mean_weight_of_one() -> None:
    counts = (900, 90, 10)
    weights = class_weights(counts, ClassWeighting.balanced)
    assert [weight * count for weight, count in zip(weights, counts, strict=True)] == pytest.approx([1000 / 3] * 3)
    assert class_weights(counts, ClassWeighting.none) == (1.0, 1.0, 1.0)


def test_the_rarest_class_never_weighs_least() -> None:
    weights = class_weights((900, 90, 10), ClassWeighting.balanced)
    assert weights[0] < 1 < weights[1] < weights[2]


def test_balanced_strata_have_the_same_say_within_their_class_which_weighs_as_before() -> None:
    weights = stratum_weights(STRATA, StratumWeighting.balanced)
    assert weights == pytest.approx({"control": 1.0, "small arc": 10 / 16, "large arc": 10 / 4})
    assert 8 * weights["small arc"] == pytest.approx(2 * weights["large arc"])
    assert 8 * weights["small arc"] + 2 * weights["large arc"] == pytest.approx(10)


def test_every_stored_row_has_the_weight_of_its_stratum() -> None:
    assert STRATA.by_row({"small arc": 0.5, "large arc": 4.0}).tolist() == [1.0, 0.5, 4.0, 1.0, 1.0]


def test_strata_are_counted_in_the_training_split_alone(survey: Survey) -> None:
    rows = read_rows(survey[1], survey[0], TrainingConfig())
    strata = read_strata(rows, survey[0])
    assert sum(strata.counts) == len(rows.train)
    stored = survey[0].read_table(None, ["stratum", "label"])
    assert [strata.names[place] for place in strata.of_row] == stored["stratum"].to_pylist()
    assert [strata.labels[place] for place in strata.of_row] == stored["label"].to_pylist()


def test_a_stratum_of_a_handful_of_rows_that_would_rule_the_gradient_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"1 of 3 strata a weight over 100 \(large arc: 2 rows\)"):
        stratum_weights(replace(STRATA, counts=(30, 1000, 2, 0)), StratumWeighting.balanced)


def _focal(alpha: float) -> TrainingConfig:
    return TrainingConfig.model_validate({"loss": "focal", "focal_gamma": 2, "focal_alpha": alpha})


def test_an_alpha_that_takes_weight_from_lenses_on_balanced_rows_is_refused() -> None:
    with pytest.raises(TrainingError, match="lenses are 50% of the 2,000 training rows"):
        refuse_focal_alpha(_focal(0.25), (1000, 1000))


def test_the_papers_alpha_is_allowed_where_lenses_are_rare() -> None:
    refuse_focal_alpha(_focal(0.25), (9999, 1))
    refuse_focal_alpha(_focal(0.75), (1000, 1000))


def test_an_alpha_for_more_than_two_classes_is_refused() -> None:
    with pytest.raises(TrainingError, match="weight of one of two classes, and there are 3"):
        refuse_focal_alpha(_focal(0.75), (10, 10, 10))
