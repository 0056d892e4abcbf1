"""Cells of an axis: bins of a measured quantity or values of a name. Every row falls in exactly one."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl

from lens_pipeline.evaluation.config import CompletenessConfig

ALL = "all"
THETA_E, PSF, ARC_SNR, LENS_MODEL = "theta_e_arcsec", "psf_fwhm_used_r", "arc_snr", "lens_model"
SOURCE, HELD_OUT = "source_id", "is_held_out"
AXES = (ALL, THETA_E, PSF, ARC_SNR, LENS_MODEL)
CONTINUOUS = (THETA_E, PSF, ARC_SNR)
# Axes of two sides, counted where both have injections: who is on the first side, and what the sides are called.
TWO_SIDED = {
    SOURCE: (pl.col(SOURCE).is_not_null(), "real galaxy", "Sersic profile"),
    HELD_OUT: (pl.col(HELD_OUT).cast(pl.Float64).fill_null(0.0) == 1, "held out of training", "seen in training"),
}
OUTSIDE, UNKNOWN = "outside the edges", "unknown"


@dataclass(frozen=True)
class Cell:
    """One cell: its name and, on a continuous axis, its edges [low, high); the last bin holds its upper edge too."""

    axis: str
    name: str
    low: float | None
    high: float | None
    member: pl.Expr


def axes_of(rows: pl.DataFrame) -> tuple[str, ...]:
    """Axes that injections are counted along: `AXES`, and those of `TWO_SIDED` that divide them."""
    dividing = [axis for axis, (first, *_) in TWO_SIDED.items() if rows.select(first.n_unique()).item() > 1]
    return (*AXES, *dividing)


def axes_in(completeness: pl.DataFrame) -> list[str]:
    """Axes of a table COMPLETENESS but `ALL`, in its order."""
    return [axis for axis in completeness["axis"].unique(maintain_order=True) if axis != ALL]


def cells_of(axis: str, rows: pl.DataFrame, config: CompletenessConfig) -> list[Cell]:
    """Cut an axis into cells that together hold every row of `rows`; none if the axis is null throughout.

    Rows beyond the edges and rows whose value is null stand in cells of their own, so that cells sum to the whole.
    """
    if axis == ALL:
        return [Cell(ALL, ALL, None, None, pl.lit(True))]
    if axis in TWO_SIDED:
        first, name, other = TWO_SIDED[axis]
        return [Cell(axis, name, None, None, first), Cell(axis, other, None, None, ~first)]
    column = pl.col(axis)
    known = rows[axis].drop_nulls()
    if known.is_empty():
        return []
    if axis == LENS_MODEL:
        cells = [Cell(axis, name, None, None, column == name) for name in sorted(known.unique())]
    else:
        cells = _bins(axis, _edges(axis, known, config))
        inside = pl.any_horizontal([cell.member for cell in cells])
        if rows.select(((~inside) & column.is_not_null()).any()).item():
            cells.append(Cell(axis, OUTSIDE, None, None, ~inside & column.is_not_null()))
    if known.len() < rows.height:
        cells.append(Cell(axis, UNKNOWN, None, None, column.is_null()))
    return cells


def _edges(axis: str, known: pl.Series, config: CompletenessConfig) -> list[float]:
    given = {
        THETA_E: config.theta_e_edges_arcsec,
        PSF: config.psf_fwhm_edges_arcsec,
        ARC_SNR: config.arc_snr_edges,
    }[axis]
    if given:
        return given
    values = known.to_numpy().astype(np.float64)
    inner = np.quantile(values, np.linspace(0, 1, config.n_bins + 1)[1:-1])
    low, high = _floor3(float(values.min())), -_floor3(-float(values.max()))
    rounded = [float(f"{edge:.3g}") for edge in inner]
    edges = sorted({low, *(edge for edge in rounded if low < edge < high), high})
    return edges if len(edges) > 1 else [low, np.nextafter(low, np.inf)]


def _floor3(value: float) -> float:
    """Round down to three significant digits, so that an edge reads well and still holds the extreme row."""
    if value == 0:
        return 0.0
    step = 10.0 ** (np.floor(np.log10(abs(value))) - 2)
    return float(f"{np.floor(value / step) * step:.12g}")


def _bins(axis: str, edges: list[float]) -> list[Cell]:
    column, cells = pl.col(axis), []
    for i, (low, high) in enumerate(pairwise(edges)):
        last = i == len(edges) - 2
        member = (column >= low) & ((column <= high) if last else (column < high))
        cells.append(Cell(axis, f"{low:g} to {high:g}", float(low), float(high), member.fill_null(False)))
    return cells
