"""Proposals: what rows are drawn from, and their density against the population's.

Belongs here: cells with the share of rows that each is given. A row depends on the settings and on its own key, never on another
row, so cells have shares and not quotas: a share is set so high that a cell falls short of its floor once in 30,000 times, and
the manifest is refused when it does.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from lens_pipeline.contracts.errors import ConfigError, first_few
from lens_pipeline.survey.densities import Density
from lens_pipeline.survey.injection_config import DesignName, InjectionConfig
from lens_pipeline.survey.population import Population

# Standard deviations that the expected count of a cell stands above its floor: Poisson counts fall short 1 in 30,000 times.
_MARGIN_SIGMA = 4.0


@dataclass(frozen=True)
class Cell:
    """A part of the population.

    Attributes
    ----------
    theta_e, mag_r : (float, float)
        Edges, low and high.
    share : float
        Its share of the population.
    """

    theta_e: tuple[float, float]
    mag_r: tuple[float, float]
    lens_model: str
    share: float

    def holds(self, theta_e_arcsec: NDArray[np.float64], mag_r: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether values lie within; an upper edge belongs to the next cell."""
        in_theta_e = (theta_e_arcsec >= self.theta_e[0]) & (theta_e_arcsec < self.theta_e[1])
        return np.asarray(in_theta_e & (mag_r >= self.mag_r[0]) & (mag_r < self.mag_r[1]))

    def __str__(self) -> str:
        """Name it for a message."""
        return f"{self.lens_model} with theta_e {_span(self.theta_e)} and source r {_span(self.mag_r)}"


@dataclass(frozen=True)
class Draw:
    """What a proposal drew.

    Attributes
    ----------
    weight : float
        Population over proposal density, for galaxies that are all alike.
    """

    theta_e_arcsec: float
    mag_r: float
    lens_model: str
    weight: float


@dataclass(frozen=True)
class Proposal:
    """Cells with the share of rows that each is given; within a cell rows follow the population.

    Attributes
    ----------
    drawn : (n,) array
        Share of rows of each cell; sums to 1.
    points : tuple of (float, float)
        On a grid, where the rows of each cell stand: Einstein radius and magnitude.
    """

    population: Population
    cells: tuple[Cell, ...]
    drawn: NDArray[np.float64]
    points: tuple[tuple[float, float], ...] = ()

    @cached_property
    def _summed(self) -> NDArray[np.float64]:
        return np.cumsum(self.drawn)

    def draw(self, u: NDArray[np.float64], which: float) -> Draw:
        """Draw Einstein radius, magnitude and lens model.

        Parameters
        ----------
        u : (3,) array
            Uniform numbers for theta_E, magnitude and lens model.
        which : float
            Uniform number for the cell.
        """
        if not self.cells:
            pop = self.population
            return Draw(pop.theta_e.quantile(u[0]), pop.mag_r.quantile(u[1]), _choose(pop.lens_models, u[2]), 1.0)
        place = min(int(np.searchsorted(self._summed, which, side="right")), len(self.cells) - 1)
        cell = self.cells[place]
        weight = cell.share / float(self.drawn[place])
        if self.points:
            return Draw(*self.points[place], cell.lens_model, weight)
        theta_e = self.population.theta_e.between(*cell.theta_e, u[0])
        return Draw(theta_e, self.population.mag_r.between(*cell.mag_r, u[1]), cell.lens_model, weight)


def make_proposal(config: InjectionConfig, population: Population, n: int, *, some_held_out: bool = False) -> Proposal:
    """Make the proposal of n injections that the settings ask for.

    Parameters
    ----------
    some_held_out : bool
        Whether cells may have no share of the population, because it is held out of them.

    Raises
    ------
    ConfigError
        If a cell has no share otherwise, or its floor can't be met.
    """
    if config.design is DesignName.population:
        return Proposal(population, (), np.empty(0))
    if config.design is DesignName.grid:
        return _grid(config, population)
    theta_e = _edges(population.theta_e, config.cell_theta_e_edges_arcsec)
    mags = _edges(population.mag_r, config.cell_source_mag_edges)
    cells = _cells(population, list(pairwise(theta_e)), list(pairwise(mags)))
    empty = [cell for cell in cells if cell.share <= 0]
    if empty and not some_held_out:
        raise ConfigError(
            f"{len(empty)} of {len(cells)} cells have no share of the population, so no floor can be met there: "
            f"{first_few(empty)}. Take other edges (cell_theta_e_edges_arcsec, cell_source_mag_edges), or a population that "
            "reaches them."
        )
    kept = tuple(cell for cell in cells if cell.share > 0)
    return Proposal(
        population, kept, shares_with_floors(np.array([cell.share for cell in kept]), config.floor_per_cell, n)
    )


