"""An ensemble is a model like any other: it is opened by name, scores files, has a card, a candidate and a champion."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lens_pipeline.cli.main import main
from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.scoring.aliases import Alias, asset_of, choose_champion, members_of, open_alias
from lens_pipeline.scoring.card import as_json, describe_model
from lens_pipeline.scoring.card_text import as_markdown
from lens_pipeline.scoring.model import Ensemble, open_classifier, open_model
from lens_pipeline.scoring.predict import predict
from lens_pipeline.stamps.decode import decode_pixels
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.rows import read_rows
from lens_pipeline_tests.scoring.conftest import Folded
from lens_pipeline_tests.scoring.test_card import publish_gates, publish_report
from lens_pipeline_tests.training.making import CONTRACT

MODEL, TURNED = "main.folds-2", "main.turned"


@pytest.fixture(scope="module")
def scores(folded: Folded) -> Publication:
    return folded.scored(MODEL)


def stamps_of(folded: Folded) -> tuple[list[str], np.ndarray]:
    """Key and pixels (row, band, y, x) of every stamp as they stand in the parquet."""
    stamps = folded.home.open("tried", "stamps", version=folded.store.inputs["stamps"])
    table = pq.read_table(stamps.path("fragment-00000.parquet"))
    pixels = np.zeros((table.num_rows, *CONTRACT.stamp_shape), np.float32)
    assert not any(decode_pixels(table["stamp_npz"].to_pylist(), CONTRACT, pixels))
    return table["task_id"].to_pylist(), pixels


@pytest.mark.parametrize(("model", "tta"), [(MODEL, False), (TURNED, True)])
def test_an_ensemble_gives_arrays_the_bits_that_its_scores_have(folded: Folded, model: str, tta: bool) -> None:
    published = folded.scored(model, tta=tta)
    table = published.read_table(None, ["task_id", "logit"])
    wanted = dict(zip(table["task_id"].to_pylist(), table["logit"].to_pylist(), strict=True))
    keys, pixels = stamps_of(folded)
    opened = open_model(folded.home, published)
    assert isinstance(opened, Ensemble)
    assert predict(opened, pixels).score.tolist() == [wanted[key] for key in keys]
    first = predict(open_classifier(folded.folds[0]), pixels).score
    assert first.tolist() != [wanted[key] for key in keys]


def test_one_model_is_turned_when_that_is_asked_for_and_its_score_is_the_mean_over_the_turns(folded: Folded) -> None:
    _, pixels = stamps_of(folded)
    single, turned = (open_model(folded.home, folded.folds[0], tta=tta) for tta in (False, True))
    rows = range(0, 3)
    images = [np.rot90(flipped, k, (2, 3)) for k in range(4) for flipped in (pixels[rows], pixels[rows][..., ::-1])]
    wanted = np.mean([predict(single, np.ascontiguousarray(image)).score for image in images], axis=0)
    found = predict(turned, pixels[rows]).score
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    assert np.abs(found - predict(single, pixels[rows]).score).max() > 1e-3


def test_the_command_predicts_with_an_ensemble_by_its_name(
    folded: Folded,
    scores: Publication,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LENS_PIPELINE_HOME", str(folded.home.path))
    _, pixels = stamps_of(folded)
    np.save(tmp_path / "a.npy", pixels[:5])
    named = ["--dataset", "tried", "--model", MODEL]
    assert main(["predict", *named, str(tmp_path / "a.npy"), "--out", str(tmp_path / "out.parquet")]) == 0
    said = capsys.readouterr().out
    assert f"scores {scores.version} of tried, the mean of main.fold-0-of-2, main.fold-1-of-2" in said
    wanted = predict(open_model(folded.home, scores), pixels[:5]).score.tolist()
    assert pq.read_table(tmp_path / "out.parquet")["logit"].to_pylist() == wanted
    assert main(["card", *named]) == 0
    assert "The mean logit of 2 models" in capsys.readouterr().out


def test_the_candidate_of_an_ensemble_is_its_current_scores_and_only_an_evaluated_one_is_champion(
    folded: Folded, scores: Publication
) -> None:
    home = folded.home
    assert asset_of(home, "tried", MODEL) == "scores"
    assert asset_of(home, "tried", "main.never") == "lens_classifier"
    assert open_alias(home, "tried", MODEL, Alias.candidate).version == scores.version
    with pytest.raises(StorageError, match=r"no champion was chosen .* of model main\.folds-2"):
        open_alias(home, "tried", MODEL, Alias.champion)
    with pytest.raises(StorageError, match="has no evaluation_report that passed"):
        choose_champion(home, "tried", MODEL)
    publish_report(home, scores)
    with pytest.raises(StorageError, match="never asked whether it learned a shortcut"):
        choose_champion(home, "tried", MODEL)
    publish_gates(home, scores)
    assert choose_champion(home, "tried", MODEL).version == scores.version
    chosen = open_alias(home, "tried", MODEL, Alias.champion)
    assert [member.version for member in members_of(home, chosen)] == [fold.version for fold in folded.folds]


def test_the_card_names_the_members_what_differs_between_them_and_what_the_cross_validation_found(
    folded: Folded, scores: Publication
) -> None:
    card = json.loads(as_json(describe_model(folded.home, scores, publish_report(folded.home, scores))))
    assert [(one["name"], one["version"]) for one in card["members"]] == [(f.model, f.version) for f in folded.folds]
    assert card["metrics"][0]["value"] == 0.9
    assert {row["split"] for row in card["cross_validation"]} >= {"fold 0", "fold 1", "mean of folds"}
    text = as_markdown(card)
    assert text.startswith(f"# tried, {MODEL}: scores {scores.version}\n")
    for number, fold in enumerate(folded.folds):
        assert f"`{fold.entry('model.safetensors').sha256}`" in text
        assert f"{fold.model} (fold {number}): 2 epochs" in text
    assert "## Cross-validation" in text


def test_the_card_of_a_fold_counts_the_rows_that_it_was_trained_and_validated_on(folded: Folded) -> None:
    member, whole = (describe_model(folded.home, of, None)["data"] for of in (folded.folds[0], folded.scored(MODEL)))
    config = TrainingConfig.model_validate(folded.folds[0].attributes["config"])
    used = read_rows(folded.splits, folded.store, config)
    names = ("the folds without 0", "fold 0 of 2")
    for name, rows in zip(names, (used.train, used.validation), strict=True):
        assert member["rows"][name] == {"control": len(rows) // 2, "lens": len(rows) // 2}
    assert set(member["rows"]) == {*names, "val_calibrate", "test"}
    assert set(member["regions"]) <= {*names, "val_calibrate", "test"}
    assert set(whole["rows"]) == {"train", "val_select", "val_calibrate", "test"}
    assert sum(sum(whole["rows"][name].values()) for name in ("train", "val_select")) == len(used.train) + len(
        used.validation
    )
    assert "without its fold" in whole["folds"]
    text = as_markdown(describe_model(folded.home, folded.folds[0], None))
    assert f"- fold 0 of 2: {len(used.validation) // 2} control, {len(used.validation) // 2} lens" in text
    assert "dealt to folds" in text


def test_a_member_that_is_gone_is_a_clear_refusal(folded: Folded, scores: Publication) -> None:
    folder = folded.folds[1].folder
    aside = folder.with_name(f".{folder.name}")
    folder.rename(aside)
    try:
        with pytest.raises(StorageError, match=f"has no version '{folded.folds[1].version}'"):
            open_model(folded.home, scores)
    finally:
        aside.rename(folder)
