"""docs/reliability.md, made from the result files: no figure on it was typed by hand."""

import json
from pathlib import Path
from typing import Any

from reliability.subject import RESULTS

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
    PAGE.write_text(_HEAD + "".join(_line(result) for result in results) + _failures(results))
    return PAGE


def _line(result: dict[str, Any]) -> str:
    bounds = result["bounds"]
    largest = "; ".join(
        f"{name} {value:.3g}" + (f" (bound {bounds[name]:g})" if name in bounds else "")
        for name, value in sorted(result["largest"].items())
    )
    counts = "; ".join(f"{name} {count:,}" for name, count in sorted(result["counts"].items()))
    tried = f"{result['n']:,} {result['unit']}" + (" (all there are)" if result["exhausted"] else "")
    return (
        f"| {result['name']} | {result['question']} | {tried} | {result['goal']:,} | {result['n_failures']:,} | "
        f"{largest or '-'} | {counts or '-'} |\n"
    )


def _failures(results: list[dict[str, Any]]) -> str:
    lines = [
        f"- {result['name']} {failure['case']}: {failure['problem']}\n"
        for result in results
        for failure in result["failures"]
    ]
    return "\n## Failures\n\n" + "".join(lines) if lines else ""
