"""A stamp from anywhere gets the probability that the report gives the same logit, or the reason why there is none."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import special

from lens_pipeline.cli.main import main
from lens_pipeline.contracts.catalogue import PREDICTIONS
from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.evaluation.calibration import FILE, frozen_calibrator
from lens_pipeline.evaluation.config import OperatingPointConfig
from lens_pipeline.evaluation.operating_point import fit_operating_point
from lens_pipeline.scoring.config import ScoringConfig
from lens_pipeline.scoring.probability import FrozenOdds, NoOdds, odds_of, probability_columns
from lens_pipeline.scoring.run import score_store
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline_tests.evaluation.conftest import Evaluated
from lens_pipeline_tests.evaluation.synthetic import draw, publish
from lens_pipeline_tests.scoring.conftest import Folded, Trained
from lens_pipeline_tests.scoring.test_ensemble_by_name import stamps_of

PREVALENCE = OperatingPointConfig().lens_prevalence


@pytest.fixture
def evaluated(tmp_path: Path) -> Evaluated:
    """A chain whose operating point passed its checks."""
    found = Evaluated(publish(draw({"train": 40, "val_select": 20, "val_calibrate": 100, "test": 40}), tmp_path))
    found.chain.home.conclude(found.operating_point, [])
    return found


def test_a_logit_becomes_the_probability_that_the_report_gives_it(evaluated: Evaluated) -> None:
    odds = odds_of(evaluated.chain.home, evaluated.chain.classifier, is_turned=False)
    assert isinstance(odds, FrozenOdds)
    assert odds.operating_point == evaluated.operating_point.version
    _, report = evaluated.report()
    told = report.read_table("p_lens")
    columns = probability_columns(odds, told["logit"].to_numpy(), np.zeros(told.num_rows, bool))
    assert columns["p_lens"].to_pylist() == told["p_lens"].to_pylist()
    assert columns["extrapolated"].to_pylist() == told["extrapolated"].to_pylist()
    assert columns["p_lens_reason"].null_count == told.num_rows


def test_another_prevalence_shifts_the_log_odds_and_nothing_else(evaluated: Evaluated) -> None:
    home, classifier = evaluated.chain.home, evaluated.chain.classifier
    stated, other = (odds_of(home, classifier, is_turned=False, prevalence=at) for at in (None, 1e-4))
    here = np.array([False, False])
    a, b = (special.logit(probability_columns(one, [-1.0, 2.0], here)["p_lens"]) for one in (stated, other))
    np.testing.assert_allclose(a - b, special.logit(PREVALENCE) - special.logit(1e-4), rtol=1e-9)
    assert "at a prevalence of 0.0001 (as was asked for)" in str(other)
    for none in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(ConfigError, match="share of lenses among all galaxies"):
            odds_of(home, classifier, is_turned=False, prevalence=none)


def test_a_refused_stamp_has_no_probability_and_no_second_reason(evaluated: Evaluated) -> None:
    odds = odds_of(evaluated.chain.home, evaluated.chain.classifier, is_turned=False)
    refused = np.array([False, True])
    found = probability_columns(odds, [1.0, np.nan], refused)
    assert [one.is_valid for one in found["p_lens"]] == [one.is_valid for one in found["extrapolated"]] == [True, False]
    told = probability_columns(NoOdds("because"), [1.0, np.nan], refused)
    assert (told["p_lens"].null_count, told["p_lens_reason"].to_pylist()) == (2, ["because", None])


def test_no_operating_point_a_red_one_and_one_of_another_version_are_none(evaluated: Evaluated, tmp_path: Path) -> None:
    chain = evaluated.chain
    other = publish(draw({"train": 5, "val_select": 5, "val_calibrate": 5, "test": 5}), tmp_path / "other")
    assert "has no green operating_point of lens_classifier" in str(
        odds_of(other.home, other.classifier, is_turned=False)
    )
    with chain.stage("lens_classifier", chain.store, chain.splits) as staging:
        staging.attributes["best_epoch"] = 7
        another = staging.commit()
    assert another.version != chain.classifier.version
    assert isinstance(odds_of(chain.home, another, is_turned=False), NoOdds)
    (evaluated.operating_point.folder / "verdict.json").write_text('{"passed": false, "checks": []}')
    assert isinstance(odds_of(chain.home, chain.classifier, is_turned=False), NoOdds)


def test_logits_of_another_kind_than_the_calibration_s_get_none(evaluated: Evaluated) -> None:
    found = odds_of(evaluated.chain.home, evaluated.chain.classifier, is_turned=True)
    assert isinstance(found, NoOdds)
    assert "fitted on logits of single stamps" in found.reason
    assert "leave out --tta" in found.reason


def test_a_mean_that_a_model_is_part_of_calibrates_the_mean_and_not_the_model(evaluated: Evaluated) -> None:
    chain = evaluated.chain
    with chain.stage("scores", chain.store, chain.splits, chain.classifier) as staging:
        staging.write_table(None, chain.scores.read_table())
        staging.attributes["members"] = [{"model": "default", "version": chain.classifier.version}]
        mean = staging.commit()
    with chain.stage("operating_point", mean, chain.store) as staging:
        fit_operating_point(
            OperatingPointConfig(calibration="temperature"), scores=mean, store=chain.store, staging=staging
        )
        point = staging.commit()
    chain.home.conclude(point, [])
    of_mean, of_model = (odds_of(chain.home, one, is_turned=False) for one in (mean, chain.classifier))
    assert isinstance(of_mean, FrozenOdds)
    assert isinstance(of_model, FrozenOdds)
    assert (of_mean.operating_point, of_model.operating_point) == (point.version, evaluated.operating_point.version)


def test_an_operating_point_from_before_there_was_a_calibration_says_so(evaluated: Evaluated) -> None:
    chain = evaluated.chain
    with chain.stage("operating_point", chain.scores, chain.store) as staging:
        staging.write_table(None, evaluated.operating_point.read_table())
        old = staging.commit()
    chain.home.conclude(old, [])
    found = odds_of(chain.home, chain.classifier, is_turned=False)
    assert isinstance(found, NoOdds)
    assert f"{old.version} holds no calibration ({FILE})" in found.reason


def test_a_calibration_on_three_controls_gives_none(tmp_path: Path) -> None:
    few = Evaluated(publish(draw({"train": 30, "val_select": 10, "val_calibrate": 3, "test": 10}), tmp_path))
    few.chain.home.conclude(few.operating_point, [])
    found = odds_of(few.chain.home, few.chain.classifier, is_turned=False)
    assert isinstance(found, NoOdds)
    assert f"operating_point {few.operating_point.version}" in found.reason
    assert "3 galaxies with controls" in found.reason


def test_a_calibration_that_says_nothing_of_its_galaxies_gives_none(evaluated: Evaluated) -> None:
    chain, point = evaluated.chain, evaluated.operating_point
    with chain.stage("operating_point", chain.scores, chain.store) as staging:
        staging.write_table(None, point.read_table())
        content = point.read_json(FILE)
        staging.write_json(FILE, {name: content[name] for name in content if not name.startswith("n_")})
        staging.attributes.update(point.attributes)
        old = staging.commit()
    chain.home.conclude(old, [])
    found = odds_of(chain.home, chain.classifier, is_turned=False)
    assert isinstance(found, NoOdds)
    assert "materialize operating_point again" in found.reason


def calibrated(home: Home, made: Publication, store: Publication) -> Publication:
    """Publish an operating point, green, whose calibration says that it was fitted on enough galaxies."""
    with home.stage("tried", "operating_point", model=made.model, inputs=[made, store]) as staging:
        fitted = fit_operating_point(OperatingPointConfig(), scores=made, store=store, staging=staging)
        enough = replace(fitted.calibration.calibrator, n_lens_galaxies=20, n_control_galaxies=20)
        staging.write_json(FILE, enough.as_json())
        point = staging.commit()
    home.conclude(point, [])
    return point


def test_the_command_writes_p_lens_and_says_by_what(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained.home.path, tmp_path / "home")
    home = Home(tmp_path / "home")
    monkeypatch.setenv("LENS_PIPELINE_HOME", str(home.path))
    classifier, store, splits = (
        home.open("tried", one.asset, model=one.model, version=one.version)
        for one in (trained.classifier, trained.store, trained.splits)
    )
    stamps = home.open("tried", "stamps", version=store.inputs["stamps"]).path("fragment-00000.parquet")
    typed = ["predict", str(stamps), str(tmp_path / "gone.npy"), "--folder", str(classifier.folder), "--out"]
    assert main([*typed, str(tmp_path / "before.parquet")]) == 0
    assert "p_lens: null: " in capsys.readouterr().out
    before = pq.read_table(tmp_path / "before.parquet")
    PREDICTIONS.validate(before, where="test")
    assert before["p_lens"].null_count == before.num_rows
    assert {row["p_lens_reason"] is None for row in before.to_pylist() if row["reason"]} == {True}
    assert all("no green operating_point" in row["p_lens_reason"] for row in before.to_pylist() if not row["reason"])

    with home.stage("tried", "scores", inputs=[classifier, store, splits]) as staging:
        score_store(ScoringConfig(), [classifier], store, splits, staging)
        scores = staging.commit()
    point = calibrated(home, scores, store)
    assert main([*typed, str(tmp_path / "after.parquet")]) == 0
    said = capsys.readouterr().out
    assert f"at a prevalence of {PREVALENCE:g}" in said
    after = pq.read_table(tmp_path / "after.parquet")
    PREDICTIONS.validate(after, where="test")
    assert point.version in after.schema.metadata[b"p_lens"].decode()
    scored = after.slice(0, after.num_rows - 1)
    wanted = frozen_calibrator(point).p_lens(scored["logit"].to_numpy(), PREVALENCE)
    assert scored["p_lens"].to_pylist() == wanted.tolist()
    assert after["p_lens"][-1].as_py() is None
    n_beyond = sum(scored["extrapolated"].to_pylist())
    assert n_beyond > 0
    assert f"{n_beyond:,}: above every control" in said


def test_an_ensemble_has_the_calibration_of_its_mean(
    folded: Folded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LENS_PIPELINE_HOME", str(folded.home.path))
    scores = folded.scored("main.calibrated")
    point = calibrated(folded.home, scores, folded.store)
    np.save(tmp_path / "a.npy", stamps_of(folded)[1][:5])
    named = ["predict", "--dataset", "tried", "--model", "main.calibrated", str(tmp_path / "a.npy")]
    assert main([*named, "--out", str(tmp_path / "out.parquet")]) == 0
    assert "1 input, 5 rows: 5 scored, 0 refused" in capsys.readouterr().out
    found = pq.read_table(tmp_path / "out.parquet")
    wanted = frozen_calibrator(point).p_lens(found["logit"].to_numpy(), PREVALENCE)
    assert found["p_lens"].to_pylist() == wanted.tolist()
    assert main([*named, "--tta", "--out", str(tmp_path / "turned.parquet")]) == 0
    assert "leave out --tta" in pq.read_table(tmp_path / "turned.parquet")["p_lens_reason"][0].as_py()
