"""``lens_pipeline summary``: the headline numbers of the current report, in a terminal."""

import re
import textwrap
from typing import Any

import polars as pl

from lens_pipeline.defs.sections import RunConfig, resource_settings
from lens_pipeline.defs.workspace import Workspace
from lens_pipeline.evaluation.beside import GATES, RECOVERY, Beside
from lens_pipeline.evaluation.metrics import ALL_ROWS, completed
from lens_pipeline.evaluation.sealed import primary_point
from lens_pipeline.storage.publication import Publication

# What the first screen should hold; the page has the others.
_SHOWN = re.compile("auroc|average_precision|(tpr|recall|fpr)_at_(?!tpr).*|null_test_auroc|log_loss|ece")
_COUNTED = {"n_positives": "injections", "n_negatives": "controls"}


def run(preset: RunConfig) -> int:
    """Print what the current report says of test, completeness against arc S/N, and where the page is."""
    settings = resource_settings(preset, "workspace")
    workspace = Workspace(**settings)
    report = workspace.open("evaluation_report")
    completeness = workspace.open_version("completeness", report.inputs["completeness"])
    print(f"\n{workspace.dataset}: evaluation_report {report.version}\n")
    for row in completed(report.read_table()).to_pylist():
        if row["split"] == "test" and row["stratum"] == ALL_ROWS and _SHOWN.fullmatch(row["metric"]):
            value = figure(row["value"], row["low"], row["high"], row["status"], row["reason"])
            print(f"  {row['metric']:<30}  {value:<32}  {_rests_on(row)}")
    _print_completeness(completeness)
    _print_beside(workspace, report, completeness)
    print(f"\n  page    {report.path('report.html')}")
    print(
        "  tables  python -c \"from lens_pipeline.storage import read_table; print(read_table('completeness', "
        f"dataset='{workspace.dataset}'))\""
    )
    print("  browse  make ui (Dagster), make mlflow (training runs)\n")
    return 0


def _print_completeness(completeness: Publication) -> None:
    rows = completeness.read_table().to_pylist()
    points = list(dict.fromkeys(row["operating_point"] for row in rows))
    if not points:
        return
    point = points[-1] if "fpr_1e-02" not in points else "fpr_1e-02"
    print(f"\n  completeness at {point}, against arc S/N (peak):")
    for row in rows:
        if row["operating_point"] == point and row["axis"] == "arc_snr":
            value = figure(
                row["completeness"], row["completeness_low"], row["completeness_high"], row["status"], row["reason"]
            )
            print(f"    {row['cell']:<16} {value:<34} n = {row['n']:,}")


def _print_beside(workspace: Workspace, report: Publication, completeness: Publication) -> None:
    """Print what is found of real lenses, and what the gates say, as the report's first lines do."""
    point = workspace.open_version("operating_point", report.inputs["operating_point"])
    usable = pl.DataFrame(point.read_table()).filter(pl.col("threshold").is_not_null())
    read = [
        workspace.open_version(asset, report.inputs[asset]) for asset in (RECOVERY, GATES) if asset in report.inputs
    ]
    print()
    for line in Beside.of(read).claims(primary_point(usable)["operating_point"]):
        print(textwrap.fill(line, 110, initial_indent="  ", subsequent_indent="    "))


def _rests_on(row: dict[str, Any]) -> str:
    counts = [f"{row[column]:,} {what}" for column, what in _COUNTED.items() if row[column]]
    return f"n = {' and '.join(counts)}" if row["value"] is not None else ""


def figure(value: float | None, low: float | None, high: float | None, status: str, reason: str | None) -> str:
    """Write a number with its interval, or why it has none; without a number its status and why."""
    if value is None:
        return f"{status}: {(reason or '').partition(';')[0]}"
    interval = (
        f" [{low:.4f}, {high:.4f}]"
        if low is not None and high is not None
        else f" ({(reason or '').partition(', ')[0]})"
    )
    return f"{value:.4f}{interval}" + ("" if status == "ok" else f" ({status})")
