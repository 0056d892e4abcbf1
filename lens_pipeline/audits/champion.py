"""A model held against others of the dataset: those that are named, or the champion.

Belongs here: which versions are meant, and what is said where there is nothing to compare with. The numbers are
`evaluation/comparison.py`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
from pydantic import Field, field_validator

from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.contracts.comparison_tables import MODEL_COMPARISON
from lens_pipeline.contracts.config import Section
from lens_pipeline.contracts.errors import EvaluationError, StorageError, first_few
from lens_pipeline.evaluation.comparison import Contestant, compare, refuse_other_rows
from lens_pipeline.evaluation.metrics import BootstrapSettings
from lens_pipeline.evaluation.resolution import ResolutionRule
from lens_pipeline.evaluation.scored_rows import join_store
from lens_pipeline.evaluation.sealed import open_test_rows
from lens_pipeline.scoring.aliases import CLASSIFIER, SCORES, asset_of, champion_version, green_versions
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging

CHECK = "challenger_is_not_worse"
CHAMPION = "champion"
_POINT = "operating_point"


class ComparisonConfig(Section):
    """What the model is held against."""

    against: list[str] = Field(
        [], description="names of models of the dataset; empty: the champion, where one was chosen"
    )
    n_bootstrap: int = Field(1000, ge=200, le=100_000, description="bootstrap replicates over galaxies or regions")
    seed: int = Field(0, ge=0, description="seed of the bootstrap")

    @field_validator("against")
    @classmethod
    def _each_once(cls, against: list[str]) -> list[str]:
        if twice := [name for name in dict.fromkeys(against) if against.count(name) > 1]:
            raise ValueError(f"{first_few(twice)} is named more than once")
        return against


@dataclass(frozen=True)
class Rival:
    """Scores of another model, or of another version of this one, and the operating point that was fitted on them."""

    name: str
    scores: Publication
    operating_point: Publication


@dataclass(frozen=True)
class Comparison:
    """MODEL_COMPARISON, and why it is empty where it is."""

    table: pa.Table
    reason: str | None


def find_rivals(config: ComparisonConfig, home: Home, scores: Publication) -> tuple[list[Rival], str | None]:
    """Find what to compare with, and where there is nothing say why.

    Raises
    ------
    StorageError
        If a model that is named has no scores or no operating point.
    EvaluationError
        If the model is told to compare itself with itself.
    """
    dataset, model = scores.dataset, scores.model
    if config.against:
        if model in config.against:
            raise EvaluationError(
                f"model_comparison.against names {model}, which is the model itself. Name another one."
            )
        return [_named(home, dataset, name) for name in config.against], None
    version = champion_version(home, dataset, model)
    if version is None:
        return [], f"no champion was chosen among the versions of model {model} (lens_pipeline champion)"
    asset = asset_of(home, dataset, model)
    if version == (scores.version if asset == SCORES else scores.inputs.get(CLASSIFIER)):
        return [], "this is the champion"
    made = [
        one
        for one in green_versions(home, dataset, SCORES, model)
        if version in (one.version, one.inputs.get(CLASSIFIER))
    ]
    points = green_versions(home, dataset, _POINT, model)
    for theirs in reversed(made):
        if found := next((point for point in reversed(points) if point.inputs.get(SCORES) == theirs.version), None):
            return [Rival(CHAMPION, theirs, found)], None
    return [], f"the champion, {asset} {version}, has no scores with an operating point any more"


def _named(home: Home, dataset: str, name: str) -> Rival:
    theirs = home.open(dataset, SCORES, model=name)
    point = home.open(dataset, _POINT, model=name)
    if point.version_read(theirs) != theirs.version:
        raise StorageError(
            f"the operating_point of model {name} was fitted on other scores than its current ones ({theirs.version}). Next: "
            "dagster asset materialize --select operating_point -m lens_pipeline.definitions -c PRESET, with that model's name"
        )
    return Rival(name, theirs, point)


def compare_models(
    config: ComparisonConfig,
    rivals: Sequence[Rival],
    reason: str | None,
    *,
    scores: Publication,
    operating_point: Publication,
    store: Publication,
    staging: Staging,
) -> Comparison:
    """Compare on the rows of test, and write MODEL_COMPARISON.

    A model that is named and was tested on other rows is refused. The champion of an earlier store isn't an error of this run's:
    then the table is empty and says so.

    Raises
    ------
    EvaluationError
        If a named model was tested on other rows.
    """
    records: list[dict[str, Any]] = []
    if rivals:
        this = _contestant(scores.model, scores, operating_point, store, staging)
        targets = pl.DataFrame(operating_point.read_table())["target_fpr"].drop_nulls().to_list()
        rule = ResolutionRule(**operating_point.attributes["rule"])
        settings = BootstrapSettings(config.n_bootstrap, config.seed)
        for rival in rivals:
            try:
                _refuse_other_data(scores, rival)
                other = _contestant(rival.name, rival.scores, rival.operating_point, store, staging)
                refuse_other_rows(this, other)
            except EvaluationError as error:
                if config.against:
                    raise
                reason = str(error)
                continue
            records += compare(this, other, targets, rule, settings)
    table = pa.Table.from_pylist(records, schema=MODEL_COMPARISON.schema)
    staging.write_table(None, table, MODEL_COMPARISON)
    staging.attributes["not_compared"] = reason
    return Comparison(table, reason)


def _refuse_other_data(scores: Publication, rival: Rival) -> None:
    for source in ("stamp_store", "region_splits"):
        mine, theirs = scores.inputs.get(source), rival.scores.inputs.get(source)
        if mine != theirs:
            raise EvaluationError(
                f"{rival.name} (scores {rival.scores.version}) was tested on {source} {theirs}, model {scores.model} on "
                f"{mine}: a difference between them would be one of the rows. Train or score both on the same data, the other "
                "under a name of its own (resources.workspace.config.model)."
            )


def _contestant(
    name: str, scores: Publication, operating_point: Publication, store: Publication, staging: Staging
) -> Contestant:
    sealed = open_test_rows(scores, operating_point, staging)
    points = dict(sealed.usable.select("operating_point", "threshold").iter_rows())
    return Contestant(name, scores.version, join_store(sealed.rows, scores=scores, store=store), points)


def challenger_is_not_worse(comparison: Comparison) -> Check:
    """Ask that no interval of a difference lies on the wrong side of 0. Blocks nothing: which model is used, a person decides."""
    rows = pl.DataFrame(comparison.table).drop_nulls(["low", "high"])
    if rows.is_empty():
        why = comparison.reason or "no difference has an interval"
        return green(CHECK, f"not compared: {why}", blocking=False)
    less_is_better = pl.col("metric").str.contains("^(log_loss|brier|fpr_)")
    worse = rows.filter(pl.when(less_is_better).then(pl.col("low") > 0).otherwise(pl.col("high") < 0))
    told = [
        f"{row['metric']} {row['delta']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f}) against {row['against']}"
        for row in worse.iter_rows(named=True)
    ]
    others = ", ".join(rows["against"].unique(maintain_order=True))
    if not told:
        return green(CHECK, f"{rows.height:,} differences from {others}, none of them clearly worse", blocking=False)
    return red(
        CHECK,
        f"{len(told):,} of {rows.height:,} differences from {others} are for the worse",
        wrong=told,
        why="the new model would find less, or let through more, than the one in use.",
        next_step="keep the champion, or look at model_comparison and choose with lens_pipeline champion.",
        blocking=False,
    )
