"""``lens_pipeline summary``: the headline numbers of the current report, in a terminal."""

from typing import Any

from lens_pipeline.defs.sections import RunConfig, resource_settings
from lens_pipeline.defs.workspace import Workspace
from lens_pipeline.evaluation.metrics import ALL_ROWS, completed
from lens_pipeline.storage.publication import Publication

_LEFT_TO_THE_PAGE = ("macro_", "accuracy_", "balanced_accuracy_", "f1_", "specificity_")
_COUNTED = {"n_positives": "injections", "n_negatives": "controls"}


def run(preset: RunConfig) -> int:
    """Print what the current report says of test, completeness against arc S/N, and where the page is."""
    settings = resource_settings(preset, "workspace")
    workspace = Workspace(**settings)
    report = workspace.open("evaluation_report")
    completeness = workspace.open_version("completeness", report.inputs["completeness"])
    print(f"\n{workspace.dataset}: evaluation_report {report.version}\n")
    for row in completed(report.read_table()).to_pylist():
        if row["split"] == "test" and row["stratum"] == ALL_ROWS and not row["metric"].startswith(_LEFT_TO_THE_PAGE):
            value = _value(row["value"], row["low"], row["high"], row["status"], row["reason"])
            print(f"  {row['metric']:<30}  {value:<32}  {_rests_on(row)}")
    _print_completeness(completeness)
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
            value = _value(
                row["completeness"], row["completeness_low"], row["completeness_high"], row["status"], row["reason"]
            )
            print(f"    {row['cell']:<16} {value:<34} n = {row['n']:,}")


def _rests_on(row: dict[str, Any]) -> str:
    counts = [f"{row[column]:,} {what}" for column, what in _COUNTED.items() if row[column]]
    return f"n = {' and '.join(counts)}" if row["value"] is not None else ""


def _value(value: float | None, low: float | None, high: float | None, status: str, reason: str | None) -> str:
    if value is None:
        return f"{status}: {(reason or '').partition(';')[0]}"
    interval = (
        f" [{low:.4f}, {high:.4f}]"
        if low is not None and high is not None
        else f" ({(reason or '').partition(',')[0]})"
    )
    return f"{value:.4f}{interval}" + ("" if status == "ok" else f" ({status})")
