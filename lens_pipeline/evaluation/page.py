"""The report's page: published tables, images and galleries put into report.html.j2 as one file without outside parts."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.evaluation import statements
from lens_pipeline.evaluation.axes import ALL, HEADLINE, axes_in
from lens_pipeline.evaluation.beside import Beside
from lens_pipeline.evaluation.completeness_plots import why_not_drawn
from lens_pipeline.evaluation.drawings import Drawn
from lens_pipeline.evaluation.gallery import Gallery
from lens_pipeline.evaluation.intervals import MIN_REGIONS
from lens_pipeline.evaluation.looks import READS, Look
from lens_pipeline.evaluation.metrics import ALL_ROWS, NULL_TEST, UNRESOLVED
from lens_pipeline.evaluation.out_of_fold import CrossFit
from lens_pipeline.evaluation.pairs import ABOVE_OWN_CONTROL
from lens_pipeline.evaluation.provenance import made_by, sources_of
from lens_pipeline.evaluation.rank_metrics import AT_PREVALENCE
from lens_pipeline.evaluation.scored_rows import TEST
from lens_pipeline.evaluation.wording import clusters, metric_words, minus, number, threshold_words
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging

_TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class PageContent:
    """What was measured and drawn: published tables, those of the operating point too, figures, galleries."""

    metrics: pl.DataFrame
    operating_points: pl.DataFrame
    completeness: pl.DataFrame
    cross_fit: CrossFit | None
    calibrations: pl.DataFrame
    top_controls: pl.DataFrame
    no_p_lens: str | None
    prevalence: dict[str, Any]
    survey_yield: pl.DataFrame
    by_negatives: pl.DataFrame
    primary: str
    drawn: Drawn
    galleries: list[Gallery]
    n_repeats: int
    looks: list[Look]
    beside: Beside
    contaminants: pl.DataFrame
    baseline: pl.DataFrame
    baseline_claim: str


def render(
    content: PageContent, inputs: dict[str, Publication], classifiers: Sequence[Publication], staging: Staging
) -> str:
    """Write the page.

    Parameters
    ----------
    inputs : dict of Publication
        By the names scores, operating_point, completeness, store and splits.
    classifiers : sequence of Publication
        What made the scores: one, or the members of an ensemble.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(
        number=_number,
        count=_count,
        clusters=clusters,
        words=metric_words,
        minus=minus,
        threshold=threshold_words,
        data_uri=data_uri,
    )
    contract = DatasetContract.model_validate(inputs["store"].attributes["dataset_contract"])
    return environment.get_template(_TEMPLATE).render(
        dataset=inputs["store"].dataset,
        model=inputs["scores"].model,
        contract=contract,
        splits=_split_rows(inputs["splits"], contract),
        claims=[
            *statements.claims(content.metrics, content.completeness, content.primary),
            content.baseline_claim,
            *content.beside.claims(content.primary),
            *(statements.cross_fit_claims(content.cross_fit.whole) if content.cross_fit else ()),
        ],
        least_regions=MIN_REGIONS,
        put_in=statements.put_in_beside(inputs["operating_point"].attributes.get("controls")),
        limits=[
            *statements.put_in_beside(inputs["operating_point"].attributes.get("controls")),
            *statements.limits(content.operating_points, content.metrics, content.completeness),
            statements.undiscovered_lenses(content.survey_yield, content.primary),
            statements.looks_at_test(content.metrics),
        ],
        headline=_headline(content.metrics),
        metrics=content.metrics.to_dicts(),
        operating_points=content.operating_points.to_dicts(),
        cells={axis: _cells(content.completeness, axis) for axis in axes_in(content.completeness)},
        why_not_drawn={axis: why_not_drawn(content.completeness, axis) for axis in axes_in(content.completeness)},
        whole=_cells(content.completeness, ALL),
        calibrations=content.calibrations.to_dicts(),
        no_p_lens=content.no_p_lens,
        top_controls=[row | {"above": _names_in_words(row["above"])} for row in content.top_controls.to_dicts()],
        prevalence=content.prevalence,
        survey_yield=content.survey_yield.to_dicts(),
        may_hold_lenses=any(high != 0 for high in content.survey_yield["lens_floor_high"]),
        by_negatives=content.by_negatives.filter(pl.col("n_negatives").max().over("negatives") > 0).to_dicts(),
        folds=content.cross_fit.thresholds.to_dicts() if content.cross_fit else [],
        cells_of_folds={axis: _cells(content.cross_fit.cells, axis) for axis in axes_in(content.cross_fit.cells)}
        if content.cross_fit
        else {},
        of_all_lenses=content.completeness["total"].count() > 0,
        weighted=inputs["completeness"].attributes.get("weighted", False),
        primary=content.primary,
        figures=content.drawn.svg,
        grids=content.drawn.grids,
        galleries=content.galleries,
        n_repeats=content.n_repeats,
        quarantine=_quarantine(inputs["store"]),
        sources=sources_of([*inputs.values(), *classifiers, *content.beside.publications]),
        made_by=made_by(),
        epochs=[one.attributes["best_epoch"] + 1 for one in classifiers if "best_epoch" in one.attributes],
        settings=[fact for classifier in classifiers for fact in _facts(classifier, several=len(classifiers) > 1)],
        test_reads=[*inputs["completeness"].attributes.get(READS, []), *staging.attributes[READS]],
        looks=content.looks,
        beside=content.beside,
        has_real_lenses=content.beside.recovery is not None and content.beside.recovery["recall"].count() > 0,
        contaminants=content.contaminants.to_dicts(),
        beside_filter={axis: _beside_filter(content, axis) for axis in (ALL, *HEADLINE)},
    )


