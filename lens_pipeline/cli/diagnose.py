"""``lens_pipeline diagnose``: why a training's metrics fell, from a history file or from tables of scores."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from lens_pipeline.contracts.errors import EvaluationError, first_few
from lens_pipeline.evaluation.diagnosis import diagnose
from lens_pipeline.evaluation.epoch_records import EpochRecord, records_of_table
from lens_pipeline.evaluation.findings import Finding, Verdict
from lens_pipeline.evaluation.measured_epochs import records_of_scores
from lens_pipeline.splits.assignment import KNOWN_LENS, TEST, WITHHELD
from lens_pipeline.training.history import History

_WHY_LEFT_OUT = {
    TEST: "they are read through the frozen operating point alone",
    KNOWN_LENS: "they are lenses that are labelled as controls",
    WITHHELD: "whether they are of test is not told",
}
_MARKS = {Verdict.found: "!!", Verdict.suspected: " ?", Verdict.not_found: "  ", Verdict.unknown: " -"}


def run(file: Path, *, n_split: int | None = None) -> int:
    """Print each cause with its verdict and evidence; 1 if one was found."""
    records = read_records(file, n_split=n_split)
    findings = diagnose(records)
    print(f"{file.name}: {len(records):,} {'epoch' if len(records) == 1 else 'epochs'}\n")
    print("".join(f"{line}\n" for line in _left_out(records)), end="")
    for record in records:
        for name in record.not_finite:
            print(f"!! epoch {record.epoch}: {name} is not finite, and is left out of what follows")
    for finding in findings:
        print("\n".join(_lines(finding)))
    return int(any(finding.verdict is Verdict.found for finding in findings))


def read_records(file: Path, *, n_split: int | None = None) -> list[EpochRecord]:
    """Read what is known of each epoch.

    Parameters
    ----------
    file : Path
        history.jsonl of a training; a table of epochs as CSV or JSON (rows, or columns); or scores as parquet or CSV with `label`
        and `logit`, `epoch` where there are several.
    n_split : int, optional
        Rows that the evaluated split has, where the file doesn't tell.

    Raises
    ------
    EvaluationError
        If the file can't be read as any of these; of a table of epochs, if two columns tell of the same, an epoch stands there
        twice or an AUROC is no share; or, of scores, if there is no row, a label is no class number (-1 is none), a
        logit or epoch is no number, a split is null or not known, or an epoch has no row but those of `train`, `test`,
        `known_lens` and `withheld`.
    """
    try:
        table = _table(file)
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise EvaluationError(f"{file} can't be read: {error}. Give history.jsonl, CSV, JSON or parquet.") from error
    if isinstance(table, pl.DataFrame) and {"label", "logit"} <= set(table.columns):
        return records_of_scores(_scores(table, file), n_split=n_split)
    rows = table.to_dicts() if isinstance(table, pl.DataFrame) else table
    records = records_of_table(rows)
    return [replace(record, n_split=n_split) if record.n_split is None else record for record in records]


def _scores(table: pl.DataFrame, file: Path) -> pl.DataFrame:
    """Return the same rows with their numbers as numbers: a label, logit or epoch that is none is refused, not cut to one."""
    counted = [name for name in ("label", "epoch") if name in table.columns]
    read = table.with_columns(pl.col("logit", *counted).cast(pl.Float64, strict=False))
    whole = {name: pl.col(name).is_finite() & (pl.col(name) == pl.col(name).floor()) for name in ("label", "epoch")}
    rules = {
        "label": (whole["label"] & (pl.col("label") >= 0), "label, which is 0 or the number of a class,"),
        "logit": (pl.col("logit").is_finite(), "finite logit"),
        "epoch": (whole["epoch"], "epoch, which is a whole number,"),
    }
    for name, (holds, words) in rules.items():
        if name not in table.columns:
            continue
        wrong = table.filter(~read.select(holds.fill_null(False)).to_series())
        if not wrong.is_empty():
            values = wrong[name].cast(pl.String).fill_null("nothing").unique(maintain_order=True)
            raise EvaluationError(
                f"{wrong.height:,} of {table.height:,} rows of {file} have no {words} but {first_few(values.to_list())}: they "
                "would be counted as what they aren't. Leave them out, or mend them."
            )
    return read.with_columns(pl.col(counted).cast(pl.Int64))


def _table(file: Path) -> pl.DataFrame | list[Mapping[str, Any]]:
    kind = file.suffix.lower()
    if kind == ".jsonl":
        return [epoch for epoch in History.of(_there(file)).epochs]
    if kind == ".parquet":
        return pl.read_parquet(_there(file))
    if kind == ".json":
        return _rows(json.loads(file.read_text()))
    # As text: the decimals tell how far a number was rounded.
    return pl.read_csv(_there(file), infer_schema=False)


def _there(file: Path) -> Path:
    if not file.exists():
        raise FileNotFoundError("there is no such file")
    return file


def _rows(content: Any) -> list[Mapping[str, Any]]:
    """Rows of a JSON table: a list of rows, columns by name, or either under `history` or `epochs`."""
    if isinstance(content, dict):
        inner = next(
            (content[name] for name in ("history", "epochs") if isinstance(content.get(name), list | dict)), None
        )
        if inner is not None:
            shared = {name: value for name, value in content.items() if isinstance(value, int | float | str)}
            return [{**shared, **row} for row in _rows(inner)]
        columns = {name: values for name, values in content.items() if isinstance(values, list)}
        shared = {name: value for name, value in content.items() if name not in columns}
        n = max((len(values) for values in columns.values()), default=0)
        return [
            {**shared, **{name: values[i] for name, values in columns.items() if i < len(values)}} for i in range(n)
        ]
    if isinstance(content, list) and all(isinstance(row, dict) for row in content):
        return content
    raise ValueError("neither rows nor columns by name")


def _left_out(records: list[EpochRecord]) -> list[str]:
    of_split = {split: sum(record.left_out_rows.get(split, 0) for record in records) for split in _WHY_LEFT_OUT}
    lines = [f"{n:,} rows of {split} were left out: {_WHY_LEFT_OUT[split]}" for split, n in of_split.items() if n]
    if repeated := sum(record.repeated_rows for record in records):
        lines.append(f"{repeated:,} rows were left out: the same stamp with the same score stands in another row")
    return lines


def _lines(finding: Finding) -> list[str]:
    head = f"{_MARKS[finding.verdict]} {finding.cause}: {finding.verdict}"
    return [head, *(f"     {line}" for line in finding.evidence)]
