"""The model card: what a version of lens_classifier is, learned from, scores like, and can't be asked; from artifacts only.

As JSON and as Markdown, which says the same. What no artifact says is null, with the reason.
"""

import json
from collections import Counter
from typing import Any

import polars as pl

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.evaluation import statements
from lens_pipeline.evaluation.scored_rows import TEST
from lens_pipeline.evaluation.wording import metric_words, number
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication

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


def describe_model(home: Home, classifier: Publication, report: Publication | None) -> Card:
    """Make the card of a version.

    Parameters
    ----------
    report : Publication or None
        The evaluation_report about it, where there is one.

    Returns
    -------
    dict
        JSON-able: model, input, data, training, metrics (each with n, interval, or the reason why there is none), limits.
    """
    about = classifier.read_json("model.json")
    data, evaluation = _data(home, classifier), _evaluation(home, report)
    if data.get("source") == "simulated":
        evaluation["limits"].insert(0, _SIMULATED)
    return {
        "format": FORMAT,
        "model": {
            "dataset": classifier.dataset,
            "name": classifier.model,
            "version": classifier.version,
            **about["model"],
            "files": {name: e.sha256 for name, e in classifier.manifest.files.items() if name in _FILES},
            "program": classifier.manifest.provenance.get("program"),
        },
        "input": {
            **{name: about["contract"][name] for name in ("bands", "stamp_size", "pixel_scale_arcsec", "flux_unit")},
            "classes": [stamp_class["name"] for stamp_class in about["contract"]["classes"]],
            "preprocessing": about["preprocessing"],
        },
        "data": data,
        "training": {
            **{name: classifier.attributes.get(name) for name in ("epochs", "best_epoch", "ended", "monitor")},
            "best": _best(classifier),
            "config": about["config"],
        },
        **evaluation,
    }


def as_json(card: Card) -> bytes:
    """Return the card as JSON; the same card gives the same bytes."""
    return json.dumps(card, indent=1, sort_keys=True, allow_nan=False).encode()


def as_markdown(card: Card) -> str:
    """Return the card for people."""
    model, seen, training = card["model"], card["input"], card["training"]
    config = ", ".join(f"{name} {value}" for name, value in training["config"].items())
    best = training["best"] or {}
    parts = [
        f"# {model['dataset']}, {model['name']}: lens_classifier {model['version']}",
        f"{model['architecture']} for stamps of {seen['stamp_size']} x {seen['stamp_size']} pixels in "
        f"{', '.join(seen['bands'])}: {seen['flux_unit']}, {seen['pixel_scale_arcsec']:g} arcsec per pixel. Classes: "
        f"{', '.join(seen['classes'])}; its score is the log-odds of not being {seen['classes'][0]}. Preprocessing: "
        f"{seen['preprocessing']['name']}, part of the program.",
        "## Metrics\n\n" + _metrics_text(card),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in card["limits"]),
        "## Data\n\n" + _data_text(card["data"]),
        f"## Training\n\n{training['epochs']} epochs, the best was epoch {training['best_epoch']} by {training['monitor']} "
        f"({', '.join(f'{name} {_figure(value)}' for name, value in best.items() if name != 'epoch')}). It ended: "
        f"{training['ended']}.\n\nSettings: {config}.",
        "## Files\n\n" + "\n".join(f"- `{name}` SHA-256 `{sha256}`" for name, sha256 in model["files"].items()),
    ]
    return "\n\n".join(parts) + "\n"


def _data(home: Home, classifier: Publication) -> Card:
    """Say what it learned from, as far as these versions are still there."""
    inputs = {name: classifier.inputs[name] for name in ("stamp_store", "region_splits")}
    try:
        store, splits = (home.open(classifier.dataset, name, version=version) for name, version in inputs.items())
        stamps = home.open(classifier.dataset, "stamps", version=store.inputs["stamps"])
        rows = splits.read_table("rows", ["split", "label"]).to_pylist()
        regions = splits.read_table(None, ["split"])["split"].to_pylist()
    except StorageError as error:
        return {**inputs, "why_no_more": str(error)}
    names = [stamp_class["name"] for stamp_class in store.attributes["dataset_contract"]["classes"]]
    counted = Counter((row["split"], names[row["label"]]) for row in rows)
    return {
        **inputs,
        "source": stamps.attributes.get("source"),
        "rows": {split: {name: counted[split, name] for name in names} for split in sorted({s for s, _ in counted})},
        "regions": dict(sorted(Counter(regions).items())),
        **{name: store.attributes.get(name) for name in ("n_in", "n_stored", "n_quarantined", "n_excluded")},
    }


def _best(classifier: Publication) -> Card | None:
    history = classifier.read_table().to_pylist()
    wanted = ("epoch", "train_loss", "val_loss", "val_auroc")
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
    metrics = report.read_table()
    tables = (pl.DataFrame(table) for table in (point.read_table(), metrics, completeness.read_table()))
    return {
        "evaluation_report": report.version,
        "metrics": metrics.to_pylist(),
        "why_no_metrics": None,
        "limits": [*_ALWAYS, *statements.limits(*tables)],
    }


def _metrics_text(card: Card) -> str:
    if card["metrics"] is None:
        return f"None: {card['why_no_metrics']}."
    lines = [f"On {TEST}, evaluation_report {card['evaluation_report']}; 95 % intervals.", ""]
    lines += ["| metric | value | lenses | controls | galaxies |", "|---|---|---|---|---|"]
    for row in card["metrics"]:
        if row["split"] == TEST:
            value = _value(row)
            counts = " | ".join(f"{row[name]:,}" for name in ("n_positives", "n_negatives", "n_clusters"))
            lines.append(f"| {metric_words(row['metric'])} | {value} | {counts} |")
    return "\n".join(lines)


def _value(row: Card) -> str:
    if row["value"] is None:
        return f"{row['status']}: {row['reason']}"
    return number(row["value"], row["low"], row["high"]) + (f" ({row['reason']})" if row["reason"] else "")


def _data_text(data: Card) -> str:
    versions = f"stamp_store {data['stamp_store']}, region_splits {data['region_splits']}"
    if "why_no_more" in data:
        return f"{versions}; no more can be told: {data['why_no_more']}"
    rows = "\n".join(
        f"- {split}: {', '.join(f'{n:,} {name}' for name, n in classes.items())}, in {data['regions'].get(split, 0):,} regions"
        for split, classes in data["rows"].items()
    )
    return (
        f"{data['source']} stamps ({versions}): {data['n_in']:,} read, {data['n_stored']:,} stored, "
        f"{data['n_quarantined']:,} quarantined, {data['n_excluded']:,} excluded by the survey.\n\n{rows}"
    )


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
