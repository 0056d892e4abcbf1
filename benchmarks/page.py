"""docs/performance.md, made from the result files: no figure on it was typed by hand."""

import json
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS
from benchmarks.plot import draw_readers

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
_HEAD = """# Measured

Made by `make bench` from `benchmarks/results/*.json`; do not edit. Each line compares two sides that took turns in one run:
the median ratio, and the 10th to 90th percentile over the rounds. Absolute figures differ from machine to machine and from
hour to hour; ratios hold better.

| what | ratio | spread | against | goal | |
|---|---|---|---|---|---|
"""


def write_page() -> Path:
    """Render every result file into the page."""
    results: list[dict[str, Any]] = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    lines = [
        f"| {r['name']} | {r['ratio']:.2f} {r.get('unit', 'x')} | {r['low']:.2f} - {r['high']:.2f} | {r['against']} | "
        + (
            f"{r['goal']:g} | {'reached' if r['reached'] else 'not reached'} |"
            if r["goal"] is not None
            else "- | context |"
        )
        for r in results
    ]
    machines = sorted({r["machine"] for r in results})
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(_HEAD + "\n".join(lines) + "\n\nMachine: " + "; ".join(machines) + ".\n" + _readers())
    return PAGE


def _readers() -> str:
    """Picture the comparison with other readers, and name those that could not be measured."""
    absent = [json.loads(path.read_text()) for path in sorted((RESULTS / "absent").glob("*.json"))]
    picture = draw_readers()
    text = ""
    if picture is not None:
        text += f"\n## Against other readers\n\n![ratios]({picture.relative_to(PAGE.parent).as_posix()})\n\n"
        text += (
            "`make peers`, then `python -m benchmarks readers`: one process a reader, each in its own format of the same "
            "stamps, as its documentation has it; the faster of no workers and two is taken (of torch's loader on our own "
            "memory map, two).\n"
        )
    if absent:
        text += "\nNot measured:\n\n"
        text += "".join(f"- {a['reader']} ({a['package']}, goal {a['goal']:g}x): {a['why']}\n" for a in absent)
    return text
