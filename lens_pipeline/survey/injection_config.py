"""Settings of injection_manifest: which lenses there are, which of them are drawn, and what stands beside them.

Belongs here: names, ranges, defaults (those of the `simulated` preset) and what contradicts what. What is read only where other
settings are so is in `injection_reads.py`; docs/survey-priors.md says how each density is defined.
"""

from enum import StrEnum
from itertools import pairwise

from pydantic import Field, model_validator

from lens_pipeline.contracts.config import Section, refuse_unread
from lens_pipeline.contracts.errors import ConfigError, first_few
from lens_pipeline.survey.densities import Density
from lens_pipeline.survey.injection_reads import READ_WHEN

LENS_MODELS = ("SIS", "SIE", "SIE_SHEAR", "EPL")
# Of a power law: what lies beyond is 2.6 standard deviations and more from the mean of Auger et al. (2010).
LENS_GAMMA_BOUNDS = (1.5, 2.5)
# Of any population: wider images are a group's or a cluster's, and lie outside the stamps that surveys cut of galaxies.
MOST_THETA_E_ARCSEC = 10


class PopulationName(StrEnum):
    """Where the Einstein radii of the population come from."""

    uniform = "uniform"
    table = "table"
    velocity_dispersion = "velocity_dispersion"


class VelocityDispersionFunction(StrEnum):
    """Which velocity dispersion function deflectors follow."""

    choi_2007 = "choi_2007"
    sheth_2003 = "sheth_2003"


class DesignName(StrEnum):
    """How rows are drawn from the population."""

    population = "population"
    stratified = "stratified"
    grid = "grid"


