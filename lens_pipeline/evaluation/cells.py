"""Cells of an axis, or of several at once: bins of a measured quantity or values of a name. Every row falls in exactly one."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_pipeline.contracts.errors import EvaluationError
from lens_pipeline.evaluation.axes import ALL, ARC_SNR, AXES, PSF, THETA_E
from lens_pipeline.evaluation.config import CompletenessConfig

OUTSIDE, UNKNOWN = "outside the edges", "unknown"
Numbers = npt.NDArray[np.uint16]
# Sorting by cell is a radix sort up to 16 bits.
_MOST_CELLS = 65_535
# Quantiles of more rows than this are those of every so many of them.
_ROWS_FOR_QUANTILES = 1_000_000


@dataclass(frozen=True)
class Side:
    """What a cell is along one axis.

    Attributes
    ----------
    low, high : float or None
        Edges [low, high) of a bin, the last of which holds its upper edge too; None where the cell is no bin.
    in_range : bool
        Whether its middle lies where injections were attempted, or it holds all of them; of a cell that is no bin always.
    """

    axis: str
    name: str
    low: float | None = None
    high: float | None = None
    in_range: bool = True


@dataclass(frozen=True)
class Cut:
    """An axis, or several, cut into cells.

    Attributes
    ----------
    axes : tuple of str
    cells : tuple of tuple of Side
        Each cell, as a side an axis.
    stored, lost : (n,) uint16 array
        Number of the cell of each row; `lost` is None where rows that were never stored don't know the axis.
    """

    axes: tuple[str, ...]
    cells: tuple[tuple[Side, ...], ...]
    stored: Numbers
    lost: Numbers | None


def cut_axis(axis: str, stored: pl.DataFrame, lost: pl.DataFrame | None, config: CompletenessConfig) -> Cut | None:
    """Cut an axis into cells that together hold every row of `stored` and `lost`; None if it is null for all that is stored.

    Rows beyond the edges and rows whose value is null stand in cells of their own, so that cells sum to the whole.

    Parameters
    ----------
    stored, lost : polars.DataFrame
        With their axes (`with_axes`); `lost` is None where it doesn't know this one.
    """
    if axis == ALL:
        whole = (Side(ALL, ALL),)
        nothing = None if lost is None else np.zeros(lost.height, np.uint16)
        return Cut((ALL,), (whole,), np.zeros(stored.height, np.uint16), nothing)
    if stored[axis].null_count() == stored.height:
        return None
    values = stored[axis] if lost is None else pl.concat([stored[axis], lost[axis]])
    sides, numbers = _bins(axis, values, config) if AXES[axis].continuous else _names(axis, values)
    return Cut(
        (axis,),
        tuple((side,) for side in sides),
        numbers[: stored.height],
        None if lost is None else numbers[stored.height :],
    )


def cut_grid(cuts: Sequence[Cut]) -> Cut:
    """Cut several axes at once; cells beyond the edges or of unknown value are kept only where they hold rows.

    Raises
    ------
    EvaluationError
        If there would be more than 65,535 cells.
    """
    sizes = [len(cut.cells) for cut in cuts]
    axes = tuple(axis for cut in cuts for axis in cut.axes)
    if (n := int(np.prod(sizes))) > _MOST_CELLS:
        raise EvaluationError(
            f"the grid {' x '.join(axes)} has {n:,} cells ({' x '.join(map(str, sizes))}), more than {_MOST_CELLS:,}. "
            "Give completeness fewer bins (n_bins, edges) or this grid fewer axes (grids)."
        )
    stored = np.ravel_multi_index([cut.stored for cut in cuts], sizes)
    lost = [cut.lost for cut in cuts if cut.lost is not None]
    lost_numbers = np.ravel_multi_index(lost, sizes) if len(lost) == len(cuts) else None
    held = np.zeros(n, np.int64)
    for numbers in (stored, lost_numbers):
        if numbers is not None:
            held += np.bincount(numbers, minlength=n)
    cells = [tuple(side for cell in sides for side in cell) for sides in product(*(cut.cells for cut in cuts))]
    kept = [i for i, cell in enumerate(cells) if held[i] or not any(side.name in (OUTSIDE, UNKNOWN) for side in cell)]
    place = np.zeros(n, np.uint16)
    place[kept] = np.arange(len(kept))
    return Cut(
        axes,
        tuple(cells[i] for i in kept),
        place[stored],
        None if lost_numbers is None else place[lost_numbers],
    )


def in_support(cell: tuple[Side, ...], n_attempted: int) -> bool | None:
    """Whether injections were attempted in a cell and each side of it is in their range; None where a value is unknown."""
    if any(side.name == UNKNOWN for side in cell):
        return None
    return n_attempted > 0 and all(side.in_range for side in cell)


def _names(axis: str, values: pl.Series) -> tuple[list[Side], Numbers]:
    if sides := AXES[axis].sides:
        order = list(sides)
        numbers = (~values).cast(pl.UInt16)
    else:
        order = sorted(values.drop_nulls().unique())
        numbers = values.cast(pl.Enum(order)).to_physical().cast(pl.UInt16)
    names = [Side(axis, name) for name in order]
    if values.null_count():
        names.append(Side(axis, UNKNOWN))
    return names, numbers.fill_null(len(order)).to_numpy()


def _bins(axis: str, values: pl.Series, config: CompletenessConfig) -> tuple[list[Side], Numbers]:
    x = values.to_numpy().astype(np.float64, copy=False)
    known = ~np.isnan(x)
    inside = x if known.all() else x[known]
    least, most = float(inside.min()), float(inside.max())
    edges = _given_edges(axis, config) or _quantile_edges(inside, least, most, config.n_bins)
    sides = [
        Side(axis, f"{low:g} to {high:g}", low, high, _is_in_range(low, high, least, most))
        for low, high in pairwise(edges)
    ]
    n = len(sides)
    number = np.searchsorted(edges, x, side="right") - 1
    number[x == edges[-1]] = n - 1
    # Nulls are sorted behind the last edge.
    number[(number < 0) | (number >= n)] = n
    if not known.all():
        number[~known] = n + 1
    beyond = bool((number == n).any())
    if beyond:
        sides.append(Side(axis, OUTSIDE))
    if not known.all():
        sides.append(Side(axis, UNKNOWN))
        number[~known] = n + beyond
    return sides, number.astype(np.uint16)


def _is_in_range(low: float, high: float, least: float, most: float) -> bool:
    # What all injections share has a range without a width, which a middle can only miss.
    return least <= (low + high) / 2 <= most or low <= least <= most <= high


def _given_edges(axis: str, config: CompletenessConfig) -> list[float]:
    named = {THETA_E: config.theta_e_edges_arcsec, PSF: config.psf_fwhm_edges_arcsec, ARC_SNR: config.arc_snr_edges}
    return named.get(axis) or config.edges.get(axis, [])


def _quantile_edges(values: npt.NDArray[np.float64], least: float, most: float, n_bins: int) -> list[float]:
    some = values[:: -(-values.size // _ROWS_FOR_QUANTILES)]
    inner = np.quantile(some, np.linspace(0, 1, n_bins + 1)[1:-1])
    low, high = _floor3(least), -_floor3(-most)
    rounded = [float(f"{edge:.3g}") for edge in inner]
    edges = sorted({low, *(edge for edge in rounded if low < edge < high), high})
    return edges if len(edges) > 1 else [low, float(np.nextafter(low, np.inf))]


def _floor3(value: float) -> float:
    """Round down to three significant digits, so that an edge reads well and still holds the extreme row."""
    if value == 0:
        return 0.0
    step = 10.0 ** (np.floor(np.log10(abs(value))) - 2)
    return float(f"{np.floor(value / step) * step:.12g}")
