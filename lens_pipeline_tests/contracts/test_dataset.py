"""A dataset says what it is: classes, bands, strata; an unknown label value has no label."""

import pytest
from pydantic import ValidationError

from lens_pipeline.contracts.checks import green, red, undecided
from lens_pipeline.contracts.dataset import DatasetContract, StampClass
from lens_pipeline.contracts.errors import first_few

SURVEY = DatasetContract(
    name="five_bands",
    bands=("g", "r", "i", "z", "y"),
    stamp_size=48,
    classes=(
        StampClass(name="control", label_values=("CONTROL",)),
        StampClass(name="lens", label_values=("SIE",)),
        StampClass(name="ring", label_values=("RING", "SPIRAL")),
    ),
)


def test_labels_are_looked_up_and_never_guessed() -> None:
    assert DatasetContract().label_of == {"CONTROL": 0, "SIE": 1, "SIS": 1, "EPL": 1, "SIE_SHEAR": 1}
    assert SURVEY.label_of["SPIRAL"] == 2
    assert "sie" not in DatasetContract().label_of


def test_head_and_shape_follow_from_classes_bands_and_size() -> None:
    assert (DatasetContract().n_outputs, DatasetContract().stamp_shape) == (1, (3, 64, 64))
    assert (SURVEY.n_outputs, SURVEY.stamp_shape) == (3, (5, 48, 48))
    assert SURVEY.members == ("image_g", "image_r", "image_i", "image_z", "image_y")


def test_a_label_value_belongs_to_one_class() -> None:
    with pytest.raises(ValidationError, match="two classes"):
        DatasetContract(classes=(StampClass(name="a", label_values=("X",)), StampClass(name="b", label_values=("X",))))


@pytest.mark.parametrize(
    ("theta_e", "bin_name"), [(0.0, "0-0.75"), (0.74, "0-0.75"), (0.75, "0.75-1.25"), (9.0, "1.75-inf")]
)
def test_strata_are_class_model_and_einstein_radius(theta_e: float, bin_name: str) -> None:
    assert DatasetContract().stratum(1, "SIE", theta_e) == f"lens/SIE/theta_e {bin_name}"
    assert DatasetContract().stratum(0, "CONTROL", 0.0) == "control"


def test_the_hash_of_a_contract_changes_with_every_field() -> None:
    changed = [
        {"bands": ("g", "r")},
        {"stamp_size": 48},
        {"pixel_scale_arcsec": 0.263},
        {"theta_e_edges_arcsec": (1.0,)},
    ]
    hashes = {DatasetContract.model_validate(change).sha256() for change in changed} | {DatasetContract().sha256()}
    assert len(hashes) == 5
    assert (
        DatasetContract.model_validate(DatasetContract().model_dump(mode="python")).sha256()
        == DatasetContract().sha256()
    )


def test_a_contract_survives_the_json_that_it_is_published_as() -> None:
    again = DatasetContract.model_validate_json(SURVEY.model_dump_json())
    assert again == SURVEY
    assert again.sha256() == SURVEY.sha256()


def test_a_red_check_says_what_how_many_which_first_why_and_what_next() -> None:
    finding = red("sound", "rows are off", wrong=range(12), why="a test", next_step="mend them")
    message = finding.message()
    for part in ("sound is red", "rows are off", "12 wrong", "0, 1, 2, 3, 4", "Why: a test", "Next: mend them"):
        assert part in message
    assert green("sound", "all fine").message() == "sound: all fine"


def test_what_stops_nothing_is_not_called_red() -> None:
    advisory = red("odd", "rows look odd", wrong=["a"], why="w", next_step="n", blocking=False)
    assert advisory.message().startswith("odd is a warning: rows look odd (1 wrong). First: a.")
    too_few = undecided("sound", "4 rows can be compared", why="w", next_step="n")
    assert (too_few.passed, too_few.blocking) == (False, False)
    assert too_few.message() == "sound is undecided: 4 rows can be compared. Why: w Next: n"


def test_the_first_few_are_shown_with_how_many_there_are() -> None:
    assert first_few(range(1200)) == "0, 1, 2, 3, 4, ... (1,200 in all)"
    assert first_few(["a"]) == "a"
