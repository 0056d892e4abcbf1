"""The design: how rows are drawn from the population, and the weight that undoes it.

Belongs here: which proposal (`proposals.py`) and which real galaxies are drawn from in which regions. A row's weight is its
density in the population over its density in the proposal, so that weighted sums over rows estimate the population's means
whatever the design (importance sampling).

A row depends on the settings, on what is known of all galaxies together (`Hosts`) and on its own key; never on another row.
"""

from dataclasses import dataclass

from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.survey.injection_config import InjectionConfig
from lens_pipeline.survey.population import Hosts, Population
from lens_pipeline.survey.proposals import Proposal, make_proposal
from lens_pipeline.survey.randomness import stream
from lens_pipeline.survey.real_sources import deal

TRAIN, VAL, VAL_SELECT, VAL_CALIBRATE, TEST = "train", "val", "val_select", "val_calibrate", "test"


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
            return cls(config, population, {TEST: make_proposal(config, population, n)}, sources)
        band = config.hold_out_theta_e_arcsec
        left = population.without(config.hold_out_lens_models, (band[0], band[1]) if band else None)
        whole = make_proposal(config, population, int(n * config.hold_out_test_share))
        seen = make_proposal(config, left, int(n * (1 - config.hold_out_test_share)), some_held_out=True)
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
