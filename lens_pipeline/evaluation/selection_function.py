"""The selection function as an object: completeness at given Einstein radii, seeing, depths, ..., from a published version alone.

Belongs here: reading it and evaluating it. It needs one JSON file, ``selection_function.json``, which completeness publishes
beside its tables.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_pipeline.contracts.completeness_tables import MOST_AXES
from lens_pipeline.contracts.errors import EvaluationError, first_few
from lens_pipeline.evaluation.asked_values import asked_values
from lens_pipeline.evaluation.axes import ALL, AXES
from lens_pipeline.evaluation.cells import OUTSIDE, UNKNOWN
from lens_pipeline.evaluation.counting import SMALL
from lens_pipeline.evaluation.smooth_fit import SmoothFit
from lens_pipeline.storage.publication import Publication

FILE, FORMAT = "selection_function.json", 5
CELLS, SMOOTH = "cells", "smooth"
ATTEMPTED, N_EFF, IS_SMALL = "attempted", "n_eff", "is_small"
MIN_N_EFF, FALLS_SHORT = "min_n_eff", "falls_short"
COMPLETENESS, TOTAL = "completeness", "total"
Floats = npt.NDArray[np.float64]
_NO_TOTAL = (
    "the parent sample's losses aren't known for these lenses, so they can't be multiplied in; total_reason of the table "
    "completeness says why. Next: ask without of_all_lenses, for completeness among lenses whose system meets the cuts."
)
_MEASURED = ("completeness", "completeness_low", "completeness_high", "total", "total_low", "total_high")


@dataclass(frozen=True)
class Selected:
    """Completeness at some points, in the shape that the points broadcast to.

    Attributes
    ----------
    value, low, high : array of float
        With the ends of the 95 % interval; NaN where it isn't known (an empty cell, an interval that can't be had).
    in_support : array of bool
        Whether injections were attempted in its cell, or its box of the fit, and it lies between the least and the most attempted
        value of each axis.
    n_eff : array of float
        Effective number of injections in its cell, or of those that speak of the point in the smooth fit.
    is_small : array of bool
        Whether `n_eff` is below the setting completeness.min_n_eff or not known; a cell is small for another reason that its
        table gives; or the smooth fit differs from what was counted by more than chance, and that is more than half of the
        variance there.
    """

    value: Floats
    low: Floats
    high: Floats
    in_support: npt.NDArray[np.bool_]
    n_eff: Floats
    is_small: npt.NDArray[np.bool_]


class _Surface(Protocol):
    """What a selection function is looked up in."""

    def look_up(self, points: Sequence[npt.NDArray[Any]], kind: str) -> "Selected":
        """Return what is known at points, one flat array an axis; `kind` is completeness or total."""
        ...

    def reach(self) -> str:
        """Say over what it reaches."""
        ...


@dataclass(frozen=True)
class SelectionFunction:
    """Completeness of one model at one frozen threshold against some axes: cell by cell, or the smooth fit.

    Attributes
    ----------
    axes : tuple of str
        What it is asked at; see docs/completeness.md for meanings.
    units : tuple of str
        Of each axis.
    operating_point : str
        Name of the threshold.
    provenance : dict
        Dataset, model, versions and population that it is of.

    Examples
    --------
    >>> found = SelectionFunction.load("completeness/db26d77b25530b73")  # doctest: +SKIP
    >>> found.evaluate(theta_e_arcsec=[0.8, 1.2], psf_fwhm_used_r=1.3).value  # doctest: +SKIP
    """

    axes: tuple[str, ...]
    units: tuple[str, ...]
    operating_point: str
    provenance: dict[str, Any]
    surface: _Surface

    @classmethod
    def load(
        cls,
        source: Publication | str | Path,
        *,
        axes: str | Sequence[str] = ("theta_e_arcsec", "psf_fwhm_used_r"),
        operating_point: str | None = None,
        smooth: bool = False,
    ) -> "SelectionFunction":
        """Read one.

        Parameters
        ----------
        source : Publication or path
            A published version of completeness, its folder, or its ``selection_function.json``.
        axes : str or sequence of str
            One axis, or those of one of the grids of the settings, in that order; a smooth fit has its own.
        operating_point : str, optional
            By default the resolved threshold of the smallest false-positive rate, else the highest control.
        smooth : bool
            The smooth fit instead of cells. Its axes are those of the setting completeness.fit_axes that were measured.

        Raises
        ------
        EvaluationError
            If there is no such file, axes or operating point; what there is is listed.
        """
        content = _read(source)
        axes = (axes,) if isinstance(axes, str) else tuple(axes)
        points = list(dict.fromkeys(surface["operating_point"] for surface in content["surfaces"]))
        point = operating_point or content["primary"]
        if point not in points:
            raise EvaluationError(f"no operating point {point!r}; there are {first_few(points)}.")
        mine = [surface for surface in content["surfaces"] if surface["operating_point"] == point]
        fits = [surface for surface in mine if surface["kind"] == SMOOTH]
        cells = [surface for surface in mine if surface["kind"] == CELLS]
        chosen = fits if smooth else [surface for surface in cells if tuple(surface["axes"]) == axes]
        if not chosen and smooth:
            raise EvaluationError(f"there is no smooth fit: {'; '.join(content['fit_notes']) or 'none was asked for'}.")
        if not chosen:
            raise EvaluationError(
                f"completeness wasn't told against {' x '.join(axes)}; it was against "
                f"{first_few([' x '.join(surface['axes']) for surface in cells], 30)}. Next: add it to the setting "
                "completeness.grids."
            )
        told = chosen[0]
        names = tuple(told["axes"])
        surface: _Surface = _Smooth.of(told) if smooth else _Cells.of(told)
        return cls(names, tuple(told["units"]), point, content["provenance"], surface)

    def evaluate(self, *, extrapolate: bool = False, of_all_lenses: bool = False, **points: npt.ArrayLike) -> Selected:
        """Return completeness at points, which are given by the names of the axes and broadcast against each other.

        Parameters
        ----------
        extrapolate : bool
            Whether a point where nothing was injected is answered: by its nearest cell, or by the fit held at its ends. It is
            marked as outside the support either way.
        of_all_lenses : bool
            Completeness times the parent sample's: among all lenses whose galaxy alone meets the cuts.
        **points : array_like
            Values in the unit of each axis, or with a unit of their own (an astropy Quantity or Column), from which they are
            converted; names on an axis such as ``lens_model``.

        Raises
        ------
        EvaluationError
            If a point lies where no injection was attempted and `extrapolate` is false, an axis is missing or unknown, shapes
            can't be broadcast, a value isn't finite or no real number, is masked or has a unit that can't be converted, or
            `of_all_lenses` is asked of lenses whose parent sample's losses aren't known.
        """
        if set(points) != set(self.axes):
            raise EvaluationError(
                f"it is asked at {', '.join(self.axes)}, and {', '.join(points) or 'nothing'} was given."
            )
        plain = [asked_values(axis, unit, points[axis]) for axis, unit in zip(self.axes, self.units, strict=True)]
        given = self._broadcast(plain)
        shape, flat = given[0].shape, [np.ravel(values) for values in given]
        found = self.surface.look_up(flat, TOTAL if of_all_lenses else COMPLETENESS)
        if not extrapolate and not found.in_support.all():
            self._refuse(flat, found.in_support)
        return Selected(**{name: array.reshape(shape) for name, array in vars(found).items()})

    def _broadcast(self, given: Sequence[npt.NDArray[Any]]) -> Sequence[npt.NDArray[Any]]:
        try:
            return np.broadcast_arrays(*given)
        except ValueError as error:
            shapes = ", ".join(f"{axis} {values.shape}" for axis, values in zip(self.axes, given, strict=True))
            raise EvaluationError(
                f"values of {len(given)} axes have shapes that can't be broadcast against each other: {shapes}. Next: give as "
                "many values on each axis, or one; for a grid give one axis a dimension of its own, as values[:, None] does."
            ) from error

    def _refuse(self, given: Sequence[npt.NDArray[Any]], supported: npt.NDArray[np.bool_]) -> None:
        outside = np.flatnonzero(~supported)
        shown = [
            " x ".join(f"{axis} {values[i]}" for axis, values in zip(self.axes, given, strict=True))
            for i in outside[:6]
        ]
        raise EvaluationError(
            f"{outside.size:,} of {supported.size:,} points lie where no injection was attempted: {first_few(shown)}. It "
            f"reaches over {self.surface.reach()}, and not everywhere within. Pass extrapolate=True to be answered all the same."
        )


@dataclass(frozen=True)
class _Cells:
    """Values cell by cell: `sides` are an axis's edges or names, `ranges` its least and most attempted value, `values` arrays."""

    axes: tuple[str, ...]
    sides: tuple[tuple[Any, ...], ...]
    ranges: tuple[tuple[float, float] | None, ...]
    values: dict[str, Floats]

    @classmethod
    def of(cls, told: dict[str, Any]) -> "_Cells":
        values = {name: np.array(array, dtype=np.float64) for name, array in told["values"].items()}
        ranges = tuple(None if ends is None else (ends[0], ends[1]) for ends in told["ranges"])
        return cls(tuple(told["axes"]), tuple(tuple(side) for side in told["sides"]), ranges, values)

    def look_up(self, points: Sequence[npt.NDArray[Any]], kind: str) -> Selected:
        if kind == TOTAL and np.isnan(self.values[TOTAL]).all():
            raise EvaluationError(_NO_TOTAL)
        placed = [_place(axis, side, x) for axis, side, x in zip(self.axes, self.sides, points, strict=True)]
        shape = tuple(len(side) - (1 if _is_binned(side) else 0) for side in self.sides)
        cell = np.ravel_multi_index([place for place, _ in placed], shape)
        inside = np.logical_and.reduce([within for _, within in placed])
        for ends, x in zip(self.ranges, points, strict=True):
            if ends is not None:
                inside &= (ends[0] <= x) & (x <= ends[1])
        supported = inside & (self.values[ATTEMPTED].ravel()[cell] > 0)
        value, low, high = (self.values[f"{kind}{end}"].ravel()[cell] for end in ("", "_low", "_high"))
        n_eff, is_small = (self.values[name].ravel()[cell] for name in (N_EFF, IS_SMALL))
        return Selected(value, low, high, supported, n_eff, (is_small == 1) | ~np.isfinite(n_eff))

    def reach(self) -> str:
        return "; ".join(map(_reach, self.axes, self.sides, self.ranges))