def shares_with_floors(population: NDArray[np.float64], floor: int, n: int) -> NDArray[np.float64]:
    """Return shares of n rows that give each cell its floor, and else follow the population.

    Each cell gets max(its floor's share, c times its share of the population), with c such that they sum to 1.

    Parameters
    ----------
    population : (k,) array
        Share of the population of each cell, above 0.

    Raises
    ------
    ConfigError
        If the floors need more rows than there are.
    """
    # The expected count m that stays above the floor by a margin: m - margin sqrt(m) = floor.
    expected = ((_MARGIN_SIGMA + np.sqrt(_MARGIN_SIGMA**2 + 4 * floor)) / 2) ** 2
    needed, k = expected / max(n, 1), len(population)
    if needed * k > 1:
        raise ConfigError(
            f"a floor of {floor:,} in each of {k:,} cells can't be met: it needs {int(np.ceil(expected * k)):,} injections "
            f"(with a margin of {_MARGIN_SIGMA:g} standard deviations of a count), and there are {n:,}. Raise "
            "injections_per_galaxy or the number of galaxies, lower floor_per_cell, or take fewer cells."
        )
    at_floor = np.zeros(k, dtype=bool)
    while True:
        free = 1 - needed * at_floor.sum()
        rest = population[~at_floor].sum()
        shares = np.where(at_floor, needed, population * (free / rest if rest > 0 else 0.0))
        short = ~at_floor & (shares < needed)
        if not short.any():
            return np.asarray(shares / shares.sum())
        at_floor |= short


def _cells(population: Population, theta_e: list[tuple[float, float]], mags: list[tuple[float, float]]) -> list[Cell]:
    return [
        Cell(t, m, name, share * population.theta_e.share(*t) * population.mag_r.share(*m))
        for t, m, (name, share) in product(theta_e, mags, population.lens_models.items())
        if share > 0
    ]


def _grid(config: InjectionConfig, population: Population) -> Proposal:
    """Draw each point as often as any other; it stands for what is nearer to it than to the next point."""
    theta_e, mags = config.grid_theta_e_arcsec, config.grid_source_mag
    _refuse_beyond("grid_theta_e_arcsec", theta_e, population.theta_e)
    _refuse_beyond("grid_source_mag", mags, population.mag_r)
    cells = _cells(population, _nearest(theta_e, population.theta_e), _nearest(mags, population.mag_r))
    if empty := [cell for cell in cells if cell.share <= 0]:
        raise ConfigError(
            f"{len(empty)} of {len(cells)} points of the grid stand for no share of the population, so that their rows would "
            f"weigh nothing: {first_few(empty)}. Take points within it (grid_theta_e_arcsec, grid_source_mag), or a population "
            "that reaches them."
        )
    models = [name for name, share in population.lens_models.items() if share > 0]
    points = tuple((t, m) for t, m, _ in product(theta_e, mags, models))
    even = [population.lens_models[cell.lens_model] / (len(theta_e) * len(mags)) for cell in cells]
    return Proposal(population, tuple(cells), np.array(even), points)


def _refuse_beyond(name: str, points: list[float], density: Density) -> None:
    """Refuse points where the population has nothing: they would stand for what is nearest to them within it."""
    if beyond := [point for point in points if not density.reaches(point)]:
        raise ConfigError(
            f"{len(beyond)} of {len(points)} points of {name} lie where the population has no lens, which reaches from "
            f"{_span(density.edges)}: {first_few(beyond)}. A row there would be weighted for lenses that aren't near it. Leave "
            "these points out, or take a population that reaches them."
        )


def _nearest(points: list[float], density: Density) -> list[tuple[float, float]]:
    low, high = density.edges
    middles = [(a + b) / 2 for a, b in pairwise(points)]
    return list(pairwise([low, *middles, high]))


def _edges(density: Density, given: list[float]) -> list[float]:
    """Edges that together hold all of a density: those given, the outermost moved out to its ends."""
    low, high = density.edges
    if not given:
        return [low, high]
    inner = [edge for edge in given if low < edge < high]
    return [low, *inner, high]


def _choose(shares: dict[str, float], u: float) -> str:
    names = [name for name, share in shares.items() if share > 0]
    place = int(np.searchsorted(np.cumsum([shares[name] for name in names]), u, side="right"))
    return names[min(place, len(names) - 1)]


def _span(edges: tuple[float, float]) -> str:
    return f"{edges[0]:g} to {edges[1]:g}"
