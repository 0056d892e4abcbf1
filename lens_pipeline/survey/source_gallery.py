"""Pictures of the real galaxies that a manifest lenses, each with the split that it stands in."""

import numpy as np

from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.gallery import figure_png
from lens_pipeline.survey.real_sources import TABLE

_COLUMNS, _MOST = 8, 32
# Of the brightest pixel: fainter ones are shown on a linear scale, brighter ones on a logarithmic.
_SOFTENING = 1 / 30


def sources_png(manifest: Publication) -> bytes:
    """Draw the light of each galaxy as it is lensed, the first 32 by name; all have the same width here.

    Parameters
    ----------
    manifest : Publication
        An injection manifest that lenses real galaxies.
    """
    from matplotlib.figure import Figure

    rows = manifest.read_table(TABLE).sort_by("source_id").slice(0, _MOST).to_pylist()
    columns = min(_COLUMNS, len(rows))
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(1.5 * columns, 1.8 * lines), dpi=80, layout="constrained")
    for place, row in enumerate(rows):
        axes = figure.add_subplot(lines, columns, place + 1)
        pixels = np.array(row["pixels"]).reshape(row["n_rows"], row["n_columns"])
        axes.imshow(np.arcsinh(pixels / (_SOFTENING * pixels.max())), origin="lower", cmap="magma")
        axes.set_title(f"{row['source_id']}\n{row['split']}, {row['half_light_radius_arcsec']:.2f}''", fontsize=7)
        axes.set_axis_off()
    return figure_png(figure)
