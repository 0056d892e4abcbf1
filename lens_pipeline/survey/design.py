"""The design: how rows are drawn from the population, and the weight that undoes it.

Belongs here: proposals and their densities. A row's weight is its density in the population over its density in the proposal,
so that weighted sums over rows estimate the population's means whatever the design (importance sampling).

A row depends on the settings, on what is known of all galaxies together (`Hosts`) and on its own key; never on another row.
So cells have shares and not quotas: a share is set so high that a cell falls short of its floor once in 30,000 times, and
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
from lens_pipeline.survey.population import Hosts, Population
from lens_pipeline.survey.randomness import stream
from lens_pipeline.survey.real_sources import deal

TRAIN, VAL, VAL_SELECT, VAL_CALIBRATE, TEST = "train", "val", "val_select", "val_calibrate", "test"
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


@dataclass(frozen=True)
class Design:
    """How the rows of a survey are drawn.

    Attributes
    ----------
    population : Population
        All of it, held out or not.
    proposals : dict
        Proposal of each group of regions; those of other groups are as in TEST.
    sources : dict
        Split to the real galaxies that are lensed in its regions.
    """

    config: InjectionConfig
    population: Population
    proposals: dict[str, Proposal]
    sources: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, config: InjectionConfig, hosts: Hosts) -> "Design":
        """Make the design that the settings ask for.

        Raises
        ------
        ConfigError
            If a density can't be normalised, a cell's floor can't be met, nothing is left beside what is held out, or there are
            too few real sources.
        """
        population = Population.of(config, hosts)
        n = int(hosts.n_galaxies * (1 - config.unpaired_control_share) * config.injections_per_galaxy)
        sources = _sources(config, hosts.real_sources)
        if not config.holds_out_lenses:
            return cls(config, population, {TEST: _proposal(config, population, n)}, sources)
        band = config.hold_out_theta_e_arcsec
        left = population.without(config.hold_out_lens_models, (band[0], band[1]) if band else None)
        whole = _proposal(config, population, int(n * config.hold_out_test_share))
        seen = _proposal(config, left, int(n * (1 - config.hold_out_test_share)), some_held_out=True)
        others = dict.fromkeys((TRAIN, VAL, VAL_SELECT, VAL_CALIBRATE), seen)
        return cls(config, population, {**others, TEST: whole}, sources)

    def split_of(self, region_id: str) -> str | None:
        """Split of a region, by a hash; None where nothing needs it here and regions are split later.

        Where splits share no real source, neither do the two halves of validation.
        """
        if not (self.config.holds_out_lenses or self.sources):
            return None
        place = float(stream(self.config.seed, "region_split", region_id).random())
        edge = 0.0
        for split, share in _split_shares(self.config, halves=VAL_SELECT in self.sources).items():
            edge += share
            if place < edge:
                return split
        return TRAIN

    def is_held_out(self, theta_e_arcsec: float, lens_model: str, source_id: str | None = None) -> bool:
        """Whether such a lens stands in test regions only."""
        band = self.config.hold_out_theta_e_arcsec
        in_band = bool(band) and band[0] <= theta_e_arcsec < band[1]
        held_source = self.config.hold_out_real_sources and source_id is not None
        return in_band or held_source or lens_model in self.config.hold_out_lens_models

    def proposal(self, region_id: str) -> Proposal:
        """Return the proposal of a region."""
        return self.proposals.get(self.split_of(region_id) or TEST, self.proposals[TEST])

    def draw_real_source(self, region_id: str, task_id: str) -> str | None:
        """Draw the real galaxy that a row lenses, of those of its region's split; None for a Sersic profile."""
        split = self.split_of(region_id) if self.sources else None
        mine = self.sources.get(split or "", ())
        if not mine:
            return None
        is_real, which = stream(self.config.seed, "real_source", task_id).random(2)
        return mine[int(which * len(mine))] if is_real < self.config.real_source_share else None


def _split_shares(config: InjectionConfig, *, halves: bool) -> dict[str, float]:
    """Share of regions of each split but TRAIN, which has the rest; validation as one or as two halves."""
    test, validation = config.hold_out_test_share, config.hold_out_validation_share
    return {TEST: test} | ({VAL_CALIBRATE: validation / 2, VAL_SELECT: validation / 2} if halves else {VAL: validation})


def _sources(config: InjectionConfig, names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    if config.real_source_share == 0:
        return {}
    if not names:
        raise ConfigError(
            f"real_source_share = {config.real_source_share:g} and no real source was given: this design belongs to a manifest "
            "that lenses some (`Hosts.real_sources`)."
        )
    if config.hold_out_real_sources:
        return {TEST: names}
    shares = _split_shares(config, halves=True)
    return deal(names, {TRAIN: 1 - sum(shares.values()), **shares}, config.seed)


def _proposal(config: InjectionConfig, population: Population, n: int, *, some_held_out: bool = False) -> Proposal:
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
    cells = _cells(population, _nearest(theta_e, population.theta_e), _nearest(mags, population.mag_r))
    models = [name for name, share in population.lens_models.items() if share > 0]
    points = tuple((t, m) for t, m, _ in product(theta_e, mags, models))
    even = [population.lens_models[cell.lens_model] / (len(theta_e) * len(mags)) for cell in cells]
    return Proposal(population, tuple(cells), np.array(even), points)


def _nearest(points: list[float], density: Density) -> list[tuple[float, float]]:
    low, high = density.edges
    middles = [(a + b) / 2 for a, b in pairwise(points)]
    return list(pairwise([min(low, points[0]), *middles, max(high, points[-1])]))


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