def data_uri(png: bytes) -> str:
    """Return a PNG as an address that needs no other file."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _count(n: int) -> str:
    return f"{n:,}" if n else "—"


def _number(row: dict[str, Any], value: str = "value", prefix: str = "") -> str:
    return number(row[value], row[f"{prefix}low"], row[f"{prefix}high"])


def _headline(metrics: pl.DataFrame) -> list[dict[str, Any]]:
    leading = pl.col("metric").is_in(
        ["auroc", "average_precision", AT_PREVALENCE, "tpr0", "tpr10", ABOVE_OWN_CONTROL, NULL_TEST]
    )
    whole = (pl.col("split") == TEST) & (pl.col("stratum") == ALL_ROWS)
    rates = pl.col("metric").str.contains("^(tpr|recall|fpr)_at_")
    no_threshold = (pl.col("status") == UNRESOLVED) & pl.col("metric").str.contains("^(recall|fpr)_at_")
    return metrics.filter(whole & (leading | rates) & ~no_threshold).to_dicts()


def _names_in_words(operating_points: str | None) -> str | None:
    return operating_points and "; ".join(threshold_words(name) for name in operating_points.split(", "))


def _cells(completeness: pl.DataFrame, axis: str) -> list[dict[str, Any]]:
    return completeness.filter(pl.col("axis") == axis).to_dicts()


def _beside_filter(content: PageContent, axis: str) -> list[dict[str, Any]]:
    """Rows of the matched filter along an axis, each with the network's row of the same cell."""
    network = {(row["operating_point"], row["cell"]): row for row in _cells(content.completeness, axis)}
    of_filter = content.baseline.filter((pl.col("axis") == axis) & pl.col("completeness").is_not_null()).to_dicts()
    return [{**row, "network": network[row["operating_point"], row["cell"]]} for row in of_filter]


def _split_rows(splits: Publication, contract: DatasetContract) -> list[dict[str, Any]]:
    sums = (pl.len().alias("regions"), pl.col("n_galaxies").sum().alias("galaxies"))
    regions = pl.DataFrame(splits.read_table()).group_by("split").agg(*sums)
    counted = pl.DataFrame(splits.read_table("rows")).group_by("split", "label").agg(pl.len().alias("n"))
    rows = []
    for split in ("train", "val_select", "val_calibrate", TEST):
        mine = dict(counted.filter(pl.col("split") == split).select("label", "n").iter_rows())
        where = regions.filter(pl.col("split") == split).to_dicts()
        found = where[0] if where else {"regions": 0, "galaxies": 0}
        rows.append({"split": split, **found, "classes": [mine.get(i, 0) for i in range(len(contract.class_names))]})
    return rows


def _quarantine(store: Publication) -> list[dict[str, Any]]:
    table = pl.DataFrame(store.read_table("quarantine", columns=["reason", "excluded"]))
    return table.group_by("reason", "excluded").agg(pl.len().alias("n")).sort("n", "reason", descending=True).to_dicts()


def _facts(publication: Publication, *, several: bool) -> list[tuple[str, str]]:
    told = publication.attributes.items()
    # The best epoch counts from 0, and is told where the training is.
    plain = {key: value for key, value in told if isinstance(value, str | int | float) and key != "best_epoch"}
    shown = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in plain.items()}
    whose = f"{publication.model}: " if several else ""
    return [(whose + key.replace("_", " "), value) for key, value in sorted(shown.items())]
