"""The picture of the comparison of readers, drawn from the result files."""

import json
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "readers.png"
_PREFIX = "epoch_over_"


def draw_readers() -> Path | None:
    """Draw how many times faster a shuffled epoch is than with each other reader; None if none was measured."""
    from matplotlib.figure import Figure

    results: list[dict[str, Any]] = [json.loads(path.read_text()) for path in RESULTS.glob(f"{_PREFIX}*.json")]
    if not results:
        return None
    results.sort(key=lambda result: result["ratio"])
    names = [result["name"].removeprefix(_PREFIX) for result in results]
    figure = Figure(figsize=(8, 0.5 * len(names) + 1.4), layout="constrained")
    axes = figure.subplots()
    rows = range(len(names))
    ratios = [result["ratio"] for result in results]
    spread = [
        [result["ratio"] - result["low"] for result in results],
        [result["high"] - result["ratio"] for result in results],
    ]
    colours = ["#2a7f62" if result["reached"] else "#c0562f" for result in results]
    axes.barh(rows, ratios, xerr=spread, color=colours, height=0.6, error_kw={"ecolor": "#333333", "capsize": 3})
    axes.plot([result["goal"] for result in results], rows, "k|", markersize=18, label="goal")
    for row, result in zip(rows, results, strict=True):
        axes.text(result["high"] * 1.08, row, f"{result['ratio']:.1f}x", va="center", fontsize=9)
    axes.set_xscale("log")
    axes.set_xlim(
        0.5, 2 * max(*ratios, *(result["high"] for result in results), *(result["goal"] for result in results))
    )
    axes.axvline(1, color="#333333", linewidth=0.8)
    axes.set_yticks(rows, names)
    axes.set_xlabel("stamps a second, ours with two threads over theirs (bars: median; lines: 10th to 90th percentile)")
    axes.set_title(f"A shuffled epoch of {results[0]['n']:,} float16 stamps in batches of 256, page cache warm")
    axes.legend(loc="lower right", frameon=False)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=110, metadata={"Software": None})
    return PICTURE
