"""The design report: what was drawn against the population it stands for, and how well completeness will be known.

Belongs here: counting injections in cells while they are written, and drawing the counts. Nothing here decides what is drawn.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lens_pipeline.contracts.catalogue import INJECTION_DESIGN
from lens_pipeline.contracts.errors import ConfigError, first_few
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.design import TEST, Design

ALL, THETA_E, MAG, MODEL, SEEING, CELL = "all", "theta_e_arcsec", "src_mag_r", "lens_model", "psf_fwhm_r", "cell"
SOURCE = "source"
TABLE = "design"
# Injections into one galaxy are found or missed together to this degree; the value that docs/survey-priors.md gives reasons for.
INTRA_GALAXY_CORRELATION = 0.1
_SEEING_CELLS, _MAG_CELLS = 6, 9
_Z_95 = 1.959964
_UNKNOWN = "unknown"


@dataclass
class _Axis:
    """Cells of one axis and what was counted in each; the last holds rows that fall in no other."""

    name: str
    cells: list[str]
    edges: list[tuple[float | None, float | None]]
    population: list[float | None]
    n: NDArray[np.int64] = field(init=False)
    n_galaxies: NDArray[np.int64] = field(init=False)
    w: NDArray[np.float64] = field(init=False)
    w2: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        size = len(self.cells) + 1
        self.n, self.n_galaxies = np.zeros(size, np.int64), np.zeros(size, np.int64)
        self.w, self.w2 = np.zeros(size), np.zeros(size)

    def add(self, place: NDArray[np.int64], weight: NDArray[np.float64], galaxy: NDArray[np.int64]) -> None:
        size = len(self.n)
        self.n += np.bincount(place, minlength=size)
        self.w += np.bincount(place, weight, size)
        self.w2 += np.bincount(place, weight**2, size)
        pairs = np.unique(galaxy * size + place)
        self.n_galaxies += np.bincount(pairs % size, minlength=size)

    def records(self) -> list[dict[str, Any]]:
        total, weights = max(int(self.n.sum()), 1), float(self.w.sum())
        names = [*self.cells, *([_UNKNOWN] if self.n[-1] else [])]
        edges, population = [*self.edges, (None, None)], [*self.population, None]
        records = []
        for i, name in enumerate(names):
            n, m, w, w2 = int(self.n[i]), int(self.n_galaxies[i]), float(self.w[i]), float(self.w2[i])
            n_eff = w**2 / w2 / (1 + (n / m - 1) * INTRA_GALAXY_CORRELATION) if w2 > 0 and m else None
            records.append(
                {
                    "axis": self.name,
                    "cell": name,
                    "low": edges[i][0],
                    "high": edges[i][1],
                    "n": n,
                    "n_galaxies": m,
                    "n_eff": n_eff,
                    "population": population[i],
                    "drawn": n / total,
                    "weighted": w / weights if weights > 0 else None,
                    "half_width": None if n_eff is None else half_width(n_eff),
                }
            )
        return records


def half_width(n_eff: float) -> float:
    """Half width of the 95 % Wilson (1927) interval of a completeness of one half, known from so many injections."""
    z2 = _Z_95**2
    return float(_Z_95 * np.sqrt(0.25 / n_eff + z2 / (4 * n_eff**2)) / (1 + z2 / n_eff))


class DesignTally:
    """Counts of injections in cells of each axis, added up while the manifest is written.

    Parameters
    ----------
    seeing : sequence of float or None
        r seeing of the parent sample's galaxies; its quantiles are the cells of that axis.
    """

    def __init__(self, design: Design, seeing: Sequence[float | None]) -> None:
        self._design, population = design, design.population
        theta_e, mag = population.theta_e, population.mag_r
        self._theta_e = _edges(theta_e.edges, design.config.cell_theta_e_edges_arcsec)
        config = design.config
        main = np.linspace(config.source_mag_low, config.source_mag_high, _MAG_CELLS).tolist()
        self._mag = _edges(mag.edges, config.cell_source_mag_edges or main)
        known = np.array([value for value in seeing if value is not None], dtype=float)
        self._seeing = (
            np.unique(np.quantile(known, np.linspace(0, 1, _SEEING_CELLS + 1))).tolist() if len(known) else []
        )
        models = {name: share for name, share in population.lens_models.items() if share > 0}
        self._models = list(models)
        self._sources = ["Sersic", *sorted(name for names in design.sources.values() for name in names)]
        self._cells = design.proposals[TEST].cells if not design.proposals[TEST].points else ()
        self._axes = {
            ALL: _Axis(ALL, [ALL], [(None, None)], [1.0]),
            THETA_E: _binned(THETA_E, self._theta_e, [theta_e.share(*e) for e in pairwise(self._theta_e)]),
            MAG: _binned(MAG, self._mag, [mag.share(*e) for e in pairwise(self._mag)]),
            MODEL: _Axis(MODEL, self._models, [(None, None)] * len(models), list(models.values())),
            SEEING: _binned(SEEING, self._seeing, [None] * max(len(self._seeing) - 1, 0)),
            SOURCE: self._source_axis(),
            CELL: _Axis(
                CELL, [str(cell) for cell in self._cells], [(None, None)] * len(self._cells),
                [cell.share for cell in self._cells],
            ),
        }  # fmt: skip

    def _source_axis(self) -> _Axis:
        """Sersic profiles and each real galaxy; the population's share is that of test regions. Without real ones none."""
        if not self._design.sources:
            return _Axis(SOURCE, [], [], [])
        share, tested = self._design.config.real_source_share, self._design.sources[TEST]
        population = [1 - share, *(share / len(tested) if name in tested else None for name in self._sources[1:])]
        return _Axis(SOURCE, self._sources, [(None, None)] * len(self._sources), population)

    def add(self, injections: Sequence[dict[str, Any]], seeing: dict[str, float | None]) -> None:
        """Count some injections; all of a galaxy's are given at once.

        Parameters
        ----------
        seeing : dict
            r seeing of each of their galaxies.
        """
        if not injections:
            return
        theta_e, mag = (np.array([row[name] for row in injections]) for name in (THETA_E, MAG))
        model = np.array([self._models.index(row[MODEL]) for row in injections])
        psf = np.array([np.nan if (s := seeing[row["galaxy_id"]]) is None else s for row in injections], dtype=float)
        _, galaxy = np.unique([row["galaxy_id"] for row in injections], return_inverse=True)
        # Where something is held out, train and val stand for less than the population: test alone is counted, but for the
        # real galaxies, each of which is lensed in one split.
        tested = np.array([row["region_split"] in (None, TEST) for row in injections])
        weight = np.array([row["weight"] for row in injections]) * tested
        where = {
            ALL: np.zeros(len(injections), np.int64),
            THETA_E: _place(theta_e, self._theta_e),
            MAG: _place(mag, self._mag),
            MODEL: model,
            SEEING: _place(psf, self._seeing),
            SOURCE: np.array([self._sources.index(row["source_id"] or "Sersic") for row in injections]),
            CELL: self._cell_of(theta_e, mag, model),
        }
        for name, axis in self._axes.items():
            if axis.cells:
                counted = np.ones_like(tested) if name == SOURCE else tested
                axis.add(where[name][counted], weight[counted], galaxy.ravel()[counted])

    def _cell_of(self, theta_e: NDArray[Any], mag: NDArray[Any], model: NDArray[Any]) -> NDArray[np.int64]:
        place = np.full(len(theta_e), len(self._cells), np.int64)
        for number, cell in enumerate(self._cells):
            inside = cell.holds(theta_e, mag) & (model == self._models.index(cell.lens_model))
            place[inside] = number
        return place

    def table(self) -> pa.Table:
        """Return INJECTION_DESIGN.

        Raises
        ------
        ConfigError
            If a cell of a stratified design fell short of its floor.
        """
        records = [record for axis in self._axes.values() if axis.cells for record in axis.records()]
        floor = self._design.config.floor_per_cell
        short = [f"{row['cell']} ({row['n']})" for row in records if row["axis"] == CELL and row["n"] < floor]
        if short:
            raise ConfigError(
                f"{len(short)} of {len(self._cells)} cells have fewer than floor_per_cell = {floor:,} injections: "
                f"{first_few(short)}. Which cell a row falls in is drawn, and this comes up once in 30,000 cells. Next: "
                "another injection_manifest.seed, or a somewhat lower floor."
            )
        return pa.Table.from_pylist(records, schema=INJECTION_DESIGN.schema)


