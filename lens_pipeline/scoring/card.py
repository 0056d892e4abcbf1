"""The model card: what a version of a model is, learned from, scores like, and can't be asked; from artifacts only.

What no artifact says is null, with the reason; `card_text.py` says the same in Markdown.
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import polars as pl

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.evaluation import statements
from lens_pipeline.evaluation.metrics import completed
from lens_pipeline.evaluation.promotion import unanswered_gates
from lens_pipeline.scoring.aliases import answers_of, gates_of, is_ensemble, members_of, why_not_promoted
from lens_pipeline.scoring.out_of_fold import METRICS_TABLE
from lens_pipeline.splits.assignment import deal
from lens_pipeline.splits.withholding import TOLD
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.rows import names_of_sides, read_rows

FORMAT = 1
_FILES = ("model.pt2", "model.safetensors", "model.json")
_SIMULATED = (
    "It learned from simulated stamps and was evaluated on such: these figures don't tell how it fares on a real sky."
)
_ALWAYS = (
    "It knows stamps of one kind: these bands, this unit, pixel scale and size. Of other images its score means nothing.",
    "Its score ranks; it is no probability that a stamp holds a lens.",
)

Card = dict[str, Any]


def describe_model(home: Home, named: Publication, report: Publication | None) -> Card:
    """Make the card of a version.

    Parameters
    ----------
    named : Publication
        A lens_classifier, or the scores of an ensemble.
    report : Publication or None
        The evaluation_report about it, where there is one.

    Returns
    -------
    dict
        JSON-able: model, members, input, data, training, metrics (each with n, interval, or the reason why there is none),
        limits; of an ensemble also cross_validation.

    Raises
    ------
    StorageError
        If an ensemble's member is gone.
    """
    members = members_of(home, named)
    about = members[0].read_json("model.json")
    data, evaluation = _data(home, members), _evaluation(home, report)
    if data.get("source") == "simulated":
        evaluation["limits"].insert(0, _SIMULATED)
    evaluation["limits"] += _shortcuts(home, named)
    described = [_member(member) for member in members]
    alone = described[0]
    is_mean = is_ensemble(named)
    return {
        "format": FORMAT,
        "model": {
            "dataset": named.dataset,
            "name": named.model,
            "asset": named.asset,
            "version": named.version,
            **(about["model"] if not is_mean else {"mean_over_turns": named.attributes.get("tta", False)}),
            "files": {} if is_mean else alone["files"],
            "program": None if is_mean else named.manifest.provenance.get("program"),
        },
        "members": described if is_mean else None,
        "input": {
            **{name: about["contract"][name] for name in ("bands", "stamp_size", "pixel_scale_arcsec", "flux_unit")},
            "classes": [stamp_class["name"] for stamp_class in about["contract"]["classes"]],
            "preprocessing": about["preprocessing"],
        },
        "data": data,
        "training": None if is_mean else alone["training"],
        "cross_validation": _cross_validation(named),
        **evaluation,
    }


def as_json(card: Card) -> bytes:
    """Return the card as JSON; the same card gives the same bytes."""
    return json.dumps(card, indent=1, sort_keys=True, allow_nan=False).encode()


def _member(classifier: Publication) -> Card:
    about = classifier.read_json("model.json")
    return {
        "name": classifier.model,
        "version": classifier.version,
        "architecture": about["model"]["architecture"],
        "files": {name: e.sha256 for name, e in classifier.manifest.files.items() if name in _FILES},
        "training": {
            **{name: classifier.attributes.get(name) for name in ("epochs", "best_epoch", "ended", "monitor")},
            "best": _best(classifier),
            "config": about["config"],
        },
    }


def _cross_validation(named: Publication) -> list[Card] | None:
    if f"{METRICS_TABLE}.parquet" not in named.manifest.files:
        return None
    rows: list[Card] = named.read_table(METRICS_TABLE).to_pylist()
    return rows


def _data(home: Home, members: Sequence[Publication]) -> Card:
    """Say what the model learned from, as far as these versions are still there; members learned from the same ones."""
    inputs = {name: members[0].inputs[name] for name in ("stamp_store", "region_splits")}
    try:
        store, splits = (home.open(members[0].dataset, name, version=version) for name, version in inputs.items())
        stamps = home.open(members[0].dataset, "stamps", version=store.inputs["stamps"])
        folds, rows, regions = _sides(members, store, splits)
    except StorageError as error:
        return {**inputs, "why_no_more": str(error)}
    return {
        **inputs,
        "source": stamps.attributes.get("source"),
        "folds": folds,
        "rows": rows,
        "regions": regions,
        **{name: store.attributes.get(name) for name in ("n_in", "n_stored", "n_quarantined", "n_excluded")},
    }


def _sides(members: Sequence[Publication], store: Publication, splits: Publication) -> tuple[str | None, Card, Card]:
    """Say what folds there were; count rows by class, and regions, of each split, or of a fold and the others."""
    configs = [TrainingConfig.model_validate(member.read_json("model.json")["config"]) for member in members]
    names = [stamp_class["name"] for stamp_class in store.attributes["dataset_contract"]["classes"]]
    table = splits.read_table("rows", ["split", "label"]).group_by(["split", "label"]).aggregate([([], "count_all")])
    rows: Card = {split: dict.fromkeys(names, 0) for split in sorted(set(table["split"].to_pylist()))}
    for row in table.to_pylist():
        rows[row["split"]][names[row["label"]]] = row["count_all"]
    regions = splits.read_table(None, ["region_id", "split"])
    side_of = regions["split"].to_pylist()
    words, alone = None, configs[0]
    if any((config.folds, config.fold) != (alone.folds, alone.fold) for config in configs):
        words = "A member of a fold was trained on train and val_select without its fold, and validated on that."
    elif alone.folds:
        words = "Train and val_select were dealt to folds anew."
        sides, used = names_of_sides(alone), read_rows(splits, store, alone)
        rows = {split: counts for split, counts in rows.items() if split not in TOLD}
        for side, chosen in zip(sides, (used.train, used.validation), strict=True):
            rows[side] = dict(zip(names, used.counts(chosen, len(names)), strict=True))
        dealt = deal(regions["region_id"].to_pylist(), int(splits.attributes["seed"]), alone.folds) == alone.fold
        side_of = [sides[int(own)] if split in TOLD else split for own, split in zip(dealt, side_of, strict=True)]
    return words, rows, dict(sorted(Counter(side_of).items()))


def _shortcuts(home: Home, named: Publication) -> list[str]:
    """Say what its shortcut gates forbid and what they leave open."""
    gates, forbidden = gates_of(home, named), why_not_promoted(home, named)
    limits = [f"It can't be champion: {forbidden}."] if forbidden else []
    if gates is not None and (names := unanswered_gates(answers_of(gates))):
        limits.append(f"Shortcut gates that were not answered, for or against: {', '.join(names)}.")
    return limits


def _best(classifier: Publication) -> Card | None:
    history = classifier.read_table().to_pylist()
    wanted = ("epoch", "train_loss", "train_rows", "val_loss", "val_loss_se", "val_auroc", "validation_rows")
    best = [row for row in history if row["epoch"] == classifier.attributes.get("best_epoch")]
    return {name: best[0][name] for name in wanted if name in best[0]} if best else None


def _evaluation(home: Home, report: Publication | None) -> Card:
    """Metrics and limits out of the report and what it was made from."""
    if report is None:
        why = "no evaluation_report about this version was published; materialize from scores on"
        limits = [*_ALWAYS, "How well it finds lenses was not measured."]
        return {"evaluation_report": None, "metrics": None, "why_no_metrics": why, "limits": limits}
    point, completeness = (
        home.open(report.dataset, name, model=report.model, version=report.inputs[name])
        for name in ("operating_point", "completeness")
    )
    metrics = completed(report.read_table())
    tables = (pl.DataFrame(table) for table in (point.read_table(), metrics, completeness.read_table()))
    return {
        "evaluation_report": report.version,
        "metrics": metrics.to_pylist(),
        "why_no_metrics": None,
        "limits": [*_ALWAYS, *statements.limits(*tables)],
    }
