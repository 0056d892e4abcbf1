from typing import Any

import pytest

from lens_pipeline.contracts.dataset import DatasetContract, StampClass
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.checks import galaxies_are_unique, label_alignment, manifest_conservation, pairs_are_sound

from .conftest import Survey

ATTRIBUTES = {"source": "simulated", "dataset_contract": DatasetContract().model_dump(mode="json")}
CONTROL = {
    "task_id": "a-c", "region_id": "r1", "galaxy_id": "a", "pair_id": None, "lens_model": "CONTROL", "theta_e_arcsec": 0.0,
    "src_mag_r": None, "arc_snr": None, "is_control": True,
}  # fmt: skip
LENS = {
    **CONTROL, "task_id": "a-i", "pair_id": "a-c", "lens_model": "SIE", "theta_e_arcsec": 1.2, "src_mag_r": 23.0, "arc_snr": 4.0,
    "is_control": False,
}  # fmt: skip


def manifest(survey: Survey, *rows: dict[str, Any], attributes: dict[str, Any] = ATTRIBUTES) -> Publication:
    return survey.table("injection_manifest", [*rows], attributes)


def test_a_sound_survey_is_green(small: dict[str, Publication]) -> None:
    checks = [
        galaxies_are_unique(small["parent_sample"]),
        label_alignment(small["injection_manifest"]),
        label_alignment(small["stamps"]),
        pairs_are_sound(small["injection_manifest"]),
        manifest_conservation(small["stamps"], small["injection_manifest"]),
    ]
    assert [check.message() for check in checks if not check.passed] == []
    assert checks[2].figures["rows"] == 36
    assert checks[3].figures["pairs"] == 24


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**CONTROL, "theta_e_arcsec": 1.1}, "a control with theta_e that is not 0"),
        ({**CONTROL, "theta_e_arcsec": None}, "a control with theta_e that is not 0"),
        ({**CONTROL, "arc_snr": 3.0}, "a control with arc parameters"),
        ({**LENS, "theta_e_arcsec": 0.0}, "a lens whose theta_e is not above 0"),
        ({**LENS, "theta_e_arcsec": None}, "a lens whose theta_e is not above 0"),
        ({**LENS, "theta_e_arcsec": float("nan")}, "a lens whose theta_e is not above 0"),
        ({**LENS, "arc_snr": None, "src_mag_r": None}, "a lens without any arc parameter"),
        ({**LENS, "is_control": True}, "is_control says otherwise"),
        ({**CONTROL, "is_control": False}, "is_control says otherwise"),
    ],
)
def test_a_label_that_disagrees_with_its_row_is_red_and_named(survey: Survey, row: dict[str, Any], said: str) -> None:
    sound = [{**CONTROL, "task_id": "b-c"}, {**LENS, "task_id": "b-i"}]
    check = label_alignment(manifest(survey, *sound, {**row, "task_id": "the-bad-one"}))
    assert not check.passed
    assert f"the-bad-one ({said})" in check.first
    assert check.next_step
    assert check.why


def test_a_null_or_unknown_lens_model_is_never_a_positive_and_is_counted(survey: Survey) -> None:
    rows = [
        CONTROL,
        LENS,
        {**LENS, "task_id": "n", "lens_model": None},
        {**LENS, "task_id": "u", "lens_model": "BANANA"},
    ]
    check = label_alignment(manifest(survey, *rows))
    assert check.passed
    assert check.figures["unlabelled"] == 2
    assert "1 control, 1 lens; 2 without" in check.message()


def test_classes_that_are_no_lenses_need_no_einstein_radius(survey: Survey) -> None:
    contract = DatasetContract(
        classes=(
            StampClass(name="control", label_values=("CONTROL",)),
            StampClass(name="lens", label_values=("SIE",)),
            StampClass(name="spiral", label_values=("SPIRAL",)),
        )
    )
    spiral = {**CONTROL, "task_id": "s", "lens_model": "SPIRAL", "is_control": False}
    attributes = {**ATTRIBUTES, "dataset_contract": contract.model_dump(mode="json")}
    assert label_alignment(manifest(survey, CONTROL, LENS, spiral, attributes=attributes)).passed