def design_png(manifest: Publication) -> bytes:
    """Draw population, drawn and weighted shares along Einstein radius and magnitude, and the resolution expected."""
    from matplotlib.figure import Figure

    rows = manifest.read_table(TABLE).to_pylist()
    figure = Figure(figsize=(10.5, 3.2), dpi=100, layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for axes, name, label in ((left, THETA_E, "Einstein radius [arcsec]"), (middle, MAG, "source r [AB mag]")):
        cells = [row for row in rows if row["axis"] == name and row["low"] is not None]
        edges = [*(row["low"] for row in cells), cells[-1]["high"]]
        width = np.diff(edges)
        for column, style in (("population", "-"), ("drawn", ":"), ("weighted", "--")):
            axes.stairs([row[column] for row in cells] / width, edges, label=column, linestyle=style, linewidth=1.6)
        axes.set(xlabel=label, ylabel="density")
    left.legend(frameon=False, fontsize=8)
    shown = [row for row in rows if row["axis"] in (THETA_E, MODEL, SEEING) and row["half_width"] is not None]
    right.barh([f"{_short(row['axis'])} {row['cell']}" for row in shown], [100 * row["half_width"] for row in shown])
    right.invert_yaxis()
    right.tick_params(axis="y", labelsize=6)
    right.set(xlabel="95 % half width at 50 % completeness [%],\nif every injection were of test")
    out = io.BytesIO()
    figure.savefig(out, format="png", pil_kwargs={"optimize": True})
    return out.getvalue()


def _short(axis: str) -> str:
    return {THETA_E: "$\\theta_E$", SEEING: "seeing"}.get(axis, "")


def _binned(name: str, edges: list[float], population: Sequence[float | None]) -> _Axis:
    pairs = list(pairwise(edges))
    return _Axis(name, [f"{low:.3g} to {high:.3g}" for low, high in pairs], list(pairs), list(population))


def _edges(reach: tuple[float, float], given: Sequence[float]) -> list[float]:
    return [reach[0], *(edge for edge in given if reach[0] < edge < reach[1]), reach[1]]


def _place(values: NDArray[np.float64], edges: list[float]) -> NDArray[np.int64]:
    """Bin of each value, the last bin with its upper edge; beyond all bins for what lies in none."""
    n = max(len(edges) - 1, 0)
    if n == 0:
        return np.full(len(values), n, np.int64)
    place = np.searchsorted(edges, values, side="right") - 1
    place = np.where(values == edges[-1], n - 1, place)
    return np.where((place >= 0) & (place < n), place, n).astype(np.int64)