class InjectionConfig(Section):
    """Priors that injections are drawn from, fixed before any training."""

    seed: int = Field(7, ge=0, le=2**31 - 1, description="seed of every injection's parameters")
    workers: int = Field(
        0, ge=0, le=1024, description="processes that draw rows, none for less than 100,000 rows each; 0 for one a core"
    )
    injections_per_galaxy: int = Field(
        1, ge=1, le=10_000, description="injections into each galaxy, beside one control"
    )

    population: PopulationName = Field(PopulationName.uniform, description="where the population's theta_e comes from")
    theta_e_low_arcsec: float = Field(0.3, gt=0, le=MOST_THETA_E_ARCSEC, description="smallest Einstein radius, arcsec")
    theta_e_high_arcsec: float = Field(2.5, gt=0, le=MOST_THETA_E_ARCSEC, description="largest Einstein radius, arcsec")
    theta_e_knots_arcsec: list[float] = Field(
        [],
        description="Einstein radii that the density is given at, up to 10 arcsec; linear in between (population: table)",
    )
    theta_e_density: list[float] = Field([], description="the density there, on any scale (population: table)")
    velocity_dispersion_function: VelocityDispersionFunction = Field(
        VelocityDispersionFunction.choi_2007, description="which deflectors there are (population: velocity_dispersion)"
    )
    sigma_v_low_km_s: float = Field(
        100.0, ge=0, le=400, description="least velocity dispersion of a deflector (population: velocity_dispersion)"
    )
    lens_redshift_assumed: float = Field(
        0.5, gt=0, le=2, description="redshift of galaxies that have none (population: velocity_dispersion)"
    )
    source_z0: float = Field(
        0.9, ge=0.3, le=3, description="scale of the source redshifts, z^2 exp(-(z / z0)^1.5); their median is 1.412 z0"
    )
    share_sie: float = Field(0.4, ge=0, le=1, description="share of lenses that are SIE")
    share_sis: float = Field(
        0.2, ge=0, le=1, description="share of lenses that are SIS; what sie, sis and epl leave is SIE_SHEAR"
    )
    share_epl: float = Field(
        0.0, ge=0, le=1, description="share of lenses that are EPL, elliptical power laws with the shear of SIE_SHEAR"
    )
    epl_gamma_mean: float = Field(
        2.078,
        ge=1.5,
        le=2.5,
        description="mean slope gamma of an EPL's density, rho ~ r^-gamma, normal within 1.5 to 2.5; 2 is isothermal (SLACS: "
        "Auger et al. 2010)",
    )
    epl_gamma_scatter: float = Field(
        0.16, gt=0, le=1, description="standard deviation of these slopes (intrinsic: Auger et al. 2010)"
    )
    lens_q_low: float = Field(0.4, gt=0.1, le=1, description="smallest axis ratio of the mass, minor over major")
    shear_high: float = Field(
        0.1, ge=0, le=0.4, description="largest external shear, uniform prior from 0 (SIE_SHEAR, EPL)"
    )
    source_mag_low: float = Field(20.5, ge=15, le=32, description="brightest unlensed source in r, AB mag")
    source_mag_high: float = Field(25.0, ge=15, le=32, description="faint end of the main prior in r, AB mag")
    source_mag_slope: float = Field(
        0.0,
        ge=0,
        le=1,
        description="counts of sources rise as 10^(slope m) over the main prior; 0 is uniform, dex per mag",
    )
    source_faint_share: float = Field(
        0.06, ge=0, le=1, description="share of sources between the main prior's faint end and the faint limit, uniform"
    )
    source_faint_limit: float = Field(
        29.0, ge=15, le=34, description="faint limit in r, AB mag; the faintest arcs can't be seen, for the null test"
    )
    source_reff_low_arcsec: float = Field(0.1, ge=0.03, le=3, description="smallest half-light radius, log-uniform")
    source_reff_high_arcsec: float = Field(0.5, ge=0.03, le=3, description="largest half-light radius, log-uniform")
    source_n_low: float = Field(0.7, ge=0.3, le=4, description="smallest Sersic index of a source, uniform")
    source_n_high: float = Field(2.0, ge=0.3, le=4, description="largest Sersic index of a source, uniform")
    source_q_low: float = Field(0.4, gt=0.1, le=1, description="smallest axis ratio of a source, uniform up to 1")

    real_source_share: float = Field(
        0.0, ge=0, le=1, description="share of sources that are real galaxies; the rest are Sersic profiles"
    )
    real_source_catalogue: str = Field(
        "",
        description="GalSim RealGalaxy catalogue (FITS) of these, its images beside it; each galaxy stays in one split",
    )
    real_source_colours: dict[str, list[float]] = Field(
        {}, description="g - r and r - z of real galaxies by source_id; the others have the colours of any source"
    )
    real_source_colours_from: str = Field(
        "", max_length=500, description="where these colours were published; needed where some are given"
    )

    design: DesignName = Field(DesignName.population, description="how rows are drawn from the population")
    cell_theta_e_edges_arcsec: list[float] = Field(
        [0.3, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5],
        description="edges of the cells in theta_e, arcsec, of the report and of a stratified design",
    )
    cell_source_mag_edges: list[float] = Field(
        [],
        description="edges of the cells in the source's r magnitude, of the report and of a stratified design (empty: one cell)",
    )
    floor_per_cell: int = Field(
        50,
        ge=1,
        le=10_000_000,
        description="least injections in each cell of theta_e, magnitude and lens model (stratified)",
    )
    grid_theta_e_arcsec: list[float] = Field(
        [0.3, 0.6, 1.0], description="Einstein radii of the audited grid, each as often as the others, arcsec (grid)"
    )
    grid_source_mag: list[float] = Field(
        [21.0, 22.0, 23.0], description="r magnitudes of the audited grid, each as often as the others (grid)"
    )

    unpaired_control_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of galaxies that have a control and no injection; rings, spirals and mergers they may have",
    )
    fake_turned_share: float = Field(
        0.0, ge=0, le=1, description="share of injections whose arc is made once more, turned by 180 degrees; no lens"
    )
    fake_unlensed_share: float = Field(
        0.0, ge=0, le=1, description="share of injections whose source is made once more, unlensed at theta_e; no lens"
    )
    fake_blob_share: float = Field(
        0.0, ge=0, le=1, description="share of injections whose light is made once more as a smooth blob; no lens"
    )
    hard_ring_share: float = Field(
        0.0, ge=0, le=1, description="share of galaxies with a stamp that has a ring around them"
    )
    hard_spiral_share: float = Field(
        0.0, ge=0, le=1, description="share of galaxies with a stamp that gives them spiral arms"
    )
    hard_merger_share: float = Field(
        0.0, ge=0, le=1, description="share of galaxies with a stamp that has a companion merging with them"
    )
    null_flux_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of galaxies with an injection of no flux, in a table of its own, never trained on",
    )

    hold_out_lens_models: list[str] = Field(
        [], description="lens models that stand in test regions only, for a test of generalisation"
    )
    hold_out_theta_e_arcsec: list[float] = Field(
        [], description="band of Einstein radii, low and high, that stands in test regions only, arcsec"
    )
    hold_out_real_sources: bool = Field(
        False, description="whether real galaxies are lensed in test regions only, for a test of generalisation"
    )
    hold_out_test_share: float = Field(
        0.4,
        gt=0,
        lt=1,
        description="share of regions to test on, where something is held out or real galaxies are lensed",
    )
    hold_out_validation_share: float = Field(0.2, gt=0, lt=1, description="share of regions to validate on, likewise")

    @property
    def holds_out_lenses(self) -> bool:
        """Whether some lenses stand in test regions only."""
        return bool(self.hold_out_lens_models or self.hold_out_theta_e_arcsec)

    @model_validator(mode="after")
    def _consistent(self) -> "InjectionConfig":
        for low, high in (
            ("theta_e_low_arcsec", "theta_e_high_arcsec"),
            ("source_mag_low", "source_mag_high"),
            *([("source_mag_high", "source_faint_limit")] if self.source_faint_share > 0 else []),
            ("source_reff_low_arcsec", "source_reff_high_arcsec"),
            ("source_n_low", "source_n_high"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} = {getattr(self, low)} is above {high} = {getattr(self, high)}")
        shares = self.share_sie + self.share_sis + self.share_epl
        if shares > 1:
            raise ValueError(f"share_sie + share_sis + share_epl = {shares:g} is above 1")
        refuse_unread(self, READ_WHEN)
        self._refuse_table()
        self._refuse_cells()
        self._refuse_hold_out()
        self._refuse_real_sources()
        return self

    def _refuse_table(self) -> None:
        if self.population is PopulationName.table:
            try:
                Density.of(self.theta_e_knots_arcsec, self.theta_e_density, "theta_e (population: table)")
            except ConfigError as error:
                raise ValueError(str(error)) from error
            if self.theta_e_knots_arcsec[0] <= 0:
                raise ValueError("theta_e_knots_arcsec must be above 0: an Einstein radius of 0 is no lens")
            if wide := [knot for knot in self.theta_e_knots_arcsec if knot > MOST_THETA_E_ARCSEC]:
                raise ValueError(
                    f"{len(wide)} of {len(self.theta_e_knots_arcsec)} theta_e_knots_arcsec are above {MOST_THETA_E_ARCSEC}, the "
                    f"most that theta_e_high_arcsec takes: {first_few(wide)}. End the table there"
                )

    def _refuse_cells(self) -> None:
        for name in ("cell_theta_e_edges_arcsec", "cell_source_mag_edges"):
            edges = getattr(self, name)
            if len(edges) == 1 or any(high <= low for low, high in pairwise(edges)):
                raise ValueError(f"{name} must rise and be none, two or more: {edges}")
        for name in ("grid_theta_e_arcsec", "grid_source_mag"):
            points = getattr(self, name)
            if not points or any(high <= low for low, high in pairwise(points)):
                raise ValueError(f"{name} must rise and be one or more: {points}")

    def _refuse_hold_out(self) -> None:
        unknown = sorted(set(self.hold_out_lens_models) - set(LENS_MODELS))
        if unknown:
            raise ValueError(f"hold_out_lens_models has {', '.join(unknown)}; drawn are {', '.join(LENS_MODELS)}")
        band = self.hold_out_theta_e_arcsec
        if band and (len(band) != 2 or band[0] >= band[1]):
            raise ValueError(f"hold_out_theta_e_arcsec must be a low and a high radius: {band}")
        if band and self.design is DesignName.grid:
            raise ValueError("hold_out_theta_e_arcsec holds out part of a density; on a grid leave points out instead")
        if self.hold_out_test_share + self.hold_out_validation_share >= 1:
            raise ValueError("hold_out_test_share + hold_out_validation_share leave nothing to train on")

    def _refuse_real_sources(self) -> None:
        if self.real_source_share > 0 and not self.real_source_catalogue:
            raise ValueError(
                f"real_source_share = {self.real_source_share:g} needs a real_source_catalogue to draw from"
            )
        if wrong := [name for name, colours in self.real_source_colours.items() if len(colours) != 2]:
            raise ValueError(
                f"real_source_colours are g - r and r - z, two numbers a galaxy; not so for {first_few(wrong)}"
            )
        if bool(self.real_source_colours) != bool(self.real_source_colours_from):
            raise ValueError(
                "real_source_colours and real_source_colours_from belong together: colours and who published them"
            )
