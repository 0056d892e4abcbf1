"""The design: how rows are drawn from the population, and the weight that undoes it.

Belongs here: which proposal (`proposals.py`) and which real galaxies are drawn from in which regions. A row's weight is its
density in the population over its density in the proposal, so that weighted sums over rows estimate the population's means
whatever the design (importance sampling).

A row depends on the settings, on what is known of all galaxies together (`Hosts`) and on its own key; never on another row.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

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
        a_galaxy = (1 - config.unpaired_control_share) * config.injections_per_galaxy
        sources = _sources(config, hosts.real_sources)
        if not config.holds_out_lenses:
            n = int(hosts.in_splits.get(TEST, hosts.n_galaxies) * a_galaxy)
            return cls(config, population, {TEST: make_proposal(config, population, n)}, sources)
        n_tested = hosts.in_splits.get(TEST, hosts.n_galaxies * config.hold_out_test_share)
        band = config.hold_out_theta_e_arcsec
        left = population.without(config.hold_out_lens_models, (band[0], band[1]) if band else None)
        whole = make_proposal(config, population, int(n_tested * a_galaxy))
        seen = make_proposal(config, left, int((hosts.n_galaxies - n_tested) * a_galaxy), some_held_out=True)
        others = dict.fromkeys((TRAIN, VAL, VAL_SELECT, VAL_CALIBRATE), seen)
        return cls(config, population, {**others, TEST: whole}, sources)

    def split_of(self, region_id: str) -> str | None:
        """Split of a region, by a hash; None where nothing needs it here and regions are split later.

        Where splits share no real source, neither do the two halves of validation.
        """
        return _split_of(self.config, self.sources, region_id)

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


def with_splits(config: InjectionConfig, hosts: Hosts, region_ids: Iterable[str]) -> Hosts:
    """Count the galaxies of each split, where the design says which regions that is.

    Parameters
    ----------
    region_ids : iterable of str
        Region of each galaxy.

    Raises
    ------
    ConfigError
        If a split has none.
    """
    sources = _sources(config, hosts.real_sources)
    galaxies = Counter(region_ids)
    splits = {region: _split_of(config, sources, region) for region in galaxies}
    named = {region: split for region, split in splits.items() if split is not None}
    if not named:
        return hosts
    in_splits = dict.fromkeys((TRAIN, *_split_shares(config, halves=VAL_SELECT in sources)), 0)
    for region, split in named.items():
        in_splits[split] += galaxies[region]
    if empty := [split for split, n in in_splits.items() if n == 0]:
        raise ConfigError(
            f"no region of {len(named):,} is in {', '.join(empty)}: where something is held out, or real sources are lensed, a "
            "hash of its name says in which split a region is, and with few regions one may be left out. Next: another "
            "injection_manifest.seed, more regions, or larger hold_out_test_share and hold_out_validation_share."
        )
    return replace(hosts, in_splits=in_splits)


def _split_of(config: InjectionConfig, sources: Mapping[str, tuple[str, ...]], region_id: str) -> str | None:
    if not (config.holds_out_lenses or sources):
        return None
    place = float(stream(config.seed, "region_split", region_id).random())
    edge = 0.0
    for split, share in _split_shares(config, halves=VAL_SELECT in sources).items():
        edge += share
        if place < edge:
            return split
    return TRAIN


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
