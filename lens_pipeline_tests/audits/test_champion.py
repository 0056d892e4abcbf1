"""What a model is held against: the champion or named models, on the same data, or nothing with the reason why."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from pydantic import ValidationError

from lens_pipeline.audits.champion import (
    CHAMPION,
    Comparison,
    ComparisonConfig,
    challenger_is_not_worse,
    compare_models,
    find_rivals,
)
from lens_pipeline.contracts.catalogue import SCORES
from lens_pipeline.contracts.checks import green
from lens_pipeline.contracts.comparison_tables import MODEL_COMPARISON
from lens_pipeline.contracts.errors import EvaluationError, StorageError
from lens_pipeline.evaluation.config import OperatingPointConfig
from lens_pipeline.evaluation.operating_point import fit_operating_point
from lens_pipeline.scoring.aliases import CHOICE
from lens_pipeline.storage.publication import Publication
from lens_pipeline_tests.evaluation.synthetic import DATASET, Chain, draw, publish

CONFIG = ComparisonConfig(n_bootstrap=300)


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    made = publish(draw({"train": 30, "val_select": 30, "val_calibrate": 150, "test": 150}), tmp_path)
    for version in (made.classifier, made.scores):
        made.home.conclude(version, [green("sound", "fine")])
    return made


def point_of(chain: Chain, scores: Publication) -> Publication:
    with chain.home.stage(DATASET, "operating_point", model=scores.model, inputs=[scores, chain.store]) as staging:
        fit_operating_point(OperatingPointConfig(), scores=scores, store=chain.store, staging=staging)
        made = staging.commit()
    chain.home.conclude(made, [green("sound", "fine")])
    return made


def another(chain: Chain, *, noise: float, model: str | None = None, store: Publication | None = None) -> Publication:
    """Scores of a model that orders rows as the chain's own, with noise of its own."""
    with chain.stage("lens_classifier", chain.store, chain.splits) as staging:
        staging.write_table(None, chain.classifier.read_table())
        staging.attributes["noise"] = noise
        classifier = staging.commit()
    theirs = chain.scores.read_table()
    table = pl.DataFrame(theirs)
    noisy = table["logit"] + pl.Series(np.random.default_rng(1).normal(0, noise, table.height), dtype=pl.Float32)
    inputs = [store or chain.store, chain.splits, classifier]
    with chain.home.stage(DATASET, "scores", model=model, inputs=inputs) as staging:
        staging.write_table(None, table.with_columns(logit=noisy).to_arrow().cast(theirs.schema), SCORES)
        made = staging.commit()
    chain.home.conclude(made, [green("sound", "fine")])
    return made


def choose(chain: Chain, classifier: Publication) -> None:
    with chain.home.stage(DATASET, CHOICE, inputs=[classifier]) as staging:
        staging.write_json("champion.json", {})
        chain.home.conclude(staging.commit(), [])


def held(chain: Chain, scores: Publication, config: ComparisonConfig = CONFIG) -> Comparison:
    point = point_of(chain, scores)
    rivals, reason = find_rivals(config, chain.home, scores)
    with chain.stage("model_comparison", scores, point, chain.store) as staging:
        found = compare_models(
            config, rivals, reason, scores=scores, operating_point=point, store=chain.store, staging=staging
        )
        made = staging.commit()
    MODEL_COMPARISON.validate(made.read_table(), where="test")
    return found


def test_without_a_champion_nothing_is_compared_and_the_reason_is_said(chain: Chain) -> None:
    found = held(chain, chain.scores)
    assert found.table.num_rows == 0
    assert "no champion was chosen" in (found.reason or "")
    finding = challenger_is_not_worse(found)
    assert finding.passed
    assert "not compared: no champion was chosen" in finding.what


def test_a_challenger_is_held_against_the_champion_that_is_an_earlier_version_of_it(chain: Chain) -> None:
    point_of(chain, chain.scores)
    choose(chain, chain.classifier)
    worse = another(chain, noise=3.0)
    found = held(chain, worse)
    rows = {row["metric"]: row for row in found.table.to_pylist()}
    assert {(row["against"], row["against_version"]) for row in rows.values()} == {(CHAMPION, chain.scores.version)}
    assert rows["auroc"]["high"] < 0
    assert rows["recall_at_fpr_1e-01"]["n_only_other"] > rows["recall_at_fpr_1e-01"]["n_only_this"]
    finding = challenger_is_not_worse(found)
    assert not finding.passed
    assert not finding.blocking
    assert any("auroc" in told for told in finding.first)


def test_a_model_that_is_named_twice_is_refused_before_anything_runs() -> None:
    with pytest.raises(ValidationError, match="wide is named more than once"):
        ComparisonConfig(against=["wide", "folds", "wide"])


def test_the_champion_is_not_held_against_itself(chain: Chain) -> None:
    choose(chain, chain.classifier)
    assert held(chain, chain.scores).reason == "this is the champion"


def test_a_champion_of_other_data_stops_no_run_and_is_named(chain: Chain) -> None:
    point_of(chain, chain.scores)
    choose(chain, chain.classifier)
    later = another(chain, noise=0.1)
    point = point_of(chain, later)
    rivals, reason = find_rivals(CONFIG, chain.home, later)
    theirs = rivals[0].scores
    manifest = replace(theirs.manifest, inputs={**theirs.inputs, "region_splits": "0" * 16})
    moved = replace(rivals[0], scores=replace(theirs, manifest=manifest))
    with chain.stage("model_comparison", later, point) as staging:
        found = compare_models(
            CONFIG, [moved], reason, scores=later, operating_point=point, store=chain.store, staging=staging
        )
    assert found.table.num_rows == 0
    assert "was tested on region_splits" in (found.reason or "")


def test_a_named_model_is_compared_and_one_of_other_data_is_refused(chain: Chain) -> None:
    named = ComparisonConfig(against=["other"], n_bootstrap=300)
    theirs = another(chain, noise=3.0, model="other")
    with pytest.raises(StorageError, match="operating_point"):
        find_rivals(named, chain.home, chain.scores)
    point_of(chain, theirs)
    found = held(chain, chain.scores, named)
    assert {row["against"] for row in found.table.to_pylist()} == {"other"}
    assert challenger_is_not_worse(found).passed
    with chain.stage("stamp_store") as staging:
        staging.write_table(None, pa.table({"task_id": ["x"]}))
        strange = staging.commit()
    (rival,), _ = find_rivals(named, chain.home, chain.scores)
    rivals = [replace(rival, scores=another(chain, noise=0.2, model="other", store=strange))]
    with chain.stage("model_comparison", chain.scores) as staging, pytest.raises(EvaluationError, match="stamp_store"):
        compare_models(
            named,
            rivals,
            None,
            scores=chain.scores,
            operating_point=point_of(chain, chain.scores),
            store=chain.store,
            staging=staging,
        )


def test_a_model_is_not_compared_with_itself_by_name(chain: Chain) -> None:
    with pytest.raises(EvaluationError, match="is the model itself"):
        find_rivals(ComparisonConfig(against=["default"]), chain.home, chain.scores)