@dataclass(frozen=True)
class _Smooth:
    """The smooth fit, with the boxes that injections were attempted in.

    Of a kind, the first of its `fits` is what it says; its interval holds those of all, which are of the ends of what is known.
    """

    axes: tuple[str, ...]
    fits: dict[str, list[SmoothFit]]
    edges: tuple[Floats, ...]
    held: Floats
    min_n_eff: float
    falls_short: bool

    @classmethod
    def of(cls, told: dict[str, Any]) -> "_Smooth":
        kinds = [kind for kind in (COMPLETENESS, TOTAL) if kind in told]
        fits = {kind: [SmoothFit.from_json(fit) for fit in told[kind]] for kind in kinds}
        edges = tuple(np.array(edge, np.float64) for edge in told["support"]["edges"])
        held = np.array(told["support"]["held"], np.float64)
        return cls(tuple(told["axes"]), fits, edges, held, told[MIN_N_EFF], told[FALLS_SHORT])

    def look_up(self, points: Sequence[npt.NDArray[Any]], kind: str) -> Selected:
        if kind not in self.fits:
            raise EvaluationError(_NO_TOTAL)
        placed = [_place(axis, tuple(edge), x) for axis, edge, x in zip(self.axes, self.edges, points, strict=True)]
        box = np.ravel_multi_index([place for place, _ in placed], tuple(edge.size - 1 for edge in self.edges))
        inside = np.logical_and.reduce([within for _, within in placed])
        values = np.stack([x.astype(np.float64) for x in points], axis=1)
        predicted = [fit.predict(values) for fit in self.fits[kind]]
        value, _, _, n_eff = predicted[0]
        low, high = np.min([ends[1] for ends in predicted], axis=0), np.max([ends[2] for ends in predicted], axis=0)
        misfit = self.fits[kind][0].misfit * value * (1 - value)
        is_small = (n_eff < self.min_n_eff) | (self.falls_short & (misfit * n_eff > 0.5))
        return Selected(value, low, high, inside & np.isin(box, self.held), n_eff, is_small)

    def reach(self) -> str:
        return "; ".join(
            f"{axis} {edge[0]:g} to {edge[-1]:g}" for axis, edge in zip(self.axes, self.edges, strict=True)
        )


