"""The model card for people: Markdown that says what the card says."""

from typing import Any

from lens_pipeline.evaluation.metrics import ALL_ROWS
from lens_pipeline.evaluation.scored_rows import TEST
from lens_pipeline.evaluation.wording import metric_words, number


def as_markdown(card: dict[str, Any]) -> str:
    """Return the card for people."""
    model, seen, members = card["model"], card["input"], card["members"]
    what = (
        f"The mean logit of {len(members)} models{', each over 8 turns and flips,' if model['mean_over_turns'] else ''}"
        if members
        else model["architecture"]
    )
    parts = [
        f"# {model['dataset']}, {model['name']}: {model['asset']} {model['version']}",
        f"{what} for stamps of {seen['stamp_size']} x {seen['stamp_size']} pixels in "
        f"{', '.join(seen['bands'])}: {seen['flux_unit']}, {seen['pixel_scale_arcsec']:g} arcsec per pixel. Classes: "
        f"{', '.join(seen['classes'])}; its score is the log-odds of not being {seen['classes'][0]}. Preprocessing: "
        f"{seen['preprocessing']['name']}, part of {'each' if members else 'the'} program.",
        *(["## Members\n\n" + _members_text(members)] if members else []),
        "## Metrics\n\n" + _metrics_text(card),
        *(["## Cross-validation\n\n" + _cross_validation_text(card)] if card["cross_validation"] else []),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in card["limits"]),
        "## Data\n\n" + _data_text(card["data"]),
        "## Training\n\n" + _training_text(card),
        *(
            ["## Files\n\n" + "\n".join(f"- `{name}` SHA-256 `{sha256}`" for name, sha256 in model["files"].items())]
            if model["files"]
            else []
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _metrics_text(card: dict[str, Any]) -> str:
    if card["metrics"] is None:
        return f"None: {card['why_no_metrics']}."
    lines = [f"On {TEST}, evaluation_report {card['evaluation_report']}; 95 % intervals.", ""]
    lines += ["| metric | value | lenses | controls | galaxies |", "|---|---|---|---|---|"]
    for row in card["metrics"]:
        if row["split"] == TEST and row["stratum"] == ALL_ROWS:
            value = _value(row)
            counts = " | ".join(f"{row[name]:,}" for name in ("n_positives", "n_negatives", "n_clusters"))
            lines.append(f"| {metric_words(row['metric'])} | {value} | {counts} |")
    return "\n".join(lines)


def _cross_validation_text(card: dict[str, Any]) -> str:
    lines = ["Each row of train and val_select by the one member that has not seen its fold; 95 % intervals.", ""]
    lines += ["| metric | rows | value | lenses | controls |", "|---|---|---|---|---|"]
    lines += [
        f"| {metric_words(row['metric'])} | {row['split']} | {_value(row)} | {row['n_positives']:,} | {row['n_negatives']:,} |"
        for row in card["cross_validation"]
    ]
    return "\n".join(lines)


def _members_text(members: list[dict[str, Any]]) -> str:
    lines = ["| model | lens_classifier | architecture | weights' SHA-256 |", "|---|---|---|---|"]
    lines += [
        f"| {one['name']} | {one['version']} | {one['architecture']} | `{one['files']['model.safetensors']}` |"
        for one in members
    ]
    return "\n".join(lines)


def _training_text(card: dict[str, Any]) -> str:
    members = card["members"] or [{"name": None, "training": card["training"]}]
    configs = [one["training"]["config"] for one in members]
    differing = [name for name in configs[0] if any(config.get(name) != configs[0][name] for config in configs)]
    told = []
    for one, config in zip(members, configs, strict=True):
        training, best = one["training"], one["training"]["best"] or {}
        own = ", ".join(f"{name} {config.get(name)}" for name in differing)
        told.append(
            (f"{one['name']}{f' ({own})' if own else ''}: " if card["members"] else "")
            + f"{training['epochs']} epochs, the best was epoch {training['best_epoch']} by {training['monitor']} "
            f"({_best_text(best)}). It ended: "
            f"{training['ended']}."
        )
    common = ", ".join(f"{name} {value}" for name, value in configs[0].items() if name not in differing)
    return "\n\n".join([*told, f"Settings{' of all' if card['members'] else ''}: {common}."])


def _value(row: dict[str, Any]) -> str:
    if row["value"] is None:
        return f"{row['status']}: {row['reason']}"
    return number(row["value"], row["low"], row["high"]) + (f" ({row['reason']})" if row["reason"] else "")


def _data_text(data: dict[str, Any]) -> str:
    versions = f"stamp_store {data['stamp_store']}, region_splits {data['region_splits']}"
    if "why_no_more" in data:
        return f"{versions}; no more can be told: {data['why_no_more']}"
    rows = "\n".join(
        f"- {split}: {', '.join(f'{n:,} {name}' for name, n in classes.items())}, in {data['regions'].get(split, 0):,} regions"
        for split, classes in data["rows"].items()
    )
    return (
        f"{data['source']} stamps ({versions}): {data['n_in']:,} read, {data['n_stored']:,} stored, "
        f"{data['n_quarantined']:,} quarantined, {data['n_excluded']:,} excluded by the survey."
        f"{' ' + data['folds'] if data['folds'] else ''}\n\n{rows}"
    )


def _best_text(best: dict[str, Any]) -> str:
    n_train, n_validation = (_count(best.get(name)) for name in ("train_rows", "validation_rows"))
    loss, error, area = (_figure(best.get(name)) for name in ("val_loss", "val_loss_se", "val_auroc"))
    return (
        f"train_loss {_figure(best.get('train_loss'))} on {n_train}; val_loss {loss}, standard error {error}, and "
        f"val_auroc {area} on {n_validation}"
    )


def _count(rows: int | None) -> str:
    return "an unknown number of rows" if rows is None else f"{rows:,} rows"


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
