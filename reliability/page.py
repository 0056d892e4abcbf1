"""docs/reliability.md, made from the result files: no figure on it was typed by hand."""

import json
from pathlib import Path
from typing import Any

from reliability.subject import RESULTS

# So many figures fit a line; of more each has a place in a table of its own.
_MOST_IN_A_LINE, _OF_SIZE = 12, ", n "

PAGE = Path(__file__).parent.parent / "docs" / "reliability.md"
_HEAD = """# What was tried to break it

Made by `python -m reliability SUBJECT` from `reliability/results/*.json`; do not edit. Each line is a numbered family of
cases, taken in order and counted as far as it got; a run can be stopped at any time and goes on where it stopped, and
`--only CASE` runs one case again. "0 of n" bounds the true rate below 3/n with 95 % confidence.

| subject | what is claimed | tried | goal | failures | largest | counted |
|---|---|---|---|---|---|---|
"""


def write_page() -> Path:
    """Render every result file into the page."""
    results: list[dict[str, Any]] = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(_HEAD + "".join(_line(result) for result in results) + _tables(results) + _failures(results))
    return PAGE


def _line(result: dict[str, Any]) -> str:
    bounds = result["bounds"]
    largest = "; ".join(
        f"{name} {value:.3g}" + (f" (bound {bounds[name]:g})" if name in bounds else "")
        for name, value in sorted(result["largest"].items())
    )
    if _has_table(result):
        values = result["largest"].values()
        largest = f"{len(values)} figures from {min(values):.3g} to {max(values):.3g}, [below](#{result['name']})"
    counts = "; ".join(f"{name} {count:,}" for name, count in sorted(result["counts"].items()))
    tried = f"{result['n']:,} {result['unit']}" + (" (all there are)" if result["exhausted"] else "")
    return (
        f"| {result['name']} | {result['question']} | {tried} | {result['goal']:,} | {result['n_failures']:,} | "
        f"{largest or '-'} | {counts or '-'} |\n"
    )


def _has_table(result: dict[str, Any]) -> bool:
    return len(result["largest"]) > _MOST_IN_A_LINE and all(_OF_SIZE in name for name in result["largest"])


def _tables(results: list[dict[str, Any]]) -> str:
    return "".join(f"\n## {result['name']}\n\n{_table(result['largest'])}" for result in results if _has_table(result))


def _table(figures: dict[str, float]) -> str:
    """Tabulate figures named "metric, n 500, clustered": a line each metric, a column each kind, of rising n."""
    cells = {tuple(name.rsplit(_OF_SIZE, 1)): value for name, value in figures.items()}
    kinds = sorted(
        {cell[1:] for cell in cells}, key=lambda kind: [int("".join(filter(str.isdigit, "0" + kind[0]))), kind]
    )
    head = ["", *(f"n {kind[0]}" for kind in kinds)]
    lines = [
        [name, *(f"{cells[name, *kind]:.3g}" if (name, *kind) in cells else "-" for kind in kinds)]
        for name in sorted({cell[0] for cell in cells})
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ["---"] * len(head), *lines))


def _failures(results: list[dict[str, Any]]) -> str:
    lines = [
        f"- {result['name']} {failure['case']}: {failure['problem']}\n"
        for result in results
        for failure in result["failures"]
    ]
    return "\n## Failures\n\n" + "".join(lines) if lines else ""