def selection_surfaces(
    cells: pl.DataFrame, grids: pl.DataFrame, ranges: Mapping[str, tuple[float, float]]
) -> Iterable[dict[str, Any]]:
    """Give each axis and grid that is defined, at each threshold, as arrays over its cells.

    Parameters
    ----------
    cells, grids : polars.DataFrame
        COMPLETENESS and COMPLETENESS_GRID.
    ranges : mapping
        Continuous axis to its least and most attempted value.
    """
    sides = {"axis": "axis_1", "cell": "cell_1", "low": "low_1", "high": "high_1"}
    for (point, axis), rows in cells.filter(pl.col("axis") != ALL).group_by(
        "operating_point", "axis", maintain_order=True
    ):
        yield from _surface(str(point), [str(axis)], rows.rename(sides), ranges)
    for (point, grid), rows in grids.group_by("operating_point", "grid", maintain_order=True):
        yield from _surface(str(point), str(grid).split(" x "), rows, ranges)


def _surface(
    point: str, axes: list[str], rows: pl.DataFrame, ranges: Mapping[str, tuple[float, float]]
) -> Iterable[dict[str, Any]]:
    numbers = range(1, min(len(axes), MOST_AXES) + 1)
    inner = pl.all_horizontal([~pl.col(f"cell_{i}").is_in([OUTSIDE, UNKNOWN, ALL]) for i in numbers])
    rows = rows.filter(inner)
    if rows.is_empty():
        return
    sides: list[list[Any]] = []
    places = []
    for i, axis in zip(numbers, axes, strict=True):
        if AXES[axis].continuous:
            edges = sorted({*rows[f"low_{i}"], *rows[f"high_{i}"]})
            sides.append(edges)
            places.append(np.searchsorted(edges, rows[f"low_{i}"].to_numpy()))
        else:
            names = rows[f"cell_{i}"].unique(maintain_order=True).to_list()
            sides.append(names)
            places.append(np.array([names.index(name) for name in rows[f"cell_{i}"]]))
    shape = tuple(len(side) - (1 if _is_binned(side) else 0) for side in sides)
    rows = rows.with_columns(
        (pl.col("n") + pl.col("n_quarantined").fill_null(0)).alias(ATTEMPTED),
        (pl.col("status") == SMALL).alias(IS_SMALL),
    )
    values = {}
    for name in (*_MEASURED, ATTEMPTED, N_EFF, IS_SMALL):
        filled = np.full(shape, None, dtype=object)
        measured = rows[name].cast(pl.Float64)
        filled[tuple(places)] = measured.to_list()
        values[name] = filled.tolist()
    units = [AXES[axis].unit for axis in axes]
    yield {
        "operating_point": point, "axes": axes, "units": units, "kind": CELLS, "sides": sides,
        "ranges": [ranges.get(axis) for axis in axes], "values": values,
    }  # fmt: skip


