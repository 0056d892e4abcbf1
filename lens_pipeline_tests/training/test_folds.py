"""Folds of a cross-validation: whole regions, all of train and val_select, nothing sealed, nothing shared."""

import numpy as np
import pytest
from pydantic import ValidationError

from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.splits.assignment import deal, region_uniform
from lens_pipeline.splits.region_splits import read_split_rows
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.folds import fold_of_rows, folds_are_disjoint
from lens_pipeline.training.rows import Rows, read_rows, refuse_unusable
from lens_pipeline_tests.training.conftest import Survey
from lens_pipeline_tests.training.making import CONTRACT, QUICK

FOLDS = 3
REGIONS = [f"{number:04d}p{number % 7}" for number in range(6000)]


def config(**settings: object) -> TrainingConfig:
    return TrainingConfig.model_validate({**QUICK, "folds": FOLDS, **settings})


def rows_of(survey: Survey, fold: int) -> Rows:
    return read_rows(survey[1], survey[0], config(fold=fold))


def columns(survey: Survey, name: str) -> np.ndarray:
    index = survey[0].read_table(None, ["logical", name])
    found = np.empty(index.num_rows, object)
    found[index["logical"].to_numpy()] = index[name].to_pylist()
    return found


def test_every_row_of_train_and_val_select_is_validated_in_one_fold_and_trained_on_in_all_others(
    survey: Survey,
) -> None:
    splits = read_split_rows(survey[1], survey[0])
    opened = {
        n
        for n, s in zip(*(splits[c].to_pylist() for c in ("logical", "split")), strict=True)
        if s in ("train", "val_select")
    }
    folds = [rows_of(survey, fold) for fold in range(FOLDS)]
    assert sorted(np.concatenate([rows.validation for rows in folds])) == sorted(opened)
    assert all({*rows.train.tolist(), *rows.validation.tolist()} == opened for rows in folds)
    assert all(not {*rows.train.tolist()} & {*rows.validation.tolist()} for rows in folds)


def test_rows_of_a_region_are_in_one_fold(survey: Survey) -> None:
    region, fold = columns(survey, "region_id"), fold_of_rows(survey[1], survey[0], FOLDS)
    for name in set(region):
        assert len(set(fold[region == name])) == 1
    assert len(set(fold)) > 1


def test_a_region_that_joins_moves_no_other_and_folds_are_of_equal_size_within_any_split() -> None:
    before = deal(REGIONS, 7, FOLDS)
    assert np.array_equal(deal(["a new one", *REGIONS], 7, FOLDS)[1:], before)
    assert not np.array_equal(deal(REGIONS, 8, FOLDS), before)
    # Of the regions that the splits' own hash, of the same seed, gave to train.
    train = np.array([region_uniform(region, 7) < 0.6 for region in REGIONS])
    assert np.bincount(before[train]) / train.sum() == pytest.approx([1 / 3] * 3, abs=0.03)


def test_without_folds_train_and_val_select_are_the_splits_own(survey: Survey) -> None:
    rows = read_rows(survey[1], survey[0], TrainingConfig())
    check = folds_are_disjoint(0, rows.train, rows.validation, survey[1], survey[0])
    assert check.passed
    assert "no folds" in check.what


def test_the_check_of_sound_folds_is_green(survey: Survey) -> None:
    for fold in range(FOLDS):
        rows = rows_of(survey, fold)
        assert folds_are_disjoint(FOLDS, rows.train, rows.validation, survey[1], survey[0]).passed


@pytest.mark.parametrize("shared", ["region_id", "galaxy_id"])
def test_a_row_that_moved_to_the_other_side_is_found_by_what_it_shares(survey: Survey, shared: str) -> None:
    rows = rows_of(survey, 0)
    check = folds_are_disjoint(FOLDS, rows.train[1:], np.append(rows.validation, rows.train[0]), survey[1], survey[0])
    assert not check.passed
    assert f"values of {shared} stand in more than one split" in check.what


def test_a_sealed_row_a_lost_row_and_a_row_on_both_sides_are_found(survey: Survey) -> None:
    rows = rows_of(survey, 0)
    sealed = np.setdiff1d(np.arange(len(rows.labels)), [*rows.train, *rows.validation])[0]
    for train in (np.append(rows.train, sealed), rows.train[1:], np.append(rows.train, rows.validation[0])):
        check = folds_are_disjoint(FOLDS, train, rows.validation, survey[1], survey[0])
        assert not check.passed
        assert "1 rows are on no side, on both, or sealed" in check.what


def test_a_fold_without_a_class_is_refused_by_its_name(survey: Survey) -> None:
    rows = rows_of(survey, 2)
    controls = Rows(rows.train, rows.validation[rows.labels[rows.validation] == 0], rows.labels)
    with pytest.raises(TrainingError, match="fold 2 of 3 has no row of class lens"):
        refuse_unusable(controls, CONTRACT, config(fold=2))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"folds": 1}, "nothing to train on"),
        ({"fold": 3}, "numbered from 0"),
        ({"folds": 0, "fold": 1}, "none to name"),
    ],
)
def test_folds_that_are_none_are_refused(settings: dict[str, int], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        config(**settings)
