"""Which figures a report draws, each from a published table."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
from matplotlib.figure import Figure

from lens_pipeline.evaluation.axes import ARC_SNR, HEADLINE, THETA_E, axes_in
from lens_pipeline.evaluation.completeness_plots import (
    completeness_figure,
    pairs_of,
    sky_map_figure,
    surface_figure,
    why_not_drawn,
)
from lens_pipeline.evaluation.figures import figure_png, figure_svg
from lens_pipeline.evaluation.metrics import ALL_ROWS
from lens_pipeline.evaluation.plots import histogram_figure, history_figure, roc_figure
from lens_pipeline.evaluation.reliability_plot import reliability_figure
from lens_pipeline.evaluation.scored_rows import TEST


@dataclass(frozen=True)
class Drawn:
    """Figures by name, each as SVG for the page and as PNG for pages that show pictures.

    Attributes
    ----------
    svg : dict of str
    png : dict of bytes
        roc, histogram, reliability, history, completeness_theta_e_arcsec, completeness_arc_snr, ...
    grids : dict of str
        What a figure `surface_*` is drawn on, by its name.
    """

    svg: dict[str, str]
    png: dict[str, bytes]
    grids: dict[str, str]


@dataclass(frozen=True)
class Tables:
    """What figures are drawn from.

    Attributes
    ----------
    metrics, roc, cells : polars.DataFrame
        METRICS, ROC, COMPLETENESS.
    rows : polars.DataFrame
        `logit` and `is_lens` of the distinct rows of test.
    points : polars.DataFrame
        Frozen thresholds that there are.
    histories : sequence of polars.DataFrame
        HISTORY of each model that made the scores.
    before, after : polars.DataFrame
        CALIBRATION_RELIABILITY and TEST_RELIABILITY.
    grids, regions : polars.DataFrame
        COMPLETENESS_GRID and REGIONS at the leading threshold.
    out_of_fold : polars.DataFrame or None
        COMPLETENESS of a cross-validation.
    smallest_resolvable_fpr : float or None
    min_false_positives : int
        Galaxies with a false positive that make a rate resolved.
    """

    metrics: pl.DataFrame
    roc: pl.DataFrame
    cells: pl.DataFrame
    rows: pl.DataFrame
    points: pl.DataFrame
    histories: Sequence[pl.DataFrame]
    before: pl.DataFrame
    after: pl.DataFrame
    grids: pl.DataFrame
    regions: pl.DataFrame
    out_of_fold: pl.DataFrame | None
    smallest_resolvable_fpr: float | None
    min_false_positives: int

    def draw(self) -> Drawn:
        """Draw what there is something to draw of; of the rest the page says why."""
        marks = points_on_test(self.metrics, self.points)
        figures = {
            "roc": roc_figure(self.roc, marks, self.smallest_resolvable_fpr, self.min_false_positives),
            "histogram": histogram_figure(self.rows, self.points),
            "reliability": reliability_figure(self.before, self.after),
        }
        axes = sorted(axes_in(self.cells), key=lambda axis: axis not in (THETA_E, ARC_SNR))
        figures |= _along("completeness", self.cells, axes)
        if self.out_of_fold is not None:
            figures |= _along("out_of_fold", self.out_of_fold, HEADLINE)
        surfaces = {f"surface_{cells['grid'][0].replace(' ', '_')}": cells for cells in pairs_of(self.grids)}
        figures |= {name: surface_figure(cells) for name, cells in surfaces.items()}
        if self.regions.drop_nulls(["ra", "dec", "fpr"]).height:
            figures["sky"] = sky_map_figure(self.regions)
        figures["history"] = history_figure(self.histories)
        return Drawn(
            svg={name: figure_svg(figure, name) for name, figure in figures.items()},
            png={name: figure_png(figure) for name, figure in figures.items()},
            grids={name: cells["grid"][0] for name, cells in surfaces.items()},
        )


def points_on_test(metrics: pl.DataFrame, usable: pl.DataFrame) -> pl.DataFrame:
    """Recall and FPR on test of each frozen threshold, one row each.

    Parameters
    ----------
    metrics : polars.DataFrame
        METRICS.
    usable : polars.DataFrame
        `operating_point` of those that have a threshold.
    """
    points = usable.select("operating_point")
    for name in ("recall", "fpr"):
        prefix = f"{name}_at_"
        whole = (pl.col("split") == TEST) & (pl.col("stratum") == ALL_ROWS)
        mine = metrics.filter(whole & pl.col("metric").str.starts_with(prefix)).select(
            pl.col("metric").str.strip_prefix(prefix).alias("operating_point"),
            pl.col("value").alias(name),
            pl.col("low").alias(f"{name}_low"),
            pl.col("high").alias(f"{name}_high"),
        )
        points = points.join(mine, on="operating_point", how="left", validate="1:1", maintain_order="left")
    return points


def _along(prefix: str, cells: pl.DataFrame, axes: Sequence[str]) -> dict[str, Figure]:
    return {f"{prefix}_{axis}": completeness_figure(cells, axis) for axis in axes if why_not_drawn(cells, axis) is None}