def _reach(axis: str, side: Sequence[Any], ends: tuple[float, float] | None) -> str:
    if ends is None:
        return f"{axis} {', '.join(side)}"
    low, high = max(ends[0], side[0]), min(ends[1], side[-1])
    if low > high:
        return f"{axis} nowhere (cells {side[0]:g} to {side[-1]:g}, injections {ends[0]:g} to {ends[1]:g})"
    return f"{axis} {low:g} to {high:g}"


def _is_binned(side: Sequence[Any]) -> bool:
    return not isinstance(side[0], str)


def _place(
    axis: str, side: Sequence[Any], values: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    if not _is_binned(side):
        known = {name: i for i, name in enumerate(side)}
        unknown = sorted({str(value) for value in values} - set(known))
        if unknown:
            raise EvaluationError(f"{axis} has no {first_few(unknown)}; it has {first_few(side, 12)}.")
        return np.array([known[str(value)] for value in values], np.int64), np.ones(values.size, bool)
    x = values.astype(np.float64)
    if not np.isfinite(x).all():
        raise EvaluationError(
            f"{int((~np.isfinite(x)).sum()):,} of {x.size:,} values of {axis} are not finite numbers."
        )
    place = np.searchsorted(side, x, side="right") - 1
    place[x == side[-1]] -= 1
    within = (place >= 0) & (place < len(side) - 1)
    return np.clip(place, 0, len(side) - 2).astype(np.int64), within


def _read(source: Publication | str | Path) -> dict[str, Any]:
    if not isinstance(source, Publication):
        path = Path(source)
        source = Publication.open(path) if path.is_dir() else path
    if isinstance(source, Publication):
        source = source.path(FILE)
    try:
        content: dict[str, Any] = json.loads(source.read_bytes())
    except (OSError, ValueError) as error:
        raise EvaluationError(
            f"{source} is no selection function: {error}. It is the file {FILE} of a published version of completeness."
        ) from error
    if content.get("format") != FORMAT:
        raise EvaluationError(
            f"{source} has the format {content.get('format')}, and {FORMAT} is what can be read. Next: make completeness again."
        )
    return content