@pytest.mark.parametrize(
    ("mate", "said"),
    [
        ({**CONTROL, "task_id": "elsewhere"}, "names no row"),
        ({**LENS, "task_id": "a-c", "pair_id": None}, "is not a control"),
        ({**CONTROL, "lens_model": None}, "is not a control"),
        ({**CONTROL, "galaxy_id": "b"}, "is of another galaxy"),
        ({**CONTROL, "region_id": "r2"}, "is in another region"),
    ],
)
def test_a_pair_that_is_not_the_galaxys_own_control_is_red(survey: Survey, mate: dict[str, Any], said: str) -> None:
    check = pairs_are_sound(manifest(survey, mate, LENS))
    assert not check.passed
    assert f"a-i (its pair {said})" in check.first


def test_a_control_that_names_a_pair_is_red_and_a_survey_without_pairs_is_not(survey: Survey) -> None:
    check = pairs_are_sound(manifest(survey, CONTROL, {**CONTROL, "task_id": "a-d", "pair_id": "a-c"}))
    assert "a-d (its pair stands on a control itself)" in check.first
    unpaired = [{name: value for name, value in row.items() if name != "pair_id"} for row in (CONTROL, LENS)]
    assert pairs_are_sound(manifest(survey, *unpaired)).passed


def test_a_fake_must_imitate_an_injection_of_its_own_galaxy_and_is_no_pair(survey: Survey) -> None:
    contract = DatasetContract(
        classes=(
            StampClass(name="control", label_values=("CONTROL", "FAKE_BLOB")),
            StampClass(name="lens", label_values=("SIE",)),
        )
    )
    attributes = {**ATTRIBUTES, "dataset_contract": contract.model_dump(mode="json")}
    rows = [{**row, "fake_of": None} for row in (CONTROL, LENS)]
    fake = {**CONTROL, "task_id": "a-i-blob", "lens_model": "FAKE_BLOB", "fake_of": "a-i"}
    sound = manifest(survey, *rows, fake, attributes=attributes)
    assert (label_alignment(sound).passed, pairs_are_sound(sound).passed) == (True, True)
    for wrong in ({"fake_of": "nobody"}, {"fake_of": "a-c"}, {"galaxy_id": "b"}):
        check = pairs_are_sound(manifest(survey, *rows, {**fake, **wrong}, attributes=attributes))
        assert check.first == ("a-i-blob (a fake of no injection of its galaxy)",)
    paired = [rows[0], {**rows[1], "pair_id": "a-i-blob"}, {**fake, "fake_of": None}]
    assert "a-i (its pair is not a control)" in pairs_are_sound(manifest(survey, *paired, attributes=attributes)).first


def test_lost_and_doubled_and_foreign_rows_are_red(survey: Survey) -> None:
    def keys(*names: str) -> Publication:
        return manifest(survey, *({**CONTROL, "task_id": name} for name in names))

    assert manifest_conservation(keys("a", "b"), keys("b", "a")).passed
    lost = manifest_conservation(keys("a"), keys("a", "b"))
    assert (lost.passed, lost.count, lost.first) == (False, 1, ("b",))
    foreign = manifest_conservation(keys("a", "x"), keys("a"))
    assert (foreign.passed, foreign.first) == (False, ("x",))
    doubled = manifest_conservation(keys("a", "a"), keys("a"))
    assert (doubled.passed, doubled.count) == (False, 1)


def test_a_galaxy_twice_or_in_two_regions_is_red(survey: Survey) -> None:
    galaxy = {"galaxy_id": "a", "region_id": "r"}
    assert galaxies_are_unique(survey.table("parent_sample", [galaxy], ATTRIBUTES)).passed
    twice = galaxies_are_unique(survey.table("parent_sample", [galaxy, galaxy], ATTRIBUTES))
    assert (twice.passed, twice.first) == (False, ("a",))
    both = {**ATTRIBUTES, "galaxies_in_more_than_one_region": ["g1 in a and b", "g2 in a and c"]}
    torn = galaxies_are_unique(survey.table("parent_sample", [galaxy], both))
    assert (torn.count, torn.first) == (2, ("g1 in a and b", "g2 in a and c"))
