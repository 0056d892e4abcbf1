"""The split map: where on the sky each split stands."""

import io

import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure

from lens_pipeline.splits.assignment import SPLITS

# Okabe & Ito (2008): told apart by colour-blind readers.
_COLOURS = {"train": "#0072B2", "val_select": "#E69F00", "val_calibrate": "#CC79A7", "test": "#009E73"}


def split_map_png(regions: pa.Table) -> bytes:
    """Draw the regions (REGION_SPLITS) on the sky by split, or their rows a split where they carry no position."""
    figure = Figure(figsize=(6.4, 3.2), dpi=80, layout="constrained")
    axes = figure.subplots()
    placed = regions.filter(pc.is_valid(regions["ra"]))
    if placed.num_rows:
        for split in SPLITS:
            mine = placed.filter(pc.equal(placed["split"], split))
            label = f"{split}: {mine.num_rows} regions, {pc.sum(mine['n_rows']).as_py() or 0:,} rows"
            axes.scatter(mine["ra"], mine["dec"], s=9, color=_COLOURS[split], label=label)
        axes.set(xlabel="right ascension (deg)", ylabel="declination (deg)")
        axes.invert_xaxis()
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, 1.22), ncols=2, frameon=False)
    else:
        rows = [pc.sum(regions.filter(pc.equal(regions["split"], s))["n_rows"]).as_py() or 0 for s in SPLITS]
        axes.barh(SPLITS, rows, color=[_COLOURS[s] for s in SPLITS])
        axes.set(xlabel="rows (regions carry no position)")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
